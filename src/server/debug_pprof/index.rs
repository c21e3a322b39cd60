//! The index, and the names of profiles that are not there.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{Html, Redirect};

use super::{DebugIsOn, GoError};
use crate::server::{ApiError, App, ErrorBody};

/// What there is: path, and what it is.
const PROFILES: [(&str, &str); 8] = [
    (
        "profile",
        "CPU time of the host, or of what pid=, service=, container= and thread= select: of the next \
      seconds= (30 by default) at frequency= samples a second (99 by default), or stored, from= and to=",
    ),
    ("symbol", "Names of kernel addresses, or with pid= of a process's (GET or POST)"),
    ("cmdline", "The command line of this server"),
    ("self/profile", "CPU time of this server, of the next seconds="),
    ("self/heap", "Resident memory of this server, by mapping"),
    ("self/threads", "Threads of this server, and what they wait for"),
    ("self/cmdline", "The command line of this server"),
    ("self/symbol", "Names of addresses of this server"),
];

/// Names that Go has and that nothing is recorded for: name, and why not.
const NOT_HERE: [(&str, &str); 7] = [
    ("allocs", "allocations are not recorded"),
    ("heap", "allocations are not recorded; /debug/pprof/self/heap is the memory of this server"),
    ("block", "waiting is not recorded"),
    ("mutex", "waiting for locks is not recorded"),
    ("goroutine", "this is no Go program; /debug/pprof/self/threads are the threads of this server"),
    (
        "threadcreate",
        "the making of threads is not recorded; /debug/pprof/self/threads are those of this server",
    ),
    ("trace", "execution traces are not recorded"),
];

/// To the index
#[utoipa::path(
    get, path = "/debug/pprof", tag = "debug",
    responses((status = 308, description = "To /debug/pprof/"), (status = 404, description = "It is off", body = ErrorBody))
)]
pub async fn without_slash(_: DebugIsOn) -> Redirect {
    Redirect::permanent("/debug/pprof/")
}

/// What there is
#[utoipa::path(
    get, path = "/debug/pprof/", tag = "debug",
    responses(
        (status = 200, description = "A page", body = String, content_type = "text/html"),
        (status = 404, description = "self_telemetry.debug is off", body = ErrorBody),
    )
)]
pub async fn index(_: DebugIsOn, State(_app): State<Arc<App>>) -> Html<String> {
    let mut page = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
                    <title>/debug/pprof/</title>\n</head>\n<body>\n<h1>/debug/pprof/</h1>\n\
                    <p>Profiles for <code>go tool pprof</code>. <code>debug=1</code> gives text.</p>\n<dl>\n"
        .to_owned();
    for (name, what) in PROFILES {
        page.push_str(&format!("<dt><a href=\"{name}\">{name}</a></dt>\n<dd>{what}</dd>\n"));
    }
    page.push_str("</dl>\n<p>Not here:</p>\n<dl>\n");
    for (name, why) in NOT_HERE {
        page.push_str(&format!("<dt>{name}</dt>\n<dd>{why}</dd>\n"));
    }
    page.push_str("</dl>\n</body>\n</html>\n");
    Html(page)
}

/// Profiles that are not there
#[utoipa::path(
    get, path = "/debug/pprof/{name}", tag = "debug",
    params(("name" = String, Path, description = "What Go has: heap, block, mutex, goroutine, threadcreate, allocs, trace")),
    responses((status = 404, description = "Why not, and what there is", content((String = "text/plain"), (ErrorBody = "application/json"))))
)]
pub async fn others(_: DebugIsOn, Path(name): Path<String>) -> GoError {
    let why = NOT_HERE.iter().find(|(known, _)| *known == name).map(|(_, why)| *why);
    let why = why.map_or_else(|| "there is no such profile".to_owned(), str::to_owned);
    let names: Vec<&str> = PROFILES.iter().map(|(name, _)| *name).collect();
    ApiError::not_found(format!("{name}: {why}. There are: {}", names.join(", "))).into()
}
