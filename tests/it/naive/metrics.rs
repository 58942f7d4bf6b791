//! Metric queries, each evaluation time for itself: a vector of samples, from the definitions.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use watchpost::logql::ast::*;
use watchpost::model::labels::MatchOp;

use super::data::{Data, Line, Set};
use super::lines::{Entry, Wanted, label_filter, run, selects};
use super::text;

pub type Vector = Vec<(Set, f64)>;

/// Why there is no answer, or none that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// An entry with an error is in a window.
    Pipeline,
    /// Matching of two vectors is ambiguous.
    Matching,
    /// The language leaves the answer open: the first of two samples of one time.
    Open,
}

pub enum Value {
    Number(f64),
    Vector(Vector),
}

/// The samples of a range aggregation before windows are looked at.
struct Leaf<'q> {
    range: &'q RangeAggregation,
    samples: Vec<Sample>,
}

struct Sample {
    at: i64,
    value: f64,
    labels: Set,
    failed: bool,
    stream: usize,
}

/// A query over some lines.
pub struct Evaluation<'q> {
    expr: &'q MetricExpr,
    leaves: Vec<Leaf<'q>>,
}

impl<'q> Evaluation<'q> {
    pub fn new(expr: &'q MetricExpr, data: &Data, lines: &[Line], levels: bool) -> Self {
        let mut ranges = Vec::new();
        collect(expr, None, &mut ranges);
        let leaves = ranges
            .into_iter()
            .map(|(range, sum)| Leaf {
                range,
                samples: samples(range, sum, data, lines, levels),
            })
            .collect();
        Self { expr, leaves }
    }

    pub fn at(&self, time: i64) -> Result<Value, Stop> {
        value(self.expr, time, &mut self.leaves.iter())
    }
}

fn collect<'q>(
    expr: &'q MetricExpr,
    sum: Option<&'q VectorAggregation>,
    out: &mut Vec<(&'q RangeAggregation, Option<&'q VectorAggregation>)>,
) {
    match expr {
        MetricExpr::Range(range) => out.push((range, sum)),
        MetricExpr::Vector(vector) => {
            let sum = (vector.function == VectorFunction::Sum).then_some(vector);
            collect(&vector.inner, sum, out);
        }
        MetricExpr::Binary(binary) => {
            collect(&binary.left, None, out);
            collect(&binary.right, None, out);
        }
        MetricExpr::LabelReplace(replace) => collect(&replace.inner, None, out),
        _ => {}
    }
}

/// The labels that samples are kept apart by, if they are named. A sum directly above a count
/// lends its own.
fn named_labels(range: &RangeAggregation, sum: Option<&VectorAggregation>) -> Wanted {
    use RangeFunction::*;
    let grouping = match (&range.grouping, sum) {
        _ if range.function == AbsentOverTime => return Some(BTreeSet::new()),
        (Some(grouping), _) => Some(grouping),
        (None, Some(sum))
            if matches!(
                range.function,
                CountOverTime | Rate | BytesOverTime | BytesRate | SumOverTime
            ) =>
        {
            sum.grouping.as_ref()
        }
        _ => return None,
    };
    match grouping {
        None => Some(BTreeSet::new()),
        Some(g) if g.kind == GroupingKind::By => Some(g.labels.iter().cloned().collect()),
        Some(_) => None,
    }
}

