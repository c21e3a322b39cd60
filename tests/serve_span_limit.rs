//! More requests than spans are to be kept of: a share of traces is, with those that failed; all of them count, and
//! everybody is told.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use support::await_event;
use support::server::Server;
use support::streams::{get, metric, response};

const LIMIT: u64 = 40;

/// Answers requests on one connection; what is asked for under `/fails` fails.
fn serve(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().expect("one comes");
    stream.set_nodelay(true).expect("an option");
    let mut buffer = [0; 1024];
    loop {
        let read = stream.read(&mut buffer).expect("readable");
        if read == 0 {
            return;
        }
        let fails = buffer[..read].starts_with(b"GET /fails");
        let answer = response(if fails { 503 } else { 200 }, 2);
        stream.write_all(answer.as_bytes()).expect("written");
    }
}

fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(get(path).as_bytes()).expect("written");
    assert!(stream.read(&mut [0; 512]).expect("an answer") > 0);
}

#[test]
fn beyond_the_limit_a_share_is_kept_and_what_failed_and_all_are_counted() {
    needs!();
    let configuration = format!("agent: {{ebpf: {{network: {{max_spans_per_second: {LIMIT}}}}}}}\n");
    let server = Server::start_with(&configuration, &[]);
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serves = std::thread::spawn(move || serve(&listener));
    let mut client = TcpStream::connect(address).expect("it listens");
    client.set_nodelay(true).expect("an option");
    let status = || server.get("/status").expect(200).json()["tracing"].clone();
    let mut asked = 0_u64;
    // Until it has noticed, which it does within a second.
    await_event("the limit", Duration::from_secs(30), || {
        for _ in 0..500 {
            ask(&mut client, "/fine/7");
        }
        asked += 500;
        (status()["share"].as_f64().expect("a share") < 0.5).then_some(())
    });
    for _ in 0..500 {
        ask(&mut client, "/later/7");
    }
    asked += 500;
    // Its clients are ours, too, and both ends of a request are kept or neither is.
    for _ in 0..3 {
        ask(&mut client, "/fails/7");
    }
    asked += 3;
    drop(client);
    serves.join().expect("it ends");
    server.flush();
    let list = server.get("/api/v1/spans?limit=5000").expect(200).json();
    let column = |name: &str| list["columns"][name].as_array().expect("a column").clone();
    let (names, codes) = (list["names"].as_array().expect("names").clone(), column("status_code"));
    let of = |wanted: &str| {
        let is_it = |name: &&serde_json::Value| names[name.as_u64().expect("an index") as usize] == wanted;
        column("name").iter().filter(is_it).count() as u64
    };
    let lost = metric(&server, "spanflame_losses_total{stage=\"sockets\",reason=\"ring_buffer_full\"}") > 0.0;
    let (later, failed) = (of("GET /later/{id}"), of("GET /fails/{id}"));
    assert!(of("GET /fine/{id}") > 0, "the first of them were within the limit");
    assert!(later < 500, "{later} ends of 500 requests");
    assert!(failed >= 2 || lost, "what failed is kept: {failed} ends of 3 requests");
    assert!(codes.iter().filter(|code| code.as_u64() == Some(503)).count() as u64 == failed);
    let sampling = &list["sampling"];
    let number = |name: &str| sampling[name].as_u64().expect(name);
    assert_eq!(number("max_spans_per_second"), LIMIT);
    assert!(number("sampled") < number("requests"), "{sampling}");
    let not_sampled = status()["not_sampled"]["limit"].as_u64().expect("a count");
    assert!(not_sampled > 0);
    if !lost {
        assert!(number("requests") >= 2 * asked, "{sampling}, {asked} asked");
        // Every one of them counts, sampled or not.
        let page = server.get("/metrics").expect(200).text();
        let count = |path: &str, status: u16| -> f64 {
            let is_it = |line: &&str| {
                line.starts_with("http_server_request_duration_seconds_count{")
                    && line.contains(&format!("http_route=\"{path}\""))
                    && line.contains(&format!("status_code=\"{status}\""))
            };
            page.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
        };
        assert_eq!(count("/fine/{id}", 200) as u64, asked - 503);
        assert_eq!((count("/later/{id}", 200) as u64, count("/fails/{id}", 503) as u64), (500, 3));
    }
}
