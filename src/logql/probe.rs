//! What the bytes of a line must hold for a label filter behind `json` or `logfmt` to let it
//! through: `| json | status >= 500` needs `status"` and behind it a number like that.
//!
//! B1. A probe only rules out: a line that the pipeline lets through is never refused.
//! B2. It holds for lines without structured metadata, of streams that [`Probe::holds_for`]
//!     accepts: elsewhere a label of the name may come from another place.
//!
//! Names are looked for by what stands behind their last `_`, since `a_b` may be the member
//! `b` of the object `a`, or the key `a.b`.

use memchr::{memchr_iter, memmem};

use super::ast::{LabelFilter, Stage};
use super::stage::label_filter::ValueTest;
use super::stage::{json_reader, logfmt};
use crate::model::labels::Labels;

/// Conditions beyond this are left to the pipeline.
const MAX_CLAUSES: usize = 4;
/// Shorter ends of names stand in every line.
const MIN_NEEDLE: usize = 2;

/// A necessary condition for lines.
#[derive(Debug)]
pub struct Probe {
    syntax: Syntax,
    /// Of each clause one test must hold.
    clauses: Vec<Vec<KeyTest>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Json,
    Logfmt,
}

#[derive(Clone, Debug)]
struct KeyTest {
    name: String,
    /// The end of the name, with the `=` of logfmt.
    finder: memmem::Finder<'static>,
    test: ValueTest,
}

impl Probe {
    /// The probe of the stages behind the leading line filters, if they begin with a parser
    /// and a filter that rules out anything.
    pub fn of(stages: &[Stage]) -> Option<Self> {
        let mut syntax = None;
        let mut clauses = Vec::new();
        for stage in stages {
            match stage {
                Stage::Line(_) => {}
                Stage::Json(paths) if syntax.is_none() && paths.is_empty() => {
                    syntax = Some(Syntax::Json);
                }
                // `--keep-empty` makes labels of bare words.
                Stage::Logfmt(logfmt)
                    if syntax.is_none() && logfmt.extractions.is_empty() && !logfmt.keep_empty =>
                {
                    syntax = Some(Syntax::Logfmt);
                }
                Stage::Label(filter) => {
                    if let Some(syntax) = syntax {
                        clauses.extend(clauses_of(filter, syntax));
                    }
                }
                // From here on labels may have other origins.
                _ => break,
            }
        }
        clauses.truncate(MAX_CLAUSES);
        let syntax = syntax?;
        (!clauses.is_empty()).then_some(Self { syntax, clauses })
    }

    /// Whether lines of this stream may be judged (B2).
    pub fn holds_for(&self, stream: &Labels) -> bool {
        let mut tests = self.clauses.iter().flatten();
        tests.all(|test| stream.get(&test.name).is_none())
    }

    /// False: the pipeline rejects the line.
    pub fn may_pass(&self, line: &[u8]) -> bool {
        let held = |clause: &Vec<KeyTest>| clause.iter().any(|test| test.holds(self.syntax, line));
        if self.clauses.iter().all(held) {
            return true;
        }
        // Escapes may spell any name.
        self.syntax == Syntax::Json
            && memchr_iter(b'\\', line).any(|at| line.get(at + 1) == Some(&b'u'))
    }
}

impl KeyTest {
    fn of(name: &str, test: ValueTest, syntax: Syntax) -> Option<Self> {
        // Labels that are no parser's, or under another name than their key.
        if name.starts_with("__") || name.ends_with("_extracted") || name == "detected_level" {
            return None;
        }
        let mut needle = name.rsplit('_').next()?.to_owned();
        if syntax == Syntax::Logfmt && !needle.is_empty() {
            needle.push('=');
        }
        (needle.len() >= MIN_NEEDLE).then(|| Self {
            name: name.to_owned(),
            finder: memmem::Finder::new(needle.as_bytes()).into_owned(),
            test,
        })
    }

    fn holds(&self, syntax: Syntax, line: &[u8]) -> bool {
        let mut from = 0;
        while let Some(found) = self.finder.find(&line[from..]) {
            // No name begins within the match: what stands before it is no letter or digit.
            from += found + self.finder.needle().len();
            let may_pass = match syntax {
                Syntax::Json => match json_reader::value_behind_name(line, from) {
                    json_reader::Behind::Nothing => false,
                    json_reader::Behind::Value(range) => self.test.may_pass(&line[range]),
                    json_reader::Behind::Unclear => true,
                },
                Syntax::Logfmt => match logfmt::value_at(line, from) {
                    Some((range, false)) => self.test.may_pass(&line[range]),
                    // Escapes are left to the parser.
                    Some((_, true)) => true,
                    None => false,
                },
            };
            if may_pass {
                return true;
            }
        }
        false
    }
}

