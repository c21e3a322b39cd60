//! Questions to a server, one after another: bounded in size, time and number of tries.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::runtime::Runtime;

use super::TOKEN_VARIABLE;
use super::address::Address;
use crate::export::http_client::{USER_AGENT, connector, one_line, retry_after, root_cause};

/// How long it may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long an answer may take; a server of ours gives up after two minutes.
const ANSWER_LIMIT: Duration = Duration::from_secs(150);
/// So often a server is asked that says it has too much to do.
const TRIES: u32 = 4;
/// It is asked again after so long, if it does not say itself when.
const PAUSE: Duration = Duration::from_secs(2);
/// Nobody waits longer for it, whatever it says.
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// More is not read of what it says of an error.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// Why there is no answer. What a server says is one line, and not long.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("cannot be asked: {reason}; is a spanflame server there?")]
    Unreachable { reason: String },
    #[error("there was no answer within {} seconds; ask for less by service=, from= and to=", ANSWER_LIMIT.as_secs())]
    TooSlow,
    #[error("the server does not understand it: {said}")]
    Malformed { said: String },
    #[error("the server wants a token: give it in {variable}, or as http://x:TOKEN@HOST/…", variable = TOKEN_VARIABLE)]
    Unauthorized,
    #[error("the server does not permit it: {said}")]
    Forbidden { said: String },
    #[error("{said}")]
    NotFound { said: String },
    #[error("its answer is larger than {} MiB; ask for less by service=, from= and to=", .limit_bytes >> 20)]
    TooLarge { limit_bytes: usize },
    #[error("the server said {status}: {said}")]
    Refused { status: StatusCode, said: String },
}

pub(super) struct Client {
    runtime: Runtime,
    client: HyperClient<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// An answer that is not the one that was wanted.
struct Refusal {
    error: AskError,
    /// When to ask again, if that may help.
    again: Option<Duration>,
}

impl Client {
    pub(super) fn new(is_tls: bool) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let connector = connector(is_tls, CONNECT_LIMIT)?;
        Ok(Self { runtime, client: HyperClient::builder(TokioExecutor::new()).build(connector) })
    }

    /// The body of the answer to `path_and_query`, at most `limit_bytes` of it. Blocks.
    pub(super) fn get(
        &self,
        address: &Address,
        path_and_query: &str,
        limit_bytes: usize,
    ) -> Result<Bytes, AskError> {
        self.runtime.block_on(async {
            let mut tries = 1;
            loop {
                let answer =
                    tokio::time::timeout(ANSWER_LIMIT, self.ask(address, path_and_query, limit_bytes));
                let refusal = match answer.await {
                    Ok(Ok(bytes)) => return Ok(bytes),
                    Ok(Err(refusal)) => refusal,
                    Err(_) => return Err(AskError::TooSlow),
                };
                match refusal.again.filter(|_| tries < TRIES) {
                    Some(pause) => tokio::time::sleep(pause.min(LONGEST_PAUSE)).await,
                    None => return Err(refusal.error),
                }
                tries += 1;
            }
        })
    }

    async fn ask(
        &self,
        address: &Address,
        path_and_query: &str,
        limit_bytes: usize,
    ) -> Result<Bytes, Refusal> {
        let fatal = |error| Refusal { error, again: None };
        let unreachable = |reason| fatal(AskError::Unreachable { reason });
        let mut request = Request::builder()
            .uri(format!("{}{path_and_query}", address.base()))
            .header(USER_AGENT_HEADER, USER_AGENT);
        if let Some(authorization) = address.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request =
            request.body(Empty::new()).map_err(|error| unreachable(one_line(&error.to_string())))?;
        let response = self.client.request(request).await.map_err(|error| unreachable(root_cause(&error)))?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            let said = Limited::new(body, MAX_ERROR_BYTES).collect().await;
            let said = said.map(|body| said_in(&body.to_bytes())).unwrap_or_default();
            return Err(refusal(head.status, &head.headers, said));
        }
        let body = Limited::new(body, limit_bytes).collect().await;
        let body = body.map_err(|error| match error.is::<LengthLimitError>() {
            true => fatal(AskError::TooLarge { limit_bytes }),
            false => unreachable(root_cause(error.as_ref())),
        })?;
        Ok(body.to_bytes())
    }
}

fn refusal(status: StatusCode, headers: &HeaderMap, said: String) -> Refusal {
    let again = matches!(status.as_u16(), 429 | 503).then(|| match headers.contains_key(RETRY_AFTER) {
        true => retry_after(headers, SystemTime::now()).unwrap_or(PAUSE),
        false => PAUSE,
    });
    let error = match status {
        StatusCode::BAD_REQUEST => AskError::Malformed { said },
        StatusCode::UNAUTHORIZED => AskError::Unauthorized,
        StatusCode::FORBIDDEN => AskError::Forbidden { said },
        StatusCode::NOT_FOUND if !said.is_empty() => AskError::NotFound { said },
        _ => AskError::Refused { status, said },
    };
    Refusal { error, again }
}

/// The message of an error's body, if it is one of a server of ours.
fn said_in(body: &[u8]) -> String {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let said = parsed.get("message").and_then(|message| message.as_str());
    one_line(said.unwrap_or("it does not say why; is it a spanflame server?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_server_that_has_too_much_to_do_is_asked_again_when_it_says() {
        for status in [301, 400, 401, 403, 404, 413, 429, 500, 502, 503] {
            let status = StatusCode::from_u16(status).expect("a status");
            let again = refusal(status, &HeaderMap::new(), String::new()).again;
            assert_eq!(again, matches!(status.as_u16(), 429 | 503).then_some(PAUSE), "{status}");
        }
        let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static("7"))]);
        let again = refusal(StatusCode::SERVICE_UNAVAILABLE, &headers, String::new()).again;
        assert_eq!(again, Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_a_server_says_is_one_line() {
        assert_eq!(
            said_in(b"{\"error\":\"not_found\",\"message\":\"no\\u001b[31m\\nservice\"}"),
            "no [31m service"
        );
        assert!(said_in(b"<html>").contains("is it a spanflame server?"));
    }
}
