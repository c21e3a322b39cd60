//! What a reload changes.

use super::error::ConfigurationErrors;
use super::rules::Rules;
use super::schema::Configuration;
use super::section::{Effect, all_keys};
use super::sources::Loaded;

/// A key whose value is another one now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedKey {
    /// Its path, such as `self_telemetry.listen`.
    pub key: String,
    /// When the new value takes effect.
    pub effect: Effect,
}

/// The keys that differ, in the order of the table; secrets too, by comparison and without showing them.
#[must_use]
pub fn changed_keys(old: &Configuration, new: &Configuration) -> Vec<ChangedKey> {
    // The walk over the table is one for reading and writing, and wants what it may write to.
    let (mut old, mut new) = (old.clone(), new.clone());
    let new_keys = all_keys(&mut new);
    all_keys(&mut old)
        .into_iter()
        .zip(new_keys)
        .filter(|(old, new)| !old.value.equals(new.value))
        .map(|(old, _)| ChangedKey { key: old.path, effect: old.facts.effect })
        .collect()
}

/// What is in effect after a reload: the new values, and for keys that take a restart those of before.
///
/// # Errors
/// What is wrong with that mixture, though each side by itself is right: authentication that is taken away
/// while the listener stays where others reach it.
pub fn after_reload(running: &Configuration, loaded: &Loaded) -> Result<Configuration, ConfigurationErrors> {
    // The walk over the table is one for reading and writing, and wants what it may write to.
    let (mut running, mut mixture) = (running.clone(), loaded.configuration.clone());
    for (before, after) in all_keys(&mut running).into_iter().zip(all_keys(&mut mixture)) {
        if after.facts.effect == Effect::Restart {
            after.value.set_from(before.value);
        }
    }
    let mut rules = Rules {
        configuration: &mixture,
        origins: &loaded.origins,
        failed: &[],
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    rules.check();
    if rules.problems.is_empty() {
        return Ok(mixture);
    }
    let mut problems = rules.problems;
    for problem in &mut problems {
        problem.message.push_str(" (with what is in effect until a restart)");
    }
    Err(ConfigurationErrors { problems, further: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn read(text: &str) -> Configuration {
        Sources::load_text(text, &[]).expect(text).configuration
    }

    #[test]
    fn equal_values_written_differently_are_no_change() {
        let old = read("storage: {max_age: 7d}\nself_telemetry: {allowed_hosts: [A.example.com]}\n");
        let new = read("storage: {max_age: 168h}\nself_telemetry: {allowed_hosts: [a.example.com.]}\n");
        assert_eq!(changed_keys(&old, &new), []);
    }

    #[test]
    fn each_changed_key_says_when_it_takes_effect() {
        let old = Configuration::default();
        let new = read(
            "agent: {profiling: {sample_rate: 99}, ebpf: {network: {http: false}}}\nself_telemetry: {listen: '[::1]:1'}\n",
        );
        let changed = changed_keys(&old, &new);
        let shown: Vec<_> = changed.iter().map(|changed| (changed.key.as_str(), changed.effect)).collect();
        assert_eq!(
            shown,
            [
                ("agent.profiling.sample_rate", Effect::Reload),
                ("agent.ebpf.network.http", Effect::Reload),
                ("self_telemetry.listen", Effect::Restart),
            ]
        );
    }

    #[test]
    fn a_new_token_is_a_change_although_both_are_shown_alike() {
        let with = |token: &str| {
            read(&format!("self_telemetry: {{auth: {{enabled: true, bearer_token: {token}}}}}\n"))
        };
        let changed = changed_keys(&with("one-token"), &with("two-token"));
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].key, "self_telemetry.auth.bearer_token");
        assert!(!format!("{changed:?}").contains("token\": \"one"));
    }

    #[test]
    fn keys_that_take_a_restart_stay_as_they_are() {
        let load = |text| Sources::load_text(text, &[]).expect("valid");
        let running = load("self_telemetry: {listen: '127.0.0.1:1', path: /m}\n").configuration;
        let loaded = load("self_telemetry: {listen: '127.0.0.1:2'}\nspanflame: {log_level: debug}\n");
        let after = after_reload(&running, &loaded).expect("valid together");
        assert_eq!(after.self_telemetry.listen, running.self_telemetry.listen);
        assert_eq!(after.self_telemetry.path, running.self_telemetry.path);
        assert_eq!(after.spanflame.log_level, crate::config::LogLevel::Debug);
    }

    #[test]
    fn authentication_stays_while_the_listener_can_be_reached_from_elsewhere() {
        let load = |text| Sources::load_text(text, &[]).expect("valid");
        let running = load("self_telemetry: {listen: ':1', auth: {enabled: true, bearer_token: x}}\n");
        let loaded = load("self_telemetry: {listen: '127.0.0.1:1'}\n");
        let errors = after_reload(&running.configuration, &loaded).expect_err("open to all until a restart");
        assert!(errors.to_string().contains("until a restart"), "{errors}");
    }
}
