use super::frame::*;
use crate::model::socket::{Direction, Ending, Role};
use crate::trace::conversation::Capture;
use crate::trace::exchange::{Discarded, Known, ProtocolVersion};
use crate::trace::wire::{Wire, minted};

/// What one event carries with `SF_CAPTURE_WHOLE`.
const WHOLE_BYTES: usize = 16384;

fn wire(role: Role) -> Wire {
    Wire { head_bytes: WHOLE_BYTES, ..Wire::new(role) }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 100])
}

fn preface() -> Vec<u8> {
    [PREFACE.to_vec(), settings()].concat()
}

/// A field that is not inserted, with its name.
fn literal(name: &str, value: &str) -> Vec<u8> {
    [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat()
}

/// A field that is inserted.
fn inserted(name: &str, value: &str) -> Vec<u8> {
    let mut field = literal(name, value);
    field[0] = 0x40;
    field
}

/// `GET`, `http` and a path.
fn get_block(path: &str) -> Vec<u8> {
    [vec![0x82, 0x86], literal(":path", path)].concat()
}

fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, get_block(path))
}

fn headers_200(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, [0x88])
}

fn data(stream: u32, flags: u8, length: usize) -> Vec<u8> {
    frame(DATA, flags, stream, vec![b'x'; length])
}

/// A server whose connection has begun.
fn server() -> Wire {
    let mut wire = wire(Role::Accepted);
    wire.read(preface()).wrote([settings(), frame(SETTINGS, ACK, 0, [])].concat()).read(frame(
        SETTINGS,
        ACK,
        0,
        [],
    ));
    wire
}

fn client() -> Wire {
    let mut wire = wire(Role::Connected);
    wire.wrote(preface()).read(settings());
    wire
}

#[test]
fn a_request_and_its_response() {
    let mut wire = server();
    assert_eq!(wire.conversation.capture(), Capture::Whole);
    let block = [
        get_block("/a?b=c"),
        literal(":authority", "example"),
        literal("user-agent", "x/1"),
        literal("content-type", "text/plain"),
        literal("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        literal("tracestate", "a=1"),
        literal("tracestate", "b=2"),
        literal("x-b3-traceid", "80f198ee56343ba864fe8b2a57d3eff7"),
        literal("x-b3-spanid", "e457b5a2e4d86bd1"),
        literal("x-b3-sampled", "1"),
        literal("x-b3-parentspanid", "05e3ac9a4f6e3b90"),
    ]
    .concat();
    let mut request = wire.fragment(Direction::In, &frame(HEADERS, END_HEADERS, 1, block));
    request.minted = Some(minted(3));
    wire.take(&request);
    let began = wire.began()[0].clone();
    let value = |text: &str| Known::Value(text.into());
    assert_eq!((began.direction, began.first_byte_ns), (Direction::In, wire.now_ns));
    assert_eq!((began.minted, began.overlaps), (Some(minted(3)), false));
    assert_eq!(began.head.version, ProtocolVersion::Http2);
    assert_eq!((&began.head.method, &began.head.target), (&value("GET"), &value("/a?b=c")));
    assert_eq!((&began.head.scheme, &began.head.authority), (&value("http"), &value("example")));
    assert_eq!((&began.head.user_agent, &began.head.content_type), (&value("x/1"), &value("text/plain")));
    assert_eq!(began.head.tracestate, value("a=1,b=2"));
    assert_eq!(began.head.b3, value("80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90"));

    wire.read(data(1, END_STREAM, 10));
    assert!(!wire.conversation.is_confirmed());
    wire.wrote(headers_200(1, 0));
    let first_ns = wire.now_ns;
    assert!(wire.conversation.is_confirmed());
    wire.wrote([data(1, 0, 1000), data(1, END_STREAM, 24)].concat());
    let last_ns = wire.now_ns;
    wire.wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a?b=c → 200"]);
    let ended = wire.ended()[0].clone();
    assert_eq!((ended.first_response_byte_ns, ended.last_byte_ns), (Some(first_ns), last_ns));
    assert_eq!((ended.request_body_bytes, ended.response_body_bytes), (Some(10), Some(1024)));
    assert_eq!(wire.discarded(), []);
}

#[test]
fn pseudo_headers_that_come_late_or_twice_make_no_request() {
    let malformed = [
        [get_block("/a"), literal(":path", "/b")].concat(),
        [get_block("/a"), literal(":authority", "x"), literal(":authority", "y")].concat(),
        [literal("user-agent", "x"), get_block("/a")].concat(),
        [get_block("/a"), literal("host", "x"), literal(":authority", "x")].concat(),
    ];
    let mut wire = server();
    for (nth, block) in malformed.iter().enumerate() {
        let stream = 2 * nth as u32 + 1;
        wire.read(frame(HEADERS, END_HEADERS | END_STREAM, stream, block));
        wire.wrote(frame(RST_STREAM, 0, stream, [0, 0, 0, 1]));
    }
    assert_eq!(wire.summary(), Vec::<String>::new());
    assert_eq!(wire.discarded().iter().filter(|(_, reason)| *reason == Discarded::Malformed).count(), 4);
    // What they inserted counts all the same.
    wire.read(get(9, "/c")).wrote(headers_200(9, END_STREAM)).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /c → 200"]);
}

#[test]
fn streams_interleave_and_overlap() {
    let mut wire = client();
    wire.wrote([get(1, "/a"), get(3, "/b")].concat()).wrote(get(5, "/c"));
    wire.read([headers_200(5, END_STREAM), headers_200(1, 0)].concat());
    wire.read(data(1, END_STREAM, 3)).read(frame(HEADERS, END_HEADERS | END_STREAM, 3, [0x8d]));
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 404", "GET /c → 200"]);
    assert_eq!(wire.began().iter().map(|began| began.overlaps).collect::<Vec<_>>(), [false, true, true]);
    wire.wrote(get(7, "/d"));
    assert!(!wire.began()[3].overlaps);
}

#[test]
fn a_servers_settings_may_come_before_the_preface() {
    let mut wire = wire(Role::Accepted);
    wire.wrote(settings())
        .read(&PREFACE[..10])
        .read(&PREFACE[10..])
        .read([settings(), get(1, "/a")].concat());
    wire.wrote(headers_200(1, END_STREAM)).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.discarded(), []);
}

