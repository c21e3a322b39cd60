use crate::model::socket::{Direction, Ending, Role};
use crate::trace::conversation::Capture;
use crate::trace::exchange::{Discarded, Failure, FirstByte, Known, ProtocolVersion};
use crate::trace::wire::{Wire, minted};

fn server() -> Wire {
    Wire::new(Role::Accepted)
}

fn client() -> Wire {
    Wire::new(Role::Connected)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn a_request_and_its_response() {
    let mut wire = server();
    let mut request = wire.fragment(
        Direction::In,
        b"POST /a?b=c HTTP/1.1\r\nHost: example:80\r\nUser-Agent: x/1\r\ncontent-type:  text/plain \r\n\
          traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1\r\n\
          TraceState: b=2\r\nb3: 0\r\nContent-Length: 3\r\n\r\nabc",
    );
    request.minted = Some(minted(7));
    wire.take(&request);
    let began = wire.began()[0].clone();
    assert_eq!(began.direction, Direction::In);
    assert_eq!(began.first_byte_ns, wire.now_ns);
    assert_eq!(began.minted, Some(minted(7)));
    assert!(!began.overlaps);
    let value = |text: &str| Known::Value(text.into());
    assert_eq!(began.head.version, ProtocolVersion::Http11);
    assert_eq!(began.head.method, value("POST"));
    assert_eq!(began.head.target, value("/a?b=c"));
    assert_eq!(began.head.scheme, Known::Absent);
    assert_eq!(began.head.authority, value("example:80"));
    assert_eq!(began.head.user_agent, value("x/1"));
    assert_eq!(began.head.content_type, value("text/plain"));
    assert_eq!(began.head.traceparent, value("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    assert_eq!(began.head.tracestate, value("a=1,b=2"));
    assert_eq!(began.head.b3, value("0"));
    assert!(!wire.conversation.is_confirmed());

    wire.wrote(OK);
    let response_ns = wire.now_ns;
    assert!(wire.conversation.is_confirmed());
    assert!(wire.ended().is_empty(), "the write may have been short");
    assert_eq!(wire.conversation.settles_at(), Some(response_ns + 50_000_000));
    wire.wait(50_000_000);
    let ended = wire.ended()[0].clone();
    assert_eq!(ended.exchange, began.exchange);
    assert_eq!(ended.response.and_then(|response| response.status), Some(200));
    assert_eq!(ended.first_response_byte_ns, Some(response_ns));
    assert_eq!(ended.last_byte_ns, response_ns);
    assert!(ended.end_is_certain);
    assert_eq!((ended.request_body_bytes, ended.response_body_bytes), (Some(3), Some(2)));
    assert_eq!(wire.conversation.settles_at(), None);
}

#[test]
fn a_client_ends_with_the_last_byte_it_reads() {
    let mut wire = client();
    wire.wrote(get("/")).read("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok");
    assert!(wire.ended().is_empty());
    wire.read("ok");
    assert_eq!(wire.ended()[0].last_byte_ns, wire.now_ns);
    assert_eq!(wire.ended()[0].first_response_byte_ns, Some(wire.now_ns - 1000));
    assert_eq!(wire.began()[0].direction, Direction::Out);
}

#[test]
fn keep_alive_never_overlaps_even_while_a_response_settles() {
    let mut wire = server();
    for nth in 0..5 {
        wire.read(get(&format!("/{nth}"))).wrote(OK);
    }
    wire.wait(50_000_000);
    assert_eq!(
        wire.summary(),
        ["GET /0 → 200", "GET /1 → 200", "GET /2 → 200", "GET /3 → 200", "GET /4 → 200"]
    );
    assert!(wire.began().iter().all(|began| !began.overlaps));
    // Also with responses of which only parts are captured.
    let mut wire = server();
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    wire.read(get("/a")).wrote(&long).read(get("/b")).wrote(&long).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 200"]);
    assert!(wire.began().iter().all(|began| !began.overlaps));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut wire = server();
    wire.read([get("/a"), get("/b")].concat()).read(get("/c"));
    assert_eq!(wire.began().iter().map(|began| began.overlaps).collect::<Vec<_>>(), [false, true, true]);
    wire.wrote([OK, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"].concat());
    wire.wrote("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 404", "GET /c → 500"]);
}

#[test]
fn only_the_request_at_a_fragments_beginning_is_the_one_that_the_kernel_side_minted() {
    let mut wire = server();
    let mut fragment = wire.fragment(Direction::In, [get("/a"), get("/b")].concat().as_bytes());
    fragment.minted = Some(minted(1));
    wire.take(&fragment);
    assert_eq!(wire.began()[0].minted, Some(minted(1)));
    assert_eq!(wire.began()[1].minted, None);
}

#[test]
fn more_requests_than_are_followed_are_counted_and_their_responses_are_not_mistaken() {
    let mut wire = server();
    let requests: Vec<String> = (0..70).map(|nth| get(&format!("/{nth}"))).collect();
    for request in &requests {
        wire.read(request);
    }
    assert_eq!(wire.discarded(), vec![(None, Discarded::TooMany); 6]);
    for nth in 0..70 {
        wire.wrote(format!("HTTP/1.1 {} A\r\nContent-Length: 0\r\n\r\n", 200 + nth));
    }
    wire.read(get("/after")).wrote("HTTP/1.1 299 A\r\nContent-Length: 0\r\n\r\n").wait(50_000_000);
    let summary = wire.summary();
    assert_eq!(summary.len(), 65);
    for (nth, told) in summary.iter().take(64).enumerate() {
        assert_eq!(*told, format!("GET /{nth} → {}", 200 + nth));
    }
    assert_eq!(summary[64], "GET /after → 299");
}

#[test]
fn chunks_are_stepped_over_and_trailers_read() {
    for body in [
        "5\r\nhello\r\n0\r\n\r\n",
        "2\r\nhe\r\n3;name=\"value\"\r\nllo\r\n0\r\nTrailer: yes\r\nOther: x\r\n\r\n",
        "00000005\nhello\n0\n\n",
        "5 \r\nhello\r\n000\r\n\r\n",
    ] {
        let response = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n{body}");
        let mut wire = client();
        wire.wrote(get("/a")).read(&response).wrote(get("/b")).read(OK);
        assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 200"], "{body:?}");
        assert_eq!(wire.ended()[0].response_body_bytes, Some(5));
        assert!(!wire.began()[1].overlaps);
        let mut wire = client();
        wire.wrote(get("/a"));
        for byte in response.as_bytes() {
            assert!(wire.ended().is_empty());
            wire.read([*byte]);
        }
        assert_eq!(wire.ended()[0].last_byte_ns, wire.now_ns, "{body:?}");
    }
}

#[test]
fn a_hole_in_a_chunk_changes_nothing() {
    let mut wire = client();
    wire.wrote(get("/a")).read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    wire.read(format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000)));
    wire.read(format!("{:x}\r\n{}", 5000, "x".repeat(5000))).read("\r\n0\r\n\r\n");
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.ended()[0].response_body_bytes, Some(105_000));
}

#[test]
fn chunk_heads_in_a_hole_leave_the_end_to_the_last_chunk() {
    let many = format!("{:x}\r\n{}\r\n", 3000, "x".repeat(3000)).repeat(4);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The last chunk ends the fragment.
    let mut wire = client();
    wire.wrote(get("/a")).read(format!("{head}{many}")).read(format!("{many}0\r\n\r\n"));
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.ended()[0].response_body_bytes, None);
    // A fragment that is one chunk sets it right again.
    let mut wire = client();
    wire.wrote(get("/a")).read(format!("{head}{many}")).read("3\r\nabc\r\n").read("0\r\n\r\n");
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.ended()[0].response_body_bytes, None);
    // Nothing does: the next request says that it is over, not when.
    let mut wire = client();
    wire.wrote(get("/a")).read(format!("{head}{many}"));
    let seen_ns = wire.now_ns;
    wire.lost(Direction::In, 5).wait(900_000_000);
    assert_eq!(wire.summary(), ["GET /a → …"]);
    wire.wrote(get("/b")).read(OK);
    assert_eq!(wire.summary(), ["GET /a → 200 ~", "GET /b → ×Gap"], "the response may be another's");
    assert_eq!(wire.ended()[0].last_byte_ns, seen_ns);
    assert!(!wire.began()[1].overlaps);
    // A second of quiet says so, too.
    let mut wire = client();
    wire.wrote(get("/a")).read(format!("{head}{many}"));
    assert_eq!(wire.conversation.settles_at(), Some(wire.now_ns + 1_000_000_000));
    wire.wait(1_000_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200 ~"]);
}

