//! The page in a real browser, by the scripts of `web/tests`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::Server;
use super::{is_installed, target_directory};

/// Where the page's sources and tools are.
pub fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

/// Where scripts leave pictures of what they saw.
pub fn screenshots() -> PathBuf {
    target_directory().join("screenshots")
}

/// Why nothing can be tried in a browser; nothing if it can.
pub fn no_browser() -> Option<&'static str> {
    if !is_installed("node") {
        return Some("node is not installed");
    }
    if !web().join("node_modules/playwright-core").exists() {
        return Some("the page's tools are not there: `make page` gets them");
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    if !names.iter().any(|name| is_installed(name)) && std::env::var_os("CHROMIUM").is_none() {
        return Some("there is no Chromium");
    }
    None
}

/// Why the page of a server cannot be tried; nothing if it can.
pub fn no_page(server: &Server) -> Option<&'static str> {
    let is_built = || !assets_of(&server.get("/").text()).is_empty();
    no_browser().or_else(|| (!is_built()).then_some("the binary was compiled before the page was built"))
}

/// Names of the files that the page loads.
pub fn assets_of(page: &str) -> Vec<String> {
    page.split('"').filter_map(|text| text.strip_prefix("./assets/")).map(ToOwned::to_owned).collect()
}

/// Runs a script of `web/tests` and hands on what it says. It must find all as it expects.
pub fn walk<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let output = Command::new("node")
        .arg(format!("tests/{script}"))
        .args(arguments)
        .current_dir(web())
        .output()
        .expect("node is installed");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(
        output.status.success(),
        "{script} (screenshots, if it takes any, are in {}):\n{said}",
        screenshots().display()
    );
    said
}