#[test]
fn blocks_may_be_padded_prioritised_continued_and_split_anywhere() {
    let block = [get_block("/a"), inserted("user-agent", "x/1")].concat();
    let priority = [0, 0, 0, 0, 15];
    let padded = [&[4][..], &priority, &block, &[0; 4]].concat();
    let request = [
        frame(HEADERS, END_HEADERS | END_STREAM | PADDED | HAS_PRIORITY, 1, padded),
        frame(HEADERS, END_STREAM, 3, &block[..5]),
        frame(CONTINUATION, 0, 3, &block[5..9]),
        frame(CONTINUATION, END_HEADERS, 3, &block[9..]),
        frame(HEADERS, END_HEADERS | END_STREAM, 5, [0x82, 0x86, 0x84, 0xbe]),
        frame(DATA, PADDED, 5, [2, b'a', 0, 0]),
    ]
    .concat();
    let mut wire = client();
    wire.wrote(&request);
    let expected = wire.summary();
    assert_eq!(expected, ["GET /a → …", "GET /a → …", "GET / → …"]);
    assert!(wire.began().iter().all(|began| began.head.user_agent.value() == Some("x/1")));
    for split in 1..request.len() {
        let mut wire = client();
        wire.wrote(&request[..split]).wrote(&request[split..]);
        assert_eq!(wire.summary(), expected, "{split}");
        assert_eq!(wire.discarded(), []);
    }
    let mut wire = client();
    for byte in &request {
        wire.wrote([*byte]);
    }
    assert_eq!(wire.summary(), expected);
}

#[test]
fn grpc_status_is_that_of_the_trailers_or_of_the_only_head() {
    let mut wire = client();
    let request =
        [vec![0x83, 0x86], literal(":path", "/p.S/M"), literal("content-type", "application/grpc+proto")];
    wire.wrote([frame(HEADERS, END_HEADERS, 1, request.concat()), data(1, END_STREAM, 7)].concat());
    wire.read([headers_200(1, 0), data(1, 0, 5)].concat());
    wire.read(frame(HEADERS, END_HEADERS | END_STREAM, 1, inserted("grpc-status", "13")));
    wire.wrote([frame(HEADERS, END_HEADERS, 3, request.concat()), data(3, END_STREAM, 7)].concat());
    wire.read(frame(HEADERS, END_HEADERS | END_STREAM, 3, [0x88, 0xbe]));
    assert_eq!(wire.summary(), ["POST /p.S/M → 200", "POST /p.S/M → 200"]);
    for ended in wire.ended() {
        assert_eq!(ended.grpc_status.value(), Some("13"));
        assert_eq!(ended.request_body_bytes, Some(7));
    }
}