#[test]
fn bodies_of_known_length_may_be_lost() {
    let mut wire = client();
    wire.wrote("PUT /a HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n").lost(Direction::Out, 1_000_000);
    wire.wrote("");
    wire.read("HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n").lost(Direction::In, 4999).read("x");
    wire.wrote(get("/b")).read(OK);
    assert_eq!(wire.summary(), ["PUT /a → 200", "GET /b → 200"]);
    assert_eq!(wire.ended()[0].request_body_bytes, Some(1_000_000));
    assert_eq!(wire.ended()[0].response_body_bytes, Some(5000));
    assert_eq!(wire.discarded(), []);
}

#[test]
fn responses_that_have_no_body_whatever_they_say() {
    for (request, response) in [
        (get("/a").replace("GET", "HEAD"), "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"),
        (get("/a").replace("GET", "HEAD"), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (get("/a"), "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"),
        (get("/a"), "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"),
        (get("/a"), "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ] {
        let mut wire = client();
        wire.wrote(&request).read(response);
        assert_eq!(wire.ended()[0].response_body_bytes, Some(0), "{response}");
        wire.wrote(get("/b")).read(OK);
        assert_eq!(wire.ended().len(), 2);
        assert_eq!(wire.discarded(), []);
    }
}

#[test]
fn what_announces_a_response_is_none() {
    let mut wire = server();
    wire.read("POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    wire.wrote("HTTP/1.1 100 Continue\r\n\r\n").read("abc");
    wire.wrote("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["POST /a → 200"]);
    assert_eq!(wire.ended()[0].request_body_bytes, Some(3));
}

#[test]
fn after_an_upgrade_nothing_is_looked_at() {
    let mut wire = server();
    wire.read("GET /chat HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    wire.wrote("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n").wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /chat → 101"]);
    assert!(wire.ended()[0].upgraded);
    assert_eq!(wire.conversation.capture(), Capture::Nothing);
    wire.read(get("/inside")).wrote(OK).end(Ending::Closed);
    assert_eq!(wire.summary(), ["GET /chat → 101"]);
    assert!(wire.conversation.is_confirmed());
}

#[test]
fn a_tunnel_ends_its_request_and_shows_what_is_inside_of_tls() {
    let mut wire = client();
    wire.wrote("CONNECT example:443 HTTP/1.1\r\nHost: example:443\r\n\r\n").read("HTTP/1.1 200 Fine\r\n\r\n");
    assert_eq!(wire.summary(), ["CONNECT ? → 200"]);
    assert_eq!(wire.began()[0].head.authority.value(), Some("example:443"));
    wire.wrote(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").read(b"\x16\x03\x03\x00\x50\x02");
    assert!(wire.conversation.is_encrypted());
    wire.is_decrypted = true;
    wire.positions = [0; 2];
    wire.wrote(get("/inside")).read(OK);
    assert_eq!(wire.summary(), ["CONNECT ? → 200", "GET /inside → 200"]);
    assert!(!wire.conversation.is_encrypted());
    // One that is refused is a request like others.
    let mut wire = client();
    wire.wrote("CONNECT example:443 HTTP/1.1\r\n\r\n").read("HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nno");
    wire.wrote(get("/b")).read(OK);
    assert_eq!(wire.summary(), ["CONNECT ? → 407", "GET /b → 200"]);
}

#[test]
fn a_response_may_end_with_the_connection() {
    let response = "HTTP/1.0 200 OK\r\nServer: old\r\n\r\nhello";
    let mut wire = client();
    wire.wrote("GET /a HTTP/1.0\r\n\r\n").read(response).read(" world");
    let last_ns = wire.now_ns;
    wire.wait(5_000_000_000).end(Ending::Closed);
    assert_eq!(wire.began()[0].head.version, ProtocolVersion::Http10);
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.ended()[0].last_byte_ns, last_ns);
    assert_eq!(wire.ended()[0].response_body_bytes, Some(11));
    // By the server's word that nothing follows.
    let mut wire = server();
    wire.read(get("/a")).wrote(response);
    wire.conversation.shut_down(Direction::In, &mut wire.events);
    assert!(wire.ended().is_empty(), "the client has half closed it");
    wire.conversation.shut_down(Direction::Out, &mut wire.events);
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    // A reset is no end.
    let mut wire = client();
    wire.wrote(get("/a")).read(response).end(Ending::Reset);
    assert_eq!(wire.summary(), ["GET /a → 200 !Reset"]);
    assert_eq!(wire.ended()[0].last_byte_ns, wire.now_ns);
}

#[test]
fn a_request_without_an_answer_ends_with_its_connection() {
    for (ending, failure) in [
        (Ending::Closed, Failure::EndOfStream),
        (Ending::Reset, Failure::Reset),
        (Ending::TimedOut, Failure::TimedOut),
        (Ending::Failed(113), Failure::Reset),
    ] {
        let mut wire = server();
        wire.read(get("/a")).wrote("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").end(ending);
        assert_eq!(wire.summary(), [format!("GET /a → 200 !{failure:?}")]);
        assert_eq!(wire.ended()[0].response_body_bytes, Some(4));
        let mut wire = client();
        wire.wrote(get("/a")).end(ending);
        assert_eq!(wire.summary(), [format!("GET /a → - !{failure:?}")]);
        assert_eq!(wire.ended()[0].last_byte_ns, wire.now_ns);
    }
}

#[test]
fn an_early_response_does_not_wait_for_the_rest_of_the_request() {
    let mut wire = server();
    wire.read("POST /a HTTP/1.1\r\nContent-Length: 1000\r\n\r\n")
        .wrote("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n");
    wire.read("x".repeat(1000)).read(get("/b")).wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["POST /a → 413", "GET /b → 200"]);
    assert_eq!(wire.ended()[0].request_body_bytes, None);
    assert!(!wire.began()[1].overlaps);
}

#[test]
fn a_head_may_come_byte_by_byte() {
    let mut wire = server();
    for byte in b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r" {
        wire.read([*byte]);
    }
    assert!(wire.began().is_empty());
    wire.read("\n")
        .wrote("HTTP/1.1 20")
        .wrote("0 OK\r\nContent-Length: 0\r\n")
        .wrote("\r\n")
        .wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.began()[0].first_byte_ns, 1_000_003_000, "empty lines before it do not count");
}

