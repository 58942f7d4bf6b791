//! The engine against a second one, deliberately naive: random lines, random queries, and the
//! same answers.
//!
//! The naive one ([`lines`], [`metrics`]) keeps all lines in a list and follows the definitions,
//! with code of its own but for the parser's tree. A failure prints the seed, the query and
//! the lines that are left when those are dropped that make no difference. `RUNS=100000` asks
//! for more queries than every test run does, `SEED=n` for others.

mod data;
mod lines;
mod metrics;
mod questions;
mod text;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use rand::SeedableRng;
use rand::rngs::StdRng;
use watchpost::logql;
use watchpost::logql::ast::{Expr, LogExpr, MetricExpr, VectorFunction};
use watchpost::model::series::Matrix;
use watchpost::query::{LogAnswer, QueryError};

use data::{Data, Line, Set};
use lines::{Class, Entry, run, selects};
use metrics::{Evaluation, Stop, Value, Vector};
use world::{Answer, Question, World};

/// Queries of every test run.
const RUNS: u64 = 2000;
/// Queries on the same lines.
const QUERIES_A_WORLD: u64 = 250;

/// What a run came to.
#[derive(Default, Debug)]
struct Tally {
    compared: u64,
    /// Answers with something in them.
    not_empty: u64,
    /// Both refused.
    refused: u64,
    /// The language leaves the answer open.
    open: u64,
}

#[test]
fn random_queries_have_the_answers_of_a_naive_evaluation() {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse().ok());
    let runs: u64 = number("RUNS").unwrap_or(RUNS);
    let first: u64 = number("SEED").unwrap_or(1);
    let worlds = runs.div_ceil(QUERIES_A_WORLD);
    let next = std::sync::atomic::AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let total = std::thread::scope(|scope| {
        let work = || {
            let mut tally = Tally::default();
            loop {
                let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if seed >= first + worlds {
                    return tally;
                }
                compare_world(seed, &mut tally);
            }
        };
        let workers: Vec<_> = (0..threads.min(4)).map(|_| scope.spawn(work)).collect();
        let mut total = Tally::default();
        for worker in workers {
            let part = worker
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e));
            total.compared += part.compared;
            total.not_empty += part.not_empty;
            total.refused += part.refused;
            total.open += part.open;
        }
        total
    });
    println!("{total:?}");
    assert_eq!(total.compared + total.open, worlds * QUERIES_A_WORLD);
    // Random queries that find nothing prove nothing.
    assert!(total.not_empty * 3 > total.compared, "{total:?}");
    assert!(total.refused * 5 < total.compared, "{total:?}");
    assert!(total.open * 20 < total.compared, "{total:?}");
}

fn compare_world(seed: u64, tally: &mut Tally) {
    let mut random = StdRng::seed_from_u64(seed);
    let data = data::generate(&mut random);
    let levels = data::chance(&mut random, 50);
    let stored = data.stored();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let world = World::of(&data, levels, dir.path());
    for number in 0..QUERIES_A_WORLD {
        let (question, expr) = readable(&mut random, &data, &stored);
        check_print(&expr);
        if let Err(difference) = compare(&world, &data, &stored, levels, &question, &expr, tally) {
            let small = shrink(&data, levels, &question, &expr);
            panic!(
                "seed {seed}, query {number}: {difference}\n{question:#?}\nlevels {levels}, with \
                 these lines:\n{small}"
            );
        }
    }
}

/// A query that can be read. A few can't: `| drop a != ip("…")` is no list and then a filter.
fn readable(random: &mut StdRng, data: &Data, stored: &[Line]) -> (Question, Expr) {
    for _ in 0..3 {
        let question = questions::generate(random, data, stored);
        if let Ok(expr) = logql::parse(&question.text) {
            return (question, expr);
        }
    }
    let question = questions::generate(random, data, stored);
    let error = logql::parse(&question.text).err();
    panic!(
        "many queries can't be read, such as {}: {error:?}",
        question.text
    );
}

/// What is printed reads back as itself. Sizes are printed rounded, so the texts are compared
/// and not the trees; NaN, as of `0 / 0`, can't be written.
fn check_print(expr: &Expr) {
    let printed = expr.to_string();
    if matches!(expr, Expr::Metric(MetricExpr::Number(n)) if !n.is_finite()) {
        return;
    }
    let again = logql::parse(&printed).unwrap_or_else(|e| panic!("{printed}: {e}"));
    assert_eq!(again.to_string(), printed);
}

fn compare(
    world: &World,
    data: &Data,
    stored: &[Line],
    levels: bool,
    question: &Question,
    expr: &Expr,
    tally: &mut Tally,
) -> Result<(), String> {
    let answer = world.ask(question, expr.clone());
    let same = match expr {
        Expr::Log(log) => compare_logs(data, stored, levels, question, log, answer),
        Expr::Metric(metric) => compare_metric(data, stored, levels, question, metric, answer),
    }?;
    match same {
        Same::Open => tally.open += 1,
        Same::Refused => {
            tally.compared += 1;
            tally.refused += 1;
        }
        Same::Answer { empty } => {
            tally.compared += 1;
            tally.not_empty += u64::from(!empty);
        }
    }
    Ok(())
}

