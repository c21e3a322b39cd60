//! Whether the endpoint is there and takes what it is sent.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::net::TcpStream;

use crate::export::http_client::io_reason;

/// How long an answer of [`HealthRecord::check`] is good for.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);
/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// The same warning is not logged more often.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// What `/ready` says of the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Nothing is exported.
    Disabled,
    /// The endpoint can be reached, and has refused nothing of late.
    Ok,
    /// It cannot, or has; why.
    Failed(String),
}

/// What is known of the endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) connected: bool,
    pub(super) last_export: Option<SystemTime>,
    pub(super) last_error: Option<String>,
    /// Why the last request was refused for good, if none was taken since.
    refused: Option<String>,
    /// Requests that failed since one was taken.
    failures: u64,
    last_warning: Option<(Instant, String)>,
}

#[derive(Debug, Default)]
pub(super) struct HealthRecord {
    facts: Mutex<Facts>,
    /// When it was last tried, and what came of it. Whoever asks meanwhile waits for that answer.
    checked: tokio::sync::Mutex<Option<(Instant, Result<(), String>)>>,
    /// Counts [`HealthRecord::forget`], so that an answer of before it is not used.
    generation: std::sync::atomic::AtomicU64,
}

impl HealthRecord {
    fn with_facts<T>(&self, ask: impl FnOnce(&mut Facts) -> T) -> T {
        ask(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn facts(&self) -> Facts {
        self.with_facts(|facts| facts.clone())
    }

    /// Another endpoint: nothing is known of it. When it was last exported remains.
    pub(super) fn forget(&self) {
        self.with_facts(|facts| {
            *facts = Facts { last_export: facts.last_export, ..Facts::default() };
        });
        self.generation.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if let Ok(mut checked) = self.checked.try_lock() {
            *checked = None;
        }
    }

    pub(super) fn taken(&self) {
        self.with_facts(|facts| {
            facts.connected = true;
            facts.last_export = Some(SystemTime::now());
            (facts.last_error, facts.refused, facts.failures) = (None, None, 0);
        });
    }

    /// A request failed. Returns whether this is worth a line in the log.
    pub(super) fn failed(&self, message: &str, is_permanent: bool) -> bool {
        self.with_facts(|facts| {
            // A receiver that refuses was there to do so.
            facts.connected = is_permanent;
            facts.failures += 1;
            facts.last_error = Some(message.to_owned());
            facts.refused = is_permanent.then(|| message.to_owned());
            let known = facts
                .last_warning
                .as_ref()
                .is_some_and(|(at, warning)| warning == message && at.elapsed() < WARNING_INTERVAL);
            if !known {
                facts.last_warning = Some((Instant::now(), message.to_owned()));
            }
            !known
        })
    }

    /// Connects, unless that was done a moment ago.
    pub(super) async fn check(&self, host: &str, port: u16) -> Health {
        let mut checked = self.checked.lock().await;
        let generation = self.generation.load(std::sync::atomic::Ordering::Relaxed);
        let known = checked.as_ref().filter(|(at, _)| at.elapsed() < CHECK_INTERVAL);
        let reached = match known {
            Some((_, reached)) => reached.clone(),
            None => {
                let reached = connect(host, port).await;
                if self.generation.load(std::sync::atomic::Ordering::Relaxed) == generation {
                    *checked = Some((Instant::now(), reached.clone()));
                }
                reached
            }
        };
        drop(checked);
        if let Err(reason) = reached {
            return Health::Failed(reason);
        }
        self.with_facts(|facts| {
            facts.connected |= facts.last_error.is_none();
            if let Some(reason) = &facts.refused {
                return Health::Failed(format!("refused: {reason}"));
            }
            // Someone listens there, and yet nothing gets through: a certificate, a proxy. Once may be chance.
            match &facts.last_error {
                Some(reason) if facts.failures > 1 && !is_of_connecting(reason) => {
                    Health::Failed(reason.clone())
                }
                _ => Health::Ok,
            }
        })
    }
}

/// Whether [`connect`] would have failed for this reason too; it is over when that succeeds again.
fn is_of_connecting(reason: &str) -> bool {
    ["connection refused", "timed out", "no answer within", "lookup address"]
        .iter()
        .any(|of_connecting| reason.contains(of_connecting))
}

async fn connect(host: &str, port: u16) -> Result<(), String> {
    match tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(io_reason(&error)),
        Err(_) => Err("timed out".to_owned()),
    }
}
