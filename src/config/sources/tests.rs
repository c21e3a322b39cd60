//! Whole configurations: precedence, what is said about mistakes, keys in the light of each other.

use proptest::prelude::*;

use super::*;
use crate::config::error::MAX_PROBLEMS;
use crate::config::{Effect, ListenHost};

fn load(text: &str) -> Result<Loaded, ConfigurationErrors> {
    Sources::load_text(text, &[])
}

/// The only error of a text, as its user sees it.
fn error(text: &str) -> String {
    let errors = load(text).expect_err(text);
    assert_eq!(errors.problems.len(), 1, "{errors}");
    errors.to_string()
}

/// The configurations of the seed documents, under our name.
#[test]
fn every_key_of_the_seed_documents_that_is_ours_is_understood() {
    let text = r#"
spanflame: {log_level: info, log_format: json}
otlp:
  endpoint: "otel-collector:4317"
  insecure: true
  compression: gzip
  traces: {enabled: true, sample_rate: 0.1, sampler: parent_based_traceidratio}
  profiles: {enabled: true}
agent:
  ebpf:
    enabled: true
    network:
      enabled: true
      http: true
      grpc: true
      exclude_paths: ["/health", "/healthz", "/ready", "/metrics"]
      exclude_ports:
        - 22    # SSH
        - 2379  # etcd
  profiling: {enabled: true, sample_rate: 99}
self_telemetry:
  enabled: true
  listen: ":19090"
  path: "/metrics"
  prometheus_namespace: "telegen"
  tracing: {enabled: true, sample_rate: 0.01}
  auth: {enabled: true, bearer_token: "${API_TOKEN}"}
  rate_limit: {enabled: true, requests_per_second: 100}
  cors: {enabled: true, allowed_origins: ["http://localhost:3000"]}
"#;
    let loaded = Sources::load_text(text, &[("API_TOKEN", "s3cret")]).expect("valid");
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let Configuration { agent, otlp, self_telemetry, .. } = &loaded.configuration;
    assert_eq!(agent.profiling.sample_rate.get(), 99);
    assert_eq!(agent.ebpf.network.exclude_ports, [22, 2379]);
    assert!((otlp.traces.sample_rate.get() - 0.1).abs() < 1e-12);
    assert!(!otlp.uses_tls());
    assert_eq!(self_telemetry.listen.host, ListenHost::All);
    assert!(self_telemetry.auth.bearer_token.as_ref().is_some_and(|token| token.matches(b"s3cret")));
}

#[test]
fn without_any_configuration_everything_is_on_and_reachable_from_here_only() {
    let Configuration { agent, storage, otlp, ingest, self_telemetry, .. } =
        load("").expect("defaults are valid").configuration;
    assert!(agent.profiling.enabled && agent.ebpf.enabled && agent.ebpf.network.enabled);
    assert_eq!(agent.profiling.sample_rate.get(), 19);
    assert_eq!(self_telemetry.listen.to_string(), "127.0.0.1:19090");
    assert!(!ingest.otlp.enabled && otlp.endpoint.is_none() && self_telemetry.debug);
    assert_eq!(storage.max_age.get().as_secs(), 7 * 86_400);
}

#[test]
fn flags_go_before_the_environment_and_that_before_the_file_and_that_before_the_defaults() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("a.yaml");
    std::fs::write(&file, "agent: {profiling: {sample_rate: 1}}\nstorage: {max_age: 1d, max_bytes: 1GiB}\n")
        .expect("written");
    let sources = Sources {
        file: Some(file.clone()),
        environment: Environment::of(&[
            ("SPANFLAME_STORAGE_MAX_AGE", "2d"),
            ("SPANFLAME_STORAGE_MAX_BYTES", "2GiB"),
        ]),
        flags: Vec::new(),
    }
    .with_flag("--max-bytes", "storage.max_bytes", "3GiB");
    let Loaded { configuration, origins, .. } = sources.load().expect("valid");
    assert_eq!(configuration.agent.profiling.sample_rate.get(), 1);
    assert_eq!(configuration.storage.max_age.to_string(), "2d");
    assert_eq!(configuration.storage.max_bytes.to_string(), "3GiB");
    assert_eq!(origins.of("storage.max_bytes"), Place::Flag("--max-bytes"));
    assert_eq!(origins.of("storage.max_age"), Place::Environment("SPANFLAME_STORAGE_MAX_AGE".to_owned()));
    assert_eq!(origins.of("storage.dir"), Place::Default);
    let position = Some(Position { line: 1, column: 21 });
    assert_eq!(origins.of("agent.profiling.sample_rate"), Place::File { path: file.clone(), position });

    std::fs::write(&file, "agent: {profiling: {sample_rate: 49}}\n").expect("written");
    let reloaded = sources.load().expect("valid").configuration;
    let changed = crate::config::changed_keys(&configuration, &reloaded);
    assert_eq!(changed.len(), 1, "environment and flags still hold: {changed:?}");
    assert_eq!((changed[0].key.as_str(), changed[0].effect), ("agent.profiling.sample_rate", Effect::Reload));
}

