//! The page: `/` and the files it loads, embedded in the binary.
//!
//! Comes in: `web/dist` as `make page` built it, at compile time. Goes out: those files, compressed where
//! the build has put a `.gz` beside them. Files in `assets/` carry a hash of their contents in their name
//! and are kept by browsers for ever; the page itself is asked for again each time and costs a 304. A binary
//! that was compiled without the page says how to get it. There is no other path: the page's state is in
//! the fragment, and what does not exist is a 404 as everywhere.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use rust_embed::RustEmbed;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::error::ErrorBody;
use super::{ApiError, App};

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Page;

/// A file of the page.
struct File {
    data: Cow<'static, [u8]>,
    sha256: [u8; 32],
}

fn embedded(name: &str) -> Option<File> {
    let file = Page::get(name)?;
    Some(File { sha256: file.metadata.sha256_hash(), data: file.data })
}

/// What a file may be used again for without asking.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
const ASK_FIRST: &str = "no-cache";

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>spanflame</title>
<h1>spanflame runs, without its page</h1>
<p>This binary was compiled before the page was built. To have it: <code>make page</code>, then
<code>cargo build --release</code>; <code>make run</code> does both.
<p>Everything else is here: a <a href=\"api/v1/profiles/flamegraph?format=svg\">flame graph of the last
minutes</a>, <a href=\"debug/pprof/\">profiles for <code>go tool pprof</code></a>, and the
<a href=\"openapi.json\">description of the API</a>.
";

/// The routes of this module.
pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(page)).routes(routes!(asset))
}

/// The page that shows flame graphs
#[utoipa::path(get, path = "/", tag = "page", responses(
    (status = 200, content_type = "text/html"),
    (status = 304, description = "it is the one that `If-None-Match` names"),
))]
async fn page(request: HeaderMap) -> Response {
    send(embedded, "index.html", ASK_FIRST, &request).unwrap_or_else(|| {
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        ([(header::CONTENT_TYPE, html)], NOT_BUILT).into_response()
    })
}

/// A script, style or picture of the page
#[utoipa::path(get, path = "/assets/{name}", tag = "page",
    params(("name" = String, Path, description = "as the page names it")),
    responses(
        (status = 200, content(
            (Vec<u8> = "text/javascript"), (Vec<u8> = "text/css"), (Vec<u8> = "image/svg+xml"),
        )),
        (status = 304, description = "it is the one that `If-None-Match` names"),
        (status = 404, body = ErrorBody),
    ),
)]
async fn asset(Path(name): Path<String>, request: HeaderMap) -> Result<Response, ApiError> {
    // A binary that is newer than the page in a browser does not have that page's files any more.
    send(embedded, &format!("assets/{name}"), FOR_EVER, &request).ok_or_else(|| {
        ApiError::not_found(format!("the page has no file {name}; reload the page if it asked for this"))
    })
}