#[test]
fn streams_that_are_reset_or_refused() {
    let mut wire = client();
    wire.wrote([get(1, "/a"), get(3, "/b"), get(5, "/c"), get(7, "/d"), get(9, "/e")].concat());
    wire.wrote(frame(RST_STREAM, 0, 1, 8_u32.to_be_bytes()));
    wire.read(headers_200(3, 0)).read(frame(RST_STREAM, 0, 3, 2_u32.to_be_bytes()));
    wire.read(frame(GOAWAY, 0, 0, [0, 0, 0, 5, 0, 0, 0, 0]))
        .read(headers_200(5, END_STREAM))
        .end(Ending::Closed);
    assert_eq!(
        wire.summary(),
        [
            "GET /a → - !Cancelled",
            "GET /b → 200 !Reset",
            "GET /c → 200",
            "GET /d → - !Reset",
            "GET /e → - !Reset"
        ]
    );
    let mut wire = client();
    wire.wrote(get(1, "/a")).wrote_only(get(3, "/b"), 0).end(Ending::TimedOut);
    assert_eq!(wire.summary(), ["GET /a → - !TimedOut", "GET /b → ×NotSent"]);
}

#[test]
fn pushed_responses_keep_the_table_right() {
    let mut wire = client();
    wire.wrote(get(1, "/a"));
    let promise = [&2_u32.to_be_bytes()[..], &[0x82, 0x86], &inserted(":status", "299")].concat();
    wire.read(frame(PUSH_PROMISE, END_HEADERS, 1, promise));
    wire.read([headers_200(2, END_STREAM), frame(HEADERS, END_HEADERS | END_STREAM, 1, [0xbe])].concat());
    assert_eq!(wire.summary(), ["GET /a → 299"]);
}

#[test]
fn informational_responses_are_none() {
    let mut wire = client();
    wire.wrote(get(1, "/a")).read(frame(HEADERS, END_HEADERS, 1, literal(":status", "103")));
    wire.read(headers_200(1, END_STREAM));
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    assert_eq!(wire.ended()[0].first_response_byte_ns, Some(wire.now_ns));
}

#[test]
fn joined_in_the_middle_what_is_not_known_is_unknown() {
    for role in [Role::Unknown, Role::Accepted, Role::Connected] {
        let mut wire = wire(role);
        // The client sends the rest of a body, then a request whose path and agent were inserted before.
        let request = [0x83, 0x86, 0xc1, 0xc0, 0xbf].to_vec();
        let (sends, answers) = match role {
            Role::Accepted => (Direction::In, Direction::Out),
            _ => (Direction::Out, Direction::In),
        };
        wire.moved(sends, vec![b'x'; 500]).moved(sends, data(501, END_STREAM, 3));
        wire.moved(answers, frame(WINDOW_UPDATE, 0, 0, [0, 0, 1, 0]));
        wire.moved(sends, frame(HEADERS, END_HEADERS | END_STREAM, 503, &request));
        wire.moved(answers, frame(HEADERS, END_HEADERS | END_STREAM, 503, [0x88, 0xbf])).wait(50_000_000);
        assert_eq!(wire.summary(), ["POST ? → 200"], "{role:?}");
        let head = &wire.began()[0].head;
        assert_eq!((&head.target, &head.authority), (&Known::Unknown, &Known::Unknown));
        assert_eq!((&head.user_agent, &head.traceparent), (&Known::Unknown, &Known::Unknown));
        assert_eq!(head.scheme.value(), Some("http"));
        assert_eq!(wire.ended()[0].grpc_status, Known::Unknown);
        // What is sent from now on is known.
        let block = [&[0x82, 0x86][..], &inserted(":path", "/b"), &inserted("user-agent", "x")].concat();
        wire.moved(sends, frame(HEADERS, END_HEADERS | END_STREAM, 505, block));
        wire.moved(sends, frame(HEADERS, END_HEADERS | END_STREAM, 507, [0x82, 0x86, 0xbf, 0xbe]));
        let began = wire.began();
        assert_eq!(
            (&began[1].head.target, &began[2].head.target),
            (&began[1].head.target, &began[1].head.target)
        );
        assert_eq!(began[2].head.user_agent.value(), Some("x"));
        assert_eq!(began[2].head.traceparent, Known::Absent, "every field's name was known");
    }
}

