//! What keys must be in the light of each other.
//!
//! A rule is left out when one of the keys it reads could not be read: one mistake is one error.

use super::address::{ListenAddress, Scheme};
use super::choice::Protocol;
use super::error::{Place, Problem};
use super::schema::Configuration;
use super::sources::Origins;

pub(super) struct Rules<'a> {
    pub(super) configuration: &'a Configuration,
    pub(super) origins: &'a Origins,
    /// Paths of keys that could not be read.
    pub(super) failed: &'a [String],
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<String>,
}

impl Rules<'_> {
    pub(super) fn check(&mut self) {
        self.authentication();
        self.listeners_off_loopback();
        self.listeners_that_collide();
        self.other_origins();
        self.endpoint();
        self.signals_without_endpoint();
    }

    fn readable(&self, keys: &[&str]) -> bool {
        !keys.iter().any(|key| self.failed.iter().any(|failed| failed == key))
    }

    fn is_set(&self, key: &str) -> bool {
        self.origins.of(key) != Place::Default
    }

    fn problem(&mut self, key: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            place: self.origins.of(key),
            key: key.to_owned(),
            message: message.into(),
        });
    }

    fn authentication(&mut self) {
        const ENABLED: &str = "self_telemetry.auth.enabled";
        const TOKEN: &str = "self_telemetry.auth.bearer_token";
        if !self.readable(&[ENABLED, TOKEN]) {
            return;
        }
        let auth = &self.configuration.self_telemetry.auth;
        if auth.enabled && auth.bearer_token.is_none() {
            self.problem(ENABLED, format!("is true, but there is no {TOKEN}, so nobody could get in"));
        } else if auth.bearer_token.is_some() && !auth.enabled && !self.is_set(ENABLED) {
            self.problem(
                TOKEN,
                format!("is set, but not asked for: set {ENABLED} to true, or to false if that is meant"),
            );
        }
    }

    /// The listeners that are on, with their keys.
    fn listeners(&self) -> Vec<(&'static str, &ListenAddress)> {
        let Configuration { self_telemetry, ingest, .. } = self.configuration;
        let mut listeners = Vec::new();
        if self_telemetry.enabled {
            listeners.push(("self_telemetry.listen", &self_telemetry.listen));
        }
        if ingest.otlp.enabled {
            listeners.push(("ingest.otlp.grpc_listen", &ingest.otlp.grpc_listen));
            listeners.push(("ingest.otlp.http_listen", &ingest.otlp.http_listen));
        }
        listeners.retain(|(key, _)| self.readable(&[key]));
        listeners
    }

    fn listeners_off_loopback(&mut self) {
        const DECIDING: [&str; 4] = [
            "self_telemetry.auth.enabled",
            "self_telemetry.auth.bearer_token",
            "self_telemetry.allow_unauthenticated",
            "ingest.otlp.enabled",
        ];
        let self_telemetry = &self.configuration.self_telemetry;
        if !self.readable(&DECIDING) || self_telemetry.auth.enabled || self_telemetry.allow_unauthenticated {
            return;
        }
        let open: Vec<_> = self
            .listeners()
            .into_iter()
            .filter(|(_, address)| !address.is_loopback())
            .map(|(key, address)| (key, address.to_string()))
            .collect();
        for (key, address) in open {
            self.problem(
                key,
                format!(
                    "`{address}` can be reached from other machines by anyone. Set \
                     self_telemetry.auth.enabled: true and self_telemetry.auth.bearer_token, listen on \
                     127.0.0.1, or, if it is meant to be open, set self_telemetry.allow_unauthenticated: \
                     true (--allow-unauthenticated)"
                ),
            );
        }
    }

    fn listeners_that_collide(&mut self) {
        let listeners = self.listeners();
        let mut collisions = Vec::new();
        for (index, (key, address)) in listeners.iter().enumerate() {
            for (other_key, other) in listeners.iter().take(index) {
                if address.collides_with(other) {
                    collisions.push((*key, format!("`{address}` is taken by {other_key}, `{other}`")));
                }
            }
        }
        for (key, message) in collisions {
            self.problem(key, message);
        }
    }

    fn other_origins(&mut self) {
        const ENABLED: &str = "self_telemetry.cors.enabled";
        const ORIGINS: &str = "self_telemetry.cors.allowed_origins";
        let self_telemetry = &self.configuration.self_telemetry;
        if !self.readable(&[ENABLED, ORIGINS, "self_telemetry.auth.enabled"]) || !self_telemetry.cors.enabled
        {
            return;
        }
        let origins = &self_telemetry.cors.allowed_origins;
        if origins.is_empty() {
            self.problem(ENABLED, format!("is true, but {ORIGINS} has none"));
        } else if origins.iter().any(super::name::WebOrigin::is_any) && !self_telemetry.auth.enabled {
            self.problem(
                ORIGINS,
                "`*` without self_telemetry.auth lets every page that somebody here opens read everything",
            );
        }
    }

    fn endpoint(&mut self) {
        const ENDPOINT: &str = "otlp.endpoint";
        if !self.readable(&[ENDPOINT, "otlp.insecure", "otlp.protocol", "otlp.headers"]) {
            return;
        }
        let otlp = &self.configuration.otlp;
        let Some(endpoint) = &otlp.endpoint else { return };
        let clear_text = !otlp.uses_tls() && !endpoint.is_loopback() && !otlp.headers.is_empty();
        let says_otherwise = otlp.insecure && endpoint.scheme == Some(Scheme::Https);
        let has_path = otlp.protocol == Protocol::Grpc && !endpoint.path.is_empty();
        if clear_text {
            self.warnings.push(format!("otlp.headers are sent to `{endpoint}` in clear text"));
        }
        if says_otherwise {
            self.problem("otlp.insecure", "is true, and otlp.endpoint begins with https://");
        }
        if has_path {
            self.problem(ENDPOINT, "has a path, which gRPC has no use for; otlp.protocol is grpc");
        }
    }

    /// Who turns on what is off by default expects it to be sent. What is on by default waits for an
    /// endpoint.
    fn signals_without_endpoint(&mut self) {
        let otlp = &self.configuration.otlp;
        if otlp.endpoint.is_some() || !self.readable(&["otlp.endpoint"]) {
            return;
        }
        let signals = [
            ("otlp.profiles.enabled", otlp.profiles.enabled),
            ("self_telemetry.tracing.enabled", self.configuration.self_telemetry.tracing.enabled),
        ];
        for (key, enabled) in signals {
            if enabled && self.readable(&[key]) {
                self.problem(key, "is true, but there is no otlp.endpoint to export to");
            }
        }
    }
}
