//! One slow request of a service in Python, JavaScript or Java that nobody instruments: in the page it opens into
//! the handler that the service's author wrote, and into the function that was slow. And handlers of four web services
//! under load are found in their flame graphs, of which pictures are in `docs/screenshots`.

mod support;

use std::time::Duration;

use support::page::{no_page, screenshots, walk};
use support::server::Server;
use support::shops::{Kind, Shop};
use support::{await_event, long_tests, quiet_cores, skip};

/// Visits pages until a function of the service is known by name, as it is after a while of watching.
fn await_known(server: &Server, shop: &Shop, service: &str, function: &str) {
    await_event(&format!("{function} is known"), Duration::from_secs(60), || {
        for product in 0..50 {
            shop.visit(&format!("/products/{product}"));
        }
        let top = server.get(&format!("/api/v1/profiles/top?service={service}&from=-5m"));
        top.text().contains(function).then_some(())
    });
}

/// What its author calls the parts of a shop.
struct Names {
    product: &'static str,
    report: &'static str,
    slow: &'static str,
}

fn one_slow_request(kind: Kind, service: &str, names: &Names) {
    // From before the server starts: reading the programs of a whole host is work that another test would feel.
    let _quiet = quiet_cores();
    let server = Server::start(&[]);
    if let Some(reason) = no_page(&server) {
        return skip(reason);
    }
    let shop = match Shop::open(kind, service) {
        Ok(shop) => shop,
        Err(reason) => return skip(&reason),
    };
    await_known(&server, &shop, service, names.product);
    shop.visit("/report");
    server.flush();
    let folder = screenshots().display().to_string();
    let url = server.url.as_str();
    walk("one-request.js", [url, service, "/report", names.slow, "66.7", &folder, "590ms", names.report]);
}

#[test]
fn of_flask_under_gunicorn() {
    needs!("python3");
    let names = Names { product: "show_product", report: "monthly_report", slow: "reconcile_ledger" };
    one_slow_request(Kind::Gunicorn, "flask-shop", &names);
}

#[test]
fn of_express() {
    needs!("node", "npm");
    let names = Names { product: "showProduct", report: "monthlyReport", slow: "reconcileLedger" };
    one_slow_request(Kind::Express, "express-shop", &names);
}

#[test]
fn of_the_jdks_own_server() {
    needs!("java", "javac");
    let names = Names {
        product: "ShopServer.showProduct",
        report: "ShopServer.monthlyReport",
        slow: "Pages.reconcileLedger",
    };
    one_slow_request(Kind::JdkServer, "jdk-shop", &names);
}

/// The page of a service under load, with its handler selected and zoomed.
fn handler_under_load(kind: Kind, service: &str, handler: &str) {
    // From before the server starts: reading the programs of a whole host is work that another test would feel.
    let _quiet = quiet_cores();
    let server = Server::start(&[]);
    if let Some(reason) = no_page(&server) {
        return skip(reason);
    }
    let shop = match Shop::open(kind, service) {
        Ok(shop) => shop,
        Err(reason) => return skip(&reason),
    };
    let _crowd = shop.crowd("/products/17");
    await_known(&server, &shop, service, handler);
    // Enough for a flame graph that somebody may look at.
    await_event("two hundred samples", Duration::from_secs(60), || {
        let top = server.get(&format!("/api/v1/profiles/top?service={service}&from=-5m&type=samples"));
        top.json()["total"].as_u64().filter(|&total| total >= 200)
    });
    let picture = screenshots().join(format!("{service}.png"));
    std::fs::create_dir_all(screenshots()).expect("the target directory is ours");
    walk("find-handler.js", [server.url.as_str(), service, handler, &picture.display().to_string()]);
    let bytes = picture.metadata().expect("a picture").len();
    assert!(bytes <= 150 << 10, "{} has {bytes} bytes", picture.display());
}

/// Pictures are left in `target/screenshots`; those of `docs/screenshots` are such.
#[test]
fn handlers_of_four_services_under_load_are_found() {
    needs!("wrk");
    if !long_tests() {
        return skip("screenshots of four services under load are for SPANFLAME_LONG_TESTS=1");
    }
    for (kind, service, handler) in [
        (Kind::Gunicorn, "flask-gunicorn", "show_product"),
        (Kind::Express, "express", "showProduct"),
        (Kind::Jetty, "jetty", "JettyShop.showProduct"),
        (Kind::NetHttp, "go-net-http", "main.showProduct"),
    ] {
        handler_under_load(kind, service, handler);
    }
}