#[test]
fn a_gap_forgets_the_table_and_finds_the_frames_again() {
    let mut wire = server();
    let block = [get_block("/a"), inserted("user-agent", "x")].concat();
    wire.read(frame(HEADERS, END_HEADERS | END_STREAM, 1, block)).wrote(headers_200(1, END_STREAM));
    wire.lost(Direction::In, 100).read(vec![b'x'; 50]);
    wire.read(frame(HEADERS, END_HEADERS | END_STREAM, 5, [0x82, 0x86, 0x84, 0xbe]))
        .wrote(headers_200(5, END_STREAM));
    wire.wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200", "GET / → 200"]);
    assert_eq!(wire.began()[1].head.user_agent, Known::Unknown);
    assert_eq!(wire.discarded(), [(None, Discarded::Gap)]);
}

#[test]
fn an_exchange_whose_end_may_have_been_lost_is_given_up_in_the_end() {
    let mut wire = client();
    wire.wrote([get(1, "/a"), get(3, "/b")].concat()).lost(Direction::In, 40);
    wire.read(headers_200(3, 0)).wait(9_000_000_000);
    assert_eq!(wire.summary(), ["GET /a → …", "GET /b → …"]);
    wire.wait(2_000_000_000);
    assert_eq!(wire.summary(), ["GET /a → ×Gap", "GET /b → …"]);
    // Frames in a write that is longer than what is captured.
    let mut wire = server();
    wire.read(get(1, "/a"));
    wire.wrote([headers_200(1, 0), data(1, 0, 16384), data(1, 0, 16384), data(1, END_STREAM, 5)].concat());
    let written_ns = wire.now_ns;
    wire.wait(60_000_000).wait(900_000_000);
    assert_eq!(wire.summary(), ["GET /a → …"]);
    wire.wait(100_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200 ~"]);
    assert_eq!(wire.ended()[0].last_byte_ns, written_ns);
    // Its trailers come without the head that was lost.
    let mut wire = client();
    wire.wrote(get(1, "/a")).lost(Direction::In, 40).read(data(1, END_STREAM, 3));
    assert_eq!(wire.summary(), ["GET /a → ?"]);
}

#[test]
fn an_end_that_was_lost_is_uncertain_and_is_when_the_last_byte_before_it_was_seen() {
    // The frame that ends the stream ends within what was lost, or where it ends.
    let body = data(1, END_STREAM, 5000);
    for beyond in [0, 20] {
        let mut wire = client();
        wire.wrote(get(1, "/a")).read([headers_200(1, 0), body[..100].to_vec()].concat());
        let seen_ns = wire.now_ns;
        wire.lost(Direction::In, 4909 + beyond).wait(5_000_000_000).read(frame(PING, 0, 0, [0; 8]));
        assert_eq!(wire.summary(), ["GET /a → 200 ~"], "{beyond}");
        assert_eq!(wire.ended()[0].last_byte_ns, seen_ns);
    }
    // It may have been among other frames.
    let mut wire = client();
    wire.wrote([get(1, "/a"), get(3, "/b")].concat()).read([headers_200(1, 0), headers_200(3, 0)].concat());
    let seen_ns = wire.now_ns;
    wire.read(data(3, 0, 10)).lost(Direction::In, 50).wait(3_000_000_000);
    wire.read(data(3, END_STREAM, 10)).wait(1_000_000_000);
    assert_eq!(wire.summary(), ["GET /a → 200 ~", "GET /b → 200"]);
    assert_eq!(wire.ended()[1].last_byte_ns, seen_ns);
}

#[test]
fn a_request_whose_cancellation_may_have_been_lost_is_not_kept_for_ever() {
    let mut wire = server();
    wire.read([get(1, "/a"), get(3, "/b")].concat()).wrote(headers_200(3, 0)).lost(Direction::In, 13);
    wire.read(frame(PING, 0, 0, [0; 8])).wait(50_000_000_000).wrote(data(3, 0, 10));
    let seen_ns = wire.now_ns;
    assert_eq!(wire.summary(), ["GET /a → …", "GET /b → …"]);
    wire.wait(11_000_000_000);
    assert_eq!(wire.summary(), ["GET /a → ×Gap", "GET /b → …"], "a sign of it puts that off");
    wire.wait(50_000_000_000);
    assert_eq!(wire.summary(), ["GET /a → ×Gap", "GET /b → 200 ~"]);
    assert_eq!(wire.ended()[0].last_byte_ns, seen_ns);
    assert_eq!(wire.conversation.settles_at(), None);
}

#[test]
fn requests_that_are_not_followed_are_counted() {
    let mut wire = client();
    wire.wrote(get(2, "/even")).wrote(get(5, "/a")).wrote(get(3, "/late"));
    // Trailers of a request whose head was never seen, and of one that has been answered.
    wire.wrote(frame(HEADERS, END_HEADERS | END_STREAM, 7, literal("x", "y")));
    wire.read(headers_200(5, END_STREAM)).wrote(frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        5,
        literal("x", "y"),
    ));
    assert_eq!(wire.summary(), ["GET /a → 200"]);
    let malformed = (None, Discarded::Malformed);
    assert_eq!(wire.discarded(), [malformed, malformed, (None, Discarded::Gap)]);
}