enum Same {
    Answer { empty: bool },
    Refused,
    Open,
}

/// Drops lines as long as the answers still differ.
fn shrink(data: &Data, levels: bool, question: &Question, expr: &Expr) -> String {
    let differs = |data: &Data| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let world = World::of(data, levels, dir.path());
        let stored = data.stored();
        compare(
            &world,
            data,
            &stored,
            levels,
            question,
            expr,
            &mut Tally::default(),
        )
        .err()
    };
    let mut small = data.clone();
    let mut width = small.phases.iter().map(Vec::len).max().unwrap_or(0) / 2;
    while width > 0 {
        for phase in 0..small.phases.len() {
            let mut at = 0;
            while at < small.phases[phase].len() {
                let mut fewer = small.clone();
                let end = (at + width).min(fewer.phases[phase].len());
                fewer.phases[phase].drain(at..end);
                match differs(&fewer) {
                    Some(_) => small = fewer,
                    None => at += width,
                }
            }
        }
        width /= 2;
    }
    let mut out = differs(&small).unwrap_or_else(|| "differs no more".into());
    for (number, phase) in small.phases.iter().enumerate() {
        out += &format!("\nphase {number}");
        for line in phase {
            out += &format!("\n{:?} {line:?}", small.streams[line.stream]);
        }
    }
    out
}

/// A line of an answer: time, text, and the labels of the line when they are kept apart.
type Shown = (i64, String, Set, Set);

/// Lines by the labels of their group. The wording of error details is free, so groups that
/// differ only by that are one, in no order; so are groups of one name that stand apart because
/// their lines are of different streams.
type Groups = BTreeMap<Set, Vec<Shown>>;

fn grouped(shown: Vec<(Set, Shown)>, categorize: bool) -> Groups {
    let mut groups = Groups::new();
    let mut unordered = BTreeSet::new();
    for (mut labels, mut entry) in shown {
        let mut any_details = false;
        for set in [&mut labels, &mut entry.2, &mut entry.3] {
            if let Some(details) = set.get_mut("__error_details__")
                && !details.is_empty()
            {
                *details = "?".into();
                any_details = true;
            }
        }
        if any_details || categorize {
            unordered.insert(labels.clone());
        }
        groups.entry(labels).or_default().push(entry);
    }
    for labels in &unordered {
        if let Some(entries) = groups.get_mut(labels) {
            entries.sort();
        }
    }
    groups
}

