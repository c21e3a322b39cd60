//! The messages of OTLP as a table: what JSON calls each field, and what it holds.
//!
//! From opentelemetry-proto 1.10 (`common`, `resource`, `profiles.v1development`, `metrics`, `trace`, and
//! the requests and answers of the collector's services). OTLP's JSON differs from that of protobuf:
//! trace, span and profile ids are hexadecimal, and enumerations are numbers (specification of OTLP, "JSON
//! Protobuf Encoding"). One table serves both directions, [`crate::export::otlp_json`] and
//! [`crate::ingest`].

/// A message.
#[derive(Debug)]
pub struct Message {
    /// Its fields, by number.
    pub fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its number on the wire.
    pub number: u32,
    /// Its name in JSON.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it is a list.
    pub is_list: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Another message.
    Message(&'static Message),
    /// Text.
    Text,
    /// Bytes, base64 in JSON.
    Bytes,
    /// An id, hexadecimal in JSON.
    Id,
    /// A truth value.
    Bool,
    /// A signed varint of 32 bits; enumerations too. A number in JSON.
    Int32,
    /// An unsigned varint of 32 bits.
    Uint32,
    /// A zigzag varint of 32 bits.
    Sint32,
    /// Four bytes.
    Fixed32,
    /// A signed varint of 64 bits. Text in JSON, as are the next three.
    Int64,
    /// An unsigned varint of 64 bits.
    Uint64,
    /// Eight bytes.
    Fixed64,
    /// Eight bytes, signed.
    Sfixed64,
    /// Eight bytes of floating point.
    Double,
}

impl Message {
    /// The field of this name, as JSON has it (`stringTable`) or as the protocol file has it
    /// (`string_table`).
    #[must_use]
    pub fn field_named(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name || is_in_snake_case(field.name, name))
    }

    /// The place of the field of this number.
    #[must_use]
    pub fn place_of(&self, number: u32) -> Option<usize> {
        self.fields.iter().position(|field| field.number == number)
    }
}

/// Whether `snake` is `camel` with `_x` for every `X`.
fn is_in_snake_case(camel: &str, snake: &str) -> bool {
    let mut snake = snake.chars();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() && snake.next() != Some('_') {
            return false;
        }
        if snake.next() != Some(letter.to_ascii_lowercase()) {
            return false;
        }
    }
    snake.next().is_none()
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false }
}

const fn list(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: true }
}

use Kind::{
    Bool, Bytes, Double, Fixed32, Fixed64, Id, Int32, Int64, Message as Of, Sfixed64, Sint32, Text, Uint32,
    Uint64,
};

static ANY_VALUE: Message = Message {
    fields: &[
        one(1, "stringValue", Text),
        one(2, "boolValue", Bool),
        one(3, "intValue", Int64),
        one(4, "doubleValue", Double),
        one(5, "arrayValue", Of(&ARRAY_VALUE)),
        one(6, "kvlistValue", Of(&KEY_VALUE_LIST)),
        one(7, "bytesValue", Bytes),
        one(8, "stringValueStrindex", Int32),
    ],
};
static ARRAY_VALUE: Message = Message { fields: &[list(1, "values", Of(&ANY_VALUE))] };
static KEY_VALUE_LIST: Message = Message { fields: &[list(1, "values", Of(&KEY_VALUE))] };
static KEY_VALUE: Message =
    Message { fields: &[one(1, "key", Text), one(2, "value", Of(&ANY_VALUE)), one(3, "keyStrindex", Int32)] };
