//! A service at two times, written into a server by uploads, so that it is there at once and its truth is known: a
//! program whose functions have the shares of `fixtures/c/knob.c`, with as many samples in each window as chance
//! gives it, and one function that costs more at the later time.

use spanflame::model::{Frame, Function, Label, Location, Mapping, Profile, Sample, ValueType};

use super::server::Server;

/// The service.
pub const SERVICE: &str = "till";
/// The function that costs more.
pub const CHANGED: &str = "price_items";
/// The others, with how often they are met in a hundred samples.
const OTHERS: [(&str, f64); 5] = [
    ("parse_request", 30.0),
    ("render_page", 25.0),
    ("find_route", 15.0),
    ("write_log", 12.0),
    ("apply_tax", 8.0),
];
const CHANGED_SHARE: f64 = 10.0;
const WINDOW_S: u64 = 10;
const SAMPLES_A_WINDOW: f64 = 900.0;
/// One sample at 99 Hz.
const PERIOD_NS: i64 = 10_101_010;

/// The two times, Unix seconds.
pub struct TwoTimes {
    pub base: (u64, u64),
    pub new: (u64, u64),
}

/// Writes so many windows each, ending some minutes ago; the later ones with so much more of [`CHANGED`] (0.5 is
/// +50 %).
pub fn write(server: &Server, base_windows: u64, new_windows: u64, effect: f64) -> TwoTimes {
    let now_s =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let end = (now_s - 60) / WINDOW_S * WINDOW_S;
    let middle = end - new_windows * WINDOW_S;
    let begin = middle - base_windows * WINDOW_S;
    let mut random = 0x7e57_u64;
    for number in 0..base_windows + new_windows {
        let from = begin + number * WINDOW_S;
        let effect = if from >= middle { effect } else { 0.0 };
        let path = format!("/api/v1/profiles?service={SERVICE}&from={from}&to={}", from + WINDOW_S);
        server.post(&path, window(effect, &mut random)).expect(200);
    }
    TwoTimes { base: (begin, middle), new: (middle, end) }
}

/// A pprof file.
fn window(effect: f64, random: &mut u64) -> Vec<u8> {
    let shares = OTHERS.iter().copied().chain([(CHANGED, CHANGED_SHARE * (1.0 + effect))]);
    let mut profile = Profile {
        value_types: vec![ValueType::new("samples", "count"), ValueType::new("cpu", "nanoseconds")],
        default_value: 1,
        duration_ns: WINDOW_S * 1_000_000_000,
        mappings: vec![Mapping {
            path: "/usr/bin/till".to_owned(),
            start: 0x1000,
            limit: 0x9000,
            has_functions: true,
            ..Mapping::default()
        }],
        label_sets: vec![vec![Label::text("comm", "till")]],
        ..Profile::default()
    };
    let mut location = |name: &str| {
        let function = u32::try_from(profile.functions.len()).expect("few");
        profile.functions.push(Function {
            name: name.to_owned(),
            file: "till.c".to_owned(),
            start_line: 10 + function,
            ..Function::default()
        });
        profile.locations.push(Location {
            mapping: Some(0),
            address: 0x1000 + u64::from(function) * 0x40,
            frames: vec![Frame { function, line: 12 + function }],
            ..Location::default()
        });
        function
    };
    let (main, serve) = (location("main"), location("serve"));
    let leaves: Vec<(u32, f64)> = shares.map(|(name, share)| (location(name), share)).collect();
    for (leaf, share) in leaves {
        let expected = share / 100.0 * SAMPLES_A_WINDOW;
        let count = (expected + expected.sqrt() * normal(random)).round().max(0.0) as i64;
        let stack = u32::try_from(profile.stacks.len()).expect("few");
        profile.stacks.push(vec![leaf, serve, main]);
        profile.samples.push(Sample { stack, labels: 0, values: vec![count, count * PERIOD_NS] });
    }
    let mut bytes = Vec::new();
    let options = spanflame::export::Options::default();
    spanflame::export::write(&profile, spanflame::export::Format::Pprof, &mut bytes, &options)
        .expect("memory");
    bytes
}

/// Of mean 0 and variance 1, the same each time: the sum of twelve uniform numbers (`SplitMix64`).
fn normal(state: &mut u64) -> f64 {
    let mut sum = -6.0;
    for _ in 0..12 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        sum += ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    }
    sum
}
