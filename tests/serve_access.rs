//! Who gets in, and what everyone is told: authentication, `Host`, `Origin`, limits, headers.

mod support;

use support::server::{Server, WITHOUT_EBPF};

#[test]
fn healthz_answers() {
    let server = Server::start_with(WITHOUT_EBPF, &[]);
    let response = server.get("/healthz").expect(200);
    assert_eq!(response.json(), serde_json::json!({"status": "ok"}));
    assert!(server.stop().success());
}
