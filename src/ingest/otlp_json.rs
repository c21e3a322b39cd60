//! OTLP's JSON as protobuf bytes, so that one reader serves both.
//!
//! The text is read as a stream and never becomes a tree. As protobuf's JSON demands of readers: names in
//! both spellings, unknown names and nulls skipped, numbers as numbers or as text, base64 of both
//! alphabets with or without padding. As OTLP's demands: ids in hexadecimal of either case. What comes out
//! is at most four times what goes in (numbers of eight bytes).

use std::fmt;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::export::otlp_schema::{Field, Kind, Message};

/// The protobuf bytes of a message of this kind. What follows it is an error. Nesting is bounded by the
/// JSON reader, at 128.
///
/// # Errors
/// What is wrong with the text, and where.
pub fn to_protobuf(json: &[u8], message: &'static Message) -> Result<Vec<u8>, serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let bytes = MessageSeed(message).deserialize(&mut reader)?;
    reader.end()?;
    Ok(bytes.unwrap_or_default())
}

/// A message, or null.
struct MessageSeed(&'static Message);

impl<'de> DeserializeSeed<'de> for MessageSeed {
    type Value = Option<Vec<u8>>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed {
    type Value = Option<Vec<u8>>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut bytes = Vec::new();
        while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.field_named(&name) {
                Some(field) if field.is_list => map.next_value_seed(ListSeed { field, bytes: &mut bytes })?,
                Some(field) => {
                    if let Some(value) = map.next_value_seed(ValueSeed(field))? {
                        value.write(field, true, &mut bytes);
                    }
                }
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(bytes))
    }
}

/// A list, or null. Numbers are packed, as version 3 of protobuf does.
struct ListSeed<'b> {
    field: &'static Field,
    bytes: &'b mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ListSeed<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a list as {}", self.field.name)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut packed = Vec::new();
        while let Some(value) = list.next_element_seed(ValueSeed(self.field))? {
            let value =
                value.ok_or_else(|| Error::custom(format_args!("null in the list {}", self.field.name)))?;
            match value {
                Value::Bytes(_) => value.write(self.field, true, self.bytes),
                _ => value.write(self.field, false, &mut packed),
            }
        }
        if !packed.is_empty() {
            Value::Bytes(packed).write(self.field, true, self.bytes);
        }
        Ok(())
    }
}

/// What a field holds, ready for the wire.
enum Value {
    Varint(u64),
    Eight([u8; 8]),
    Four([u8; 4]),
    Bytes(Vec<u8>),
}

impl Value {
    fn write(self, field: &Field, with_tag: bool, bytes: &mut Vec<u8>) {
        let wire_type = match self {
            Self::Varint(_) => 0,
            Self::Eight(_) => 1,
            Self::Bytes(_) => 2,
            Self::Four(_) => 5,
        };
        if with_tag {
            write_varint(u64::from(field.number) << 3 | wire_type, bytes);
        }
        match self {
            Self::Varint(value) => write_varint(value, bytes),
            Self::Eight(value) => bytes.extend_from_slice(&value),
            Self::Four(value) => bytes.extend_from_slice(&value),
            Self::Bytes(value) => {
                write_varint(value.len() as u64, bytes);
                bytes.extend_from_slice(&value);
            }
        }
    }
}

fn write_varint(mut value: u64, bytes: &mut Vec<u8>) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// One value, or null.
struct ValueSeed(&'static Field);

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        match self.0.kind {
            Kind::Message(message) => Ok(MessageSeed(message).deserialize(reader)?.map(Value::Bytes)),
            _ => reader.deserialize_any(self),
        }
    }
}

