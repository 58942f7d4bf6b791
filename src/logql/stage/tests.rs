//! Stages, one line at a time.

use crate::logql::ast::Expr;
use crate::logql::pipeline::{CompileError, Pipeline};
use crate::logql::{check, parse};
use crate::model::labels::Labels;
use crate::model::log::Metadata;

fn metadata(pairs: &[(&str, &str)]) -> Metadata {
    pairs
        .iter()
        .map(|(n, v)| ((*n).into(), (*v).into()))
        .collect()
}

fn compile(stages: &str) -> Result<Pipeline, CompileError> {
    let query = format!("{{app=\"x\"}} {stages}");
    let Expr::Log(log) = parse(&query).unwrap() else {
        panic!("{query} is a log query");
    };
    Pipeline::compile(&log)
}

/// Runs the stages over a line of the stream `{app="x"}` with the metadata `m="1"`, and renders
/// line and labels without those two; "-" for a rejected line.
#[track_caller]
fn check(stages: &str, line: &str, expected: &str) {
    let pipeline = compile(stages).unwrap();
    let mut runner = pipeline.runner();
    runner.bind(&Labels::from_pairs([("app", "x")]));
    let metadata = metadata(&[("m", "1")]);
    // Twice: nothing of an entry may leak into the next.
    for _ in 0..2 {
        let found = match runner.run(7, line.as_bytes(), Some(&metadata)) {
            None => "-".to_owned(),
            Some(mut outcome) => {
                let labels = outcome.labels();
                let own = labels
                    .iter()
                    .filter(|(n, v)| !matches!((*n, *v), ("app", "x") | ("m", "1")))
                    .filter(|(n, _)| *n != "__error_details__");
                let labels: Vec<String> = own.map(|(n, v)| format!("{n}={v}")).collect();
                let out = String::from_utf8_lossy(outcome.line()).into_owned();
                if out == line {
                    labels.join(" ")
                } else {
                    format!("{out} | {}", labels.join(" "))
                }
            }
        };
        assert_eq!(found, expected, "{stages} on {line}");
    }
}

