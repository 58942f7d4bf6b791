//! Precedence, every kind of error, and config.toml against the defaults.

use super::*;

fn load(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&str, &str)],
) -> Result<Config, String> {
    let environment = environment
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let flags: Vec<Flag> = flags
        .iter()
        .map(|(key, value)| Flag {
            name: format!("--set {key}"),
            key: (*key).into(),
            value: (*value).into(),
        })
        .collect();
    Config::merge(Some((Path::new("c.toml"), text)), environment, &flags)
        .map(|(config, _)| config)
        .map_err(|errors| errors.to_string())
}

fn defaults() -> Config {
    load("", &[], &[]).expect("defaults are valid")
}

#[track_caller]
fn check_error(text: &str, expected: &str) {
    assert_eq!(load(text, &[], &[]).expect_err(text), expected);
}

#[test]
fn config_toml_says_exactly_the_defaults_and_names_every_key() {
    let text = include_str!("../../config.toml");
    assert_eq!(load(text, &[], &[]), Ok(defaults()));
    let root = toml::Value::Table(text.parse().expect("TOML"));
    for key in KEYS {
        let found = key.path.split('.').try_fold(&root, |at, name| at.get(name));
        assert!(found.is_some(), "{} is missing in config.toml", key.path);
    }
    for key in keys::RETENTION_KEYS {
        assert!(
            text.contains(&format!("# {key} =")),
            "[[retention]] {key} is missing"
        );
    }
    for key in keys::FILES_KEYS {
        assert!(
            text.contains(&format!("# {key} =")),
            "[[files]] {key} is missing"
        );
    }
}

#[test]
fn each_source_goes_before_the_one_before_it() {
    let file = "[storage]\npath = \"file\"";
    let variable = [("WATCHPOST__STORAGE__PATH", "env"), ("OTHER", "x")];
    let flag = [("storage.path", "flag")];
    let path = |c: Result<Config, String>| c.expect("valid").storage.path;
    assert_eq!(path(load("", &[], &[])), PathBuf::from("data"));
    assert_eq!(path(load(file, &[], &[])), PathBuf::from("file"));
    assert_eq!(path(load(file, &variable, &[])), PathBuf::from("env"));
    assert_eq!(path(load(file, &variable, &flag)), PathBuf::from("flag"));
}

#[test]
fn variables_are_read_as_their_key_wants() {
    let config = load(
        "",
        &[
            ("WATCHPOST__LOKI__TENANCY", "true"),
            ("WATCHPOST__LOKI__DISCOVER_SERVICE_NAME", "app, job"),
            ("WATCHPOST__LOKI__LIMITS__MAX_STREAMS", "7"),
            ("WATCHPOST__MEMORY__LIMIT", "134217728"),
            ("WATCHPOST__OTLP__GRPC", ""),
            ("WATCHPOST__STORAGE__PATH", "007"),
        ],
        &[],
    )
    .expect("valid");
    assert!(config.loki.tenancy);
    assert_eq!(config.loki.discover_service_name, ["app", "job"]);
    assert_eq!(config.loki.limits.max_streams, 7);
    assert_eq!(config.memory.limit, 128 << 20);
    assert_eq!(config.otlp.grpc, None);
    assert_eq!(config.storage.path, PathBuf::from("007"));
}

#[test]
fn all_kinds_of_values_are_read_from_a_file() {
    let config = load(
        r#"
        [storage]
        durability = "flush"
        retention = ""
        min_free_bytes = 0
        [log]
        level = "info,watchpost=debug"
        format = "json"
        [loki]
        listen = ":3200"
        limits.reject_old_samples_max_age = "0"
        limits.max_query_length = "1d"
        [jaeger]
        query.http = "[::1]:16686"
        [[files]]
        paths = ["/var/log/*.log", "/a/**/b"]
        exclude = ["/var/log/x.log"]
        labels = { job = "varlogs", Env = "prod" }
        start = "end"
        [[files]]
        paths = ["relative.log"]
        "#,
        &[],
        &[],
    )
    .expect("valid");
    let day = Duration::from_secs(24 * 3600);
    assert_eq!(config.storage.durability, Durability::Flush);
    assert_eq!(
        (config.storage.retention, config.storage.max_bytes),
        (None, None)
    );
    assert_eq!(config.storage.min_free_bytes, 0);
    assert_eq!(config.log.format, Format::Json);
    assert_eq!(config.loki.listen, Some(([0, 0, 0, 0], 3200).into()));
    assert_eq!(config.loki.limits.reject_old_samples_max_age, None);
    assert_eq!(config.loki.limits.max_query_length, day);
    assert_eq!(config.jaeger.query_http, "[::1]:16686".parse().ok());
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        config.files,
        [
            FilesOptions {
                paths: vec!["/var/log/*.log".into(), "/a/**/b".into()],
                exclude: vec!["/var/log/x.log".into()],
                labels: vec![label("Env", "prod"), label("job", "varlogs")],
                start: StartAt::End,
            },
            FilesOptions {
                paths: vec!["relative.log".into()],
                ..FilesOptions::default()
            },
        ]
    );
}

