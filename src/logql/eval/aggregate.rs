//! Vector aggregations: `sum`, `topk` and their like, at every evaluation time by itself.

use hashbrown::HashMap;

use super::{EvalError, SeriesLabels};
use crate::logql::ast::{VectorAggregation, VectorFunction};
use crate::model::Labels;
use crate::model::series::{Grid, Matrix, Series};

/// Aggregates the series of each group.
pub fn aggregate(
    vector: &VectorAggregation,
    inner: Matrix,
    grid: Grid,
) -> Result<Matrix, EvalError> {
    match vector.function {
        VectorFunction::Sort | VectorFunction::SortDesc => {
            return Ok(sort(vector.function, inner, grid));
        }
        VectorFunction::Topk | VectorFunction::Bottomk | VectorFunction::ApproxTopk => {
            return Ok(top(vector, inner, grid));
        }
        _ => {}
    }
    Ok(groups(vector, &inner)
        .into_iter()
        .map(|(labels, members)| {
            let mut points = Vec::with_capacity(grid.len());
            let mut values = Vec::with_capacity(members.len());
            for i in 0..grid.len() {
                values.clear();
                values.extend(members.iter().filter_map(|m| inner[*m].points[i]));
                points.push(combine(vector.function, &values));
            }
            Series { labels, points }
        })
        .filter(|series| series.points.iter().any(Option::is_some))
        .collect())
}

/// Groups in order of first appearance, with the places of their members.
fn groups(vector: &VectorAggregation, inner: &Matrix) -> Vec<(Labels, Vec<usize>)> {
    let by = SeriesLabels::of(vector.grouping.as_ref());
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<(Labels, Vec<usize>)> = Vec::new();
    for (i, series) in inner.iter().enumerate() {
        let labels = by.of_labels(&series.labels);
        let place = *places.entry(labels.clone()).or_insert_with(|| {
            groups.push((labels, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(i);
    }
    groups
}

fn combine(function: VectorFunction, values: &[f64]) -> Option<f64> {
    let first = *values.first()?;
    let n = values.len() as f64;
    Some(match function {
        VectorFunction::Sum => values.iter().sum(),
        VectorFunction::Avg => {
            let mut mean = 0.0;
            for (i, value) in values.iter().enumerate() {
                mean += (value - mean) / (i + 1) as f64;
            }
            mean
        }
        VectorFunction::Count => n,
        // NaN is replaced by any number.
        VectorFunction::Min => {
            values.iter().fold(first, |a, b| if *b < a || a.is_nan() { *b } else { a })
        }
        VectorFunction::Max => {
            values.iter().fold(first, |a, b| if *b > a || a.is_nan() { *b } else { a })
        }
        VectorFunction::Stddev => variance(values).sqrt(),
        VectorFunction::Stdvar => variance(values),
        // Taken care of before.
        VectorFunction::Topk
        | VectorFunction::Bottomk
        | VectorFunction::ApproxTopk
        | VectorFunction::Sort
        | VectorFunction::SortDesc => first,
    })
}

/// Population variance (Welford).
fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut sum) = (0.0, 0.0);
    for (i, value) in values.iter().enumerate() {
        let delta = value - mean;
        mean += delta / (i + 1) as f64;
        sum += delta * (value - mean);
    }
    sum / values.len() as f64
}

/// The k greatest (or least) of each group and time keep their place; NaN comes last.
fn top(vector: &VectorAggregation, mut inner: Matrix, grid: Grid) -> Matrix {
    let k = usize::try_from(vector.parameter.unwrap_or(1)).unwrap_or(usize::MAX);
    let descending = vector.function != VectorFunction::Bottomk;
    let groups = groups(vector, &inner);
    for i in 0..grid.len() {
        for (_, members) in &groups {
            let mut ranked: Vec<(f64, usize)> =
                members.iter().filter_map(|m| Some((inner[*m].points[i]?, *m))).collect();
            if ranked.len() <= k {
                continue;
            }
            ranked.sort_by(|(a, at_a), (b, at_b)| {
                let order = match (a.is_nan(), b.is_nan()) {
                    (false, false) if descending => b.total_cmp(a),
                    (false, false) => a.total_cmp(b),
                    (a, b) => a.cmp(&b),
                };
                order.then(at_a.cmp(at_b))
            });
            for (_, member) in &ranked[k..] {
                inner[*member].points[i] = None;
            }
        }
    }
    inner.retain(|series| series.points.iter().any(Option::is_some));
    inner
}

/// Orders an instant result by value; a range result stays as it is.
fn sort(function: VectorFunction, mut inner: Matrix, grid: Grid) -> Matrix {
    if grid.len() == 1 {
        let value = |series: &Series| series.points[0].unwrap_or(f64::NAN);
        inner.sort_by(|a, b| match function {
            VectorFunction::Sort => value(a).total_cmp(&value(b)),
            _ => value(b).total_cmp(&value(a)),
        });
    }
    inner
}