#[test]
fn lines_may_end_in_a_bare_line_feed_and_be_folded() {
    let mut wire = server();
    wire.read("GET /a HTTP/1.1\nHost: b\nUser-Agent: one\n two\n\n")
        .wrote("HTTP/1.1 200 OK\nA: b\n c\nContent-Length: 0\n\n");
    wire.read("GET /b HTTP/1.1\r\nUser-Agent: one\r\n\ttwo\r\nBad Name: x\r\nHost: c\r\n\r\n")
        .wrote(OK)
        .wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 200"]);
    assert_eq!(wire.began()[0].head.user_agent.value(), Some("one  two"));
    assert_eq!(wire.began()[1].head.authority.value(), Some("c"));
}

#[test]
fn lengths_that_contradict_themselves_are_not_believed() {
    for (fields, is_believed) in [
        ("Content-Length: 2\r\nContent-Length: 2\r\n", true),
        ("Content-Length: 2, 2\r\n", true),
        ("Content-Length: 2\r\nContent-Length: 3\r\n", false),
        ("Content-Length: -2\r\n", false),
        ("Content-Length: +2\r\n", false),
        ("Content-Length: 99999999999999999999\r\n", false),
        ("Content-Length: \r\n", false),
    ] {
        let mut wire = client();
        wire.wrote(get("/a")).read(format!("HTTP/1.1 200 OK\r\n{fields}\r\nok")).wrote(get("/b")).read(OK);
        let first = if is_believed { "GET /a → 200" } else { "GET /a → 200 ~" };
        assert_eq!(wire.summary(), [first, "GET /b → 200"], "{fields}");
    }
}

