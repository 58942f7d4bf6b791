//! The language against the recorded cases.

use super::*;
use crate::logql::ast::Expr;

const CASES: &str = include_str!("../../tests/fixtures/logql-parse.json");

fn cases(kind: &str) -> Vec<serde_json::Value> {
    let all: serde_json::Value = serde_json::from_str(CASES).unwrap();
    let cases = all[kind].as_array().unwrap().clone();
    assert!(cases.len() > 50);
    cases
}

/// Reads and builds, as running a query does.
fn build(query: &str) -> Result<Expr, ParseError> {
    let expr = parse(query)?;
    check::pipeline(&expr)?;
    Ok(expr)
}

#[test]
fn every_accepted_case_is_read_built_and_formatted() {
    let mut wrong = Vec::new();
    for case in cases("accept") {
        let query = case["query"].as_str().unwrap();
        let expr = match build(query) {
            Ok(expr) => expr,
            Err(e) => {
                wrong.push(format!("{query}\n  {e}"));
                continue;
            }
        };
        let kind = match expr {
            Expr::Log(_) => "streams",
            Expr::Metric(_) => "matrix",
        };
        if let Some(expected) = case["result_type"].as_str()
            && kind != expected
        {
            wrong.push(format!("{query}\n  is {kind}"));
        }
        if let Some(expected) = case["formatted"].as_str() {
            let formatted = format(&expr);
            if formatted != expected {
                wrong.push(format!(
                    "{query}\n  expected {expected}\n  found    {formatted}"
                ));
            }
            // Sizes are printed rounded, so the text is compared and not the tree.
            match parse(&formatted) {
                Ok(again) => assert_eq!(format(&again), formatted),
                Err(e) => wrong.push(format!("{formatted}\n  {e}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rejected_case_is_rejected_where_loki_rejects_it() {
    let mut wrong = Vec::new();
    for case in cases("reject") {
        let query = case["query"].as_str().unwrap();
        let found = match case["detected_at"].as_str().unwrap() {
            "parse" => parse(query).map(|_| ()),
            _ => parse(query).map_or_else(
                |e| panic!("{query} is refused too early: {e}"),
                |expr| check::pipeline(&expr),
            ),
        };
        let Err(error) = found else {
            wrong.push(format!("{query}\n  is accepted"));
            continue;
        };
        let position = case["error_position"].as_object().map(|p| {
            (
                p["line"].as_u64().unwrap() as u32,
                p["col"].as_u64().unwrap() as u32,
            )
        });
        if error.position != position {
            wrong.push(format!("{query}\n  expected {position:?}, found {error}"));
        }
        if case["detected_at"] != "parse" && !error.to_string().starts_with("parse error : stage '")
        {
            wrong.push(format!("{query}\n  {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_selector_parameter_takes_no_pipeline() {
    assert_eq!(parse_selector("{a=\"b\", c=~\"d\"}").unwrap().len(), 2);
    assert!(parse_selector("{}").is_err());
    assert_eq!(parse_selector_or_all("{}").unwrap().len(), 0);
    for query in ["{a=\"b\"} |= \"x\"", "rate({a=\"b\"}[1m])"] {
        let error = parse_selector(query).unwrap_err().to_string();
        assert!(
            error.contains("only label matchers are supported"),
            "{error}"
        );
    }
}

#[test]
fn labels_of_a_push_are_read_in_order() {
    let read = |text: &str| parse_push_labels(text);
    let pairs = |list: &[(&str, &str)]| {
        list.iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        read(r#"{b="1", a="x\"\u00e9\n"}"#).unwrap(),
        pairs(&[("b", "1"), ("a", "x\"é\n")])
    );
    assert_eq!(read(" { a = `r\\` } ").unwrap(), pairs(&[("a", "r\\")]));
    assert_eq!(read("{}").unwrap(), pairs(&[]));
    for bad in [
        "",
        "{",
        "{a}",
        "{a=1}",
        "{a!=\"1\"}",
        "{1a=\"1\"}",
        "{a=\"1\"",
        "{a=\"1\",}",
        "{a=\"1\"}x",
        "{a=\"\\q\"}",
        "{a=\"1\n\"}",
        "{é=\"1\"}",
        "{a=`",
        "{,}",
        "{a=\"\\",
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    assert_eq!(
        read("{foo=\"bar\" x").unwrap_err().to_string(),
        "parse error at line 1, col 12: syntax error: unexpected 'x', expecting } or ,"
    );
}

#[test]
fn nesting_is_bounded() {
    let deep = |open: &str, inner: &str, close: &str, n: usize| {
        format!("{}{inner}{}", open.repeat(n), close.repeat(n))
    };
    assert!(parse(&deep("(", "vector(1)", ")", 100)).is_ok());
    for query in [
        deep("(", "vector(1)", ")", 30_000),
        deep("sum(", "vector(1)", ")", 20_000),
        format!("vector(1){}", "+vector(1)".repeat(10_000)),
        format!("2{}", "^2".repeat(50_000)),
        format!("{{a=\"b\"}} | {}", deep("(", "x=1", ")", 30_000)),
        format!("{{a=\"b\"}} | x=1{}", " or x=1".repeat(10_000)),
        format!("rate({}", "(".repeat(60_000)),
    ] {
        let error = parse(&query).unwrap_err().to_string();
        assert!(error.contains("nested too deeply"), "{error}");
    }
    assert!(
        parse(&" ".repeat(131_072))
            .unwrap_err()
            .to_string()
            .contains("too long")
    );
}

#[test]
fn long_queries_are_laid_out_over_several_lines() {
    let long = "x".repeat(60);
    let query = format!(
        "sum by (a,b)(avg_over_time({{svc=\"{long}\"}} |= \"y\" != \"z\" | logfmt | unwrap v | w=\"1\"[5m] offset 1h)) / sum(rate({{svc=\"{long}\"}}[5m]))"
    );
    let expected = format!(
        "  sum by (a, b)(\n    avg_over_time(\n      {{svc=\"{long}\"}} |= \"y\" != \"z\" | logfmt\n        | unwrap v\n        | w=\"1\" [5m] offset 1h\n    )\n  )\n/\n  sum(rate({{svc=\"{long}\"}}[5m]))"
    );
    let expr = parse(&query).unwrap();
    assert_eq!(format(&expr), expected);
    assert_eq!(parse(&expected).unwrap(), expr);
}

mod round_trips {
    use super::super::ast::*;
    use super::super::*;
    use crate::model::labels::{MatchOp, Matcher};
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        // Functions are names unless called.
        prop_oneof![
            "[a-zA-Z_][a-zA-Z0-9_]{0,6}",
            Just("rate".to_owned()),
            Just("sum".to_owned())
        ]
        .prop_filter("a keyword", |name| {
            parse(&format!("{{{name}=\"x\"}}")).is_ok()
        })
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[ -~]{0,8}",
            "\\PC{0,4}",
            Just("\n\t\"\\`\u{7f}\u{0}".to_owned())
        ]
    }

    fn matcher() -> impl Strategy<Value = Matcher> {
        (name(), 0..4, text()).prop_map(|(name, op, value)| {
            let (op, value) = match op {
                0 => (MatchOp::Equal, value),
                1 => (MatchOp::NotEqual, value),
                2 => (MatchOp::Regex, regex_syntax::escape(&value)),
                _ => (MatchOp::NotRegex, regex_syntax::escape(&value)),
            };
            re2::matcher(name, op, value, re2::Dot::ExceptNewline).unwrap()
        })
    }

    fn selector() -> impl Strategy<Value = Vec<Matcher>> {
        proptest::collection::vec(matcher(), 0..3).prop_map(|mut matchers| {
            let known = re2::matcher(
                "a".into(),
                MatchOp::Equal,
                "b".into(),
                re2::Dot::MatchesNewline,
            );
            matchers.push(known.unwrap());
            matchers
        })
    }

    fn compare() -> impl Strategy<Value = Compare> {
        prop::sample::select(vec![
            Compare::Equal,
            Compare::NotEqual,
            Compare::Greater,
            Compare::GreaterEqual,
            Compare::Less,
            Compare::LessEqual,
        ])
    }

    fn number() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-1000i32..1000).prop_map(f64::from),
            -1e9..1e9,
            Just(1e-7),
            Just(1e21)
        ]
    }

    fn label_filter() -> impl Strategy<Value = LabelFilter> {
        let leaf =
            prop_oneof![
                matcher().prop_map(LabelFilter::Text),
                (name(), compare(), number()).prop_map(|(name, op, value)| LabelFilter::Number {
                    name,
                    op,
                    value
                }),
                (name(), compare(), any::<i64>())
                    .prop_map(|(name, op, value)| LabelFilter::Duration { name, op, value }),
                // Sizes that survive being printed with two digits.
                (name(), compare(), 0u64..10).prop_map(|(name, op, value)| LabelFilter::Bytes {
                    name,
                    op,
                    value: value * 1000
                }),
                (name(), any::<bool>()).prop_map(|(name, negated)| LabelFilter::Ip {
                    name,
                    negated,
                    pattern: "10.0.0.0/8".into()
                }),
            ];
        leaf.prop_recursive(4, 12, 2, |inner| {
            (inner.clone(), inner, any::<bool>()).prop_map(|(left, right, and)| {
                let (left, right) = (Box::new(left), Box::new(right));
                if and {
                    LabelFilter::And(left, right)
                } else {
                    LabelFilter::Or(left, right)
                }
            })
        })
    }

    fn extractions() -> impl Strategy<Value = Vec<Extraction>> {
        proptest::collection::vec(
            (name(), text()).prop_map(|(name, path)| Extraction { name, path }),
            0..3,
        )
    }

    fn picks() -> impl Strategy<Value = Vec<LabelPick>> {
        let pick = prop_oneof![
            name().prop_map(LabelPick::Name),
            matcher().prop_map(LabelPick::Matching)
        ];
        proptest::collection::vec(pick, 1..3)
    }

    fn stage() -> impl Strategy<Value = Stage> {
        let operand = prop_oneof![
            text().prop_map(LineOperand::Text),
            text().prop_map(LineOperand::Ip),
        ];
        let line = (
            prop::sample::select(vec![
                LineOp::Contains,
                LineOp::NotContains,
                LineOp::Regex,
                LineOp::NotRegex,
                LineOp::Pattern,
                LineOp::NotPattern,
            ]),
            proptest::collection::vec(operand, 1..3),
        )
            .prop_map(|(op, mut operands)| {
                if op.is_negative() {
                    operands.truncate(1);
                }
                Stage::Line(LineFilter { op, operands })
            });
        let format = prop_oneof![
            (name(), name()).prop_map(|(to, from)| LabelFormat::Rename { to, from }),
            (name(), text()).prop_map(|(to, template)| LabelFormat::Template { to, template }),
        ];
        prop_oneof![
            line,
            extractions().prop_map(Stage::Json),
            (any::<bool>(), any::<bool>(), extractions()).prop_map(
                |(strict, keep_empty, extractions)| {
                    Stage::Logfmt(Logfmt {
                        strict,
                        keep_empty,
                        extractions,
                    })
                }
            ),
            Just(Stage::Regexp("(?P<x>a) \\w".into())),
            Just(Stage::Pattern("<a> \"<_>".into())),
            Just(Stage::Unpack),
            Just(Stage::Decolorize),
            label_filter().prop_map(Stage::Label),
            text().prop_map(Stage::LineFormat),
            proptest::collection::vec(format, 1..3).prop_map(Stage::LabelFormat),
            picks().prop_map(Stage::Drop),
            picks().prop_map(Stage::Keep),
        ]
    }

    fn log() -> impl Strategy<Value = LogExpr> {
        (selector(), proptest::collection::vec(stage(), 0..4)).prop_map(|(matchers, mut stages)| {
            // `drop a != "x"` is one stage and not two, so the two cannot be written.
            let mut behind_names = false;
            stages.retain(|stage| {
                let negative = matches!(
                    stage,
                    Stage::Line(filter) if matches!(filter.op, LineOp::NotContains | LineOp::NotRegex)
                );
                let keep = !(behind_names && negative);
                if keep {
                    behind_names = matches!(stage, Stage::Drop(_) | Stage::Keep(_));
                }
                keep
            });
            LogExpr { matchers, stages }
        })
    }

    fn grouping() -> impl Strategy<Value = Option<Grouping>> {
        proptest::option::of(
            (any::<bool>(), proptest::collection::vec(name(), 1..3)).prop_map(|(by, labels)| {
                Grouping {
                    kind: if by {
                        GroupingKind::By
                    } else {
                        GroupingKind::Without
                    },
                    labels,
                }
            }),
        )
    }

    fn range() -> impl Strategy<Value = MetricExpr> {
        let unwrap = (
            name(),
            0usize..4,
            proptest::collection::vec(label_filter(), 0..2),
        )
            .prop_map(|(name, conversion, filters)| Unwrap {
                name,
                conversion: [
                    Conversion::Number,
                    Conversion::Bytes,
                    Conversion::Duration,
                    Conversion::DurationSeconds,
                ][conversion],
                filters,
            });
        // Ranges have millisecond precision.
        let times = (0i64..10_000_000_000, prop_oneof![Just(0i64), any::<i64>()]);
        (
            prop::sample::select(RangeFunction::ALL.to_vec()),
            log(),
            unwrap,
            times,
            grouping(),
        )
            .prop_map(|(function, log, unwrap, (millis, offset), grouping)| {
                use RangeFunction::*;
                let counts = matches!(
                    function,
                    CountOverTime | Rate | BytesOverTime | BytesRate | AbsentOverTime
                );
                let grouped = !counts && !matches!(function, SumOverTime | RateCounter);
                MetricExpr::Range(RangeAggregation {
                    function,
                    parameter: (function == QuantileOverTime).then_some(0.95),
                    over: LogRange {
                        log,
                        unwrap: (!counts).then_some(unwrap),
                        range: millis * 1_000_000,
                        offset,
                    },
                    grouping: grouping.filter(|_| grouped),
                })
            })
    }

    fn metric() -> impl Strategy<Value = MetricExpr> {
        let leaf =
            prop_oneof![3 => range(), 1 => (0u32..9).prop_map(|n| MetricExpr::VectorOf(n.into()))];
        leaf.prop_recursive(4, 12, 2, |inner| {
            let vector = (
                prop::sample::select(VectorFunction::ALL.to_vec()),
                grouping(),
                inner.clone(),
            )
                .prop_map(|(function, grouping, inner)| {
                    let ungrouped = matches!(
                        function,
                        VectorFunction::Sort
                            | VectorFunction::SortDesc
                            | VectorFunction::ApproxTopk
                    );
                    MetricExpr::Vector(VectorAggregation {
                        function,
                        parameter: function.takes_parameter().then_some(3),
                        grouping: grouping.filter(|_| !ungrouped),
                        inner: Box::new(inner),
                    })
                });
            let op = prop_oneof![
                prop::sample::select(vec![
                    BinaryOp::Or,
                    BinaryOp::And,
                    BinaryOp::Unless,
                    BinaryOp::Add,
                    BinaryOp::Sub,
                    BinaryOp::Mul,
                    BinaryOp::Div,
                    BinaryOp::Mod,
                    BinaryOp::Pow,
                ]),
                compare().prop_map(BinaryOp::Compare),
            ];
            let names = || proptest::collection::vec(name(), 0..2);
            let group =
                proptest::option::of((any::<bool>(), names()).prop_map(|(left, include)| Group {
                    many: if left { Side::Left } else { Side::Right },
                    include,
                }));
            let matching = (any::<bool>(), names(), group)
                .prop_map(|(on, labels, group)| Matching { on, labels, group });
            let binary = (op, inner.clone(), inner.clone(), any::<bool>(), matching).prop_map(
                |(op, left, right, returns_bool, matching)| {
                    MetricExpr::Binary(Box::new(Binary {
                        op,
                        left,
                        right,
                        returns_bool: returns_bool && matches!(op, BinaryOp::Compare(_)),
                        matching,
                    }))
                },
            );
            let replace = (inner, text(), text()).prop_map(|(inner, target, replacement)| {
                MetricExpr::LabelReplace(Box::new(LabelReplace {
                    inner,
                    target,
                    replacement,
                    source: "s".into(),
                    regex: "(.*)".into(),
                }))
            });
            prop_oneof![vector, binary, replace]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn a_printed_log_query_reads_back_as_itself(log in log()) {
            let expr = Expr::Log(log);
            prop_assert_eq!(&parse(&expr.to_string()).unwrap(), &expr);
            prop_assert_eq!(&parse(&format(&expr)).unwrap(), &expr);
        }

        #[test]
        fn a_printed_metric_query_reads_back_as_itself(metric in metric()) {
            let expr = Expr::Metric(metric);
            prop_assert_eq!(&parse(&expr.to_string()).unwrap(), &expr);
            prop_assert_eq!(&parse(&format(&expr)).unwrap(), &expr);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[{}()\\[\\]a-c=~!|\"`<>0-9. ,+*/#-]{0,60}") {
            if let Ok(expr) = parse(&text) {
                prop_assert_eq!(format(&parse(&format(&expr)).unwrap()), format(&expr));
            }
            let _ = parse_push_labels(&text);
        }
    }
}