#[test]
fn numbers_may_have_a_fraction_where_that_means_something() {
    let text = "[jaeger.sampling]\ntype = \"adaptive\"\n\
                [jaeger.sampling.adaptive]\ntarget_samples_per_second = 5\ndelta_tolerance = 1e-1";
    let variable = [(
        "WATCHPOST__JAEGER__SAMPLING__ADAPTIVE__MIN_SAMPLES_PER_SECOND",
        "0.5",
    )];
    let config = load(text, &variable, &[]).expect("valid");
    let Sampling::Adaptive(adaptive) = config.jaeger.sampling else {
        panic!("adaptive");
    };
    assert_eq!(adaptive.target_samples_per_second, 5.0);
    assert_eq!(adaptive.delta_tolerance, 0.1);
    assert_eq!(adaptive.min_samples_per_second, 0.5);
    check_error(
        "[jaeger.sampling.adaptive]\ndelta_tolerance = -0.1",
        "c.toml:2: jaeger.sampling.adaptive.delta_tolerance: -0.1 is not a number of 0 or more",
    );
}

#[test]
fn the_effective_configuration_reads_back_as_itself() {
    let text = "[[files]]\npaths = [\"/a\"]\nlabels = { a = \"b\" }\n[memory]\nlimit = 134217728";
    let file = Some((Path::new("c.toml"), text));
    let (config, effective) = Config::merge(file, [], &[]).expect("valid");
    assert_eq!(load(&effective, &[], &[]), Ok(config));
}

#[test]
fn unknown_keys_are_errors_with_a_suggestion() {
    check_error(
        "[storage]\n\npth = \"x\"",
        "c.toml:3: storage.pth: unknown key; did you mean `storage.path`?",
    );
    check_error(
        "retention = \"1d\"",
        "c.toml:1: retention: write it as [[retention]]; one period for all is storage.retention",
    );
    check_error(
        "[completely.different]\na = 1",
        "c.toml:1: completely: unknown key; config.toml of the distribution lists all keys",
    );
    check_error(
        "[[files]]\npaths = [\"/a\"]\nlabel = { a = \"b\" }",
        "c.toml:3: files.label: unknown key; did you mean `labels`?",
    );
    let error = load("", &[("WATCHPOST__STORAGE__PAHT", "x")], &[]).expect_err("unknown");
    assert_eq!(
        error,
        "WATCHPOST__STORAGE__PAHT: storage.paht: unknown key; did you mean `storage.path`?"
    );
    let error = load("", &[], &[("memory.limits", "1GiB")]).expect_err("unknown");
    assert_eq!(
        error,
        "--set memory.limits: memory.limits: unknown key; did you mean `memory.limit`?"
    );
}