#[test]
fn a_head_with_a_hole_begins_when_its_end_is_seen() {
    let cookie = "c".repeat(4000);
    let request = format!("GET /a HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nUser-Agent: hidden\r\n\r\n");
    let mut wire = server();
    wire.read(&request).wrote(OK).read(get("/b")).wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 200"]);
    let head = &wire.began()[0].head;
    assert_eq!(head.authority.value(), Some("a"));
    assert_eq!((&head.user_agent, &head.traceparent), (&Known::Unknown, &Known::Unknown));
    assert_eq!(wire.ended()[0].request_body_bytes, None);
    // With a body behind it, the response says that it has ended.
    let request =
        format!("POST /a HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\nContent-Length: 100\r\n\r\n{:0100}", 0);
    let mut wire = server();
    wire.read(&request);
    assert!(wire.began().is_empty());
    wire.wrote(OK).read(get("/b")).wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["POST /a → 200", "GET /b → 200"]);
    // Even its first line goes beyond what is captured.
    let mut wire = server();
    wire.read(get("/first")).wrote(OK);
    wire.read(format!("GET /{cookie} HTTP/1.1\r\n\r\n")).wrote(OK).read(get("/b")).wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /first → 200", "GET /b → 200"]);
    assert_eq!(wire.discarded(), [(None, Discarded::HeadTooLong)]);
    // A response's.
    let mut wire = client();
    wire.wrote(get("/a"))
        .read(format!("HTTP/1.1 200 OK\r\nSet-Cookie: {cookie}\r\nContent-Length: 2\r\n\r\nok"));
    wire.wrote(get("/b")).read(OK);
    assert_eq!(wire.summary(), ["GET /a → 200 ~", "GET /b → 200"]);
}