/// What a filter asks for: one test of every clause must hold.
fn clauses_of(filter: &LabelFilter, syntax: Syntax) -> Vec<Vec<KeyTest>> {
    match filter {
        LabelFilter::And(left, right) => {
            let mut clauses = clauses_of(left, syntax);
            clauses.extend(clauses_of(right, syntax));
            clauses.truncate(MAX_CLAUSES);
            clauses
        }
        LabelFilter::Or(left, right) => {
            // Only when either side asks for something; then the first of each will do.
            let left = clauses_of(left, syntax).into_iter().next();
            let right = clauses_of(right, syntax).into_iter().next();
            match (left, right) {
                (Some(mut either), Some(right)) => {
                    either.extend(right);
                    vec![either]
                }
                _ => Vec::new(),
            }
        }
        single => {
            let test =
                ValueTest::of(single).and_then(|(name, test)| KeyTest::of(name, test, syntax));
            test.into_iter().map(|test| vec![test]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::ast::Expr;
    use crate::logql::pipeline::Pipeline;
    use proptest::prelude::*;

    fn compile(stages: &str) -> Pipeline {
        let Ok(Expr::Log(log)) = crate::logql::parse(&format!("{{app=\"x\"}} {stages}")) else {
            panic!("{stages}")
        };
        Pipeline::compile(&log).unwrap()
    }

    const FILTERS: [&str; 16] = [
        "status >= 500",
        "status != 200",
        "status = \"500\"",
        "status =~ \"5..\"",
        "req_status > 499",
        "dur > 1s",
        "size <= 1KB",
        "status >= 500 or dur > 1s",
        "status >= 500 and dur > 1s",
        "_5xx = 1",
        "status = \"\"",
        "status != \"\"",
        "status_extracted > 3",
        "(status > 3 and __error__ = \"\") or dur < 2s",
        "status > 3 | dur > 1s",
        "status = ip(\"10.0.0.1\") or status > 1",
    ];

    /// Text that looks like JSON or logfmt, or is a little broken.
    fn line() -> impl Strategy<Value = String> {
        let part = prop::sample::select(vec![
            "{",
            "}",
            "\"status\":",
            "\"status \" : ",
            "\"st\\u0061tus\":",
            "\"status\\n\":",
            "\"req\":{",
            "\"req.status\":",
            "status=",
            "req.status=",
            "req_status=",
            "dur=",
            "\"dur\":",
            "\"_5xx\":",
            "\"5xx\":",
            "5xx=",
            "500",
            "\"500\"",
            "\"5\\u00300\"",
            "200",
            "1",
            "\"1\"",
            "2s",
            "\"2s\"",
            "1h",
            "\"x\\\"status\\\":500\"",
            "null",
            "[500]",
            ",",
            ",",
            " ",
            " ",
            "=",
            "\"",
            "\\",
            "size=10B",
            "\"size\":\"2KB\"",
            "1e3",
            "é",
            "\u{1}",
        ]);
        let pair = prop::sample::select(vec![
            "\"status\":500",
            "\"status\":200",
            "\"status\":\"501\"",
            "\"dur\":\"2s\"",
            "\"a\":{\"status\":7}",
            "\"req\":{\"status\":500}",
            "\"x\":\"status\"",
        ]);
        prop_oneof![
            prop::collection::vec(part, 0..12).prop_map(|parts| parts.concat()),
            prop::collection::vec(pair, 0..4).prop_map(|p| format!("{{{}}}", p.join(","))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn what_the_pipeline_lets_through_is_never_ruled_out(
            line in line(), filter in 0..FILTERS.len(), parser in 0usize..6,
        ) {
            let parser = [
                "| json", "| logfmt", "| logfmt --strict", "| logfmt --keep-empty",
                "| json |= `5`", "| logfmt | status != \"1\"",
            ][parser];
            let stages = format!("{parser} | {}", FILTERS[filter]);
            let pipeline = compile(&stages);
            let stream = Labels::from_pairs([("app", "x")]);
            if let Some(probe) = pipeline.probe() {
                prop_assert!(probe.holds_for(&stream));
                let mut runner = pipeline.runner();
                runner.bind(&stream);
                let passes = runner.run(1, line.as_bytes(), None).is_some();
                prop_assert!(!passes || probe.may_pass(line.as_bytes()), "{} on {}", stages, line);
            }
        }
    }

    #[test]
    fn a_probe_rules_out_what_plainly_does_not_match() {
        for (stages, line, expected) in [
            (
                "| json | status >= 500",
                r#"{"status":200,"a":"x\"y"}"#,
                false,
            ),
            ("| json | status >= 500", r#"{"status": "503"}"#, true),
            ("| json | status >= 500", r#"{"msg":"status 500"}"#, false),
            ("| json | status >= 500", r#"{"msg":"\u0061"}"#, true),
            (
                "| json | req_status >= 500",
                r#"{"req":{"status":500}}"#,
                true,
            ),
            ("| logfmt | duration > 1s", "a=b duration=20ms", false),
            ("| logfmt | duration > 1s", "a=b duration=\"2s\"", true),
            ("| logfmt | duration > 1s", "a=b duration=soon", true),
            (
                "| logfmt | level = `error` or level = `warn`",
                "level=info",
                false,
            ),
        ] {
            let pipeline = compile(stages);
            let probe = pipeline.probe().unwrap();
            assert_eq!(probe.may_pass(line.as_bytes()), expected, "{stages} {line}");
        }
    }

    #[test]
    fn there_is_no_probe_where_a_label_may_come_from_elsewhere() {
        for stages in [
            "| json",
            "| json | logfmt | a > 1",
            "| json a=\"b\" | a > 1",
            "| json | label_format aa=`1` | aa > 1",
            "| json | __error__ = `x`",
            "| json | detected_level = `info`",
            "| json | level != `info`",
            "| json | level = `info` or other != `x`",
            "| aa > 1 | json",
            "| logfmt --keep-empty | aa > 1",
        ] {
            assert!(compile(stages).probe().is_none(), "{stages}");
        }
        let probe = compile("| json | app = `y`");
        assert!(
            !probe
                .probe()
                .unwrap()
                .holds_for(&Labels::from_pairs([("app", "x")]))
        );
    }
}
