//! Connections: how many, how long they may say nothing, and how they end.
//!
//! Someone who opens connections and sends a byte a minute, or who asks and does not read the answer, must
//! not keep others out. So the head of a request has to be there in time, which also ends connections that
//! wait for another request; data that nobody acknowledges or takes ends a connection too
//! (`TCP_USER_TIMEOUT`, tcp(7)); and when there are as many connections as there may be, the next ones wait
//! in the kernel's queue until there is room.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// The most connections at a time, where the process may have enough descriptors.
const MAX_CONNECTIONS: u32 = 2048;
/// How long the head of a request may take, and how long a connection may wait for one.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How often is looked whether the rest of a preface has come.
const PREFACE_PAUSE: Duration = Duration::from_millis(20);
/// How long sent data may wait to be acknowledged, or to be taken.
const STALLED_LIMIT: Duration = Duration::from_secs(60);
/// What the head of a request may have: bytes, and headers. What is more is answered with 431.
const MAX_HEAD_BYTES: usize = 32 << 10;
const MAX_HEADERS: usize = 100;
/// Requests side by side on one connection of HTTP/2.
const MAX_STREAMS: u32 = 32;
/// After a failure to accept: descriptors may be there again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS, as gRPC speaks it.
    Http2,
}

/// What has become of connections so far.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    open: AtomicU64,
    accepted: AtomicU64,
}

impl ConnectionCounts {
    /// Those that are open.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Those that were ever accepted.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Serves connections until `end` says so, then no new ones, and waits for requests that are being answered,
/// at most for `finish_limit`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    protocol: Protocol,
    counts: Arc<ConnectionCounts>,
    mut end: watch::Receiver<bool>,
    finish_limit: Duration,
) {
    let most = max_connections();
    let room = Arc::new(Semaphore::new(most as usize));
    loop {
        let accepted = tokio::select! {
            // Whoever told us is gone, or it is time.
            _ = end.wait_for(|ends| *ends) => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, permit)) = accepted else { continue };
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        let (router, counts, end) = (router.clone(), Arc::clone(&counts), end.clone());
        tokio::spawn(async move {
            counts.open.fetch_add(1, Ordering::Relaxed);
            match protocol {
                Protocol::Http1 => serve_http1(stream, router, end).await,
                Protocol::Http2 => serve_http2(stream, router, end).await,
            }
            counts.open.fetch_sub(1, Ordering::Relaxed);
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(finish_limit, room.acquire_many(most)).await.is_err() {
        tracing::warn!(open = counts.open(), "Connections are cut off that did not end in time");
    }
}

/// Half of the descriptors that the process may have; the others are for files and the kernel's.
fn max_connections() -> u32 {
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = u32::try_from(descriptors.unwrap_or(u64::MAX) / 2).unwrap_or(u32::MAX);
    half.clamp(16, MAX_CONNECTIONS)
}

/// The next connection, once there is room for one.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        // It was gone before we had it.
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => None,
        Err(error) => {
            tracing::warn!("A connection cannot be accepted: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn set_options(stream: &TcpStream) {
    // Answers are written whole. Without these two it is slower or less safe, and works.
    let _ = stream.set_nodelay(true);
    let stalled_ms = u32::try_from(STALLED_LIMIT.as_millis()).unwrap_or(u32::MAX);
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, stalled_ms);
}

/// Many requests side by side. Who says nothing at first, or does not answer when asked whether it is still
/// there, is left.
async fn serve_http2(stream: TcpStream, router: Router, end: watch::Receiver<bool>) {
    set_options(&stream);
    // hyper waits for ever for the rest of one that has begun.
    if !matches!(tokio::time::timeout(HEAD_LIMIT, has_preface(&stream)).await, Ok(true)) {
        return;
    }
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(STALLED_LIMIT / 2))
        .keep_alive_timeout(STALLED_LIMIT / 2)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    until_its_end(connection, end).await;
}

/// Waits for the 24 bytes that a connection of HTTP/2 begins with (RFC 9113, section 3.4); false if it has ended.
async fn has_preface(stream: &TcpStream) -> bool {
    let mut seen = [0; 24];
    loop {
        match stream.peek(&mut seen).await {
            Ok(0) | Err(_) => return false,
            Ok(bytes) if bytes == seen.len() => return true,
            // What is there already makes the next look answer at once.
            Ok(_) => tokio::time::sleep(PREFACE_PAUSE).await,
        }
    }
}

async fn serve_http1(stream: TcpStream, router: Router, end: watch::Receiver<bool>) {
    set_options(&stream);
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD_BYTES)
        .half_close(false);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    until_its_end(connection, end).await;
}

/// Answers until the other side ends the connection, or until it is time to end; then what is being answered
/// is answered to its end.
async fn until_its_end<C>(connection: C, mut end: watch::Receiver<bool>)
where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let mut connection = std::pin::pin!(connection);
    let told_to_end = async move {
        // The lock that comes with the answer must not be held any longer.
        drop(end.wait_for(|ends| *ends).await);
    };
    let result = tokio::select! {
        result = connection.as_mut() => Some(result),
        () = told_to_end => None,
    };
    let result = match result {
        Some(result) => result,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!("A connection has ended: {error}");
    }
}
