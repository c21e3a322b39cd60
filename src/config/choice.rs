//! Keys whose values are words out of a few.

use serde_json::Value as Json;

use super::suggest;
use super::value::Scalar;

macro_rules! choice {
    (
        $(#[$of_type:meta])*
        pub enum $name:ident { $( $(#[$of_variant:meta])* $variant:ident = $word:literal $(| $alias:literal)*, )* }
    ) => {
        $(#[$of_type])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $( $(#[$of_variant])* $variant, )* }

        impl $name {
            const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word in the configuration.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl Scalar for $name {
            fn expected() -> String {
                one_of(Self::WORDS)
            }

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $( $word $(| $alias)* => Ok(Self::$variant), )*
                    _ => Err(suggest::nearest(text, Self::WORDS.iter().copied())
                        .map_or_else(String::new, |word| format!("did you mean `{word}`?"))),
                }
            }

            fn to_json(&self) -> Json {
                Json::from(self.as_str())
            }
        }
    };
}

fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [word] => (*word).to_owned(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}

choice! {
    /// How much is logged.
    pub enum LogLevel {
        /// What failed.
        Error = "error",
        /// And what was lost or is degraded.
        Warn = "warn" | "warning",
        /// And what begins and ends.
        Info = "info",
        /// And what is decided on the way.
        Debug = "debug",
        /// And each event.
        Trace = "trace",
    }
}

choice! {
    /// How log lines are written.
    pub enum LogFormat {
        /// An object a line, with `timestamp`, `level`, `msg`.
        Json = "json",
        /// For people.
        Text = "text",
    }
}

choice! {
    /// How OTLP is spoken.
    pub enum Protocol {
        /// gRPC.
        Grpc = "grpc",
        /// Protobuf over HTTP.
        HttpProtobuf = "http/protobuf" | "http",
        /// JSON over HTTP.
        HttpJson = "http/json",
    }
}

choice! {
    /// How requests are compressed.
    pub enum Compression {
        /// By gzip.
        Gzip = "gzip",
        /// Not at all.
        None = "none",
    }
}

choice! {
    /// How it is decided whether a trace is sampled.
    pub enum Sampler {
        /// As the parent was, else by the trace id.
        ParentBasedTraceIdRatio = "parent_based_traceidratio" | "parentbased_traceidratio",
    }
}

choice! {
    /// Which names the attributes of spans have.
    pub enum SemanticConventions {
        /// OpenTelemetry's stable conventions.
        Stable = "stable",
        /// Those before them: `http.method`, `net.peer.ip`.
        Seed = "seed",
        /// Both beside each other.
        Both = "both",
    }
}

choice! {
    /// How a request's context goes on to the service that it is sent to.
    pub enum ContextPropagation {
        /// In an option of TCP's header, to private addresses.
        TcpOption = "tcp_option",
        /// There, and also in a header of HTTP/1 where the kernel is fit for that.
        HttpHeader = "http_header",
        /// Not at all.
        Disabled = "disabled",
    }
}

choice! {
    /// Whether spans are exported of a process that exports its own.
    pub enum SpanExport {
        /// Only of processes without an SDK.
        Auto = "auto",
        /// Of all.
        Always = "always",
        /// Of none.
        Never = "never",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::value::KeyType;
    use crate::config::value::tests::check_scalar;

    #[test]
    fn words_are_read_as_they_stand_and_aliases_become_the_word() {
        check_scalar::<LogLevel>(
            &[("error", "error"), ("warn", "warn"), ("warning", "warn"), ("trace", "trace")],
            &["INFO", "", "information", "inf\0o"],
        );
        check_scalar::<Protocol>(&[("grpc", "grpc"), ("http", "http/protobuf")], &["https", "gRPC"]);
        check_scalar::<Sampler>(&[("parentbased_traceidratio", "parent_based_traceidratio")], &["always_on"]);
    }

    #[test]
    fn a_mistyped_word_is_told_the_nearest_one() {
        let message = LogLevel::from_text("degub").expect_err("no word");
        assert_eq!(message, "`degub` is not error, warn, info, debug or trace: did you mean `debug`?");
        let message = LogLevel::from_text("verbose").expect_err("no word");
        assert!(message.ends_with("trace"), "nothing is near: {message}");
    }
}