#[test]
fn wrong_types_and_units_are_errors_that_say_what_is_allowed() {
    check_error(
        "[storage]\nretention = \"30 parsecs\"",
        "c.toml:2: storage.retention: \"30 parsecs\" is not a duration such as 30d, 12h, 90s or \
         1h30m, or \"\" for no limit",
    );
    check_error(
        "[memory]\nlimit = \"lots\"",
        "c.toml:2: memory.limit: \"lots\" is not a size such as 256MiB, 1.5GiB or 20GB",
    );
    check_error(
        "[loki]\ntenancy = \"yes\"",
        "c.toml:2: loki.tenancy: \"yes\" is not true or false",
    );
    check_error(
        "[loki.limits]\nmax_streams = -1",
        "c.toml:2: loki.limits.max_streams: -1 is not a whole number of 0 or more",
    );
    check_error(
        "[storage]\npath = 7",
        "c.toml:2: storage.path: 7 is not a text; write it in quotes",
    );
    check_error(
        "[storage]\ndurability = \"maybe\"",
        "c.toml:2: storage.durability: \"maybe\" is not one of \"sync\", \"flush\"",
    );
    check_error(
        "[otlp]\ngrpc = \"4317\"",
        "c.toml:2: otlp.grpc: \"4317\" is not an address such as \"127.0.0.1:3100\", or \"\" for \
         none",
    );
    check_error(
        "storage = 1",
        "c.toml:1: storage: is a table; write [storage] and keys below it",
    );
    check_error(
        "[loki]\ndiscover_service_name = [1]",
        "c.toml:2: loki.discover_service_name: a list with something other than texts is not a \
         list of names such as [\"app\", \"job\"]",
    );
}

#[test]
fn a_file_that_is_no_toml_names_the_line() {
    let error = load("[storage]\npath = ", &[], &[]).expect_err("no TOML");
    assert!(error.starts_with("c.toml:2: "), "{error}");
}

#[test]
fn values_that_do_not_fit_together_are_errors() {
    check_error(
        "[otlp]\ngrpc = \"127.0.0.1:1\"\nhttp = \"127.0.0.1:1\"",
        "c.toml: otlp.http: 127.0.0.1:1 is the address of otlp.grpc as well",
    );
    check_error(
        "[storage]\nretention = \"1h\"",
        "c.toml: storage.retention: is less than a day, and whole days are dropped; use 1d or more",
    );
    check_error(
        "[memory]\nlimit = \"1MiB\"",
        "c.toml: memory.limit: \"1MiB\" is too little to work with; use 64MiB or more",
    );
    check_error(
        "[loki.limits]\nmax_line_size = \"1GiB\"",
        "c.toml: loki.limits.max_line_size: \"1GiB\" is not between 1B and max_body_size",
    );
    check_error(
        "[jaeger.sampling]\nstrategies_file = \"https://h/s.json\"",
        "c.toml: jaeger.sampling.strategies_file: \"https://h/s.json\": a URL is not read; have a \
         timer fetch it into a file, and name that",
    );
    check_error(
        "[jaeger.sampling]\ntype = \"adaptive\"\nstrategies_file = \"s.json\"",
        "c.toml: jaeger.sampling.strategies_file: is not read when jaeger.sampling.type is \
         \"adaptive\"; leave one of them out",
    );
    check_error(
        "[jaeger.sampling.adaptive]\nmin_sampling_probability = 0.5",
        "c.toml: jaeger.sampling.adaptive.initial_sampling_probability: is not between \
         min_sampling_probability and 1",
    );
    check_error(
        "[jaeger.sampling.adaptive]\nbuckets_for_calculation = 11",
        "c.toml: jaeger.sampling.adaptive.buckets_for_calculation: is not between 1 and \
         aggregation_buckets",
    );
    for path in ["jaeger", "/jaeger/", "//a", "/a/../b", "/a b"] {
        check_error(
            &format!("[jaeger.query]\nbase_path = \"{path}\""),
            &format!(
                "c.toml: jaeger.query.base_path: \"{path}\" is not a path such as \"/\" or \"/jaeger\""
            ),
        );
    }
    check_error(
        "[jaeger.query]\nui_config = \"ui.json\"",
        "c.toml: jaeger.query.ui_config: has no effect without jaeger.query.ui_dir",
    );
    check_error(
        "[jaeger.query]\nui_dir = \"ui\"\nui_config = \"ui.yaml\"",
        "c.toml: jaeger.query.ui_config: \"ui.yaml\" is not named .json or .js",
    );
    // Port 0 asks for any free port, so it may repeat.
    load(
        "[otlp]\ngrpc = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"",
        &[],
        &[],
    )
    .expect("valid");
}