#[test]
fn an_unknown_key_names_its_line_and_what_was_probably_meant() {
    for (text, wanted) in [
        ("otpl: {}\n", "test.yaml:1:1: unknown key `otpl`; did you mean `otlp`?"),
        (
            "agent:\n  profiling:\n    sampleRate: 1\n",
            "test.yaml:3:5: agent.profiling: unknown key `sampleRate`; did you mean `sample_rate`?",
        ),
        (
            "self_telemetry: {auth: {bearer_token:hunter2}}\n",
            "test.yaml:1:25: self_telemetry.auth: unknown key `bearer_token…`; did you mean `bearer_token`?",
        ),
        ("listen: ':1'\n", "test.yaml:1:1: unknown key `listen`; did you mean `self_telemetry.listen`?"),
        ("profiling: {}\n", "test.yaml:1:1: unknown key `profiling`; did you mean `agent.profiling`?"),
        ("telegen: {log_level: info}\n", "test.yaml:1:1: `telegen` is called `spanflame` here"),
        (
            "agent: {database: {}}\n",
            "test.yaml:1:9: agent: `database` is not supported: queries of databases are not followed",
        ),
        (
            "storage: {xyzzy: 1}\n",
            "test.yaml:1:11: storage: unknown key `xyzzy`; in `storage` there are dir, max_age, max_bytes",
        ),
        (
            "<<: {a: 1}\n",
            "test.yaml:1:1: unknown key `<<`; at the top there are spanflame, agent, storage, otlp, ingest, self_telemetry",
        ),
    ] {
        assert_eq!(error(text), wanted);
    }
}

#[test]
fn wrong_types_and_ranges_name_the_key_its_place_and_what_is_expected() {
    for (text, wanted) in [
        (
            "agent: {profiling: {sample_rate: 1000}}\n",
            "test.yaml:1:34: agent.profiling.sample_rate: `1000` is not a whole number from 1 to 999",
        ),
        (
            "self_telemetry:\n  debug: yes\n",
            "test.yaml:2:10: self_telemetry.debug: `yes` is not true or false",
        ),
        (
            "storage:\n  max_age:\n",
            "test.yaml:2:3: storage.max_age: has no value; leave the key out for its default, or give a duration \
             from 10s to 36500d such as 10s, 15m, 1h30m or 7d",
        ),
        (
            "storage: 2GiB\n",
            "test.yaml:1:10: storage: is a section: its keys stand below it (dir, max_age, max_bytes)",
        ),
    ] {
        assert_eq!(error(text), wanted);
    }
}

#[test]
fn all_mistakes_are_reported_at_once_and_one_mistake_is_one_error() {
    let errors = load(
        "spanflame: {log_level: loud}\nagent: {profilng: {}}\nstorage: {max_bytes: 1}\nself_telemetry:\n  \
         listen: nowhere\n  listen: ':1'\n  auth: {enabled: true}\notlp:\n  timeout: ${MISSING}\n",
    )
    .expect_err("wrong");
    let keys: Vec<&str> = errors.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "",
            "otlp.timeout",
            "spanflame.log_level",
            "agent",
            "storage.max_bytes",
            "self_telemetry.listen",
            "self_telemetry.auth.enabled"
        ],
        "{errors}"
    );
}

#[test]
fn sections_whose_keys_are_all_commented_out_are_empty() {
    let loaded = load("otlp:\n  # endpoint: x:1\nagent:\n  ebpf:\n    network: ~\n").expect("valid");
    assert_eq!(loaded.configuration, Configuration::default());
    assert!(loaded.origins.is_empty());
}

#[test]
fn what_a_variable_holds_is_not_shown_by_errors_of_the_keys_that_use_it() {
    let text = "storage: {max_age: '${TOKEN}'}\nself_telemetry: {allowed_hosts: '${TOKEN}'}\n";
    let errors = Sources::load_text(text, &[("TOKEN", "hunter 2")]).expect_err("no duration").to_string();
    assert!(errors.contains("`${TOKEN}` is not a duration") && !errors.contains("hunter"), "{errors}");
    let errors = Sources::load_text("", &[("SPANFLAME_SELF_TELEMETRY_AUTH_BEARER_TOKEN", "hunter 2")])
        .expect_err("a space")
        .to_string();
    assert!(
        errors.starts_with("SPANFLAME_SELF_TELEMETRY_AUTH_BEARER_TOKEN: self_telemetry.auth.bearer_token:")
    );
    assert!(!errors.contains("hunter"), "{errors}");
}

