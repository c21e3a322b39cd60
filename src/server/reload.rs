//! A configuration that takes the place of another while the server runs.

use std::sync::{Arc, PoisonError};

use super::App;
use crate::config::{ChangedKey, Configuration, ConfigurationErrors, Effect, after_reload, changed_keys};
use crate::export::otlp_client::TargetError;
use crate::store::{Retention, StoreError};

/// What a reload has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reloaded {
    /// Keys that have another value now.
    pub changed: Vec<String>,
    /// Keys that have another value in the file, and the old one in effect until a restart.
    pub need_restart: Vec<String>,
    /// What is right and yet probably not meant.
    pub warnings: Vec<String>,
}

/// Why nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new configuration is wrong.
    #[error(transparent)]
    Wrong(#[from] ConfigurationErrors),
    /// The store cannot do as it says.
    #[error("the store cannot keep what storage.max_age and storage.max_bytes want: {0}")]
    Store(#[from] StoreError),
    /// The endpoint of export cannot be used.
    #[error(transparent)]
    Export(#[from] TargetError),
}

impl App {
    /// Reads the configuration again and goes on as it says; keys that take a restart stay as they are.
    /// Blocks.
    ///
    /// # Errors
    /// Then the configuration of before is in effect, all of it.
    pub fn reload(&self) -> Result<Reloaded, ReloadError> {
        // Two at a time could each undo half of what the other did.
        let _one = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.configuration();
        let loaded = self.sources.load()?;
        let after = after_reload(&before, &loaded)?;
        // First what can fail, and if the second does, the first is as it was.
        self.store.set_retention(retention_of(&after))?;
        if let Err(error) = self.reconfigure_exports(&after) {
            self.store.set_retention(retention_of(&before))?;
            return Err(error.into());
        }
        if let Some(recorder) = &self.recorder {
            recorder.set_frequency(frequency_of(&after));
        }
        if let Some(tracer) = &self.tracer {
            tracer.reconfigure(&after);
        }
        (self.set_log_level)(after.spanflame.log_level);
        let keys = |changed: Vec<ChangedKey>, effect: Effect| -> Vec<String> {
            changed.into_iter().filter(|key| key.effect == effect).map(|key| key.key).collect()
        };
        let reloaded = Reloaded {
            changed: keys(changed_keys(&before, &after), Effect::Reload),
            need_restart: keys(changed_keys(&before, &loaded.configuration), Effect::Restart),
            warnings: loaded.warnings,
        };
        self.configuration.store(Arc::new(after));
        for warning in &reloaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(reloaded)
    }

    /// [`App::reload`], told in the log: for `SIGHUP`, and for whoever answers a request.
    ///
    /// # Errors
    /// As [`App::reload`].
    pub fn reload_and_log(&self) -> Result<Reloaded, ReloadError> {
        let result = tracing::info_span!("reload").in_scope(|| self.reload());
        match &result {
            Ok(reloaded) => tracing::info!(
                changed = reloaded.changed.join(" "),
                need_restart = reloaded.need_restart.join(" "),
                "Configuration reloaded"
            ),
            Err(error) => tracing::error!("The configuration of before stays in effect: {error}"),
        }
        result
    }
}

/// How much the store is to keep.
#[must_use]
pub fn retention_of(configuration: &Configuration) -> Retention {
    let storage = &configuration.storage;
    Retention { max_age: storage.max_age.get(), max_bytes: storage.max_bytes.get() }
}

/// Samples a second and CPU; none where nothing is to be sampled.
#[must_use]
pub fn frequency_of(configuration: &Configuration) -> Option<u32> {
    let profiling = &configuration.agent.profiling;
    profiling.enabled.then(|| u32::try_from(profiling.sample_rate.get()).unwrap_or(u32::MAX))
}