impl ValueSeed {
    /// A whole number within the field's range.
    fn whole<E: Error>(&self, number: i128) -> Result<Option<Value>, E> {
        let out_of_range = || E::custom(format_args!("{number} is out of range for {}", self.0.name));
        let signed_32 = || i32::try_from(number).map_err(|_| out_of_range());
        let unsigned_32 = || u32::try_from(number).map_err(|_| out_of_range());
        let signed_64 = || i64::try_from(number).map_err(|_| out_of_range());
        let unsigned_64 = || u64::try_from(number).map_err(|_| out_of_range());
        Ok(Some(match self.0.kind {
            // Negative numbers of 32 bits are extended to 64 on the wire.
            Kind::Int32 => Value::Varint(i64::from(signed_32()?).cast_unsigned()),
            Kind::Sint32 => {
                let number = signed_32()?;
                Value::Varint(u64::from(((number << 1) ^ (number >> 31)).cast_unsigned()))
            }
            Kind::Uint32 => Value::Varint(u64::from(unsigned_32()?)),
            Kind::Fixed32 => Value::Four(unsigned_32()?.to_le_bytes()),
            Kind::Int64 => Value::Varint(signed_64()?.cast_unsigned()),
            Kind::Uint64 => Value::Varint(unsigned_64()?),
            Kind::Fixed64 => Value::Eight(unsigned_64()?.to_le_bytes()),
            Kind::Sfixed64 => Value::Eight(signed_64()?.to_le_bytes()),
            #[allow(clippy::cast_precision_loss, reason = "the nearest that the field can hold")]
            Kind::Double => Value::Eight((number as f64).to_le_bytes()),
            Kind::Message(_) | Kind::Text | Kind::Bytes | Kind::Id | Kind::Bool => {
                return Err(E::custom(format_args!("a number as {}", self.0.name)));
            }
        }))
    }

    fn is_number(&self) -> bool {
        !matches!(self.0.kind, Kind::Message(_) | Kind::Text | Kind::Bytes | Kind::Id | Kind::Bool)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Option<Value>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a value for {}", self.0.name)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        match self.0.kind {
            Kind::Bool => Ok(Some(Value::Varint(u64::from(value)))),
            _ => Err(E::custom(format_args!("true or false as {}", self.0.name))),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        self.whole(i128::from(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        self.whole(i128::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        if matches!(self.0.kind, Kind::Double) {
            return Ok(Some(Value::Eight(value.to_le_bytes())));
        }
        // 1e3 is a whole number too; beyond 2^53 it is not known which.
        if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 {
            #[allow(clippy::cast_possible_truncation, reason = "it was just compared")]
            return self.whole(value as i128);
        }
        Err(E::custom(format_args!("{value} is no whole number, as {} is", self.0.name)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        let wrong = |what: &str| E::custom(format_args!("{}: {what}", self.0.name));
        match self.0.kind {
            Kind::Text => Ok(Some(Value::Bytes(text.as_bytes().to_vec()))),
            Kind::Id => {
                from_hex(text).map(|id| Some(Value::Bytes(id))).ok_or_else(|| wrong("not hexadecimal"))
            }
            Kind::Bytes => {
                let decoded = BASE64.decode(text).or_else(|_| BASE64_OF_URLS.decode(text));
                decoded.map(|bytes| Some(Value::Bytes(bytes))).map_err(|_| wrong("not base64"))
            }
            Kind::Double => match text {
                "NaN" => Ok(Some(Value::Eight(f64::NAN.to_le_bytes()))),
                "Infinity" => Ok(Some(Value::Eight(f64::INFINITY.to_le_bytes()))),
                "-Infinity" => Ok(Some(Value::Eight(f64::NEG_INFINITY.to_le_bytes()))),
                _ => {
                    let number: f64 = text.parse().map_err(|_| wrong("not a number"))?;
                    Ok(Some(Value::Eight(number.to_le_bytes())))
                }
            },
            _ if self.is_number() => self.whole(text.parse().map_err(|_| wrong("not a whole number"))?),
            _ => Err(wrong("text is not expected here")),
        }
    }
}

const WITH_OR_WITHOUT_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
static BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, WITH_OR_WITHOUT_PADDING);
static BASE64_OF_URLS: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, WITH_OR_WITHOUT_PADDING);

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?)).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
    use opentelemetry_proto::tonic::profiles::v1development as proto;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::export::{otlp_json, otlp_schema};