#[test]
fn a_head_without_an_end_is_given_up() {
    let mut wire = server();
    wire.read("GET /a HTTP/1.1\r\n");
    for _ in 0..200 {
        wire.read(format!("X: {}\r\n", "x".repeat(1000)));
    }
    wire.read(get("/b")).wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /b → 200"]);
    assert_eq!(wire.discarded(), [(None, Discarded::HeadTooLong)]);
}

#[test]
fn what_does_not_answer_as_http_does_takes_the_request_back() {
    let mut wire = client();
    wire.wrote(get("/a")).read("SSH-2.0-OpenSSH_9.2\r\n");
    assert_eq!(wire.summary(), ["GET /a → ×NotConfirmed"]);
    assert!(!wire.conversation.is_confirmed());
    assert_eq!(wire.conversation.capture(), Capture::Nothing);
}

#[test]
fn garbage_between_messages_is_counted_and_passed() {
    let mut wire = server();
    wire.read(get("/a")).wrote(OK).read(b"\x00\x01\x02garbage").read(get("/b")).wrote(OK);
    wire.wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 200"]);
    assert_eq!(wire.discarded(), [(None, Discarded::Malformed)]);
}

/// A response with this status and no body.
fn answer(status: u16) -> String {
    format!("HTTP/1.1 {status} A\r\nContent-Length: 0\r\n\r\n")
}

/// A server whose client has waited for each of so many responses, and what became of those requests.
fn server_of_one_who_waits(rounds: usize) -> (Wire, usize) {
    let mut wire = server();
    for _ in 0..rounds {
        wire.read(get("/a")).wrote(answer(200));
    }
    (wire, rounds)
}

/// What became of the requests behind the first ones.
fn since(wire: &mut Wire, rounds: usize) -> Vec<String> {
    wire.wait(60_000_000).summary().split_off(rounds)
}