/// The answer with this file; `None` if there is none of this name that is meant for browsers.
fn send(
    files: impl Fn(&str) -> Option<File>,
    name: &str,
    caching: &'static str,
    request: &HeaderMap,
) -> Option<Response> {
    let content_type = content_type(name)?;
    let plain = files(name)?;
    let compressed = files(&format!("{name}.gz"));
    let is_compressible = compressed.is_some();
    let (file, is_gzip) = match compressed {
        Some(compressed) if accepts_gzip(request) => (compressed, true),
        _ => (plain, false),
    };
    let tag = entity_tag(&file);
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    if is_compressible {
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    let is_known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    headers.insert(header::ETAG, HeaderValue::from_str(&tag).ok()?);
    if is_known {
        return Some((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    if is_gzip {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let bytes = match file.data {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::from(bytes),
    };
    Some((headers, bytes).into_response())
}

/// Of the bytes that are sent, so the compressed form of a file has another one.
fn entity_tag(file: &File) -> String {
    let mut tag = String::from("\"");
    for byte in &file.sha256[..12] {
        tag.push_str(&format!("{byte:02x}"));
    }
    tag.push('"');
    tag
}

/// By the end of the name. Compressed forms and files that begin with a dot are not asked for by name.
fn content_type(name: &str) -> Option<&'static str> {
    match name.rsplit_once('.')?.1 {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        _ => None,
    }
}

/// Whether `Accept-Encoding` names gzip, or everything, and does not forbid it by `q=0`.
fn accepts_gzip(request: &HeaderMap) -> bool {
    let codings = request
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','));
    let mut any = false;
    for coding in codings {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight =
            parameters.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        let allowed = weight.is_none_or(|weight| weight > 0.0);
        match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") => return allowed,
            "*" => any = allowed,
            _ => {}
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as a build leaves them, without a build.
    fn built(name: &str) -> Option<File> {
        let text: &'static [u8] = match name {
            "index.html" => b"<!doctype html>",
            "assets/index-Ab3.js" => b"let a = 1",
            "assets/index-Ab3.js.gz" => b"\x1f\x8b...",
            ".gitignore" => b"*",
            _ => return None,
        };
        Some(File { data: Cow::Borrowed(text), sha256: [text.len() as u8; 32] })
    }

    fn request(name: header::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    fn header_of(response: &Response, name: header::HeaderName) -> &str {
        response.headers().get(name).map_or("", |value| value.to_str().unwrap_or("?"))
    }

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (accepts, expected) in [
            ("gzip, deflate, br", true),
            ("br;q=1.0, GZIP;q=0.5", true),
            ("*", true),
            ("gzip;q=0, *", false),
            ("gzip; q=0", false),
            ("br", false),
            ("", false),
        ] {
            assert_eq!(accepts_gzip(&request(header::ACCEPT_ENCODING, accepts)), expected, "{accepts}");
        }
        let zipped = request(header::ACCEPT_ENCODING, "gzip");
        let response = send(built, "assets/index-Ab3.js", FOR_EVER, &zipped).expect("it is there");
        assert_eq!(header_of(&response, header::CONTENT_ENCODING), "gzip");
        assert_eq!(header_of(&response, header::VARY), "Accept-Encoding");
        assert_eq!(header_of(&response, header::CACHE_CONTROL), FOR_EVER);
        assert_eq!(header_of(&response, header::CONTENT_TYPE), "text/javascript; charset=utf-8");
        let plain = send(built, "assets/index-Ab3.js", FOR_EVER, &HeaderMap::new()).expect("it is there");
        assert_eq!(header_of(&plain, header::CONTENT_ENCODING), "");
        assert_ne!(header_of(&plain, header::ETAG), header_of(&response, header::ETAG));
        let uncompressed = send(built, "index.html", ASK_FIRST, &zipped).expect("it is there");
        assert_eq!(header_of(&uncompressed, header::CONTENT_ENCODING), "");
    }

    #[test]
    fn a_page_that_the_browser_has_is_not_sent_again() {
        let first = send(built, "index.html", ASK_FIRST, &HeaderMap::new()).expect("it is there");
        assert_eq!(first.status(), StatusCode::OK);
        let tag = header_of(&first, header::ETAG).to_owned();
        assert!(tag.starts_with('"') && tag.len() == 26, "{tag}");
        for (sent, status) in [
            (tag.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"older\", W/{tag}"), StatusCode::NOT_MODIFIED),
            ("\"older\"".to_owned(), StatusCode::OK),
        ] {
            let mut request = HeaderMap::new();
            request.insert(header::IF_NONE_MATCH, HeaderValue::from_str(&sent).expect("a header"));
            let response = send(built, "index.html", ASK_FIRST, &request).expect("it is there");
            assert_eq!(response.status(), status, "{sent}");
            assert_eq!(header_of(&response, header::ETAG), tag, "{sent}");
        }
    }

    #[test]
    fn nothing_else_is_sent() {
        let nothing = HeaderMap::new();
        for name in [".gitignore", "assets/index-Ab3.js.gz", "assets/missing.js", "assets/../index.html", ""]
        {
            assert!(send(built, name, FOR_EVER, &nothing).is_none(), "{name}");
        }
    }
}
