//! What a server says, as far as it is read. Further keys are stepped over.

use anyhow::Context;
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::check::MachineFacts;
use crate::check::stretches::Stretch;
use crate::export::http_client::one_line;

/// `/api/v1/profiles/windows`.
#[derive(Debug, Deserialize)]
pub(super) struct Windows {
    windows: Vec<ListedWindow>,
}

#[derive(Debug, Deserialize)]
struct ListedWindow {
    from: String,
    to: String,
    value: i64,
}

impl Windows {
    /// The windows that have more than nothing.
    ///
    /// # Errors
    /// A time that is none.
    pub(super) fn read(self) -> anyhow::Result<Vec<Stretch>> {
        let listed = self.windows.iter();
        let read = listed.filter_map(|window| {
            let value = u64::try_from(window.value).ok().filter(|value| *value > 0)?;
            let times = unix_ns(&window.from).and_then(|from| Ok((from, unix_ns(&window.to)?)));
            Some(times.map(|(from_unix_ns, to_unix_ns)| Stretch::of_window(from_unix_ns, to_unix_ns, value)))
        });
        read.collect()
    }
}

fn unix_ns(text: &str) -> anyhow::Result<u64> {
    let parsed = OffsetDateTime::parse(text, &Rfc3339).ok();
    parsed
        .and_then(|moment| u64::try_from(moment.unix_timestamp_nanos()).ok())
        .with_context(|| format!("its answer has {:?} for a time", one_line(text)))
}

/// `/status`.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    host: Host,
}

#[derive(Debug, Deserialize)]
struct Host {
    arch: Option<String>,
    kernel: Option<String>,
    cpu_model: Option<String>,
    cpus: Option<u32>,
}

impl Status {
    /// What it says of the machine.
    pub(super) fn machine(self) -> MachineFacts {
        let Host { arch, kernel, cpu_model, cpus } = self.host;
        let text = |text: Option<String>| text.map(|text| one_line(&text));
        // `/status` has Go's names.
        let architecture = text(arch).map(|arch| match arch.as_str() {
            "amd64" => "x86_64".to_owned(),
            "arm64" => "aarch64".to_owned(),
            _ => arch,
        });
        MachineFacts {
            architecture,
            kernel: text(kernel),
            cpu_model: text(cpu_model),
            cpus,
            ..MachineFacts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn windows_and_machines_are_read_and_further_keys_stepped_over() {
        let text = r#"{"type":"cpu","windows":[{"from":"1970-01-01T00:00:10Z","to":"1970-01-01T00:00:20.5Z","value":7,"x":1},
            {"from":"1970-01-01T00:00:10Z","to":"1970-01-01T00:00:20Z","value":-1}]}"#;
        let windows: Windows = serde_json::from_str(text).expect("it is one");
        let expected = Stretch::of_window(10_000_000_000, 20_500_000_000, 7);
        assert_eq!(windows.read().expect("times"), [expected]);
        let status: Status =
            serde_json::from_str(r#"{"host":{"arch":"amd64","kernel":"6.1","cpus":null}}"#).expect("one");
        let machine = status.machine();
        assert_eq!(
            (machine.architecture.as_deref(), machine.kernel.as_deref()),
            (Some("x86_64"), Some("6.1"))
        );
        assert_eq!((machine.cpus, machine.cpu_model), (None, None));
    }

    proptest! {
        #[test]
        fn what_is_no_time_is_an_error(text in "\\PC{0,30}", value: i64) {
            let windows = Windows {
                windows: vec![ListedWindow { from: text, to: "1960-01-01T00:00:00Z".to_owned(), value }],
            };
            prop_assert_eq!(windows.read().is_err(), value > 0);
        }
    }
}
