//! Families of metrics as an OTLP request.
//!
//! The families are those of the metrics page, so that both say the same; a second set of instruments
//! beside them could not. Counters become monotonic sums and histograms histograms, both cumulative since
//! the process began; names are the same, counters without `_total`, which receivers that speak
//! Prometheus add.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1 as proto;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

use super::otlp_attributes as names;
use crate::metrics::{Exemplar, Family, HistogramSnapshot, Kind, Value};
use crate::model::{SpanId, TraceId};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const CUMULATIVE: i32 = proto::AggregationTemporality::Cumulative as i32;

/// An encoded `ExportMetricsServiceRequest`, and the number of data points in it. `since` is when counting
/// began.
#[must_use]
pub fn request(families: &[Family], since: SystemTime, now: SystemTime) -> (Vec<u8>, u64) {
    let times = Times { since_unix_ns: unix_ns(since), now_unix_ns: unix_ns(now) };
    let metrics = families.iter().map(|family| metric(family, times)).collect();
    let points = families.iter().map(|family| family.samples.len() as u64).sum();
    let request = ExportMetricsServiceRequest {
        resource_metrics: vec![proto::ResourceMetrics {
            resource: Some(own_resource()),
            scope_metrics: vec![proto::ScopeMetrics {
                scope: Some(InstrumentationScope {
                    name: "spanflame".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    };
    (request.encode_to_vec(), points)
}

/// Who we are, for what is about ourselves.
#[must_use]
pub fn own_resource() -> Resource {
    let uname = rustix::system::uname();
    let text = |key: &str, value: &str| key_value(key, any_value::Value::StringValue(value.to_owned()));
    Resource {
        attributes: vec![
            text("service.name", "spanflame"),
            text("service.version", env!("CARGO_PKG_VERSION")),
            text(names::HOST_NAME, &uname.nodename().to_string_lossy()),
            key_value("process.pid", any_value::Value::IntValue(std::process::id().into())),
        ],
        ..Resource::default()
    }
}

fn key_value(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[derive(Clone, Copy)]
struct Times {
    since_unix_ns: u64,
    now_unix_ns: u64,
}

fn unix_ns(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

fn metric(family: &Family, times: Times) -> proto::Metric {
    use proto::metric::Data;
    let data = match family.kind {
        Kind::Gauge => Data::Gauge(proto::Gauge { data_points: numbers(family, times) }),
        Kind::Counter => Data::Sum(proto::Sum {
            data_points: numbers(family, times),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Kind::Histogram => Data::Histogram(proto::Histogram {
            data_points: histograms(family, times),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    proto::Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        unit: unit_of(&family.name).to_owned(),
        data: Some(data),
        ..proto::Metric::default()
    }
}

/// The unit that a name ends in, in UCUM. OpenTelemetry's own names do not tell; durations are in seconds.
fn unit_of(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some(otel) if otel.ends_with(".duration") => "s",
        Some("seconds") => "s",
        Some("bytes") => "By",
        Some("hertz") => "Hz",
        _ => "",
    }
}

fn attributes(labels: &[(&'static str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| key_value(name, any_value::Value::StringValue(value.clone()))).collect()
}

fn numbers(family: &Family, times: Times) -> Vec<proto::NumberDataPoint> {
    let is_counter = family.kind == Kind::Counter;
    let points = family.samples.iter().filter_map(|sample| match sample.value {
        Value::Number(number) => Some(proto::NumberDataPoint {
            attributes: attributes(&sample.labels),
            start_time_unix_nano: if is_counter { times.since_unix_ns } else { 0 },
            time_unix_nano: times.now_unix_ns,
            value: Some(proto::number_data_point::Value::AsDouble(number)),
            ..proto::NumberDataPoint::default()
        }),
        Value::Histogram { .. } => None,
    });
    points.collect()
}

fn histograms(family: &Family, times: Times) -> Vec<proto::HistogramDataPoint> {
    let points = family.samples.iter().filter_map(|sample| match &sample.value {
        Value::Histogram { counts, exemplars } => Some(proto::HistogramDataPoint {
            exemplars: exemplars.iter().flatten().map(exemplar).collect(),
            ..histogram(&sample.labels, counts, times)
        }),
        Value::Number(_) => None,
    });
    points.collect()
}

/// Trace and span id have fields of their own.
fn exemplar(exemplar: &Exemplar) -> proto::Exemplar {
    let label = |wanted: &str| {
        exemplar.labels.iter().find(|(name, _)| *name == wanted).map_or("", |(_, value)| value.as_str())
    };
    let is_id = |name: &str| name == "trace_id" || name == "span_id";
    let others = exemplar.labels.iter().filter(|(name, _)| !is_id(name)).cloned().collect::<Vec<_>>();
    let trace_id = TraceId::from_hex(label("trace_id").as_bytes());
    let span_id = SpanId::from_hex(label("span_id").as_bytes());
    proto::Exemplar {
        filtered_attributes: attributes(&others),
        time_unix_nano: unix_ns(exemplar.time),
        trace_id: trace_id.map_or_else(Vec::new, |id| id.bytes().to_vec()),
        span_id: span_id.map_or_else(Vec::new, |id| id.bytes().to_vec()),
        value: Some(proto::exemplar::Value::AsDouble(exemplar.value)),
    }
}

fn histogram(
    labels: &[(&'static str, String)],
    counts: &HistogramSnapshot,
    times: Times,
) -> proto::HistogramDataPoint {
    proto::HistogramDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: times.since_unix_ns,
        time_unix_nano: times.now_unix_ns,
        count: counts.count(),
        sum: Some(counts.sum),
        bucket_counts: counts.counts.clone(),
        explicit_bounds: counts.bounds.to_vec(),
        ..proto::HistogramDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Histogram;

    #[test]
    fn each_kind_becomes_what_it_is() {
        let latency = Histogram::new(&[0.1, 1.0]);
        for seconds in [0.05, 0.5, 7.0] {
            latency.observe(seconds);
        }
        let families = [
            Family::new(Kind::Counter, "x_losses", "Lost").labelled(&[("reason", "full")], 3_u64),
            Family::new(Kind::Gauge, "x_store_bytes", "Bytes").value(7_u64),
            Family::new(Kind::Histogram, "x_latency_seconds", "Latency").value(latency.snapshot()),
        ];
        let since = UNIX_EPOCH + Duration::from_secs(100);
        let (bytes, points) = request(&families, since, since + Duration::from_secs(60));
        assert_eq!(points, 3);
        let request = ExportMetricsServiceRequest::decode(bytes.as_slice()).expect("ours");
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let units: Vec<(&str, &str)> =
            metrics.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
        assert_eq!(units, [("x_losses", ""), ("x_store_bytes", "By"), ("x_latency_seconds", "s")]);
        let Some(proto::metric::Data::Sum(sum)) = &metrics[0].data else { panic!("{:?}", metrics[0]) };
        assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
        assert_eq!(sum.data_points[0].start_time_unix_nano, 100_000_000_000);
        assert_eq!(sum.data_points[0].attributes[0].key, "reason");
        let Some(proto::metric::Data::Gauge(gauge)) = &metrics[1].data else { panic!("{:?}", metrics[1]) };
        assert_eq!(gauge.data_points[0].time_unix_nano, 160_000_000_000);
        let Some(proto::metric::Data::Histogram(histogram)) = &metrics[2].data else {
            panic!("{:?}", metrics[2])
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.bucket_counts.as_slice()), (3, [1, 1, 1].as_slice()));
        assert_eq!((point.explicit_bounds.as_slice(), point.sum), ([0.1, 1.0].as_slice(), Some(7.55)));
    }
}