#[test]
fn bodies_may_be_lost() {
    let mut wire = client();
    wire.wrote(get(1, "/a")).read(headers_200(1, 0));
    let body = data(1, END_STREAM, 100_000);
    wire.read(&body[..20]).lost(Direction::In, 90_000).read(&body[90_020..]).wrote(get(3, "/b"));
    wire.read(headers_200(3, END_STREAM));
    assert_eq!(wire.summary(), ["GET /a → 200", "GET /b → 200"]);
    assert_eq!(wire.ended()[0].response_body_bytes, Some(100_000));
    assert_eq!(wire.discarded(), []);
}

#[test]
fn a_short_write_ends_with_the_write_that_moves_the_last_byte() {
    let response = [headers_200(1, 0), data(1, 0, 6000), data(1, 0, 6000), data(1, END_STREAM, 5)].concat();
    for moved in [0, 1, 9, 10, 19, 6018, 6019, 10000, response.len() - 1] {
        let mut wire = server();
        wire.read(get(1, "/a")).wrote_only(&response, moved as u64).read(frame(PING, 0, 0, [0; 8]));
        wire.wait(60_000_000);
        assert_eq!(wire.summary(), ["GET /a → …"], "{moved}");
        wire.wrote(&response[moved..]);
        let last_ns = wire.now_ns;
        wire.wait(60_000_000);
        assert_eq!(wire.summary(), ["GET /a → 200"], "{moved}");
        assert_eq!(wire.ended()[0].last_byte_ns, last_ns);
        assert_eq!(wire.discarded(), [], "{moved}");
    }
}

#[test]
fn more_streams_than_are_followed_are_counted() {
    let mut wire = client();
    for nth in 0..1030 {
        wire.wrote(get(2 * nth + 1, "/a"));
    }
    assert_eq!(wire.discarded(), vec![(None, Discarded::TooMany); 6]);
    assert_eq!(wire.began().len(), 1024);
}

#[test]
fn a_block_that_is_too_long_is_passed() {
    let mut wire = client();
    let part = vec![0; 16000];
    wire.wrote(frame(HEADERS, END_STREAM, 1, [0x82]));
    for _ in 0..5 {
        wire.wrote(frame(CONTINUATION, 0, 1, &part));
    }
    wire.wrote(frame(CONTINUATION, END_HEADERS, 1, [0x86]))
        .wrote(get(3, "/b"))
        .read(headers_200(3, END_STREAM));
    assert_eq!(wire.summary(), ["GET /b → 200"]);
    assert_eq!(wire.discarded(), [(None, Discarded::HeadTooLong)]);
    let mut wire = client();
    wire.wrote(frame(HEADERS, END_HEADERS | END_STREAM, 1, vec![0; 70_000])).wrote(get(3, "/b"));
    assert_eq!(wire.summary(), ["GET /b → …"]);
}

#[test]
fn who_answers_otherwise_does_not_speak_it() {
    let mut wire = client();
    wire.wrote(get(1, "/a")).read("HTTP/1.1 400 Bad Request\r\n\r\n");
    let mut other = wire;
    assert_eq!(other.summary(), ["GET /a → ×NotConfirmed"]);
    other.wrote(get(3, "/b"));
    assert_eq!(other.began().len(), 1);
    assert_eq!(other.conversation.capture(), Capture::Nothing);
}

#[test]
fn an_upgrade_from_http_1_is_followed() {
    let mut wire = wire(Role::Accepted);
    wire.read("GET /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n");
    wire.wrote("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    wire.read(preface()).wrote([settings(), headers_200(1, END_STREAM)].concat());
    wire.read(get(3, "/b")).wrote(headers_200(3, END_STREAM)).wait(50_000_000);
    assert_eq!(wire.summary(), ["GET /a → 101", "GET /b → 200"]);
}