#[test]
fn after_a_loss_who_waits_for_each_response_is_followed_from_the_next_request_on() {
    // A request and its response were lost: whose the next response is shows only behind it.
    let (mut wire, rounds) = server_of_one_who_waits(5);
    wire.lost(Direction::In, 33).lost(Direction::Out, 40);
    wire.read(get("/c")).wrote(answer(201)).read(get("/d")).wrote(answer(202));
    assert_eq!(since(&mut wire, rounds), ["GET /c → ×Gap", "GET /d → 202"]);
    // A request was lost, its response not.
    let (mut wire, rounds) = server_of_one_who_waits(5);
    wire.lost(Direction::In, 33).wrote(answer(500)).read(get("/c")).wrote(answer(201));
    assert_eq!(since(&mut wire, rounds), ["GET /c → 201"]);
    // A response was lost, its request not; or the request behind it, too.
    for is_request_lost in [false, true] {
        let (mut wire, rounds) = server_of_one_who_waits(5);
        wire.read(get("/b")).lost(Direction::Out, 40);
        if is_request_lost {
            wire.lost(Direction::In, 33);
        } else {
            wire.read(get("/c"));
        }
        wire.wrote(answer(201)).read(get("/d")).wrote(answer(202));
        let expected: &[&str] = match is_request_lost {
            true => &["GET /b → ×Gap", "GET /d → 202"],
            false => &["GET /b → ×Gap", "GET /c → ×Gap", "GET /d → 202"],
        };
        assert_eq!(since(&mut wire, rounds), expected);
        assert!(!wire.began().last().expect("it began").overlaps);
    }
}

#[test]
fn after_a_loss_who_is_not_known_to_wait_is_followed_after_a_second_of_silence() {
    // Three requests before the first response, which is lost: the next one is the second request's.
    let mut wire = server();
    wire.read(get("/a")).read(get("/b")).read(get("/c")).lost(Direction::Out, 40);
    wire.wrote(answer(202)).wrote(answer(203)).read(get("/d")).wrote(answer(204)).wait(1_000_000_000);
    assert_eq!(wire.summary(), ["GET /a → ×Gap", "GET /b → ×Gap", "GET /c → ×Gap"]);
    wire.read(get("/e")).wrote(answer(205)).wait(60_000_000);
    assert_eq!(wire.summary().pop().expect("one"), "GET /e → 205");
    // What is lost of the requests may be answered yet.
    let mut wire = server();
    wire.read(get("/a")).wrote(answer(200)).lost(Direction::In, 33).read(get("/c"));
    wire.wrote(answer(202)).wrote(answer(203)).wait(60_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    // A connection that pipelines is given up.
    for requests in [[get("/a"), get("/b")].concat(), get("/a")] {
        let mut wire = server();
        wire.read(&requests).read(get("/x")).wrote(answer(200)).wrote(answer(200)).wrote(answer(200));
        wire.lost(Direction::In, 33).read(get("/d")).wrote(answer(200)).wait(60_000_000);
        assert!(wire.summary().iter().all(|told| !told.starts_with("GET /d")), "{:?}", wire.summary());
        assert_eq!(wire.conversation.capture(), Capture::Nothing);
    }
}

#[test]
fn an_end_that_was_lost_is_uncertain_and_is_when_the_last_byte_before_it_was_seen() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n";
    for beyond in [0, 30] {
        let mut wire = client();
        wire.wrote(get("/a")).read(format!("{head}{}", "x".repeat(1000)));
        let seen_ns = wire.now_ns;
        wire.lost(Direction::In, 4000 + beyond).wait(10_000_000_000).read("x".repeat(100));
        assert_eq!(wire.summary(), ["GET /a → 200 ~"], "{beyond}");
        assert_eq!(wire.ended()[0].last_byte_ns, seen_ns);
        assert_eq!(wire.ended()[0].response_body_bytes, Some(5000));
    }
    // One that was moved and only not captured is certain.
    let mut wire = client();
    wire.wrote(get("/a")).read(head).wait(1_000_000_000).read("x".repeat(5000));
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.ended()[0].last_byte_ns, wire.now_ns);
    // Behind the loss of chunk heads another response's last chunk may come.
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut wire = client();
    wire.wrote(get("/a")).read(chunked).lost(Direction::In, 100).read("3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(wire.summary(), ["GET /a → 200 ~"]);
    assert_eq!(wire.ended()[0].response_body_bytes, None);
    // Of a head that goes on in what was lost the status is known.
    let mut wire = client();
    wire.wrote(get("/a")).read("HTTP/1.1 200 OK\r\nServer: x\r\n");
    let seen_ns = wire.now_ns;
    wire.lost(Direction::In, 100).wait(5_000_000_000).read("abc");
    assert_eq!(wire.summary(), ["GET /a → 200 ~"]);
    assert_eq!(wire.ended()[0].last_byte_ns, seen_ns);
    // And of a request's head nothing is.
    let mut wire = server();
    wire.read("GET /a HTTP/1.1\r\nHost: a\r\n")
        .lost(Direction::In, 100)
        .read("X: y\r\n\r\n")
        .wrote(answer(200));
    assert_eq!(wire.wait(60_000_000).summary(), [""; 0]);
}

