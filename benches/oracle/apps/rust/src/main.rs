//! A service of a chain: `oracle-rust PORT`, axum on tokio, hyper's pooled client outbound. It answers to
//! `/work/{id}` and `/work/{id}/{part}` once ORACLE_NEXT has, which it asks ORACLE_CALLS times, with
//! ORACLE_PARALLEL=1 at once. Spans are made by hand where an instrumentation would: around the handler, and
//! from before a call is sent until its answer is read.

mod spans;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use futures_util::future::join_all;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::Context;
use opentelemetry::trace::{SpanKind, TraceContextExt};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Service {
    client: Client<HttpConnector, Body>,
    next: Option<String>,
    calls: usize,
    is_parallel: bool,
}

impl Service {
    async fn ask(&self, context: &Context, tail: String) -> Result<(), Failure> {
        let url = format!("{}/work/{tail}", self.next.as_deref().unwrap_or_default());
        let context = spans::start("GET", SpanKind::Client, "url.full", &url, context);
        let mut request = Request::get(&url).body(Body::empty())?;
        opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut HeaderInjector(request.headers_mut()));
        });
        let response = self.client.request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        context.span().end();
        if status == StatusCode::OK { Ok(()) } else { Err(format!("{url}: {status}").into()) }
    }

    async fn work(&self, context: &Context, id: &str, part: Option<&str>) -> Result<(), Failure> {
        if self.next.is_none() {
            // Answers come in another order than questions.
            tokio::time::sleep(Duration::from_millis(id.parse::<u64>()? % 4)).await;
            return Ok(());
        }
        if self.calls == 1 {
            let tail = part.map_or_else(|| id.to_owned(), |part| format!("{id}/{part}"));
            return self.ask(context, tail).await;
        }
        let calls = (1..=self.calls).map(|call| self.ask(context, format!("{id}/{call}")));
        if self.is_parallel {
            return join_all(calls).await.into_iter().collect();
        }
        for call in calls {
            call.await?;
        }
        Ok(())
    }
}

type Answer = Result<&'static str, (StatusCode, String)>;

async fn answer(service: &Service, context: &Context, id: &str, part: Option<&str>) -> Answer {
    let done = service.work(context, id, part).await;
    done.map(|()| "ok\n").map_err(|failure| (StatusCode::BAD_GATEWAY, failure.to_string()))
}

async fn whole(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    axum::Extension(context): axum::Extension<Context>,
) -> Answer {
    answer(&service, &context, &id, None).await
}

async fn part(
    State(service): State<Arc<Service>>,
    Path((id, part)): Path<(String, String)>,
    axum::Extension(context): axum::Extension<Context>,
) -> Answer {
    answer(&service, &context, &id, Some(&part)).await
}

async fn instrument(mut request: Request, next: Next) -> Response {
    let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
        propagator.extract_with_context(&Context::new(), &HeaderExtractor(request.headers()))
    });
    let context = spans::start("GET", SpanKind::Server, "url.path", request.uri().path(), &parent);
    request.extensions_mut().insert(context.clone());
    let response = next.run(request).await;
    context.span().end();
    response
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let port: u16 = env::args().nth(1).ok_or("usage: oracle-rust PORT")?.parse()?;
    let provider = spans::provider()?;
    let service = Service {
        client: Client::builder(TokioExecutor::new()).build_http(),
        next: env::var("ORACLE_NEXT").ok(),
        calls: env::var("ORACLE_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(1),
        is_parallel: env::var("ORACLE_PARALLEL").is_ok_and(|parallel| parallel == "1"),
    };
    let mut router = Router::new()
        .route("/work/{id}", get(whole))
        .route("/work/{id}/{part}", get(part))
        .with_state(Arc::new(service));
    // The handlers want a context, of which there is an empty one without an SDK.
    router = match provider {
        Some(_) => router.layer(middleware::from_fn(instrument)),
        None => router.layer(axum::Extension(Context::new())),
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        _ = terminated.recv() => {}
    }
    if let Some(provider) = provider {
        provider.shutdown()?;
    }
    Ok(())
}