/// The labels that parsers need to extract.
fn wanted(range: &RangeAggregation, named: &Wanted) -> Wanted {
    let mut names = named.clone()?;
    for stage in &range.over.log.stages {
        match stage {
            Stage::Label(filter) => filter_names(filter, &mut names),
            Stage::LineFormat(t) => template_names(t, &mut names),
            Stage::LabelFormat(formats) => {
                for format in formats {
                    match format {
                        LabelFormat::Rename { from, .. } => {
                            names.insert(from.clone());
                        }
                        LabelFormat::Template { template, .. } => {
                            template_names(template, &mut names);
                        }
                    }
                }
            }
            Stage::Drop(picks) | Stage::Keep(picks) => {
                for pick in picks {
                    if let LabelPick::Matching(m) = pick {
                        names.insert(m.name.clone());
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(unwrap) = &range.over.unwrap {
        names.insert(unwrap.name.clone());
        for filter in &unwrap.filters {
            filter_names(filter, &mut names);
        }
    }
    Some(names)
}

fn filter_names(filter: &LabelFilter, names: &mut BTreeSet<String>) {
    match filter {
        LabelFilter::Text(m) => {
            names.insert(m.name.clone());
        }
        LabelFilter::Number { name, .. }
        | LabelFilter::Duration { name, .. }
        | LabelFilter::Bytes { name, .. }
        | LabelFilter::Ip { name, .. } => {
            names.insert(name.clone());
        }
        LabelFilter::And(left, right) | LabelFilter::Or(left, right) => {
            filter_names(left, names);
            filter_names(right, names);
        }
    }
}

fn template_names(template: &str, names: &mut BTreeSet<String>) {
    for part in template.split("{{").skip(1) {
        let name = part.split("}}").next().unwrap_or("").trim();
        if let Some(field) = name.strip_prefix('.') {
            names.insert(field.to_owned());
        }
    }
}

fn samples(
    range: &RangeAggregation,
    sum: Option<&VectorAggregation>,
    data: &Data,
    lines: &[Line],
    levels: bool,
) -> Vec<Sample> {
    let named = named_labels(range, sum);
    let wanted = wanted(range, &named);
    let mut stages: Vec<Stage> = range.over.log.stages.clone();
    if !range.function_counts_bytes() {
        // A format that nobody reads is left out, with the labels that it would have needed.
        let used = |s: &Stage| {
            matches!(
                s,
                Stage::Line(_)
                    | Stage::Json(_)
                    | Stage::Logfmt(_)
                    | Stage::Regexp(_)
                    | Stage::Pattern(_)
                    | Stage::Unpack
            ) || format!("{s:?}").contains("__line__")
        };
        while let Some(at) = stages
            .iter()
            .rposition(|s| matches!(s, Stage::LineFormat(_)))
        {
            if stages[at + 1..].iter().any(used) {
                break;
            }
            stages.remove(at);
        }
    }
    let mut kept = range.clone();
    kept.over.log.stages = stages.clone();
    let wanted = wanted.map(|_| self::wanted(&kept, &named).expect("names"));
    if wanted.as_ref().is_some_and(BTreeSet::is_empty) {
        // Nothing is looked at: parsers do not run, so their errors do not show.
        stages.retain(|s| {
            !matches!(
                s,
                Stage::Json(_)
                    | Stage::Logfmt(_)
                    | Stage::Regexp(_)
                    | Stage::Pattern(_)
                    | Stage::Unpack
            )
        });
    }
    let shows_errors = named.as_ref().is_some_and(|n| n.contains("__error__"));
    let mut samples = Vec::new();
    for line in lines {
        if !selects(&range.over.log.matchers, &data.streams[line.stream]) {
            continue;
        }
        let Some(mut entry) = run(&stages, &wanted, Entry::of(data, line, levels)) else {
            continue;
        };
        let mut value = match range.function_counts_bytes() {
            true => entry.text.len() as f64,
            false => 1.0,
        };
        if let Some(unwrap) = &range.over.unwrap {
            let Some(text) = entry.get(&unwrap.name).filter(|v| !v.is_empty()) else {
                continue;
            };
            let converted = match unwrap.conversion {
                Conversion::Number => text.parse().ok(),
                Conversion::Bytes => text::size(text),
                Conversion::Duration | Conversion::DurationSeconds => text::duration(text),
            };
            value = converted.unwrap_or(0.0);
            if converted.is_none() {
                entry.fail("SampleExtractionErr");
            }
            if !unwrap.filters.iter().all(|f| label_filter(f, &mut entry)) {
                continue;
            }
        }
        let mut labels = entry.all();
        let by = range
            .grouping
            .as_ref()
            .filter(|g| g.kind == GroupingKind::By);
        if let Some(unwrap) = &range.over.unwrap
            && by.is_none()
            && !named.as_ref().is_some_and(|n| n.contains(&unwrap.name))
        {
            labels.remove(&unwrap.name);
        }
        if let Some(grouping) = &range.grouping {
            labels = grouped(&labels, grouping);
        } else if let Some(named) = &named {
            // Only the labels that a sum keeps were extracted at all.
            labels.retain(|name, _| named.contains(name));
        }
        samples.push(Sample {
            at: entry.at,
            value,
            labels,
            failed: entry.has_error() && !shows_errors,
            stream: line.stream,
        });
    }
    samples
}

trait CountsBytes {
    fn function_counts_bytes(&self) -> bool;
}

impl CountsBytes for RangeAggregation {
    fn function_counts_bytes(&self) -> bool {
        matches!(
            self.function,
            RangeFunction::BytesOverTime | RangeFunction::BytesRate
        )
    }
}

fn grouped(labels: &Set, grouping: &Grouping) -> Set {
    let by = grouping.kind == GroupingKind::By;
    labels
        .iter()
        .filter(|(name, _)| grouping.labels.contains(name) == by)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn range_at(leaf: &Leaf<'_>, time: i64) -> Result<Vector, Stop> {
    let range = leaf.range;
    let end = time - range.over.offset;
    let start = end - range.over.range;
    let mut series: BTreeMap<Set, Vec<&Sample>> = BTreeMap::new();
    for sample in &leaf.samples {
        if sample.at <= start || sample.at > end {
            continue;
        }
        if sample.failed {
            return Err(Stop::Pipeline);
        }
        series
            .entry(sample.labels.clone())
            .or_default()
            .push(sample);
    }
    if range.function == RangeFunction::AbsentOverTime {
        return Ok(match series.is_empty() {
            true => vec![(absent_labels(range), 1.0)],
            false => Vec::new(),
        });
    }
    let mut vector = Vector::new();
    for (labels, mut samples) in series {
        samples.sort_by_key(|s| s.at);
        let value = over(range, &samples)?;
        vector.push((labels, value));
    }
    Ok(vector)
}

fn over(range: &RangeAggregation, samples: &[&Sample]) -> Result<f64, Stop> {
    use RangeFunction::*;
    let values: Vec<f64> = samples.iter().map(|s| s.value).collect();
    let n = values.len() as f64;
    let sum: f64 = values.iter().sum();
    let seconds = range.over.range as f64 / 1e9;
    let not_nan = || values.iter().copied().filter(|v| !v.is_nan());
    Ok(match range.function {
        CountOverTime => n,
        Rate => sum / seconds,
        BytesOverTime | SumOverTime => sum,
        BytesRate => sum / seconds,
        AvgOverTime => sum / n,
        MinOverTime => not_nan().reduce(f64::min).unwrap_or(f64::NAN),
        MaxOverTime => not_nan().reduce(f64::max).unwrap_or(f64::NAN),
        StdvarOverTime => variance(&values),
        StddevOverTime => variance(&values).sqrt(),
        QuantileOverTime => quantile(range.parameter.expect("a rank"), values),
        FirstOverTime => {
            one_of(samples.iter().filter(|s| s.at == samples[0].at))?;
            values[0]
        }
        LastOverTime => {
            let last = samples[samples.len() - 1].at;
            one_of(samples.iter().filter(|s| s.at == last))?;
            values[values.len() - 1]
        }
        RateCounter => {
            for s in samples {
                one_of(samples.iter().filter(|other| other.at == s.at))?;
            }
            if values.len() < 2 {
                return Ok(0.0);
            }
            let (first, last) = (values[0], values[values.len() - 1]);
            let mut increase = last - first;
            for pair in values.windows(2) {
                if pair[1] < pair[0] {
                    increase += pair[0];
                }
            }
            let d = (samples[samples.len() - 1].at - samples[0].at) as f64 / 1000.0;
            let mut more = seconds;
            if increase > 0.0 && first >= 0.0 {
                more = more.min(d * (first / increase));
            }
            increase * (d + more) / d / seconds
        }
        AbsentOverTime => unreachable!("has no samples"),
    })
}

/// Lines of one time and different streams have no order.
fn one_of<'s>(samples: impl Iterator<Item = &'s &'s Sample>) -> Result<(), Stop> {
    let mut seen: Option<&Sample> = None;
    for sample in samples {
        if seen.is_some_and(|s| s.stream != sample.stream && s.value != sample.value) {
            return Err(Stop::Open);
        }
        seen = Some(sample);
    }
    Ok(())
}

fn variance(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n
}

fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|a, b| match (a.is_nan(), b.is_nan()) {
        (false, false) => a.partial_cmp(b).expect("no NaN"),
        (a, b) => b.cmp(&a),
    });
    let rank = q * (values.len() - 1) as f64;
    let (below, above) = (rank.floor() as usize, rank.ceil() as usize);
    let weight = rank - rank.floor();
    values[below] * (1.0 - weight) + values[above] * weight
}

fn absent_labels(range: &RangeAggregation) -> Set {
    let matchers = &range.over.log.matchers;
    let mut labels = Set::new();
    for m in matchers {
        let times = matchers.iter().filter(|other| other.name == m.name).count();
        if m.op == MatchOp::Equal && times == 1 && !m.value.is_empty() {
            labels.insert(m.name.clone(), m.value.clone());
        }
    }
    labels
}

fn value<'q>(
    expr: &MetricExpr,
    time: i64,
    leaves: &mut impl Iterator<Item = &'q Leaf<'q>>,
) -> Result<Value, Stop> {
    Ok(match expr {
        MetricExpr::Range(_) => Value::Vector(range_at(leaves.next().expect("a leaf"), time)?),
        MetricExpr::Number(number) => Value::Number(*number),
        MetricExpr::VectorOf(number) => Value::Vector(vec![(Set::new(), *number)]),
        MetricExpr::Vector(vector) => match value(&vector.inner, time, leaves)? {
            Value::Vector(samples) => Value::Vector(aggregate(vector, samples)),
            Value::Number(_) => unreachable!("aggregations are of vectors"),
        },
        MetricExpr::LabelReplace(replace) => match value(&replace.inner, time, leaves)? {
            Value::Vector(samples) => Value::Vector(label_replace(replace, samples)),
            Value::Number(_) => unreachable!("replacements are in vectors"),
        },
        MetricExpr::Binary(binary) => {
            let left = value(&binary.left, time, leaves)?;
            let right = value(&binary.right, time, leaves)?;
            match (left, right) {
                (Value::Number(l), Value::Number(r)) => Value::Number(operate(binary.op, l, r)),
                (Value::Vector(v), Value::Number(n)) => Value::Vector(
                    v.into_iter()
                        .filter_map(|(labels, x)| Some((labels, result(binary, x, n, x)?)))
                        .collect(),
                ),
                (Value::Number(n), Value::Vector(v)) => Value::Vector(
                    v.into_iter()
                        .filter_map(|(labels, x)| Some((labels, result(binary, n, x, x)?)))
                        .collect(),
                ),
                (Value::Vector(l), Value::Vector(r)) => Value::Vector(vectors(binary, l, r)?),
            }
        }
        MetricExpr::Variants(_) => unreachable!("is off"),
    })
}

fn operate(op: BinaryOp, l: f64, r: f64) -> f64 {
    let truth = |b: bool| if b { 1.0 } else { 0.0 };
    match op {
        BinaryOp::Add => l + r,
        BinaryOp::Sub => l - r,
        BinaryOp::Mul => l * r,
        BinaryOp::Div if r == 0.0 => f64::NAN,
        BinaryOp::Div => l / r,
        BinaryOp::Mod if r == 0.0 => f64::NAN,
        BinaryOp::Mod => l % r,
        BinaryOp::Pow => l.powf(r),
        BinaryOp::Compare(Compare::Equal) => truth(l == r),
        BinaryOp::Compare(Compare::NotEqual) => truth(l != r),
        BinaryOp::Compare(Compare::Greater) => truth(l > r),
        BinaryOp::Compare(Compare::GreaterEqual) => truth(l >= r),
        BinaryOp::Compare(Compare::Less) => truth(l < r),
        BinaryOp::Compare(Compare::LessEqual) => truth(l <= r),
        BinaryOp::Or | BinaryOp::And | BinaryOp::Unless => unreachable!("of sets"),
    }
}

/// A comparison without `bool` keeps a value or drops the sample.
fn result(binary: &Binary, l: f64, r: f64, kept: f64) -> Option<f64> {
    let value = operate(binary.op, l, r);
    match binary.op {
        BinaryOp::Compare(_) if !binary.returns_bool => (value == 1.0).then_some(kept),
        _ => Some(value),
    }
}

fn signature(labels: &Set, matching: &Matching) -> Set {
    labels
        .iter()
        .filter(|(name, _)| matching.labels.contains(name) == matching.on)
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn vectors(binary: &Binary, left: Vector, right: Vector) -> Result<Vector, Stop> {
    let matching = &binary.matching;
    let key = |labels: &Set| signature(labels, matching);
    let among = |labels: &Set, side: &Vector| side.iter().any(|(l, _)| key(l) == key(labels));
    match binary.op {
        BinaryOp::And => {
            let kept = left.into_iter().filter(|(l, _)| among(l, &right));
            return Ok(kept.collect());
        }
        BinaryOp::Unless => {
            let kept = left.into_iter().filter(|(l, _)| !among(l, &right));
            return Ok(kept.collect());
        }
        BinaryOp::Or => {
            let mut all = left.clone();
            all.extend(right.into_iter().filter(|(l, _)| !among(l, &left)));
            return Ok(all);
        }
        _ => {}
    }
    let swapped = matches!(&matching.group, Some(group) if group.many == Side::Right);
    let (many, one) = if swapped {
        (right, left)
    } else {
        (left, right)
    };
    for (number, (labels, _)) in one.iter().enumerate() {
        if among(labels, &one[..number].to_vec()) {
            return Err(Stop::Matching);
        }
    }
    let mut results = Vector::new();
    let mut matched = BTreeSet::new();
    for (labels, x) in &many {
        let Some((other, y)) = one.iter().find(|(l, _)| key(l) == key(labels)) else {
            continue;
        };
        let (l, r) = if swapped { (*y, *x) } else { (*x, *y) };
        let labels = match &matching.group {
            None => key(labels),
            Some(group) => {
                let mut labels = labels.clone();
                for name in &group.include {
                    match other.get(name) {
                        Some(value) => labels.insert(name.clone(), value.clone()),
                        None => labels.remove(name),
                    };
                }
                labels
            }
        };
        // Also where a comparison drops one of the two.
        if !matched.insert(labels.clone()) {
            return Err(Stop::Matching);
        }
        if let Some(value) = result(binary, l, r, l) {
            results.push((labels, value));
        }
    }
    Ok(results)
}

fn aggregate(vector: &VectorAggregation, samples: Vector) -> Vector {
    use VectorFunction::*;
    if matches!(vector.function, Sort | SortDesc) {
        return samples;
    }
    let mut groups: BTreeMap<Set, Vector> = BTreeMap::new();
    for (labels, value) in samples {
        let group = match &vector.grouping {
            None => Set::new(),
            Some(grouping) => grouped(&labels, grouping),
        };
        groups.entry(group).or_default().push((labels, value));
    }
    let mut out = Vector::new();
    for (group, mut members) in groups {
        let values: Vec<f64> = members.iter().map(|(_, v)| *v).collect();
        let n = values.len() as f64;
        let sum: f64 = values.iter().sum();
        let not_nan = || values.iter().copied().filter(|v| !v.is_nan());
        let value = match vector.function {
            Sum => sum,
            Avg => sum / n,
            Count => n,
            Min => not_nan().reduce(f64::min).unwrap_or(f64::NAN),
            Max => not_nan().reduce(f64::max).unwrap_or(f64::NAN),
            Stdvar => variance(&values),
            Stddev => variance(&values).sqrt(),
            Topk | Bottomk | ApproxTopk => {
                members.sort_by(|(la, a), (lb, b)| {
                    let by_value = match (a.is_nan(), b.is_nan()) {
                        (false, false) if vector.function == Bottomk => a.partial_cmp(b),
                        (false, false) => b.partial_cmp(a),
                        (a, b) => a.partial_cmp(&b),
                    };
                    by_value.expect("no NaN").then_with(|| la.cmp(lb))
                });
                members.truncate(vector.parameter.expect("a k") as usize);
                out.extend(members);
                continue;
            }
            Sort | SortDesc => unreachable!("not grouped"),
        };
        out.push((group, value));
    }
    out
}

fn label_replace(replace: &LabelReplace, samples: Vector) -> Vector {
    let regex = Regex::new(&format!("^(?:{})$", replace.regex)).expect("a regex");
    samples
        .into_iter()
        .map(|(mut labels, value)| {
            let source = labels.get(&replace.source).cloned().unwrap_or_default();
            if let Some(groups) = regex.captures(&source) {
                let mut text = String::new();
                groups.expand(&replace.replacement, &mut text);
                labels.insert(replace.target.clone(), text);
                labels.retain(|name, value| *name != replace.target || !value.is_empty());
            }
            (labels, value)
        })
        .collect()
}