#[test]
fn a_response_alone_confirms_nothing() {
    let mut wire = Wire::new(Role::Unknown);
    wire.read(OK);
    assert!(!wire.conversation.is_confirmed());
    wire.wrote(get("/a")).read(OK);
    assert!(wire.conversation.is_confirmed());
}

#[test]
fn a_connection_joined_in_the_middle_begins_with_the_next_request() {
    let mut wire = Wire::new(Role::Unknown);
    wire.wrote("x".repeat(3000)).wrote("the rest of some response").read(get("/b")).wrote(OK);
    wire.wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /b → 200"]);
    assert_eq!(wire.began()[0].direction, Direction::In);
    // Its first message is a response, to a request that was not seen.
    let mut wire = Wire::new(Role::Unknown);
    wire.read(OK).wrote(get("/b")).read(OK);
    assert_eq!(wire.summary(), ["GET /b → 200"]);
    assert_eq!(wire.began()[0].direction, Direction::Out);
    // It pipelines: which response is whose cannot be known.
    let mut wire = Wire::new(Role::Unknown);
    wire.read(get("/b")).read(get("/c")).wrote(OK).wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /b → ×Gap", "GET /c → ×Gap"]);
}

#[test]
fn an_answer_that_a_call_from_before_has_read_is_not_taken_for_the_next_one() {
    // A goroutine waits in crypto/tls's Read when it begins to be probed: what it reads then is not seen.
    let mut wire = Wire { is_decrypted: true, ..client() };
    wire.conversation.was_read_late();
    wire.wrote(get("/0"));
    for number in 1..10 {
        wire.wait(10_000_000).wrote(get(&format!("/{number}"))).wait(1_000_000).read(answer(200 + number));
    }
    let told = wire.summary();
    assert_eq!(told[..2], ["GET /0 → ×Gap", "GET /1 → ×Gap"]);
    assert_eq!(told[2..], ["GET /6 → 206", "GET /7 → 207", "GET /8 → 208", "GET /9 → 209"]);
    // Twice is no accident.
    let mut wire = Wire { is_decrypted: true, ..client() };
    wire.conversation.was_read_late();
    for number in 0..6 {
        wire.wrote(get("/a")).wrote(get("/b")).read(answer(200 + number)).wait(2_000_000_000);
    }
    assert!(wire.summary().iter().all(|told| told.ends_with("×Gap")), "{:?}", wire.summary());
    assert_eq!(wire.conversation.capture(), Capture::Nothing);
    // Who was there from the beginning takes it for what it is.
    let mut wire = Wire { is_decrypted: true, ..client() };
    wire.wrote(get("/a")).wrote(get("/b")).read(answer(201)).read(answer(202));
    assert_eq!(wire.summary(), ["GET /a → 201", "GET /b → 202"]);
}

#[test]
fn a_short_write_ends_with_the_write_that_moves_the_last_byte() {
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let mut wire = server();
    wire.read(get("/a")).wrote_only(&response, 40_000).wait(200_000_000);
    assert_eq!(wire.summary(), ["GET /a → …"]);
    wire.wrote_only(&response[40_000..], 0).wait(200_000_000).wrote_only(&response[40_000..], 30_000);
    assert_eq!(wire.summary(), ["GET /a → …"]);
    wire.wrote(&response[70_000..]);
    let last_ns = wire.now_ns;
    wire.read(get("/b")).wrote(OK).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 200"]);
    assert_eq!(wire.ended()[0].last_byte_ns, last_ns);
    assert_eq!(wire.ended()[0].response_body_bytes, Some(100_000));
    assert!(!wire.began()[1].overlaps);
    assert_eq!(wire.discarded(), []);
}

