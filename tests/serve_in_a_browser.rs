//! The page of a running server in a real browser, as a visitor sees it (`web/tests/product.js`), and the
//! files of the page as HTTP sees them.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::http_threads::{Service, ask};
use support::page::{assets_of, no_browser, no_page, screenshots, walk, web};
use support::program::{Program, fixture};
use support::server::{Request, Server, WITHOUT_EBPF};
use support::{await_event, copy_program, quiet_cores, skip, spanflame, two_times};

#[test]
fn the_page_and_its_files_are_cached_as_they_may_be() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let page = server.get("/").expect(200);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy").to_owned();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe-eval"), "{policy}");
    server.get("/index.html").expect(404);
    server.get("/assets/none.js").expect(404);
    server.get("/assets/..%2findex.html").expect(404);

    let assets = assets_of(&page.text());
    if assets.is_empty() {
        assert!(page.text().contains("make page"), "{}", page.text());
        skip("the binary was compiled before the page was built");
        return;
    }
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    let tag = page.header("etag").expect("a tag").to_owned();
    let again = server.ask(&Request::get("/").header("If-None-Match", &tag)).expect(304);
    assert!(again.text().is_empty());
    for name in assets {
        let path = format!("/assets/{name}");
        let plain = server.get(&path).expect(200);
        let forever = "public, max-age=31536000, immutable";
        assert_eq!(plain.header("cache-control"), Some(forever), "{name}");
        let zipped = server.ask(&Request::get(&path).header("Accept-Encoding", "gzip, br")).expect(200);
        if plain.text().len() > 1000 {
            assert_eq!(zipped.header("content-encoding"), Some("gzip"), "{name}");
        }
        assert_ne!(plain.header("etag"), None, "{name}");
    }
}

#[test]
fn the_page_says_what_is_the_matter_with_its_server() {
    if let Some(reason) = no_browser() {
        return skip(reason);
    }
    if !web().join("dist/index.html").exists() {
        return skip("the page is not built: `make page`");
    }
    walk("browser.js", [""; 0]);
}

/// A fresh host, a fresh data folder: what somebody sees who has just typed `make run`.
#[test]
fn the_page_shows_the_host_within_15_s_of_the_start() {
    const LIMIT: Duration = Duration::from_secs(15);
    needs!();
    if let Some(reason) = no_browser() {
        return skip(reason);
    }
    let _quiet = quiet_cores();
    let begun = Instant::now();
    let server = Server::start(&[]);
    if let Some(reason) = no_page(&server) {
        return skip(reason);
    }
    let said = walk("first-graph.js", [&server.url]);
    let took = begun.elapsed();
    println!("the first graph was seen {:.1} s after the start", took.as_secs_f64());
    assert!(took <= LIMIT, "{:.1} s from the start to the first graph: {said}", took.as_secs_f64());
}

#[test]
fn a_visitor_picks_zooms_searches_compares_and_downloads() {
    needs!();
    if let Some(reason) = no_browser() {
        return skip(reason);
    }
    let folder = screenshots();
    let programs = tempfile::tempdir().expect("a temporary directory");
    // A service is named after its executable.
    let services = [("orders", "shares"), ("payments", "shares_rust")].map(|(name, program)| {
        let path = programs.path().join(name);
        copy_program(fixture(program), &path);
        Program::start_ready(Command::new(&path).arg("600"))
    });
    let _quiet = quiet_cores();
    let begun = Instant::now();
    let server = Server::start(&[]);
    if let Some(reason) = no_page(&server) {
        return skip(reason);
    }
    await_event("samples of both services", Duration::from_secs(60), || {
        let text = server.get("/api/v1/services?from=-15m").text();
        (text.contains("\"orders\"") && text.contains("\"payments\"")).then_some(())
    });
    println!("both services were there {:.1} s after the start", begun.elapsed().as_secs_f64());

    let shown = folder.display().to_string();
    walk("product.js", [server.url.as_str(), "orders", "payments", "burn_sixty", &shown]);
    drop(services);

    // What was downloaded is a profile of what was looked at.
    let folded = folder.join("profile.folded");
    let converted = spanflame()
        .arg("convert")
        .arg(folder.join("profile.pb.gz"))
        .arg("-o")
        .arg(&folded)
        .output()
        .expect("the binary runs");
    assert!(converted.status.success(), "{}", String::from_utf8_lossy(&converted.stderr));
    let stacks = std::fs::read_to_string(&folded).expect("it was written");
    assert!(stacks.contains("burn_sixty"), "{stacks}");
    assert!(!stacks.contains("payments"), "only the service that was picked:\n{stacks}");
}

/// A function costs more than yesterday, and five others only seem to.
#[test]
fn a_visitor_sees_which_differences_are_certain() {
    if let Some(reason) = no_browser() {
        return skip(reason);
    }
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    if let Some(reason) = no_page(&server) {
        return skip(reason);
    }
    let times = two_times::write(&server, 18, 18, 0.5);
    let [base, new] = [times.base, times.new].map(|(from, to)| format!("{from}-{to}"));
    let folder = screenshots().display().to_string();
    let (service, changed) = (two_times::SERVICE, two_times::CHANGED);
    walk("verdicts.js", [&server.url, service, &base, &new, changed, &folder]);
}

/// What the whole program is for: one slow request of a service that nobody has instrumented, and what it ran.
/// The default configuration, and nothing that warms anything up.
#[test]
fn a_visitor_finds_the_one_slow_request_and_sees_what_it_ran() {
    needs!();
    if let Some(reason) = no_browser() {
        return skip(reason);
    }
    let _quiet = quiet_cores();
    let server = Server::start(&[]);
    if let Some(reason) = no_page(&server) {
        return skip(reason);
    }
    let shop = Service::start("night-shop", None);
    let mut stream = shop.connect();
    for _ in 0..5 {
        ask(&mut stream, "/sleep/1", "");
    }
    ask(&mut stream, "/slow", "");
    server.flush();
    let folder = screenshots().display().to_string();
    walk(
        "one-request.js",
        [server.url.as_str(), "night-shop", "/slow", "the_slow_function", "66.7", &folder],
    );
}
