//! `/debug/pprof/symbol`: names of addresses, in the form of the tool of old: `0xADDR+0xADDR` as the query
//! or the body, an answer of lines `0xADDR NAME`. The first line says that there are symbols at all; an
//! address without a name has no line.

use std::fmt::Write;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};

use super::answer::text;
use super::{DebugIsOn, GoError};
use crate::process::LivingProcess;
use crate::profile::address_names::address_names;
use crate::server::api::Download;
use crate::server::{ApiError, App, ErrorBody};

/// Addresses of one request.
const MOST_ADDRESSES: usize = 10_000;

/// What a request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    pid: Option<u32>,
    addresses: Vec<u64>,
}

impl Asked {
    /// Pieces of a query or a body; what is no address is left out, as in Go.
    fn parse(query: &str, body: &str) -> Result<Self, ApiError> {
        let mut asked = Self::default();
        for piece in query.split('&').chain([body]) {
            if let Some(pid) = piece.strip_prefix("pid=") {
                let known = pid.parse().ok().filter(|&pid| pid > 0 && asked.pid.is_none());
                let message = || format!("pid: one process id is expected, not {pid:?}");
                asked.pid = Some(known.ok_or_else(|| ApiError::invalid("pid", message()))?);
                continue;
            }
            for address in piece.split(['+', ' ']) {
                let hexadecimal = address.trim().strip_prefix("0x").unwrap_or_default();
                asked.addresses.extend(u64::from_str_radix(hexadecimal, 16).ok());
            }
        }
        if asked.addresses.len() > MOST_ADDRESSES {
            let message = format!("{} addresses; {MOST_ADDRESSES} are the most", asked.addresses.len());
            return Err(ApiError::new(axum::http::StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Ok(asked)
    }
}

/// Names of kernel addresses, or with `pid=` of a process's
#[utoipa::path(
    get, path = "/debug/pprof/symbol", tag = "debug",
    params(("pid" = Option<u32>, Query, description = "Whose addresses", minimum = 1)),
    responses(
        (status = 200, description = "A line for each address, `0xADDR NAME`", body = String, content_type = "text/plain"),
        (status = 400, description = "The pid is none", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "There is no such process", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 413, description = "Too many addresses", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 503, description = "Too many queries at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn symbol(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Download, GoError> {
    let asked = Asked::parse(query.as_deref().unwrap_or_default(), "")?;
    names(&app, asked).await
}

/// The same for addresses in the body
#[utoipa::path(
    post, path = "/debug/pprof/symbol", tag = "debug",
    params(("pid" = Option<u32>, Query, description = "Whose addresses", minimum = 1)),
    request_body(content = Option<String>, content_type = "text/plain", description = "`0xADDR+0xADDR`"),
    responses(
        (status = 200, description = "A line for each address, `0xADDR NAME`", body = String, content_type = "text/plain"),
        (status = 400, description = "The pid is none", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "There is no such process", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 413, description = "Too many addresses", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 503, description = "Too many queries at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn post_symbol(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Download, GoError> {
    let asked = Asked::parse(query.as_deref().unwrap_or_default(), &String::from_utf8_lossy(&body))?;
    names(&app, asked).await
}

/// Names of addresses of this server
#[utoipa::path(
    get, path = "/debug/pprof/self/symbol", tag = "debug",
    responses(
        (status = 200, description = "A line for each address, `0xADDR NAME`", body = String, content_type = "text/plain"),
        (status = 400, description = "It is of another process", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "self_telemetry.debug is off", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 413, description = "Too many addresses", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 503, description = "Too many queries at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn own_symbol(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
) -> Result<Download, GoError> {
    own_names(&app, Asked::parse(query.as_deref().unwrap_or_default(), "")?).await
}

/// The same for addresses in the body
#[utoipa::path(
    post, path = "/debug/pprof/self/symbol", tag = "debug",
    request_body(content = Option<String>, content_type = "text/plain", description = "`0xADDR+0xADDR`"),
    responses(
        (status = 200, description = "A line for each address, `0xADDR NAME`", body = String, content_type = "text/plain"),
        (status = 400, description = "It is of another process", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 404, description = "self_telemetry.debug is off", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 413, description = "Too many addresses", content((String = "text/plain"), (ErrorBody = "application/json"))),
        (status = 503, description = "Too many queries at once", content((String = "text/plain"), (ErrorBody = "application/json"))),
    )
)]
pub async fn post_own_symbol(
    _: DebugIsOn,
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    body: Bytes,
) -> Result<Download, GoError> {
    let query = query.unwrap_or_default();
    own_names(&app, Asked::parse(&query, &String::from_utf8_lossy(&body))?).await
}

async fn own_names(app: &App, mut asked: Asked) -> Result<Download, GoError> {
    let own = std::process::id();
    if asked.pid.is_some_and(|pid| pid != own) {
        return Err(ApiError::invalid("pid", "pid: this is about the server itself").into());
    }
    asked.pid = Some(own);
    names(app, asked).await
}

async fn names(app: &App, asked: Asked) -> Result<Download, GoError> {
    let named = app.queries.run(move |_| {
        if let Some(pid) = asked.pid
            && LivingProcess::read(pid).is_none()
        {
            return Err(ApiError::not_found(format!("there is no process {pid}")));
        }
        let mut answer = "num_symbols: 1\n".to_owned();
        if asked.addresses.is_empty() {
            return Ok(answer);
        }
        let names = address_names(asked.pid, &asked.addresses);
        for (address, name) in asked.addresses.iter().zip(names) {
            if let Some(name) = name {
                // Writing to a string cannot fail.
                let _ = writeln!(answer, "{address:#x} {}", name.replace(char::is_control, " "));
            }
        }
        Ok(answer)
    });
    Ok(text(named.await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_stand_in_the_query_or_the_body_and_what_is_none_is_left_out() {
        let asked = |query, body| Asked::parse(query, body).unwrap();
        let addresses = vec![0x10, 0xffff_ffff_8100_0000];
        let both = Asked { pid: None, addresses: addresses.clone() };
        assert_eq!(asked("0x10+0xffffffff81000000", ""), both);
        assert_eq!(asked("", "0x10+x+12+0xffffffff81000000\n"), both);
        assert_eq!(asked("pid=7", "0x10 0xffffffff81000000"), Asked { pid: Some(7), addresses });
        assert_eq!(asked("", ""), Asked::default());
        assert_eq!(asked("0x+0xg+0x11223344556677889", ""), Asked::default());
        for query in ["pid=", "pid=0", "pid=x", "pid=1&pid=2"] {
            assert_eq!(Asked::parse(query, "").unwrap_err().status(), 400, "{query}");
        }
        assert_eq!(Asked::parse("", &"0x1+".repeat(10_001)).unwrap_err().status(), 413);
    }
}
