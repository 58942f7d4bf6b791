//! Templates filled in for one entry. What is expected was written by Go's own `text/template`
//! with sprig's functions.

use super::{Data, Program, Template};

struct Sample;

const LABELS: [(&str, &str); 5] = [
    ("a", "1"),
    ("f", "2.5"),
    ("j", r#"{"k":[1,"two",{"z":true},null],"o":{"x":null}}"#),
    ("n", "7"),
    ("t", "Hello World"),
];

impl Data for Sample {
    fn label(&self, name: &str) -> Option<&[u8]> {
        let (_, value) = LABELS.iter().find(|(n, _)| *n == name)?;
        Some(value.as_bytes())
    }

    fn labels(&self) -> Vec<(String, Vec<u8>)> {
        let owned = |(n, v): &(&str, &str)| ((*n).to_owned(), v.as_bytes().to_vec());
        LABELS.iter().map(owned).collect()
    }

    fn line(&self) -> &[u8] {
        b"the line"
    }

    fn timestamp(&self) -> i64 {
        1_700_000_000_123_456_789
    }
}

fn run(text: &str) -> Result<String, String> {
    let template = Template::parse("line", text).map_err(|e| format!("PARSE {e}"))?;
    let out = Program::new(template).run(&Sample)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// Templates with what Go's `text/template`, sprig and the other libraries that Loki uses
/// made of them.
const CASES: &str = include_str!("../../../tests/fixtures/go-templates.json");

#[test]
fn templates_do_what_go_does() {
    let file: serde_json::Value = serde_json::from_str(CASES).unwrap();
    assert_eq!(file["format"], "go-templates/1");
    let mut differing = Vec::new();
    for case in file["cases"].as_array().unwrap() {
        let template = case["template"].as_str().unwrap();
        let expected = match (&case["out"], &case["error"]) {
            (serde_json::Value::String(out), _) => Ok(out.clone()),
            (_, serde_json::Value::String(error)) => Err(error.clone()),
            _ => Err("PARSE".to_owned()),
        };
        // Why a text is no template is worded by us.
        let found = run(template).map_err(|e| match e.starts_with("PARSE ") {
            true => "PARSE".to_owned(),
            false => e,
        });
        if found != expected {
            differing.push(format!("{template}\n  go   {expected:?}\n  ours {found:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn a_template_that_does_too_much_ends_in_an_error() {
    for (template, reason) in [
        ("{{range 1000000000}}{{end}}", "steps for one line"),
        ("{{range 100000}}{{range 100000}}{{end}}{{end}}", "steps"),
        (
            "{{range 100000}}some text that is long{{end}}",
            "output is longer",
        ),
        ("{{repeat 2000000000 `x`}}", "a text would be longer"),
        (
            "{{repeat 1000000 `x` | repeat 1000}}",
            "a text would be longer",
        ),
        ("{{indent 1000000 `x\ny`}}", "a text would be longer"),
        (
            "{{$x := repeat 1000000 `x`}}{{range 1000}}{{$y := upper $x}}{{end}}",
            "bytes for one line",
        ),
        (
            "{{$x := repeat 1000000 `x`}}{{range 1000}}{{$y := eq $x $x}}{{end}}",
            "bytes for one line",
        ),
        (
            "{{$x := repeat 1000000 `x`}}{{range 1000}}{{$y := count `x+y` $x}}{{end}}",
            "bytes for one line",
        ),
        (
            "{{replace `` (repeat 1000000 `x`) (repeat 1000000 `y`)}}",
            "a text would be longer",
        ),
        (
            "{{regexReplaceAll `x` (repeat 100000 `x`) (repeat 100000 `y`)}}",
            "a text would be longer",
        ),
        (
            "{{define `r`}}{{template `r` .}}{{end}}{{template `r` .}}",
            "maximum template depth",
        ),
        (
            "{{define `r`}}{{range 2}}{{template `r` .}}{{end}}{{end}}{{template `r` .}}",
            "maximum template depth",
        ),
        ("{{template `line`}}", "maximum template depth"),
        (
            "{{range 20}}{{count (printf `x{%d}` .) `xxx`}}{{end}}",
            "steps",
        ),
        ("{{count `(\\pL{500}){500}` `x`}}", "too large"),
        (
            "{{printf `%1000000d%1000000d` 1 2}}",
            "a text would be longer",
        ),
        ("{{alignLeft 1000000000 `x`}}", "a text would be longer"),
        ("{{date (repeat 100000 `1`) now}}", "a layout is longer"),
    ] {
        let started = std::time::Instant::now();
        let error = run(template).expect_err(template);
        assert!(error.contains(reason), "{template}: {error}");
        assert!(started.elapsed().as_secs() < 5, "{template}");
    }
    // Lists of many values printed wide, and deep ones.
    let wide = "{{printf `%1000000v` (fromJson (printf `[%s0]` (repeat 1000 `0,`)))}}";
    assert!(run(wide).unwrap_err().contains("longer"));
    assert_eq!(
        run("{{fromJson (repeat 100000 `[`)}}").unwrap(),
        "<no value>"
    );
    assert_eq!(run("{{repeat 2000000000 ``}}").unwrap(), "");
}

#[test]
fn depth_that_is_allowed_fits_a_small_stack() {
    let nested = format!(
        "{{{{define `r`}}}}{}{{{{template `r` .}}}}{}{{{{end}}}}{{{{template `r` .}}}}",
        "{{if true}}{{range 1}}{{with 1}}".repeat(20),
        "{{end}}{{end}}{{end}}".repeat(20),
    );
    let pipes = format!("{{{{ {} .a {} }}}}", "print (".repeat(60), ")".repeat(60));
    let worker = std::thread::Builder::new().stack_size(1 << 20);
    let ran = worker.spawn(move || {
        assert!(run(&nested).unwrap_err().contains("maximum template depth"));
        assert_eq!(run(&pipes).unwrap(), "1");
    });
    ran.unwrap().join().unwrap();
}

#[test]
fn what_loki_has_of_its_own() {
    for (template, expected) in [
        ("{{ __line__ }} {{ __line__ | len }}", "the line 8"),
        (
            "{{ __timestamp__ | unixEpochNanos }}",
            "1700000000123456789",
        ),
        ("{{ .nope }}|{{ index . `nope` }}", "|"),
        ("{{ int `08` }} {{ int `1.9` }} {{ int `0x1F` }}", "0 1 31"),
        ("{{ addf 0.1 0.2 }}", "0.3"),
        ("{{ b64dec `!` }}", "illegal base64 data at input byte 0"),
        ("{{ alignLeft 3 `é` }}|{{ alignRight 1 `aé` }}", "é  |é"),
        ("{{ fromJson `x` }}", "<no value>"),
        ("{{ range $k, $v := . }}{{ $k }} {{ end }}", "a f j n t "),
        (
            "{{ count `` `é ß` }} {{ regexReplaceAll `x*` `éa` `-` }}",
            "4 -é-a-",
        ),
        ("{{ bytes `2KB` }} {{ duration `90s` }}", "2000 90"),
    ] {
        assert_eq!(run(template).as_deref(), Ok(expected), "{template}");
    }
    let error = run("{{ index .a 5 }}").unwrap_err();
    assert_eq!(
        error,
        "template: line:1:3: executing \"line\" at <index .a 5>: error calling index: index out \
         of range: 5"
    );
    for bad in [
        "{{ divf 1 0 }}",
        "{{ mod 1 0 }}",
        "{{ repeat -1 `x` }}",
        "{{ regexReplaceAll `(` `x` `y` }}",
        "{{ bytes `x` }}",
        "{{ duration `1d` }}",
        "{{ urldecode `%zz` }}",
        "{{ unixToTime `12` }}",
        "{{ .a.b }}",
    ] {
        assert!(run(bad).is_err(), "{bad}");
    }
}

mod properties {
    use super::run;
    use proptest::prelude::*;

    /// Pieces that make templates when they are put side by side.
    fn piece() -> impl Strategy<Value = String> {
        let words = vec![
            "{{",
            "}}",
            "{{- ",
            " -}}",
            "if ",
            "else ",
            "end",
            "range ",
            "with ",
            "define \"d\"",
            "template \"d\" .",
            "block \"d\" .",
            "break",
            "continue",
            "nil",
            "true",
            ".",
            ".a",
            ".j",
            ".t",
            "$",
            "$x := ",
            "$x",
            "$i, $x := ",
            "|",
            "(",
            ")",
            "1",
            "-2",
            "2.5",
            "'c'",
            "0x1f",
            "1e400",
            "\"s\"",
            "`r`",
            "\"%5.2f|%[2]*d%!\"",
            "fromJson .j",
            "index ",
            "slice ",
            "printf ",
            "substr ",
            "trunc ",
            "repeat ",
            "regexReplaceAll ",
            "count ",
            "date ",
            "toDate ",
            "toDateInZone ",
            "unixToTime ",
            "add ",
            "div ",
            "divf ",
            "round ",
            "alignLeft ",
            "eq ",
            "lt ",
            "and ",
            "or ",
            "not ",
            "html ",
            "js ",
            "b64dec ",
            "urldecode ",
            "replace ",
            "title ",
            "indent ",
            "default ",
            "__timestamp__",
            "now",
            ".Year",
            ".Sub ",
            ".Format ",
            "{{/* c */}}",
            "{{end}}",
            "\n",
        ];
        prop_oneof![
            9 => prop::sample::select(words).prop_map(str::to_owned),
            1 => "\\PC{0,6}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn any_text_is_read_and_run_without_a_panic(pieces in prop::collection::vec(piece(), 0..24)) {
            let _ = run(&pieces.concat());
            let _ = run(&pieces.join(" "));
            let _ = run(&format!("{{{{ {} }}}}", pieces.join(" ")));
        }

        #[test]
        fn functions_take_anything(
            function in prop::sample::select(crate::logql::template::function_names()),
            args in prop::collection::vec(
                prop_oneof![
                    any::<i64>().prop_map(|n| n.to_string()),
                    any::<f64>().prop_filter("a literal", |x| x.is_finite()).prop_map(|x| format!("{x:e}")),
                    "[^`]{0,12}".prop_map(|t| format!("`{t}`")),
                    prop::sample::select(vec![".", ".j", "nil", "true", "__timestamp__", "(fromJson .j).k", "(fromJson .j)"])
                        .prop_map(str::to_owned),
                ],
                0..5,
            ),
        ) {
            let _ = run(&format!("{{{{ {function} {} }}}}", args.join(" ")));
        }
    }
}
