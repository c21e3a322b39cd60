//! What a reload changes.

use super::schema::Configuration;
use super::section::{Effect, all_keys};

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
                ("agent.ebpf.network.http", Effect::NotYet),
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
}