    fn profiles(json: &str) -> Result<proto::ProfilesData, String> {
        let bytes = to_protobuf(json.as_bytes(), &otlp_schema::PROFILES_REQUEST);
        let bytes = bytes.map_err(|error| error.to_string())?;
        Ok(proto::ProfilesData::decode(bytes.as_slice()).expect("what we write is protobuf"))
    }

    #[test]
    fn numbers_may_be_text_names_may_be_in_either_spelling_and_the_unknown_is_skipped() {
        let json = r#"{"resourceProfiles":[{"unknown":{"a":[1,{}]},"scope_profiles":[{"profiles":[
            {"timeUnixNano":"1700000000000000000","durationNano":1e10,"period":-3,"profileId":"0AFF",
             "originalPayload":"_-8","samples":[{"stackIndex":1,"values":["-5",7],"linkIndex":null,
             "timestampsUnixNano":[]}]}]}]}],"dictionary":{"stringTable":["","é\n"],
             "linkTable":[{},{"traceId":"0af7651916cd43dd8448eb211c80319c","spanId":"B7AD6B7169203331"}]}}"#;
        let message = profiles(json).expect("it is right");
        let profile = &message.resource_profiles[0].scope_profiles[0].profiles[0];
        assert_eq!(profile.time_unix_nano, 1_700_000_000_000_000_000);
        assert_eq!((profile.duration_nano, profile.period), (10_000_000_000, -3));
        assert_eq!(profile.profile_id, [0x0a, 0xff]);
        assert_eq!(profile.original_payload, [0xff, 0xef]);
        assert_eq!(profile.samples[0].values, [-5, 7]);
        assert_eq!(profile.samples[0].stack_index, 1);
        let dictionary = message.dictionary.expect("there is one");
        assert_eq!(dictionary.string_table, ["", "é\n"]);
        assert_eq!(dictionary.link_table[0], proto::Link::default());
        assert_eq!(dictionary.link_table[1].span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_name() {
        for (json, expected) in [
            ("", "EOF"),
            ("[]", "an object"),
            ("{}x", "trailing"),
            (r#"{"dictionary":{"stringTable":[1]}}"#, "stringTable"),
            (r#"{"dictionary":{"stringTable":"x"}}"#, "stringTable"),
            (r#"{"dictionary":{"stringTable":[null]}}"#, "stringTable"),
            (r#"{"dictionary":{"stackTable":[{"locationIndices":[2147483648]}]}}"#, "locationIndices"),
            (r#"{"dictionary":{"stackTable":[{"locationIndices":[1.5]}]}}"#, "locationIndices"),
            (r#"{"dictionary":{"linkTable":[{"traceId":"0g"}]}}"#, "traceId"),
            (r#"{"dictionary":{"linkTable":[{"traceId":"0"}]}}"#, "traceId"),
            (r#"{"dictionary":{"mappingTable":[{"memoryStart":-1}]}}"#, "memoryStart"),
            (r#"{"dictionary":{"mappingTable":[{"memoryStart":true}]}}"#, "memoryStart"),
        ] {
            let error = profiles(json).expect_err(json);
            assert!(error.contains(expected), "{json}: {error}");
        }
        let deep = format!("{}1", r#"{"arrayValue":{"values":["#.repeat(200));
        let deep = format!(r#"{{"dictionary":{{"attributeTable":[{{"value":{deep}"#);
        assert!(profiles(&deep).expect_err("too deep").contains("recursion"));
    }

    #[test]
    fn doubles_and_every_other_kind_of_number_survive() {
        let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
            {"name":"x","exponentialHistogram":{"aggregationTemporality":2,"dataPoints":[
              {"count":"3","sum":-0.5,"scale":-3,"zeroCount":"0","positive":{"offset":-2,"bucketCounts":["1","2"]},
               "min":"NaN","max":1e300,"flags":1}]}},
            {"name":"y","sum":{"isMonotonic":true,"dataPoints":[{"asInt":"-9","attributes":[
              {"key":"k","value":{"bytesValue":"AQI="}},{"key":"b","value":{"boolValue":false}}]}]}}]}]}]}"#;
        let bytes = to_protobuf(json.as_bytes(), &otlp_schema::METRICS_REQUEST).expect("it is right");
        let message = ExportMetricsServiceRequest::decode(bytes.as_slice()).expect("protobuf");
        let again = otlp_json::from_protobuf(&bytes, &otlp_schema::METRICS_REQUEST).expect("ours");
        let bytes_again = to_protobuf(&again, &otlp_schema::METRICS_REQUEST).expect("ours");
        assert_eq!(
            format!("{:?}", ExportMetricsServiceRequest::decode(bytes_again.as_slice())),
            format!("{:?}", Ok::<_, prost::DecodeError>(message.clone()))
        );
        let text = format!("{message:?}");
        for expected in [
            "scale: -3",
            "offset: -2",
            "sum: Some(-0.5)",
            "max: Some(1e300)",
            "min: Some(NaN)",
            "AsInt(-9)",
            "BytesValue([1, 2])",
            "BoolValue(false)",
            "[1, 2]",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }

    fn any_value() -> impl Strategy<Value = AnyValue> {
        prop_oneof![
            any::<String>().prop_map(AnyValue::StringValue),
            any::<i64>().prop_map(AnyValue::IntValue),
            any::<bool>().prop_map(AnyValue::BoolValue),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(AnyValue::BytesValue),
            any::<f64>()
                .prop_filter("NaN is equal to nothing", |v| !v.is_nan())
                .prop_map(AnyValue::DoubleValue),
        ]
    }

    proptest! {
        #[test]
        fn a_message_survives_json(
            strings in prop::collection::vec(any::<String>(), 0..4),
            values in prop::collection::vec(any_value(), 0..4),
            samples in prop::collection::vec(
                (any::<i32>(), prop::collection::vec(any::<i64>(), 0..3), prop::collection::vec(any::<u64>(), 0..3)),
                0..4),
            id in prop::collection::vec(any::<u8>(), 0..17),
            numbers in any::<(u64, u64, i64, u32)>(),
        ) {
            use opentelemetry_proto::tonic::common::v1 as common;
            let profile = proto::Profile {
                samples: samples.into_iter().map(|(stack_index, values, timestamps_unix_nano)| proto::Sample {
                    stack_index, values, timestamps_unix_nano, ..Default::default()
                }).collect(),
                time_unix_nano: numbers.0,
                duration_nano: numbers.1,
                period: numbers.2,
                dropped_attributes_count: numbers.3,
                profile_id: id.clone(),
                original_payload: id,
                sample_type: Some(proto::ValueType::default()),
                ..Default::default()
            };
            let message = proto::ProfilesData {
                resource_profiles: vec![proto::ResourceProfiles {
                    scope_profiles: vec![proto::ScopeProfiles { profiles: vec![profile], ..Default::default() }],
                    ..Default::default()
                }],
                dictionary: Some(proto::ProfilesDictionary {
                    string_table: strings,
                    attribute_table: values.into_iter().map(|value| proto::KeyValueAndUnit {
                        value: Some(common::AnyValue { value: Some(value) }), ..Default::default()
                    }).collect(),
                    ..Default::default()
                }),
            };
            let json = otlp_json::from_protobuf(&message.encode_to_vec(), &otlp_schema::PROFILES_REQUEST)
                .expect("ours");
            let back = to_protobuf(&json, &otlp_schema::PROFILES_REQUEST).expect("ours");
            prop_assert_eq!(proto::ProfilesData::decode(back.as_slice()).expect("protobuf"), message);
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_a_message(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = to_protobuf(&bytes, &otlp_schema::PROFILES_REQUEST);
            if let Ok(json) = otlp_json::from_protobuf(&bytes, &otlp_schema::PROFILES_REQUEST) {
                serde_json::from_slice::<serde_json::Value>(&json).expect("what we write is JSON");
            }
        }
    }
}
