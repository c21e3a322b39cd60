//! Spanflame's own metrics and traces on their way out.
//!
//! Both leave by the one exporter, with its queue, its retries and its account of losses. So the SDK of
//! OpenTelemetry only makes spans here, by `tracing`'s; its own exporters, with clients and retries of
//! their own that no metric of ours would know, are not used.

use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, SystemTime};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use prost::Message;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::{Layer, Registry};

use super::{App, metrics_page, off_the_executor};
use crate::config::SelfTracing;
use crate::export::otlp_client::{OtlpExporter, Signal};
use crate::export::otlp_metrics;

/// How often metrics are sent, as SDKs do.
const METRICS_INTERVAL: Duration = Duration::from_secs(60);

/// Makes spans of what spanflame does, a share of them, and hands them to the exporter once it is there.
#[derive(Clone)]
pub struct OwnTraces {
    provider: SdkTracerProvider,
    exporter: Arc<OnceLock<Arc<OtlpExporter>>>,
}

impl OwnTraces {
    /// `None` unless they are asked for.
    #[must_use]
    pub fn begin(configuration: &SelfTracing) -> Option<Self> {
        if !configuration.enabled {
            return None;
        }
        let exporter = Arc::new(OnceLock::new());
        let sink = SpanSink { exporter: Arc::clone(&exporter), resource: RwLock::default() };
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
                configuration.sample_rate.get(),
            ))))
            .with_batch_exporter(sink)
            .build();
        Some(Self { provider, exporter })
    }

    /// Hears of spans and events, of ours from `info` on.
    #[must_use]
    pub fn layer(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        let ours = Targets::new().with_target("spanflame", LevelFilter::INFO);
        let layer = tracing_opentelemetry::OpenTelemetryLayer::new(self.provider.tracer("spanflame"));
        Box::new(layer.with_filter(ours))
    }

    /// From now on spans leave by this; those of before wait for it.
    pub fn leave_by(&self, exporter: &Arc<OtlpExporter>) {
        // A second one could only be the same.
        let _ = self.exporter.set(Arc::clone(exporter));
    }

    /// Hands on what has ended. Blocks.
    pub fn flush(&self) {
        if let Err(error) = self.provider.force_flush() {
            tracing::debug!("own spans could not be handed on: {error}");
        }
    }
}

/// Where the SDK hands spans to.
struct SpanSink {
    exporter: Arc<OnceLock<Arc<OtlpExporter>>>,
    resource: RwLock<ResourceAttributesWithSchema>,
}

impl std::fmt::Debug for SpanSink {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SpanSink")
    }
}

impl SpanExporter for SpanSink {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Some(exporter) = self.exporter.get().filter(|exporter| exporter.wants(Signal::Traces)) else {
            return Ok(());
        };
        let spans = batch.len() as u64;
        let resource_spans = {
            let resource = self.resource.read().unwrap_or_else(PoisonError::into_inner);
            group_spans_by_resource_and_scope(batch, &resource)
        };
        let mut request = ExportTraceServiceRequest { resource_spans };
        for of_resource in &mut request.resource_spans {
            of_resource.resource = Some(otlp_metrics::own_resource());
        }
        // It never waits: what finds no room is counted there.
        exporter.offer_encoded(Signal::Traces, request.encode_to_vec(), spans);
        Ok(())
    }

    fn set_resource(&mut self, resource: &opentelemetry_sdk::Resource) {
        *self.resource.get_mut().unwrap_or_else(PoisonError::into_inner) = resource.into();
    }
}

impl App {
    /// Offers the values of all metrics to the exporter, if they are to be exported. Blocks: the kernel and
    /// the store are asked.
    pub fn offer_metrics(&self) {
        if !self.exporter.wants(Signal::Metrics) {
            return;
        }
        let tasks = self.exporter.runtime().metrics().num_alive_tasks() as u64;
        let families = metrics_page::exported_families(self, tasks);
        let (request, points) = otlp_metrics::request(&families, self.started_at, SystemTime::now());
        self.exporter.offer_encoded(Signal::Metrics, request, points);
    }
}

/// Offers metrics again and again, as long as there is somebody else who holds `app`.
pub async fn export_metrics(app: Weak<App>) {
    let mut interval = tokio::time::interval(METRICS_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first is due at once, when there is nothing to tell yet.
    interval.tick().await;
    loop {
        interval.tick().await;
        let Some(app) = app.upgrade() else { return };
        // If it fails, the next one may not.
        let _ = off_the_executor(move || app.offer_metrics()).await;
    }
}