fn set_of(labels: &watchpost::model::Labels) -> Set {
    labels
        .iter()
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

fn compare_logs(
    data: &Data,
    stored: &[Line],
    levels: bool,
    question: &Question,
    log: &LogExpr,
    answer: Result<Answer, QueryError>,
) -> Result<Same, String> {
    let mut found: Vec<(usize, &Line, Entry)> = stored
        .iter()
        .enumerate()
        .filter(|(_, line)| line.at >= question.range.0 && line.at < question.range.1)
        .filter(|(_, line)| selects(&log.matchers, &data.streams[line.stream]))
        .filter_map(|(arrival, line)| {
            let entry = run(&log.stages, &None, Entry::of(data, line, levels))?;
            Some((arrival, line, entry))
        })
        .collect();
    // What was stored twice is one line.
    let mut twice = false;
    let mut once: Vec<(usize, &Line, Entry)> = Vec::new();
    for one in found.drain(..) {
        match once.iter().any(|(_, line, _)| *line == one.1) {
            true => twice = true,
            false => once.push(one),
        }
    }
    let mut found = once;
    found.sort_by(|(arrival_a, a, _), (arrival_b, b, _)| {
        let key = |line: &Line, arrival: usize| {
            let labels: Vec<_> = data.streams[line.stream].clone().into_iter().collect();
            (line.at, labels, arrival)
        };
        key(a, *arrival_a).cmp(&key(b, *arrival_b))
    });
    if question.backward {
        found.reverse();
    }
    let mut shown = Vec::new();
    let mut last: Option<i64> = None;
    for (_, line, entry) in &found {
        let near = last.is_some_and(|last| last.abs_diff(line.at) < question.interval as u64);
        if near || shown.len() == question.limit {
            continue;
        }
        last = Some(line.at);
        shown.push(if question.categorize {
            (
                entry.of_class(|c| c == Class::Stream),
                (
                    line.at,
                    entry.text.clone(),
                    entry.of_class(|c| c == Class::Metadata),
                    entry.of_class(|c| c == Class::Parsed),
                ),
            )
        } else {
            let none = Set::new();
            (
                entry.all(),
                (line.at, entry.text.clone(), none.clone(), none),
            )
        });
    }
    let expected = grouped(shown, question.categorize);
    let answer = match answer {
        Ok(Answer::Logs(answer)) => answer,
        Ok(Answer::Metric(_)) => return Err("samples for a log query".into()),
        Err(error) => return Err(format!("refused: {error}")),
    };
    check_order(&answer, question)?;
    let mut got = Vec::new();
    for stream in &answer.streams {
        for entry in &stream.entries {
            let text = String::from_utf8_lossy(&entry.line).into_owned();
            let shown = (
                entry.at,
                text,
                set_of(&entry.structured),
                set_of(&entry.parsed),
            );
            got.push((set_of(&stream.labels), shown));
        }
    }
    let got = grouped(got, question.categorize);
    if expected == got {
        return Ok(Same::Answer {
            empty: expected.is_empty(),
        });
    }
    if twice {
        // Which of the two it is decides the order among lines of the same instant.
        return Ok(Same::Open);
    }
    let mut told = String::from("lines differ");
    for labels in expected.keys().chain(got.keys()).collect::<BTreeSet<_>>() {
        let (e, g) = (expected.get(labels), got.get(labels));
        if e != g {
            told += &format!("\n{labels:?}\n  expected {e:?}\n  got      {g:?}");
        }
    }
    Err(told)
}

fn check_order(answer: &LogAnswer, question: &Question) -> Result<(), String> {
    let names: Vec<String> = answer
        .streams
        .iter()
        .map(|s| s.labels.to_string())
        .collect();
    if !names.is_sorted() {
        return Err(format!("streams are not sorted: {names:?}"));
    }
    for stream in &answer.streams {
        let times = stream.entries.iter().map(|e| e.at);
        let sorted = match question.backward {
            true => times.rev().is_sorted(),
            false => times.is_sorted(),
        };
        if !sorted {
            return Err(format!("lines of {} are not in order", stream.labels));
        }
    }
    Ok(())
}

fn compare_metric(
    data: &Data,
    stored: &[Line],
    levels: bool,
    question: &Question,
    metric: &MetricExpr,
    answer: Result<Answer, QueryError>,
) -> Result<Same, String> {
    let evaluation = Evaluation::new(metric, data, stored, levels);
    let grid = question.grid;
    let expected: Result<Vec<Vector>, Stop> = (0..grid.len())
        .map(|step| {
            Ok(match evaluation.at(grid.at(step))? {
                Value::Vector(vector) => vector,
                Value::Number(number) => vec![(Set::new(), number)],
            })
        })
        .collect();
    // An error anywhere is an error of the whole, but only a pipeline's comes before others.
    let expected = match expected {
        Err(Stop::Open) => return Ok(Same::Open),
        Err(stop) => {
            return match (stop, answer) {
                (_, Err(QueryError::Invalid(_) | QueryError::Matching(_))) => Ok(Same::Refused),
                (stop, Err(other)) => Err(format!("expected {stop:?}, got the error {other}")),
                (stop, Ok(_)) => Err(format!("expected {stop:?}, got an answer")),
            };
        }
        Ok(expected) => expected,
    };
    let matrix = match answer {
        Ok(Answer::Metric(answer)) => answer.matrix,
        Ok(Answer::Logs(_)) => return Err("lines for a metric query".into()),
        Err(error) => return Err(format!("refused: {error}")),
    };
    check_series_order(metric, &matrix, grid.len() == 1)?;
    for (step, mut expected) in expected.iter().cloned().enumerate() {
        let mut got: Vector = matrix
            .iter()
            .filter_map(|series| Some((set_of(&series.labels), series.points[step]?)))
            .collect();
        for side in [&mut expected, &mut got] {
            side.sort_by(|(la, a), (lb, b)| la.cmp(lb).then_with(|| a.total_cmp(b)));
        }
        let same = expected.len() == got.len()
            && expected
                .iter()
                .zip(&got)
                .all(|((le, e), (lg, g))| le == lg && is_close(*e, *g));
        if !same {
            let at = grid.at(step);
            return Err(format!(
                "step {step} (at {at}) differs\n  expected {expected:?}\n  got      {got:?}"
            ));
        }
    }
    Ok(Same::Answer {
        empty: expected.iter().all(Vec::is_empty),
    })
}

/// By labels; of an instant query with a `sort` by value.
fn check_series_order(metric: &MetricExpr, matrix: &Matrix, instant: bool) -> Result<(), String> {
    let sort = match metric {
        MetricExpr::Vector(v) if instant => match v.function {
            VectorFunction::Sort => Some(false),
            VectorFunction::SortDesc => Some(true),
            _ => None,
        },
        _ => None,
    };
    let values = || {
        matrix
            .iter()
            .filter_map(|s| s.points[0])
            .filter(|v| !v.is_nan())
    };
    let sorted = match sort {
        None => matrix.is_sorted_by_key(|s| &s.labels),
        Some(false) => values().is_sorted(),
        Some(true) => values().rev().is_sorted_by(|a, b| a <= b),
    };
    match sorted {
        true => Ok(()),
        false => Err("series are not in order".into()),
    }
}

/// Sums of other orders differ in their last bits.
fn is_close(a: f64, b: f64) -> bool {
    a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-7 * a.abs().max(b.abs()).max(1e-3)
}