#[test]
fn a_short_write_within_what_was_parsed() {
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for moved in 0..response.len() {
        let mut wire = server();
        wire.read(get("/a")).wrote_only(response, moved as u64).wait(100_000_000);
        assert_eq!(wire.summary(), ["GET /a → …"], "{moved}");
        wire.wrote(&response[moved..]);
        let last_ns = wire.now_ns;
        wire.wait(50_000_000);
        assert_eq!(wire.summary(), ["GET /a → 200"], "{moved}");
        assert_eq!(wire.ended()[0].last_byte_ns, last_ns);
        // Or it never comes.
        let mut wire = server();
        wire.read(get("/a")).wrote_only(response, moved as u64).end(Ending::Reset);
        assert_eq!(wire.summary(), ["GET /a → 200 !Reset"], "{moved}");
    }
}

#[test]
fn a_request_that_its_connection_did_not_take_is_none() {
    let mut wire = client();
    wire.wrote(get("/a")).read(OK).wrote_only(get("/b"), 0).end(Ending::Reset);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → ×NotSent"]);
    // It took it at the second attempt.
    let mut wire = client();
    wire.wrote_only(get("/b"), 0).wrote(get("/b")).read(OK);
    assert_eq!(wire.summary(), ["GET /b → 200"]);
}

#[test]
fn a_write_may_be_corrected_after_the_answer_was_read() {
    let mut wire = client();
    let body = "x".repeat(50_000);
    let begin = wire.positions[1];
    wire.wrote(format!("POST /a HTTP/1.1\r\nContent-Length: 50000\r\n\r\n{body}"));
    wire.read("HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n").amend(begin, 20_000);
    wire.end(Ending::Closed);
    assert_eq!(wire.summary(), ["POST /a → 413"]);
}

#[test]
fn a_lost_correction_is_seen_by_the_next_write() {
    let response = format!("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{}", "x".repeat(100_000));
    let mut wire = server();
    wire.read(get("/a")).wrote(&response);
    wire.positions[1] = 40_000;
    wire.wrote(&response[40_000..]);
    let last_ns = wire.now_ns;
    wire.wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert!(wire.ended()[0].last_byte_ns <= last_ns);
}

#[test]
fn a_request_stands_where_tcp_has_numbered_its_first_byte() {
    // The number that TCP gave the first byte of the connection is near its end: numbers begin anew at 2³².
    let start = u32::MAX - 20;
    let mut wire = server();
    for target in ["/first", "/second"] {
        let mut request = wire.fragment(Direction::In, get(target).as_bytes());
        request.sequence = Some(start.wrapping_add(request.position as u32));
        wire.take(&request);
        wire.wrote(OK);
    }
    let places: Vec<FirstByte> = wire.began().iter().map(|began| began.first_byte).collect();
    let second = start.wrapping_add(get("/first").len() as u32);
    assert!(second < start, "behind 2³²");
    assert_eq!(places, [FirstByte::Sequence(start), FirstByte::Sequence(second)]);
}

#[test]
fn without_tcps_numbers_a_request_stands_behind_so_many_bytes_if_all_were_counted() {
    let mut wire = client();
    wire.wrote(get("/first")).read(OK).wrote(get("/second")).read(OK);
    let places: Vec<FirstByte> = wire.began().iter().map(|began| began.first_byte).collect();
    let second = get("/first").len() as u64;
    assert_eq!(places, [FirstByte::Position(0), FirstByte::Position(second)]);
    // On a connection that was there before us nobody knows how many there were.
    let mut late = Wire::new(Role::Unknown);
    late.read(get("/late")).wrote(OK).read(get("/later")).wrote(OK);
    assert!(late.began().iter().all(|began| began.first_byte == FirstByte::Unknown));
    // The two ends of a connection may count in different ways; those of one way have to agree.
    assert!(places[0].may_be(FirstByte::Sequence(9)) && FirstByte::Unknown.may_be(places[1]));
    assert!(!places[0].may_be(places[1]) && !FirstByte::Sequence(1).may_be(FirstByte::Sequence(2)));
}