#[test]
fn wrong_file_tables_are_errors() {
    check_error(
        "[[files]]\n",
        "c.toml:1: files.paths: is missing; list the files to follow",
    );
    check_error(
        "[[files]]\npaths = \"/a\"",
        "c.toml:2: files.paths: \"/a\" is not a list of paths such as [\"/var/log/*.log\"]",
    );
    check_error(
        "[[files]]\npaths = [\"/a\"]\nstart = \"middle\"",
        "c.toml:3: files.start: \"middle\" is not one of \"beginning\", \"end\"",
    );
    check_error(
        "[[files]]\npaths = [\"/a\"]\nlabels = { \"a-b\" = \"x\" }",
        "c.toml:3: files.labels.a-b: is not a label name: letters, digits and _, not beginning \
         with a digit",
    );
    check_error(
        "[[files]]\npaths = [\"/a\"]\nlabels = { a = 1 }",
        "c.toml:3: files.labels.a: 1 is not a text; write the label's value in quotes",
    );
    check_error(
        "[files]\npaths = [\"/a\"]",
        "c.toml:1: files: write it as [[files]]",
    );
    let error = load("[[files]]\npaths = [\"/a[\"]", &[], &[]).expect_err("bad glob");
    assert!(
        error.starts_with("c.toml:2: files.paths: `/a[`: "),
        "{error}"
    );
    let error = load("", &[("WATCHPOST__FILES", "x")], &[]).expect_err("files");
    assert!(
        error.ends_with("[[files]] can be given in a file only"),
        "{error}"
    );
}

#[test]
fn all_errors_are_told_at_once() {
    let error = load("[a]\n[storage]\npth = 1", &[("WATCHPOST__X", "")], &[]).expect_err("three");
    assert_eq!(error.lines().count(), 3, "{error}");
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let error = Config::load(Some(Path::new("/nonexistent/c.toml")), [], &[]).expect_err("missing");
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/c.toml: can't be read: "),
        "{error}"
    );
}

#[test]
fn retention_by_selector_is_read_and_its_errors_say_what_is_wrong() {
    let text = r#"
        [[retention]]
        selector = '{env="dev"}'
        period = "24h"
        priority = 3
        [[retention]]
        selector = '{app="audit"}'
        period = ""
        [[retention]]
        signal = "traces"
        period = "7d"
        [[retention]]
        signal = "traces"
        period = "3d"
    "#;
    let config = load(text, &[], &[]).expect("valid");
    let days = |n: u64| Some(Duration::from_secs(n * 24 * 3600));
    let rule = |selector: &str, period, priority| LogRetention {
        selector: selector.into(),
        period,
        priority,
    };
    let expected = [
        rule("{env=\"dev\"}", days(1), 3),
        rule("{app=\"audit\"}", None, 0),
    ];
    assert_eq!(config.retention.logs, expected);
    assert_eq!(config.retention.traces, Some(days(3)));
    let table = |text: &str| format!("[[retention]]\n{text}");
    check_error(
        &table("selector = '{env='"),
        "c.toml:2: retention.selector: \"{env=\": parse error at line 1, col 6: syntax error: \
         unexpected $end, expecting STRING\nc.toml:1: retention.period: is missing; say how long, \
         such as \"7d\", or \"\" for ever",
    );
    check_error(
        &table("period = \"1h\""),
        "c.toml:2: retention.period: is less than a day; use 1d or more",
    );
    check_error(
        &table("period = \"soon\""),
        "c.toml:2: retention.period: \"soon\" is not a duration such as 30d, 12h, 90s or 1h30m, or \
         \"\" for ever",
    );
    check_error(
        &table("period = \"1d\"\nselector = '{a=\"b\"}'\nsignal = \"traces\""),
        "c.toml:3: retention.selector: can't be given for traces: spans of all services lie \
         together, so one period holds for all of them; leave it out",
    );
    check_error(
        &table("period = \"1d\"\nsignal = \"metrics\""),
        "c.toml:3: retention.signal: \"metrics\" is not one of \"logs\", \"traces\"",
    );
    check_error(
        &table("period = \"1d\"\npriorty = 1"),
        "c.toml:3: retention.priorty: unknown key; did you mean `priority`?",
    );
    let error = load("", &[("WATCHPOST__RETENTION__PERIOD", "1d")], &[]).expect_err("no file");
    assert!(
        error.contains("[[retention]] can be given in a file only"),
        "{error}"
    );
}
