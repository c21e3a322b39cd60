//! The log, on standard error.
//!
//! `serve` writes a line for each event: as JSON (`{"timestamp", "level", "msg", …}` with the event's fields
//! beside them) or as text for people. Other subcommands log as their tools do.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use serde_json::Value as Json;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{LogFormat, LogLevel};
use crate::model::rfc3339;

/// Something else that wants to know of spans and events.
pub type MoreLayers = Box<dyn Layer<Registry> + Send + Sync>;
/// Changes the level from now on.
pub type SetLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// The log of subcommands that do one thing and end: warnings, or what `SPANFLAME_LOG_LEVEL` says.
pub fn begin_plain() {
    let filter = EnvFilter::try_from_env("SPANFLAME_LOG_LEVEL").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// The log of `serve`. Panics are logged too.
#[must_use]
pub fn begin(format: LogFormat, level: LogLevel, more: Option<MoreLayers>) -> SetLevel {
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines { format })
        .with_writer(std::io::stderr)
        .with_filter(filter);
    Registry::default().with(more).with(lines).init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload();
        let said = said.downcast_ref::<&str>().copied().or(said.downcast_ref::<String>().map(String::as_str));
        let said = said.unwrap_or("(no message)");
        let thread = std::thread::current().name().unwrap_or_default().to_owned();
        tracing::error!(place, thread, "Panicked: {said}");
    }));
    Box::new(move |level| {
        // It fails only when the log is gone.
        let _ = handle.reload(filter_of(level));
    })
}

/// Our own events from this level on; of the libraries below us what is worse than all is well.
fn filter_of(level: LogLevel) -> Targets {
    let (ours, others) = match level {
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::INFO),
    };
    Targets::new().with_default(others).with_target("spanflame", ours)
}

struct Lines {
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = name_of(*event.metadata().level());
        let timestamp = rfc3339::to_millisecond(SystemTime::now());
        match self.format {
            LogFormat::Json => writeln!(writer, "{}", json_line(&timestamp, level, &fields)),
            LogFormat::Text => writeln!(writer, "{}", text_line(&timestamp, level, &fields)),
        }
    }
}

fn name_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json_line(timestamp: &str, level: &str, fields: &Fields) -> String {
    // Written by hand for the order of the keys, which is for people.
    let mut line = format!(
        "{{\"timestamp\":\"{timestamp}\",\"level\":\"{level}\",\"msg\":{}",
        Json::from(fields.message.as_str())
    );
    for (name, value) in &fields.others {
        let _ = write!(line, ",{}:{value}", Json::from(*name));
    }
    line.push('}');
    line
}

fn text_line(timestamp: &str, level: &str, fields: &Fields) -> String {
    let mut line = format!("{timestamp} {level:<5} ");
    // One event is one line, whatever it speaks of.
    for character in fields.message.chars() {
        match character {
            '\n' => line.push_str("; "),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    for (name, value) in &fields.others {
        match value {
            Json::String(text) if is_word(text) => {
                let _ = write!(line, " {name}={text}");
            }
            value => {
                let _ = write!(line, " {name}={value}");
            }
        }
    }
    line
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| !letter.is_whitespace() && !letter.is_control() && letter != '"')
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Json)>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: Json) {
        match field.name() {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned),
            // A second key of the line's own would make it ambiguous.
            "timestamp" | "level" | "msg" => {}
            name => self.others.push((name.strip_prefix("r#").unwrap_or(name), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Json::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Json::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Json::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Json::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Json::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Json::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is written of one event.
    fn line(format: LogFormat, log: impl FnOnce()) -> String {
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&written);
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Lines { format })
            .with_writer(move || Kept(Arc::clone(&kept)));
        tracing::subscriber::with_default(Registry::default().with(layer), log);
        let bytes = written.lock().expect("nobody panicked").clone();
        String::from_utf8(bytes).expect("text")
    }

    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_has_the_documented_keys_first_and_the_event_s_fields_after_them() {
        let line = line(LogFormat::Json, || {
            tracing::info!(
                spans = 512,
                latency_ms = 45,
                endpoint = "otel \"x\"\n",
                ok = true,
                "Exported batch"
            );
        });
        let (timestamp, rest) = line.split_at(39);
        assert!(timestamp.starts_with("{\"timestamp\":\"2") && timestamp.ends_with("Z\""), "{timestamp}");
        let expected = ",\"level\":\"info\",\"msg\":\"Exported batch\",\"spans\":512,\"latency_ms\":45,\
                        \"endpoint\":\"otel \\\"x\\\"\\n\",\"ok\":true}\n";
        assert_eq!(rest, expected);
        serde_json::from_str::<Json>(&line).expect("JSON");
    }

    #[test]
    fn a_text_line_is_one_line_whatever_is_in_it() {
        let line =
            line(LogFormat::Text, || tracing::warn!(a = "x y", b = "z", n = 1.5, "two\nlines \u{1b}[31m"));
        assert_eq!(&line[24..], " warn  two; lines \\u{1b}[31m a=\"x y\" b=z n=1.5\n");
    }

    #[test]
    fn levels_are_ours_and_libraries_only_warn() {
        let debug = filter_of(LogLevel::Debug);
        assert!(debug.would_enable("spanflame::server", &Level::DEBUG));
        assert!(!debug.would_enable("spanflame::server", &Level::TRACE));
        assert!(!debug.would_enable("hyper", &Level::INFO) && debug.would_enable("hyper", &Level::WARN));
        assert!(!filter_of(LogLevel::Error).would_enable("spanflame", &Level::WARN));
    }
}
