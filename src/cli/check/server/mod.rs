//! Sides that a running server keeps: `URL?service=…&from=…&to=…`, any selector of `/api/v1/profiles/*`.
//!
//! Comes in: URLs. Goes out: runs, each of a stretch of windows that has about as much of what is selected as the
//! others. Never: a file; a password in a message or a report; an answer of unbounded size or time.

mod address;
mod answers;
mod client;

use std::path::Path;

use anyhow::Context;

use self::address::Address;
use self::answers::Status;
use self::client::{AskError, Client};
use crate::check::run_facts::SCHEMA_VERSION;
use crate::check::stretches::{Stretch, Windows};
use crate::check::{MachineFacts, Run, RunFacts, Wanted};
use crate::cli::CommandError;
use crate::export::Format;
use crate::ingest;
use crate::model::rfc3339;

/// Variable of the environment with the token that servers want, where the URL has none.
pub(super) const TOKEN_VARIABLE: &str = "SPANFLAME_CHECK_TOKEN";
/// A longer list, or a status, is refused.
const MAX_JSON_BYTES: usize = 32 << 20;
/// A larger profile, compressed, is refused.
const MAX_PROFILE_BYTES: usize = 64 << 20;

/// A range of the windows of a server.
pub(super) struct KeptSide {
    label: String,
    address: Address,
}

impl KeptSide {
    /// The side that this stands for, if it is a URL. `label` is `base` or `new`.
    ///
    /// # Errors
    /// [`CommandError::Usage`] for a URL that cannot be asked.
    pub(super) fn of(label: &str, source: &Path) -> Result<Option<Self>, CommandError> {
        let token = std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty());
        let Some(address) = source.to_str().and_then(|text| Address::of(text, token.as_deref())) else {
            return Ok(None);
        };
        let address = address.with_context(|| format!("--{label}")).map_err(CommandError::Usage)?;
        Ok(Some(Self { label: label.to_owned(), address }))
    }

    /// How it is called in reports: without credentials.
    pub(super) fn name(&self) -> &str {
        self.address.shown()
    }

    /// Whether what `/status` says of the server's host says on what this was recorded. What is asked for by its
    /// revision was mostly sent there, by a build on another machine.
    pub(super) fn is_of_its_host(&self) -> bool {
        !self.address.has_parameter("git_sha")
    }

    /// The server, without a selector and without credentials.
    pub(super) fn base(&self) -> &str {
        self.address.base()
    }

    /// Asks for its windows.
    ///
    /// # Errors
    /// [`CommandError::Usage`] for a selector that the server does not understand; else, and for too few windows,
    /// [`CommandError::Failed`].
    pub(super) fn windows(&self) -> Result<Windows, CommandError> {
        let listed: answers::Windows = self.ask_json(&self.client()?, &self.address.windows())?;
        let windows = Windows::asked_for_by_range(listed.read().map_err(|error| self.failed(error))?);
        windows.check().map_err(|error| self.failed(error.into()))?;
        Ok(windows)
    }

    /// Reads so many runs, of its windows. `with_machine` asks the server for what it runs on.
    ///
    /// # Errors
    /// As [`Self::windows`].
    pub(super) fn runs(
        &self,
        windows: &Windows,
        count: usize,
        wanted: Wanted<'_>,
        with_machine: bool,
    ) -> Result<Vec<Run>, CommandError> {
        let client = self.client()?;
        let machine = match with_machine {
            true => self.machine(&client)?,
            false => MachineFacts::default(),
        };
        let stretches = windows.stretches(count);
        tracing::info!("{}: {} windows as {} runs", self.name(), windows.found(), stretches.len());
        stretches.iter().map(|stretch| self.run(&client, stretch, wanted, &machine)).collect()
    }

    fn client(&self) -> Result<Client, CommandError> {
        Client::new(self.address.is_tls()).map_err(|error| self.failed(error))
    }

    fn run(
        &self,
        client: &Client,
        stretch: &Stretch,
        wanted: Wanted<'_>,
        machine: &MachineFacts,
    ) -> Result<Run, CommandError> {
        let (from, to) = (rfc3339::exact(stretch.from_unix_ns), rfc3339::exact(stretch.to_unix_ns));
        let name = format!("{} from {from} to {to}", self.name());
        let query = self.address.profile(&from, &to);
        let bytes =
            client.get(&self.address, &query, MAX_PROFILE_BYTES).map_err(|error| self.refused(error))?;
        let profile = ingest::read(&bytes, Format::Pprof, &ingest::Options::default())
            .with_context(|| format!("{name}: what the server sent"))
            .map_err(|error| self.failed(error))?;
        let facts = RunFacts {
            schema_version: SCHEMA_VERSION,
            started: Some(from),
            windows: Some(stretch.windows),
            machine: machine.clone(),
            ..RunFacts::default()
        };
        Run::from_profile(&profile, &name, wanted, facts).map_err(|error| self.failed(error.into()))
    }

    fn machine(&self, client: &Client) -> Result<MachineFacts, CommandError> {
        let status: Status = self.ask_json(client, &self.address.status())?;
        Ok(status.machine())
    }

    fn ask_json<T: serde::de::DeserializeOwned>(
        &self,
        client: &Client,
        query: &str,
    ) -> Result<T, CommandError> {
        let bytes = client.get(&self.address, query, MAX_JSON_BYTES).map_err(|error| self.refused(error))?;
        serde_json::from_slice(&bytes)
            .context("its answer is not what a spanflame server says: is it one, and no older than this?")
            .map_err(|error| self.failed(error))
    }

    fn refused(&self, error: AskError) -> CommandError {
        let is_usage = matches!(error, AskError::Malformed { .. });
        let error = anyhow::Error::from(error).context(self.described());
        if is_usage { CommandError::Usage(error) } else { CommandError::Failed(error) }
    }

    fn failed(&self, error: anyhow::Error) -> CommandError {
        CommandError::Failed(error.context(self.described()))
    }

    fn described(&self) -> String {
        format!("--{} {}", self.label, self.name())
    }
}
