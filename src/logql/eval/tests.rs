//! Metric queries over entries in memory.

use crate::logql::ast::{Expr, MetricExpr};
use crate::logql::eval::{Accumulator, EvalError, Sampler, evaluate, sort_instant};
use crate::logql::{leaves, parse};
use crate::model::labels::Labels;
use crate::model::log::Metadata;
use crate::model::series::{Grid, Matrix};
use crate::model::time::SECOND;

/// A stream's labels, and its lines with their second.
type Stream<'a> = (&'a [(&'a str, &'a str)], &'a [(i64, &'a str)]);

fn metric(query: &str) -> MetricExpr {
    match parse(query) {
        Ok(Expr::Metric(metric)) => metric,
        other => panic!("{query}: {other:?}"),
    }
}

fn run(query: &str, grid: Grid, streams: &[Stream<'_>]) -> Result<Matrix, EvalError> {
    let metric = metric(query);
    let mut results = Vec::new();
    for leaf in leaves(&metric).unwrap() {
        let mut total = Accumulator::new(&leaf.aggregation, grid);
        for (labels, lines) in streams {
            let labels = Labels::from_pairs(labels.iter().copied());
            if !leaf.selector().iter().all(|m| m.matches_labels(&labels)) {
                continue;
            }
            let mut sampler = Sampler::new(&leaf, grid);
            sampler.bind(&labels);
            for (second, line) in *lines {
                sampler.add(second * SECOND, line.as_bytes(), None);
            }
            total.merge(sampler.into_accumulator());
        }
        results.push(total.finish()?);
    }
    evaluate(&metric, grid, results)
}

fn render(matrix: &Matrix) -> String {
    let mut out: Vec<String> = Vec::new();
    for series in matrix {
        let points: Vec<String> = series
            .points
            .iter()
            .map(|p| p.map_or("_".to_owned(), |v| v.to_string()))
            .collect();
        out.push(format!("{} {}", series.labels, points.join(" ")));
    }
    out.join("; ")
}

const STREAMS: &[Stream<'_>] = &[
    (
        &[("a", "x"), ("h", "1")],
        &[(10, "v=1 ok"), (20, "v=2"), (30, "v=4 ok"), (70, "v=8")],
    ),
    (&[("a", "x"), ("h", "2")], &[(15, "v=10"), (30, "v=30 ok")]),
    (&[("a", "y")], &[(30, "oops=")]),
];

/// At 60 s.
#[track_caller]
fn check(query: &str, expected: &str) {
    let mut matrix = run(query, Grid::instant(60 * SECOND), STREAMS).unwrap();
    sort_instant(&metric(query), &mut matrix);
    assert_eq!(render(&matrix), expected, "{query}");
}

/// At 0, 30, 60 and 90 s.
#[track_caller]
fn check_range(query: &str, expected: &str) {
    let grid = Grid {
        start: 0,
        end: 90 * SECOND,
        step: 30 * SECOND,
    };
    assert_eq!(
        render(&run(query, grid, STREAMS).unwrap()),
        expected,
        "{query}"
    );
}

#[test]
fn a_window_excludes_its_start_and_includes_its_end() {
    check_range(
        "count_over_time({a=\"x\"}[20s])",
        "{a=\"x\", h=\"1\"} _ 2 _ _; {a=\"x\", h=\"2\"} _ 2 _ _",
    );
    check_range(
        "sum(count_over_time({a=\"x\", h=\"1\"}[30s]))",
        "{} _ 3 _ 1",
    );
    check_range(
        "sum(count_over_time({a=\"x\", h=\"1\"}[30s] offset 30s))",
        "{} _ _ 3 _",
    );
    check_range(
        "sum(count_over_time({a=\"x\", h=\"1\"}[30s] offset -30s))",
        "{} 3 _ 1 _",
    );
    check_range("sum(count_over_time({a=\"x\"}[0s]))", "");
}

#[test]
fn counts_and_rates() {
    check("sum(rate({a=\"x\"}[1m]))", "{} 0.08333333333333333");
    check("bytes_over_time({a=\"y\"}[1m])", "{a=\"y\"} 5");
    check("bytes_rate({a=\"y\"}[10s] offset 25s)", "{a=\"y\"} 0.5");
    check(
        "sum by (h) (count_over_time({a=\"x\"} |= \"ok\" [1m]))",
        "{h=\"1\"} 2; {h=\"2\"} 1",
    );
    check(
        "sum without (h) (count_over_time({a=\"x\"}[1m]))",
        "{a=\"x\"} 5",
    );
    check(
        "sum by (h, z) (count_over_time({a=~\".\"}[1m]))",
        "{} 1; {h=\"1\"} 3; {h=\"2\"} 2",
    );
    check(
        "sum(bytes_over_time({a=\"y\"} | logfmt | line_format `ab` [1m]))",
        "{} 2",
    );
}

#[test]
fn unwrapped_values() {
    let over =
        |function: &str| format!("{function}({{a=\"x\", h=\"1\"}} | logfmt | unwrap v [1m])");
    for (function, expected) in [
        ("sum_over_time", "7"),
        ("avg_over_time", "2.333333333333333"),
        ("min_over_time", "1"),
        ("max_over_time", "4"),
        ("first_over_time", "1"),
        ("last_over_time", "4"),
        ("rate", "0.11666666666666667"),
        ("stdvar_over_time", "1.5555555555555554"),
    ] {
        check(&over(function), &format!("{{a=\"x\", h=\"1\"}} {expected}"));
    }
    check(
        "quantile_over_time(0.5, {a=\"x\"} | logfmt | unwrap v [1m]) by (a)",
        "{a=\"x\"} 4",
    );
    check(
        "sum(sum_over_time({a=\"x\"} | logfmt | unwrap v [1m]))",
        "{} 47",
    );
    check("sum_over_time({a=\"y\"} | logfmt | unwrap v [1m])", "");
}

#[test]
fn a_counter_is_taken_across_its_resets() {
    let lines: &[(i64, &str)] = &[
        (10, "c=5"),
        (20, "c=10"),
        (30, "c=20"),
        (40, "c=3"),
        (50, "c=9"),
    ];
    let stream: &[Stream<'_>] = &[(&[("a", "b")], lines)];
    let query = "rate_counter({a=\"b\"} | logfmt | unwrap c [1m])";
    let matrix = run(query, Grid::instant(60 * SECOND), stream).unwrap();
    assert_eq!(render(&matrix), "{a=\"b\"} 0.40000060000000004");
    let matrix = run(
        query,
        Grid::instant(75 * SECOND),
        &[(stream[0].0, &lines[..1])],
    )
    .unwrap();
    assert_eq!(render(&matrix), "");
    let matrix = run(
        query,
        Grid::instant(60 * SECOND),
        &[(stream[0].0, &lines[..1])],
    )
    .unwrap();
    assert_eq!(render(&matrix), "{a=\"b\"} 0");
}

#[test]
fn absence_has_the_labels_that_the_selector_fixes() {
    check("absent_over_time({a=\"x\"}[1m])", "");
    check(
        "absent_over_time({a=\"z\", h=~\"q.+\", b=\"1\", b!=\"2\"}[1m])",
        "{a=\"z\"} 1",
    );
    check_range("absent_over_time({a=\"y\"}[30s])", "{a=\"y\"} 1 _ 1 1");
}

#[test]
fn an_error_in_a_window_fails_the_query() {
    let failed = |query: &str| run(query, Grid::instant(60 * SECOND), STREAMS).unwrap_err();
    let error = failed("count_over_time({a=\"y\"} | json [1m])").to_string();
    assert!(
        error.contains("JSONParserErr") && error.contains("a=\"y\""),
        "{error}"
    );
    failed("sum by (k) (count_over_time({a=\"y\"} | json [1m]))");
    failed("sum_over_time({a=\"x\"} | logfmt | unwrap duration(v) [1m])");
    // No label is asked for, so nothing is parsed.
    check("sum(count_over_time({a=\"y\"} | json [1m]))", "{} 1");
    check(
        "sum by (__error__) (count_over_time({a=\"y\"} | json [1m]))",
        "{__error__=\"JSONParserErr\"} 1",
    );
    check(
        "sum(sum_over_time({a=\"x\"} | logfmt | unwrap duration(v) | __error__=\"\" [1m]))",
        "",
    );
}

#[test]
fn vectors_are_aggregated_by_group() {
    let counts = "count_over_time({a=~\".\"}[1m])";
    check(&format!("max({counts})"), "{} 3");
    check(
        &format!("min by (a) ({counts})"),
        "{a=\"x\"} 2; {a=\"y\"} 1",
    );
    check(&format!("avg({counts})"), "{} 2");
    check(&format!("count({counts})"), "{} 3");
    check(
        &format!("topk(1, {counts}) by (a)"),
        "{a=\"x\", h=\"1\"} 3; {a=\"y\"} 1",
    );
    check(
        &format!("bottomk(2, {counts})"),
        "{a=\"x\", h=\"2\"} 2; {a=\"y\"} 1",
    );
    check(
        &format!("sort({counts})"),
        "{a=\"y\"} 1; {a=\"x\", h=\"2\"} 2; {a=\"x\", h=\"1\"} 3",
    );
    check(
        &format!("sort_desc({counts} * 1)"),
        "{a=\"x\", h=\"1\"} 3; {a=\"x\", h=\"2\"} 2; {a=\"y\"} 1",
    );
}

/// They were kept in the order in which streams were read, that of the hashes of their labels.
#[test]
fn of_equal_values_topk_keeps_those_with_the_first_labels() {
    let lines: &[(i64, &str)] = &[(10, "")];
    let stream = |h: &'static str| -> [(&'static str, &'static str); 2] { [("a", "x"), ("h", h)] };
    let labels: Vec<_> = ["3", "1", "2"].map(stream).into();
    let streams: Vec<Stream<'_>> = labels.iter().map(|l| (&l[..], lines)).collect();
    for function in ["topk", "bottomk"] {
        let query = format!("{function}(2, count_over_time({{a=\"x\"}}[1m]))");
        let matrix = run(&query, Grid::instant(60 * SECOND), &streams).unwrap();
        assert_eq!(
            render(&matrix),
            "{a=\"x\", h=\"1\"} 1; {a=\"x\", h=\"2\"} 1"
        );
    }
}

/// What matched nothing, or what a comparison dropped, was not looked at.
#[test]
fn ambiguous_matching_is_refused_also_where_nothing_comes_of_it() {
    let refused = |query: &str| {
        let result = run(query, Grid::instant(60 * SECOND), STREAMS);
        assert!(matches!(result, Err(EvalError::Matching(_))), "{query}");
    };
    let (x, y) = (
        "count_over_time({a=\"x\"}[1m])",
        "count_over_time({a=\"y\"}[1m])",
    );
    refused(&format!("{y} * on (a) {x}"));
    refused(&format!("{x} * on (a) group_right () {y}"));
    refused(&format!("{x} > on (a) group_left (h) sum by (a) ({x})"));
    refused(&format!("{x} > on (a) sum by (a) ({x})"));
    check(&format!("{x} * on (a) group_left () {y}"), "");
}

#[test]
fn operators_between_vectors_and_numbers() {
    check("vector(1) + vector(1)", "{} 2");
    check("1 + 2 * 3 ^ 2", "{} 19");
    let counts = "sum by (h) (count_over_time({a=\"x\"}[1m]))";
    check(&format!("{counts} > 2"), "{h=\"1\"} 3");
    check(&format!("2 < {counts}"), "{h=\"1\"} 3");
    check(&format!("{counts} > bool 2"), "{h=\"1\"} 1; {h=\"2\"} 0");
    check(&format!("{counts} / 0"), "{h=\"1\"} NaN; {h=\"2\"} NaN");
    check(&format!("10 - {counts}"), "{h=\"1\"} 7; {h=\"2\"} 8");
}

#[test]
fn vectors_are_matched_by_labels() {
    let counts = "sum by (h) (count_over_time({a=\"x\"}[1m]))";
    let ok = "sum by (h) (count_over_time({a=\"x\"} |= \"v=4\" [1m]))";
    check(&format!("{ok} / {counts}"), "{h=\"1\"} 0.3333333333333333");
    check(&format!("{counts} unless {ok}"), "{h=\"2\"} 2");
    check(&format!("{counts} and {ok}"), "{h=\"1\"} 3");
    check(&format!("{ok} or {counts}"), "{h=\"1\"} 1; {h=\"2\"} 2");
    check(
        "sum(count_over_time({a=\"none\"}[1m])) or vector(0)",
        "{} 0",
    );
    let all = "sum(count_over_time({a=\"x\"}[1m]))";
    check(
        &format!("{counts} / on () group_left {all}"),
        "{h=\"1\"} 0.6; {h=\"2\"} 0.4",
    );
    check(
        &format!("{all} - ignoring (h) group_right {counts}"),
        "{h=\"1\"} 2; {h=\"2\"} 3",
    );
    for query in [
        format!("{counts} / on () {all}"),
        format!("{all} / on () {counts}"),
    ] {
        let error = run(&query, Grid::instant(60 * SECOND), STREAMS).unwrap_err();
        assert!(
            matches!(error, EvalError::Matching(_)),
            "{query}: {error:?}"
        );
    }
}

#[test]
fn label_replace_expands_groups() {
    check(
        "label_replace(sum by (h) (count_over_time({a=\"x\"}[1m])), \"n\", \"n-${1}\", \"h\", \"(1)\")",
        "{h=\"1\", n=\"n-1\"} 3; {h=\"2\"} 2",
    );
}

#[test]
fn counted_entries_are_refused_where_a_window_cuts_them() {
    let metric = metric("sum(count_over_time({a=\"x\"}[1m]))");
    let leaf = leaves(&metric).unwrap().remove(0);
    let grid = Grid {
        start: 0,
        end: 120 * SECOND,
        step: 60 * SECOND,
    };
    let mut sampler = Sampler::new(&leaf, grid);
    sampler.bind(&Labels::from_pairs([("a", "x")]));
    assert!(sampler.add_counted(1, 60 * SECOND, 7, 100));
    assert!(!sampler.add_counted(60 * SECOND, 61 * SECOND, 7, 100));
    assert!(sampler.add_counted(121 * SECOND, 200 * SECOND, 7, 100));
    let metadata: Metadata = [("k".into(), "v".into())].into();
    sampler.add_unread(60 * SECOND + 1, 5, Some(&metadata));
    let matrix = sampler.into_accumulator().finish().unwrap();
    assert_eq!(render(&matrix), "{} _ 7 1");
}

/// The difference arrays against counting every window anew.
#[test]
fn windows_agree_with_a_naive_count() {
    use proptest::prelude::*;
    let strategy = (
        proptest::collection::vec(-50i64..150, 0..40),
        -20i64..40,
        1i64..30,
        0i64..60,
        -10i64..10,
        0usize..12,
    );
    proptest!(|((times, start, step, range, offset, steps) in strategy)| {
        let Expr::Metric(MetricExpr::Range(mut range_expr)) =
            parse("count_over_time({a=\"b\"}[1m])").unwrap() else { unreachable!() };
        range_expr.over.range = range;
        range_expr.over.offset = offset;
        let grid = Grid { start, end: start + step * steps as i64, step };
        let mut accumulator = Accumulator::new(&range_expr, grid);
        let mut other = Accumulator::new(&range_expr, grid);
        for (n, at) in times.iter().enumerate() {
            let part = if n % 2 == 0 { &mut accumulator } else { &mut other };
            let series = part.series(&Labels::empty());
            part.add(series, *at, 0.0);
        }
        accumulator.merge(other);
        let matrix = accumulator.finish().unwrap();
        for step in 0..grid.len() {
            let end = grid.at(step) - offset;
            let expected = times.iter().filter(|t| **t > end - range && **t <= end).count();
            let found = matrix.first().and_then(|series| series.points[step]);
            prop_assert_eq!(found, (expected > 0).then_some(expected as f64));
        }
    });
}
