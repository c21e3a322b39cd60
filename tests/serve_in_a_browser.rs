//! The page of a running server in a real browser, as a visitor sees it (`web/tests/product.js`), and the
//! files of the page as HTTP sees them.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::http_threads::{Service, ask};
use support::program::{Program, fixture};
use support::server::{Request, Server, WITHOUT_EBPF};
use support::{
    await_event, copy_program, is_installed, quiet_cores, skip, spanflame, target_directory, two_times,
};

fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

/// Why the page cannot be tried in a browser; nothing if it can.
fn no_browser() -> Option<String> {
    if !is_installed("node") {
        return Some("node is not installed".to_owned());
    }
    if !web().join("node_modules/playwright-core").exists() {
        return Some("the page's tools are not there: `make page` gets them".to_owned());
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    if !names.iter().any(|name| is_installed(name)) && std::env::var_os("CHROMIUM").is_none() {
        return Some("there is no Chromium".to_owned());
    }
    None
}

/// Names of the files that the page loads.
fn assets_of(page: &str) -> Vec<String> {
    page.split('"').filter_map(|text| text.strip_prefix("./assets/")).map(ToOwned::to_owned).collect()
}

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
        return skip(&reason);
    }
    if !web().join("dist/index.html").exists() {
        return skip("the page is not built: `make page`");
    }
    let output = Command::new("node").arg("tests/browser.js").current_dir(web()).output();
    let output = output.expect("node is installed");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

/// A fresh host, a fresh data folder: what somebody sees who has just typed `make run`.
#[test]
fn the_page_shows_the_host_within_15_s_of_the_start() {
    const LIMIT: Duration = Duration::from_secs(15);
    needs!();
    if let Some(reason) = no_browser() {
        return skip(&reason);
    }
    let _quiet = quiet_cores();
    let begun = Instant::now();
    let server = Server::start(&[]);
    if assets_of(&server.get("/").text()).is_empty() {
        return skip("the binary was compiled before the page was built");
    }
    let output = Command::new("node")
        .args(["tests/first-graph.js", server.url.as_str()])
        .current_dir(web())
        .output()
        .expect("node is installed");
    let took = begun.elapsed();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}the first graph was seen {:.1} s after the start", took.as_secs_f64());
    assert!(output.status.success(), "{said}");
    assert!(took <= LIMIT, "{:.1} s from the start to the first graph: {said}", took.as_secs_f64());
}

#[test]
fn a_visitor_picks_zooms_searches_compares_and_downloads() {
    needs!();
    if let Some(reason) = no_browser() {
        skip(&reason);
        return;
    }
    let folder = target_directory().join("screenshots");
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
    if assets_of(&server.get("/").text()).is_empty() {
        skip("the binary was compiled before the page was built");
        return;
    }
    await_event("samples of both services", Duration::from_secs(60), || {
        let text = server.get("/api/v1/services?from=-15m").text();
        (text.contains("\"orders\"") && text.contains("\"payments\"")).then_some(())
    });
    println!("both services were there {:.1} s after the start", begun.elapsed().as_secs_f64());

    let output = Command::new("node")
        .arg("tests/product.js")
        .args([server.url.as_str(), "orders", "payments", "burn_sixty"])
        .arg(&folder)
        .current_dir(web())
        .output()
        .expect("node is installed");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "screenshots are in {}:\n{said}", folder.display());
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
        return skip(&reason);
    }
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    if assets_of(&server.get("/").text()).is_empty() {
        return skip("the binary was compiled before the page was built");
    }
    let times = two_times::write(&server, 18, 18, 0.5);
    let range = |(from, to): (u64, u64)| format!("{from}-{to}");
    let output = Command::new("node")
        .args(["tests/verdicts.js", server.url.as_str(), two_times::SERVICE])
        .args([range(times.base), range(times.new)])
        .arg(two_times::CHANGED)
        .arg(target_directory().join("screenshots"))
        .current_dir(web())
        .output()
        .expect("node is installed");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

/// What the whole program is for: one slow request of a service that nobody has instrumented, and what it ran.
/// The default configuration, and nothing that warms anything up.
#[test]
fn a_visitor_finds_the_one_slow_request_and_sees_what_it_ran() {
    needs!();
    if let Some(reason) = no_browser() {
        return skip(&reason);
    }
    let _quiet = quiet_cores();
    let server = Server::start(&[]);
    if assets_of(&server.get("/").text()).is_empty() {
        return skip("the binary was compiled before the page was built");
    }
    let shop = Service::start("night-shop", None);
    let mut stream = shop.connect();
    for _ in 0..5 {
        ask(&mut stream, "/sleep/1", "");
    }
    ask(&mut stream, "/slow", "");
    server.flush();
    let folder = target_directory().join("screenshots");
    let output = Command::new("node")
        .args([
            "tests/one-request.js",
            server.url.as_str(),
            "night-shop",
            "/slow",
            "the_slow_function",
            "66.7",
        ])
        .arg(&folder)
        .current_dir(web())
        .output()
        .expect("node is installed");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "screenshots are in {}:\n{said}", folder.display());
}