#[test]
fn a_variable_can_hold_a_whole_list_or_nothing() {
    let text = "self_telemetry: {allowed_hosts: '${HOSTS:-}'}\notlp: {endpoint: '${ENDPOINT:-}'}\n";
    let loaded = Sources::load_text(text, &[("HOSTS", "a, b.c")]).expect("valid");
    let hosts: Vec<_> =
        loaded.configuration.self_telemetry.allowed_hosts.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a", "b.c"]);
    let loaded = Sources::load_text(text, &[]).expect("valid");
    assert!(loaded.configuration.self_telemetry.allowed_hosts.is_empty());
    assert_eq!(loaded.configuration.otlp.endpoint, None);
    let loaded =
        Sources::load_text("", &[("SPANFLAME_AGENT_EBPF_NETWORK_EXCLUDE_PORTS", "22,80")]).expect("valid");
    assert_eq!(loaded.configuration.agent.ebpf.network.exclude_ports, [22, 80]);
}

#[test]
fn unknown_variables_are_warnings_with_the_nearest_name() {
    let variables =
        [("SPANFLAME_SELFTELEMETRY_LISTEN", "x"), ("SPANFLAME_RING_BYTES", "4096"), ("PATH", "/")];
    let warnings = Sources::load_text("", &variables).expect("valid").warnings;
    assert_eq!(
        warnings,
        [
            "the environment's SPANFLAME_SELFTELEMETRY_LISTEN sets no key; did you mean SPANFLAME_SELF_TELEMETRY_LISTEN?"
        ]
    );
}

#[test]
fn listeners_off_loopback_need_authentication_or_a_clear_word() {
    for address in ["':19090'", "0.0.0.0:1", "'[::]:1'", "10.0.0.1:1", "example.com:1"] {
        let message = error(&format!("self_telemetry: {{listen: {address}}}\n"));
        assert!(message.contains("--allow-unauthenticated") && message.contains(":1:"), "{message}");
    }
    for text in [
        "self_telemetry: {listen: ':1', auth: {enabled: true, bearer_token: t}}\n",
        "self_telemetry: {listen: ':1', allow_unauthenticated: true}\n",
        "self_telemetry: {listen: ':1', enabled: false}\n",
        "self_telemetry: {listen: 'localhost:1'}\n",
        "ingest: {otlp: {grpc_listen: ':4317'}}\n",
    ] {
        assert!(load(text).is_ok(), "{text}");
    }
    let errors = load("ingest: {otlp: {enabled: true, grpc_listen: ':4317', http_listen: ':4318'}}\n");
    assert_eq!(errors.expect_err("both are open").problems.len(), 2);
    let errors = Sources::default()
        .with_flag("--listen", "self_telemetry.listen", ":1")
        .load()
        .expect_err("open")
        .to_string();
    assert!(errors.starts_with("--listen: self_telemetry.listen: `:1`"), "{errors}");
}

#[test]
fn keys_that_contradict_each_other_are_errors() {
    for (text, part) in [
        ("self_telemetry: {auth: {enabled: true}}", "nobody could get in"),
        ("self_telemetry: {auth: {bearer_token: t}}", "not asked for"),
        ("self_telemetry: {cors: {enabled: true}}", "has none"),
        ("self_telemetry: {cors: {enabled: true, allowed_origins: ['*']}}", "every page"),
        ("otlp: {endpoint: 'https://x', insecure: true}", "begins with https"),
        ("otlp: {endpoint: 'http://x/otlp'}", "gRPC"),
        ("otlp: {profiles: {enabled: true}}", "no otlp.endpoint"),
        ("self_telemetry: {tracing: {enabled: true}}", "no otlp.endpoint"),
        ("ingest: {otlp: {enabled: true, http_listen: '127.0.0.1:4317'}}", "taken by"),
    ] {
        let message = error(&format!("{text}\n"));
        assert!(message.contains(part), "{text}: {message}");
    }
    for text in [
        "self_telemetry: {auth: {enabled: false, bearer_token: t}}",
        "otlp: {endpoint: 'http://x'}",
        "otlp: {endpoint: 'http://x/otlp', protocol: http}",
        "otlp: {profiles: {enabled: false}}",
        "ingest: {otlp: {http_listen: '127.0.0.1:4317'}}",
    ] {
        assert!(load(text).is_ok(), "{text}");
    }
}