static SCOPE: Message = Message {
    fields: &[
        one(1, "name", Text),
        one(2, "version", Text),
        list(3, "attributes", Of(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Uint32),
    ],
};
static ENTITY_REF: Message = Message {
    fields: &[
        one(1, "schemaUrl", Text),
        one(2, "type", Text),
        list(3, "idKeys", Text),
        list(4, "descriptionKeys", Text),
    ],
};
static RESOURCE: Message = Message {
    fields: &[
        list(1, "attributes", Of(&KEY_VALUE)),
        one(2, "droppedAttributesCount", Uint32),
        list(3, "entityRefs", Of(&ENTITY_REF)),
    ],
};

/// `ExportProfilesServiceRequest`, and `ProfilesData`.
pub static PROFILES_REQUEST: Message = Message {
    fields: &[
        list(1, "resourceProfiles", Of(&RESOURCE_PROFILES)),
        one(2, "dictionary", Of(&PROFILES_DICTIONARY)),
    ],
};
static RESOURCE_PROFILES: Message = Message {
    fields: &[
        one(1, "resource", Of(&RESOURCE)),
        list(2, "scopeProfiles", Of(&SCOPE_PROFILES)),
        one(3, "schemaUrl", Text),
    ],
};
static SCOPE_PROFILES: Message = Message {
    fields: &[one(1, "scope", Of(&SCOPE)), list(2, "profiles", Of(&PROFILE)), one(3, "schemaUrl", Text)],
};
static PROFILES_DICTIONARY: Message = Message {
    fields: &[
        list(1, "mappingTable", Of(&MAPPING)),
        list(2, "locationTable", Of(&LOCATION)),
        list(3, "functionTable", Of(&FUNCTION)),
        list(4, "linkTable", Of(&LINK)),
        list(5, "stringTable", Text),
        list(6, "attributeTable", Of(&KEY_VALUE_AND_UNIT)),
        list(7, "stackTable", Of(&STACK)),
    ],
};
static PROFILE: Message = Message {
    fields: &[
        one(1, "sampleType", Of(&VALUE_TYPE)),
        list(2, "samples", Of(&SAMPLE)),
        one(3, "timeUnixNano", Fixed64),
        one(4, "durationNano", Uint64),
        one(5, "periodType", Of(&VALUE_TYPE)),
        one(6, "period", Int64),
        one(7, "profileId", Id),
        one(8, "droppedAttributesCount", Uint32),
        one(9, "originalPayloadFormat", Text),
        one(10, "originalPayload", Bytes),
        list(11, "attributeIndices", Int32),
    ],
};
static VALUE_TYPE: Message =
    Message { fields: &[one(1, "typeStrindex", Int32), one(2, "unitStrindex", Int32)] };
static SAMPLE: Message = Message {
    fields: &[
        one(1, "stackIndex", Int32),
        list(2, "attributeIndices", Int32),
        one(3, "linkIndex", Int32),
        list(4, "values", Int64),
        list(5, "timestampsUnixNano", Fixed64),
    ],
};
static MAPPING: Message = Message {
    fields: &[
        one(1, "memoryStart", Uint64),
        one(2, "memoryLimit", Uint64),
        one(3, "fileOffset", Uint64),
        one(4, "filenameStrindex", Int32),
        list(5, "attributeIndices", Int32),
    ],
};
static LOCATION: Message = Message {
    fields: &[
        one(1, "mappingIndex", Int32),
        one(2, "address", Uint64),
        list(3, "lines", Of(&LINE)),
        list(4, "attributeIndices", Int32),
    ],
};
static LINE: Message =
    Message { fields: &[one(1, "functionIndex", Int32), one(2, "line", Int64), one(3, "column", Int64)] };
static FUNCTION: Message = Message {
    fields: &[
        one(1, "nameStrindex", Int32),
        one(2, "systemNameStrindex", Int32),
        one(3, "filenameStrindex", Int32),
        one(4, "startLine", Int64),
    ],
};
static LINK: Message = Message { fields: &[one(1, "traceId", Id), one(2, "spanId", Id)] };
static KEY_VALUE_AND_UNIT: Message = Message {
    fields: &[one(1, "keyStrindex", Int32), one(2, "value", Of(&ANY_VALUE)), one(3, "unitStrindex", Int32)],
};
static STACK: Message = Message { fields: &[list(1, "locationIndices", Int32)] };

/// `ExportProfilesServiceResponse`.
pub static PROFILES_ANSWER: Message = Message { fields: &[one(1, "partialSuccess", Of(&PARTIAL_SUCCESS))] };
static PARTIAL_SUCCESS: Message =
    Message { fields: &[one(1, "rejectedProfiles", Int64), one(2, "errorMessage", Text)] };
/// `ExportTraceServiceResponse`.
pub static TRACES_ANSWER: Message =
    Message { fields: &[one(1, "partialSuccess", Of(&PARTIAL_SUCCESS_OF_TRACES))] };
static PARTIAL_SUCCESS_OF_TRACES: Message =
    Message { fields: &[one(1, "rejectedSpans", Int64), one(2, "errorMessage", Text)] };
/// `google.rpc.Status`, the body of errors.
pub static RPC_STATUS: Message = Message { fields: &[one(1, "code", Int32), one(2, "message", Text)] };

/// `ExportTraceServiceRequest`.
pub static TRACES_REQUEST: Message = Message { fields: &[list(1, "resourceSpans", Of(&RESOURCE_SPANS))] };
static RESOURCE_SPANS: Message = Message {
    fields: &[
        one(1, "resource", Of(&RESOURCE)),
        list(2, "scopeSpans", Of(&SCOPE_SPANS)),
        one(3, "schemaUrl", Text),
    ],
};
static SCOPE_SPANS: Message = Message {
    fields: &[one(1, "scope", Of(&SCOPE)), list(2, "spans", Of(&SPAN)), one(3, "schemaUrl", Text)],
};
static SPAN: Message = Message {
    fields: &[
        one(1, "traceId", Id),
        one(2, "spanId", Id),
        one(3, "traceState", Text),
        one(4, "parentSpanId", Id),
        one(5, "name", Text),
        one(6, "kind", Int32),
        one(7, "startTimeUnixNano", Fixed64),
        one(8, "endTimeUnixNano", Fixed64),
        list(9, "attributes", Of(&KEY_VALUE)),
        one(10, "droppedAttributesCount", Uint32),
        list(11, "events", Of(&SPAN_EVENT)),
        one(12, "droppedEventsCount", Uint32),
        list(13, "links", Of(&SPAN_LINK)),
        one(14, "droppedLinksCount", Uint32),
        one(15, "status", Of(&SPAN_STATUS)),
        one(16, "flags", Fixed32),
    ],
};
static SPAN_EVENT: Message = Message {
    fields: &[
        one(1, "timeUnixNano", Fixed64),
        one(2, "name", Text),
        list(3, "attributes", Of(&KEY_VALUE)),
        one(4, "droppedAttributesCount", Uint32),
    ],
};
static SPAN_LINK: Message = Message {
    fields: &[
        one(1, "traceId", Id),
        one(2, "spanId", Id),
        one(3, "traceState", Text),
        list(4, "attributes", Of(&KEY_VALUE)),
        one(5, "droppedAttributesCount", Uint32),
        one(6, "flags", Fixed32),
    ],
};
static SPAN_STATUS: Message = Message { fields: &[one(2, "message", Text), one(3, "code", Int32)] };

/// `ExportMetricsServiceRequest`.
pub static METRICS_REQUEST: Message =
    Message { fields: &[list(1, "resourceMetrics", Of(&RESOURCE_METRICS))] };
static RESOURCE_METRICS: Message = Message {
    fields: &[
        one(1, "resource", Of(&RESOURCE)),
        list(2, "scopeMetrics", Of(&SCOPE_METRICS)),
        one(3, "schemaUrl", Text),
    ],
};
static SCOPE_METRICS: Message = Message {
    fields: &[one(1, "scope", Of(&SCOPE)), list(2, "metrics", Of(&METRIC)), one(3, "schemaUrl", Text)],
};
static METRIC: Message = Message {
    fields: &[
        one(1, "name", Text),
        one(2, "description", Text),
        one(3, "unit", Text),
        one(5, "gauge", Of(&GAUGE)),
        one(7, "sum", Of(&SUM)),
        one(9, "histogram", Of(&HISTOGRAM)),
        one(10, "exponentialHistogram", Of(&EXPONENTIAL_HISTOGRAM)),
        one(11, "summary", Of(&SUMMARY)),
        list(12, "metadata", Of(&KEY_VALUE)),
    ],
};
static GAUGE: Message = Message { fields: &[list(1, "dataPoints", Of(&NUMBER_POINT))] };
static SUM: Message = Message {
    fields: &[
        list(1, "dataPoints", Of(&NUMBER_POINT)),
        one(2, "aggregationTemporality", Int32),
        one(3, "isMonotonic", Bool),
    ],
};
static HISTOGRAM: Message = Message {
    fields: &[list(1, "dataPoints", Of(&HISTOGRAM_POINT)), one(2, "aggregationTemporality", Int32)],
};
static EXPONENTIAL_HISTOGRAM: Message = Message {
    fields: &[list(1, "dataPoints", Of(&EXPONENTIAL_POINT)), one(2, "aggregationTemporality", Int32)],
};
static SUMMARY: Message = Message { fields: &[list(1, "dataPoints", Of(&SUMMARY_POINT))] };
static NUMBER_POINT: Message = Message {
    fields: &[
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "asDouble", Double),
        list(5, "exemplars", Of(&EXEMPLAR)),
        one(6, "asInt", Sfixed64),
        list(7, "attributes", Of(&KEY_VALUE)),
        one(8, "flags", Uint32),
    ],
};
static HISTOGRAM_POINT: Message = Message {
    fields: &[
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "count", Fixed64),
        one(5, "sum", Double),
        list(6, "bucketCounts", Fixed64),
        list(7, "explicitBounds", Double),
        list(8, "exemplars", Of(&EXEMPLAR)),
        list(9, "attributes", Of(&KEY_VALUE)),
        one(10, "flags", Uint32),
        one(11, "min", Double),
        one(12, "max", Double),
    ],
};
static EXPONENTIAL_POINT: Message = Message {
    fields: &[
        list(1, "attributes", Of(&KEY_VALUE)),
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "count", Fixed64),
        one(5, "sum", Double),
        one(6, "scale", Sint32),
        one(7, "zeroCount", Fixed64),
        one(8, "positive", Of(&BUCKETS)),
        one(9, "negative", Of(&BUCKETS)),
        one(10, "flags", Uint32),
        list(11, "exemplars", Of(&EXEMPLAR)),
        one(12, "min", Double),
        one(13, "max", Double),
        one(14, "zeroThreshold", Double),
    ],
};
static BUCKETS: Message = Message { fields: &[one(1, "offset", Sint32), list(2, "bucketCounts", Uint64)] };
static SUMMARY_POINT: Message = Message {
    fields: &[
        one(2, "startTimeUnixNano", Fixed64),
        one(3, "timeUnixNano", Fixed64),
        one(4, "count", Fixed64),
        one(5, "sum", Double),
        list(6, "quantileValues", Of(&QUANTILE)),
        list(7, "attributes", Of(&KEY_VALUE)),
        one(8, "flags", Uint32),
    ],
};
static QUANTILE: Message = Message { fields: &[one(1, "quantile", Double), one(2, "value", Double)] };
static EXEMPLAR: Message = Message {
    fields: &[
        one(2, "timeUnixNano", Fixed64),
        one(3, "asDouble", Double),
        one(4, "spanId", Id),
        one(5, "traceId", Id),
        one(6, "asInt", Sfixed64),
        list(7, "filteredAttributes", Of(&KEY_VALUE)),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_both_of_their_names() {
        assert_eq!(PROFILE.field_named("timeUnixNano").map(|field| field.number), Some(3));
        assert_eq!(PROFILE.field_named("time_unix_nano").map(|field| field.number), Some(3));
        for unknown in ["time_unixNano", "timeunixnano", "time_unix_nano_", "", "TimeUnixNano"] {
            assert!(PROFILE.field_named(unknown).is_none(), "{unknown}");
        }
    }
}