#[test]
fn json_joins_nested_keys_with_underscore() {
    check(
        "| json",
        r#"{"req":{"ms":7,"x":{"y":"z"}},"n":null,"a":[1]}"#,
        "req_ms=7 req_x_y=z",
    );
    check(
        "| json",
        r#"  {"a":1.50,"b":1e3,"c":true,"d":""} tail"#,
        "a=1.50 b=1e3 c=true d=",
    );
    check(
        "| json",
        r#"{"a b":"1","9c":"2","é":"3","":"4"}"#,
        "_=3 _9c=2 a_b=1",
    );
    check("| json", r#"{}"#, "");
}

#[test]
fn json_does_not_overwrite() {
    check(
        "| json",
        r#"{"app":"y","m":"2","a":"1","a":"2"}"#,
        "a=1 app_extracted=y m_extracted=2",
    );
    check(
        "| json",
        r#"{"t":"\u00e9\n\"\ud83d\ude00\/"}"#,
        "t=é\n\"😀/",
    );
}

#[test]
fn broken_json_marks_the_entry_and_keeps_what_came_before() {
    check("| json", r#"{"a":"1","b":"#, "__error__=JSONParserErr a=1");
    check("| json", "not json", "__error__=JSONParserErr");
    check("| json", r#"["a"]"#, "__error__=JSONParserErr");
    check("| json", r#"{"a":x}"#, "__error__=JSONParserErr");
    let deep = "{\"a\":".repeat(5000);
    check("| json", &deep, "__error__=JSONParserErr");
    check("| json", &"[".repeat(5000), "__error__=JSONParserErr");
}

#[test]
fn json_paths_give_source_text_and_exist_always() {
    let line = r#"{"a":{"b c":{"d":[1,2,"x\ty"]}},"n":null,"o":{"k": 1 },"t":[1, 2]}"#;
    check(r#"| json v="a[\"b c\"].d[2]""#, line, "v=x\ty");
    check(
        r#"| json n, o, t, gone="a.z""#,
        line,
        "gone= n= o={\"k\": 1 } t=[1, 2]",
    );
    check(r#"| json app="o.k""#, line, "app_extracted=1");
    check("| json a", "x", "__error__=JSONParserErr");
    check(r#"| json x="a[0]""#, r#"{"a":[]}"#, "x=");
}

#[test]
fn logfmt_reads_pairs_and_skips_what_is_broken() {
    check(
        "| logfmt",
        r#"a=1 b="x \"y\"" bare c= d=2"#,
        r#"a=1 b=x "y" d=2"#,
    );
    check("| logfmt --keep-empty", "bare c= d=2", "bare= c= d=2");
    check("| logfmt", r#"a"b=1 =x c=1=2 d="open e=1"#, "");
    check(
        "| logfmt",
        r#"a"b=1 ok=1 =x fine=2 c=1=2 f=3"#,
        "f=3 fine=2 ok=1",
    );
    check(
        "| logfmt --strict",
        "a=1 c=1=2 f=3",
        "__error__=LogfmtParserErr a=1",
    );
    check("| logfmt", "a=1 a=2 app=q", "a=1 app_extracted=q");
    check("| logfmt x=\"a\", y=\"b\"", "a=1 a=2", "x=2 y=");
}

#[test]
fn regexp_sets_named_groups_of_the_first_match() {
    check(
        r"| regexp `u=(?P<u>\w+)(?: r=(?P<r>\w+))?`",
        "u=bob u=al",
        "r= u=bob",
    );
    check("| regexp `(?P<u>x)`", "y", "");
}

#[test]
fn pattern_captures_between_literals() {
    check(
        "| pattern `<ip> - [<_>] \"<verb> <path>\"`",
        r#"1.2 - [t] "GET /x""#,
        "ip=1.2 path=/x verb=GET",
    );
    check("| pattern `level=<l> <rest>`", "x level=a b", "");
}

#[test]
fn unpack_undoes_pack() {
    check(
        "| unpack",
        r#"{"_entry":"a b","pod":"p","n":1,"app":"y"}"#,
        "a b | app_extracted=y pod=p",
    );
    check("| unpack", r#"{"pod":"p"}"#, "");
    check("| unpack", "x", "__error__=JSONParserErr");
}

/// They were read as infinite.
#[test]
fn a_number_too_large_for_a_float_is_none() {
    check(
        "| logfmt | v > 5",
        "v=1e400",
        "__error__=LabelFilterErr v=1e400",
    );
    check("| logfmt | v > 5", "v=+Inf", "v=+Inf");
    check("| logfmt | v < 5", "v=-infinity", "v=-infinity");
}

#[test]
fn label_filters_convert_values() {
    check("| logfmt | v > 10", "v=10.5", "v=10.5");
    check("| logfmt | v > 10", "v=9", "-");
    check("| logfmt | v != 10", "w=9", "-");
    check("| logfmt | v > 10", "v=x", "__error__=LabelFilterErr v=x");
    check("| logfmt | v > 1m", "v=1h2m", "v=1h2m");
    check("| logfmt | v > 1m", "v=1d", "__error__=LabelFilterErr v=1d");
    check("| logfmt | v >= 1KB", "v=1kb", "v=1kb");
    check("| logfmt | v >= 1KiB", "v=1kb", "-");
    check(
        "| logfmt | v = ip(\"10.0.0.0/8\")",
        "v=10.1.1.1",
        "v=10.1.1.1",
    );
    check("| logfmt | v != ip(\"10.0.0.0/8\")", "v=none", "v=none");
    check("| logfmt | v != ip(\"10.0.0.0/8\")", "w=none", "-");
    check("| json | v > 1", "x", "-");
    check("| json | app > 1", "x", "__error__=JSONParserErr");
    check("| logfmt | v > 1 or v > 2s | __error__=\"\"", "v=x", "-");
}

#[test]
fn text_filters_take_an_absent_label_as_empty() {
    check("| v = \"\"", "l", "");
    check("| v != \"x\"", "l", "");
    check("| logfmt | v =~ \"a|b\"", "v=ab", "-");
    check("| m = \"1\" and app = \"x\"", "l", "");
    check("| m = \"2\" or app = \"x\"", "l", "");
    check("| m = \"2\" or app = \"y\"", "l", "-");
}

#[test]
fn line_format_fills_in_labels() {
    check(
        "| logfmt | line_format `{{.a}}-{{.gone}}-{{.app}}-{{.m}} {{__line__}}`",
        "a=1",
        "1--x-1 a=1 | a=1",
    );
    check(
        "| line_format `k={{.app}}` | logfmt | line_format `{{.k}}{{.k}}`",
        "l",
        "xx | k=x",
    );
    check("| line_format ``", "l", " | ");
}

#[test]
fn label_format_renames_and_fills_in() {
    check("| logfmt | label_format b=a", "a=1", "b=1");
    check("| label_format b=gone", "l", "");
    check(
        "| logfmt | label_format c=`{{.a}}`, a=`new`, d=`{{.a}}`",
        "a=1",
        "a=new c=1 d=1",
    );
    check("| label_format app=`y`, z=app", "l", "z=y");
    check("| label_format x=m", "l", "x=1");
}

#[test]
fn templates_run_functions_over_all_labels() {
    check(
        "| logfmt | line_format `{{.a | upper}} {{if eq .m \"1\"}}{{.app}}{{end}} {{__line__ | len}}`",
        "a=é",
        "É x 4 | a=é",
    );
    check(
        "| logfmt | line_format `{{range $k, $v := .}}{{$k}}={{$v}};{{end}}`",
        "b=2 a=1",
        "a=1;app=x;b=2;m=1; | a=1 b=2",
    );
    check(
        "| line_format `{{ __timestamp__ | unixEpochNanos }}`",
        "l",
        "7 | ",
    );
    check(
        "| logfmt | label_format c=`{{ add .a 1 }}`, d=`{{ .c }}`, e=a",
        "a=1",
        "c=2 d= e=1",
    );
    check(
        "| logfmt | line_format `{{ .a | lower }}` | logfmt",
        "a=\"B=2\"",
        "b=2 | a=B=2 b=2",
    );
}

#[test]
fn a_template_that_fails_marks_the_entry_and_changes_nothing() {
    check(
        "| line_format `{{ index .app 5 }}`",
        "l",
        "__error__=TemplateFormatErr",
    );
    check(
        "| logfmt | label_format a=`{{ div 1 0 }}`, b=`{{ .a }}`",
        "a=1",
        "__error__=TemplateFormatErr a=1 b=1",
    );
    check("| line_format `{{ .app.x }}` | __error__ = \"\"", "l", "-");
    // An earlier error is replaced.
    check(
        "| json | line_format `{{ .app.x }}`",
        "l",
        "__error__=TemplateFormatErr",
    );
    let pipeline = compile("| label_format b=`{{ .app.x }}`").unwrap();
    let mut runner = pipeline.runner();
    runner.bind(&Labels::from_pairs([("app", "x")]));
    let details = runner.run(7, b"l", None).unwrap().labels();
    assert_eq!(
        details.get("__error_details__"),
        Some(
            "template: label:1:7: executing \"label\" at <.app.x>: can't evaluate field x in \
             type string"
        )
    );
}

#[test]
fn drop_and_keep_remove_labels_of_every_class() {
    check("| logfmt | drop a, b=\"2\", c=\"9\"", "a=1 b=2 c=3", "c=3");
    check("| json | drop __error__, __error_details__", "x", "");
    check("| logfmt | keep a, b=\"9\"", "a=1 b=2", "a=1");
    check("| json | keep a", "x", "__error__=JSONParserErr");
    check("| drop a | logfmt", "a=1", "a=1");
}

#[test]
fn decolorize_removes_escape_sequences() {
    check("| decolorize", "\x1b[31;1mred\x1b[0m plain", "red plain | ");
    check("| decolorize", "plain [31m", "");
}

#[test]
fn line_filters_see_bytes() {
    check("|= \"a\" or \"b\" != \"c\"", "xb", "");
    check("|= \"a\" or \"b\" != \"c\"", "bc", "-");
    check("|~ `^a.c$`", "abc", "");
    check("|~ `(?i)É`", "é", "");
    check("!~ `\\d`", "٣", "");
    let pipeline = compile("|= \"x\"").unwrap();
    let mut runner = pipeline.runner();
    runner.bind(&Labels::empty());
    let mut outcome = runner.run(0, b"\xff x", None).unwrap();
    assert_eq!(outcome.line(), b"\xff x");
    assert!(outcome.labels().is_empty());
}

#[test]
fn invalid_utf8_in_a_value_becomes_blanks() {
    let pipeline = compile("| logfmt").unwrap();
    let mut runner = pipeline.runner();
    runner.bind(&Labels::empty());
    let mut outcome = runner.run(0, b"a=x\xffy b=2", None).unwrap();
    assert_eq!(outcome.labels().to_string(), r#"{a="x y", b="2"}"#);
}

#[test]
fn labels_come_in_three_classes() {
    let pipeline = compile("| logfmt | label_format n=`{{.k}}`, app=`changed`").unwrap();
    let mut runner = pipeline.runner();
    runner.bind(&Labels::from_pairs([("app", "x"), ("host", "h")]));
    let metadata = metadata(&[("host", "m"), ("user", "u")]);
    let outcome = runner.run(0, b"k=v user=q", Some(&metadata)).unwrap();
    assert_eq!(outcome.stream_labels().to_string(), r#"{host="h"}"#);
    assert_eq!(
        outcome.structured().to_string(),
        r#"{host_extracted="m", user="u"}"#
    );
    let parsed = r#"{app="changed", k="v", n="v", user_extracted="q"}"#;
    assert_eq!(outcome.parsed().to_string(), parsed);
}

#[test]
fn a_template_that_cannot_be_read_is_refused() {
    let refused = |stages: &str| compile(stages).unwrap_err().to_string();
    let error = refused("| line_format `{{.a`");
    assert!(error.starts_with("parse error : stage '"), "{error}");
    assert!(
        error.ends_with("template: line:1: unclosed action"),
        "{error}"
    );
    let error = refused("| label_format b=`{{ env \"HOME\" }}`");
    assert!(error.ends_with("function \"env\" not defined"), "{error}");
    let expr = parse("{a=\"b\"} | line_format `{{.a`").unwrap();
    assert!(check::pipeline(&expr).is_err());
}

#[test]
fn only_leading_filters_run_over_whole_buffers() {
    let pipeline = compile("|= \"a\" |~ \"b+\" | logfmt |= \"c\"").unwrap();
    assert_eq!(pipeline.leading_filters().len(), 2);
    assert!(pipeline.leading_filters()[0].single_literal().is_some());
    assert!(
        pipeline.leading_filters()[1]
            .single_regex()
            .unwrap()
            .is_local
    );
    assert!(!pipeline.is_only_filters());
    assert!(compile("|= \"\"").unwrap().leading_filters().is_empty());
    let pipeline = compile("|~ \"^a\" |~ \"(?s)a.b\" |~ \"x*\"").unwrap();
    for filter in pipeline.leading_filters() {
        assert!(!filter.single_regex().unwrap().is_local);
    }
}

/// Keys are remembered by their position in the lines before.
#[test]
fn the_keys_of_other_lines_change_no_labels() {
    let lines = [
        r#"{"a":"1","b":"2","c":{"d":"3"}}"#,
        r#"{"b":"2","a":"1"}"#,
        r#"{"a":{"x":"1"},"b":"4","":"5","6":"7"}"#,
        r#"{"a b":"1","a_b":"2","app":"y","m":"z"}"#,
        r#"{"c":null,"a":"\u0061","d":"e"}"#,
        r#"{"a":"1","a":"2","b"#,
        "a=1 b=2 c_d=3",
        "b=2 a=1 \"x\" =y a=3 app=q m=r",
        "bare a= b=\"2 3\" é=1 a-b=1 a_b=2",
        "",
    ];
    for stages in [
        "| json",
        "| logfmt",
        "| logfmt --keep-empty",
        "| json | logfmt",
    ] {
        let pipeline = compile(stages).unwrap();
        let labels = Labels::from_pairs([("app", "x")]);
        let metadata = metadata(&[("m", "1")]);
        let mut same = pipeline.runner();
        same.bind(&labels);
        let mut n = 0usize;
        for _ in 0..200 {
            // Every line comes behind every other.
            n = (n * 31 + 7) % 1009;
            let line = lines[n % lines.len()];
            let found = same
                .run(1, line.as_bytes(), Some(&metadata))
                .unwrap()
                .labels();
            let mut fresh = pipeline.runner();
            fresh.bind(&labels);
            let expected = fresh
                .run(1, line.as_bytes(), Some(&metadata))
                .unwrap()
                .labels();
            assert_eq!(found, expected, "{stages} on {line}");
        }
    }
}

// What a Loki 3.7.6 made of these lines.

#[test]
fn a_comma_before_the_end_of_an_object_is_no_error() {
    check("| json", r#"{"n":1,}"#, "n=1");
    check("| json", r#"{"a":{"b":1 , } }"#, "a_b=1");
    check("| unpack", r#"{"n":1,}"#, "");
}

#[test]
fn a_text_with_a_broken_escape_is_empty() {
    check("| json", r#"{"a":"x\ud83d","b":"y"}"#, "a= b=y");
    check("| json", r#"{"a":"\q","b":"1"}"#, "a= b=1");
    check(r#"| json l="a""#, r#"{"a":"x\ud83d","b":"y"}"#, "l=");
    check("| logfmt", r#"a="x\ud83dy""#, "a=x y");
    check("| logfmt", "a=\u{fffd}x b=é", "a= x b=é");
    check("| json", "{\"a\":\"\u{fffd}x\"}", "a= x");
}

#[test]
fn expressions_over_json_want_a_value_at_the_very_start() {
    let error = "__error__=JSONParserErr";
    check("| json a", r#" {"a":1}"#, error);
    check("| json a", "12", error);
    check("| unpack", r#" {"_entry":"x"}"#, error);
    check("| json a", r#"[{"a":1}]"#, "a=");
    // Nothing is asked of an empty line.
    check("| json a", "", "");
    check("| unpack", "", "");
    check("| pattern `<a> <b>`", "", "");
}

#[test]
fn expressions_over_json_go_on_behind_what_is_broken() {
    check("| json a, b", r#"{"a":"x" "b":8}"#, "a=x b=8");
    check(
        "| json a, b",
        r#"{"b":tru}"#,
        "__error__=JSONParserErr a= b=",
    );
    check("| json a", r#"{"a":"x","b":"#, "a=x");
}

#[test]
fn a_missing_value_sets_nothing_beside_a_label_of_the_stream() {
    check("| json app, m, a", r#"{"b":1}"#, "a=");
    check(
        "| json app, m",
        r#"{"app":1,"m":null}"#,
        "app_extracted=1 m_extracted=",
    );
    check("| logfmt app, m, a", "b=1", "a=");
    check("| logfmt app, m", "app=1", "app_extracted=1");
}

#[test]
fn expressions_over_logfmt_take_keys_by_the_names_of_labels_too() {
    check(
        r#"| logfmt lvl="level""#,
        "level=INFO lvl=warning",
        "lvl=warning",
    );
    check(
        r#"| logfmt lvl="level""#,
        "lvl=warning level=INFO",
        "lvl=INFO",
    );
    check(r#"| logfmt d="a_b""#, "a.b=1", "d=1");
    check(
        r#"| logfmt --strict lvl="level""#,
        r#"bad="\q" n=9"#,
        "__error__=LogfmtParserErr lvl=",
    );
}

#[test]
fn numbers_are_those_of_go() {
    check("| logfmt | n > 999", "n=1_000", "n=1_000");
    check("| logfmt | n > 1000", "n=1_000", "-");
    check(
        "| logfmt | n > 1",
        "n=1__0",
        "__error__=LabelFilterErr n=1__0",
    );
    check(
        "| logfmt | n > 1",
        "n=0x10",
        "__error__=LabelFilterErr n=0x10",
    );
    check("| logfmt | n > 15", "n=0x1p4", "n=0x1p4");
}

#[test]
fn an_address_may_stand_anywhere_in_a_label() {
    for (value, expected) in [
        ("10.0.0.7:80", true),
        ("x,10.0.0.7", true),
        ("11.0.0.1", false),
        ("none", false),
    ] {
        let line = format!("ip={value}");
        let (is, is_not) = if expected {
            (&*line, "-")
        } else {
            ("-", &*line)
        };
        check(r#"| logfmt | ip = ip("10.0.0.0/8")"#, &line, is);
        check(r#"| logfmt | ip != ip("10.0.0.0/8")"#, &line, is_not);
    }
}

#[test]
fn dots_of_the_simplest_label_filters_match_newlines() {
    let line = r#"{"msg":"line\nbreak"}"#;
    check("| json | drop msg !~ `line.*`", line, "msg=line\nbreak");
    check("| json | msg =~ `.*break`", line, "msg=line\nbreak");
    check("| json | msg =~ `line.break`", line, "-");
    // In `drop` and `keep` all do.
    check("| json | drop msg =~ `line.break`", line, "");
}