#[test]
fn secrets_in_clear_text_over_the_network_are_warned_of() {
    let warnings = |endpoint: &str| {
        let text =
            format!("otlp: {{endpoint: '{endpoint}', insecure: true, headers: {{authorization: t}}}}\n");
        load(&text).expect("valid").warnings.iter().filter(|warning| warning.contains("clear text")).count()
    };
    assert_eq!((warnings("otel:4317"), warnings("localhost:4317")), (1, 0));
}

#[test]
fn files_that_cannot_be_read_are_one_error_that_names_them() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let large = directory.path().join("large.yaml");
    std::fs::write(&large, vec![b'#'; yaml::MAX_BYTES + 1]).expect("written");
    let latin = directory.path().join("latin.yaml");
    std::fs::write(&latin, b"# ok\n# \xfc\n").expect("written");
    for (path, part) in [
        (directory.path().join("missing.yaml"), "No such file"),
        (directory.path().to_owned(), "directory"),
        (large, "larger than 512 KiB"),
        (latin, "not UTF-8 in line 2"),
    ] {
        let errors =
            Sources { file: Some(path.clone()), ..Sources::default() }.load().expect_err("unreadable");
        let message = errors.to_string();
        assert!(message.starts_with(path.to_str().expect("UTF-8")) && message.contains(part), "{message}");
    }
}

#[test]
fn a_file_of_nothing_but_mistakes_is_listed_in_part_and_counted_in_full() {
    let text: String = (0..5000).map(|number| format!("key_{number}: 1\n")).collect();
    let errors = load(&text).expect_err("wrong");
    assert_eq!((errors.problems.len(), errors.further), (MAX_PROBLEMS, 5000 - MAX_PROBLEMS));
}

fn piece_of_configuration() -> impl Strategy<Value = String> {
    let words = vec![
        "spanflame",
        "log_level",
        "otlp",
        "endpoint",
        "headers",
        "agent",
        "ebpf",
        "network",
        "exclude_ports",
        "storage",
        "max_age",
        "self_telemetry",
        "listen",
        "auth",
        "bearer_token",
        "cors",
        "allowed_origins",
    ];
    prop_oneof![
        4 => proptest::sample::select(words).prop_map(str::to_owned),
        4 => proptest::sample::select(vec![": ", ":\n  ", ":\n    ", "\n", "\n  ", "\n    ", ", ", "{", "}", "[", "]", "- "])
            .prop_map(str::to_owned),
        2 => proptest::sample::select(vec!["true", "1", "7d", ":1", "x:1", "'", "\"", "${TOKEN}", "${", "$", "~", "#", "&a ", "*a"])
            .prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hostile_files_neither_panic_nor_show_a_secret_nor_report_without_bound(
        pieces in proptest::collection::vec(piece_of_configuration(), 0..60)
    ) {
        let text = pieces.concat();
        match Sources::load_text(&text, &[("TOKEN", "hunter2hunter2")]) {
            Ok(loaded) => {
                let shown = format!("{loaded:?}{}{}", loaded.to_yaml(), loaded.to_json());
                let uses = |value: &Option<super::super::Secret>| value.is_some();
                prop_assert!(
                    !uses(&loaded.configuration.self_telemetry.auth.bearer_token) || !shown.contains("hunter2")
                );
            }
            Err(errors) => {
                prop_assert!(!errors.problems.is_empty() && errors.problems.len() <= MAX_PROBLEMS);
                prop_assert!(!errors.to_string().contains("hunter2"), "{}", errors);
            }
        }
    }
}

#[test]
fn a_file_that_cannot_be_parsed_is_not_blamed_for_what_it_may_have_held() {
    let variables = [("SPANFLAME_SELF_TELEMETRY_AUTH_ENABLED", "true")];
    let errors =
        Sources::load_text("self_telemetry: {auth: {bearer_token: t\n", &variables).expect_err("open");
    assert_eq!(errors.problems.len(), 1, "{errors}");
}

#[test]
fn secrets_in_a_file_that_all_can_read_are_warned_of_and_variables_are_not() {
    let auth =
        |token: &str| format!("self_telemetry: {{auth: {{enabled: true, bearer_token: '{token}'}}}}\n");
    let warnings = |text: &str| Sources::load_text(text, &[("T", "s3cret")]).expect("valid").warnings;
    assert_eq!(
        warnings(&auth("s3cret")),
        [
            "test.yaml: every user of this machine can read self_telemetry.auth.bearer_token; take the right away, or \
          write ${VAR}"
        ]
    );
    assert_eq!(warnings(&auth("${T}")), Vec::<String>::new());
    assert_eq!(warnings("otlp: {headers: {a: '${T}', b: s3cret}}\n").len(), 1);
    assert_eq!(warnings("otlp: {headers: {a: '${T}'}}\nstorage: {dir: /x}\n"), Vec::<String>::new());
}
