//! Operators between vectors and numbers, and between vectors.

use std::sync::Arc;

use hashbrown::HashMap;

use super::EvalError;
use crate::logql::arithmetic::numbers;
use crate::logql::ast::{Binary, BinaryOp, Matching, Side};
use crate::model::labels::{Labels, LabelsBuilder};
use crate::model::series::{Grid, Matrix, Series};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The sample of an operation: for a comparison that filters, `kept` or nothing.
fn apply(binary: &Binary, left: f64, right: f64, kept: f64) -> Option<f64> {
    let value = numbers(binary.op, left, right);
    if matches!(binary.op, BinaryOp::Compare(_)) && !binary.returns_bool {
        return (value != 0.0).then_some(kept);
    }
    Some(value)
}

/// An operation with a number on one side. Comparisons keep the vector's value.
pub fn with_number(binary: &Binary, mut matrix: Matrix, number: f64, number_side: Side) -> Matrix {
    for point in matrix.iter_mut().flat_map(|series| &mut series.points) {
        *point = point.and_then(|value| match number_side {
            Side::Left => apply(binary, number, value, value),
            Side::Right => apply(binary, value, number, value),
        });
    }
    matrix
}

/// The labels by which a series is matched.
fn signature(labels: &Labels, matching: &Matching) -> Labels {
    if !matching.on && matching.labels.is_empty() {
        return labels.clone();
    }
    let mut builder = LabelsBuilder::default();
    for (name, value) in labels.pairs() {
        if matching.labels.iter().any(|label| **label == **name) == matching.on {
            builder.set(name.clone(), value.clone());
        }
    }
    builder.build()
}

pub fn vectors(
    binary: &Binary,
    left: Matrix,
    right: Matrix,
    grid: Grid,
) -> Result<Matrix, EvalError> {
    if binary.op.is_set_operation() {
        return Ok(sets(binary, left, right, grid));
    }
    let matching = &binary.matching;
    // The side of which one signature may occur once only; without a group, both.
    let one_side = match &matching.group {
        Some(group) if group.many == Side::Right => Side::Left,
        _ => Side::Right,
    };
    let (many, one) = match one_side {
        Side::Right => (&left, &right),
        Side::Left => (&right, &left),
    };
    let mut by_signature: Map<Labels, Vec<&Series>> = Map::default();
    for series in one {
        let key = signature(&series.labels, matching);
        by_signature.entry(key).or_default().push(series);
    }
    unique(&by_signature, one_side, grid)?;
    // Per step: which results have been given, where each signature may give one only.
    let mut results: Matrix = Vec::new();
    let mut given: Vec<Vec<bool>> = Vec::new();
    let mut result_of: Map<Labels, usize> = Map::default();
    for series in many {
        let key = signature(&series.labels, matching);
        let Some(partners) = by_signature.get(&key) else {
            continue;
        };
        for step in 0..grid.len() {
            let Some(many_value) = series.points[step] else {
                continue;
            };
            let partner = partners.iter().find(|s| s.points[step].is_some());
            let Some((partner, one_value)) = partner.and_then(|s| Some((s, s.points[step]?)))
            else {
                continue;
            };
            let labels = result_labels(series, partner, &key, matching);
            let at = *result_of.entry(labels.clone()).or_insert_with(|| {
                results.push(Series {
                    labels,
                    points: vec![None; grid.len()],
                });
                given.push(vec![false; grid.len()]);
                results.len() - 1
            });
            // Also where a comparison drops one of the two.
            if std::mem::replace(&mut given[at][step], true) {
                return Err(EvalError::Matching(match &matching.group {
                    None => format!(
                        "multiple matches for labels: many-to-one matching must be explicit \
                         (group_left/group_right); match group {key}"
                    ),
                    Some(_) => format!(
                        "multiple matches for labels: grouping labels must ensure unique \
                         matches; match group {key}"
                    ),
                }));
            }
            let (l, r) = match one_side {
                Side::Right => (many_value, one_value),
                Side::Left => (one_value, many_value),
            };
            results[at].points[step] = apply(binary, l, r, l);
        }
    }
    Ok(results)
}

/// Refuses two samples with one signature on the side that may have one only, whether or not
/// anything matches them.
fn unique(
    by_signature: &Map<Labels, Vec<&Series>>,
    side: Side,
    grid: Grid,
) -> Result<(), EvalError> {
    let side = match side {
        Side::Left => "left",
        Side::Right => "right",
    };
    for (key, series) in by_signature.iter().filter(|(_, series)| series.len() > 1) {
        for step in 0..grid.len() {
            let mut present = series.iter().filter(|s| s.points[step].is_some());
            if let (Some(first), Some(second)) = (present.next(), present.next()) {
                return Err(EvalError::Matching(format!(
                    "found duplicate series for the match group {key} on the {side} hand-side \
                     of the operation: [{}, {}]; many-to-many matching not allowed: matching \
                     labels must be unique on one side",
                    first.labels, second.labels
                )));
            }
        }
    }
    Ok(())
}

fn result_labels(many: &Series, one: &Series, key: &Labels, matching: &Matching) -> Labels {
    let Some(group) = &matching.group else {
        return key.clone();
    };
    if group.include.is_empty() {
        return many.labels.clone();
    }
    let mut builder = LabelsBuilder::from_labels(&many.labels);
    for name in &group.include {
        match one.labels.get(name) {
            Some(value) => {
                let name: Arc<str> = name.as_str().into();
                builder.set(name, value);
            }
            None => {
                builder.remove(name);
            }
        }
    }
    builder.build()
}

/// `and`, `or`, `unless`: values and labels stay as they are.
fn sets(binary: &Binary, mut left: Matrix, mut right: Matrix, grid: Grid) -> Matrix {
    // Where a signature has a sample, by step.
    let presence = |matrix: &[Series]| {
        let mut map: Map<Labels, Vec<bool>> = Map::default();
        for series in matrix {
            let at = map
                .entry(signature(&series.labels, &binary.matching))
                .or_insert_with(|| vec![false; grid.len()]);
            for (seen, point) in at.iter_mut().zip(&series.points) {
                *seen |= point.is_some();
            }
        }
        map
    };
    let filter = |matrix: &mut Matrix, other: &Map<Labels, Vec<bool>>, keep_matched: bool| {
        for series in matrix {
            let seen = other.get(&signature(&series.labels, &binary.matching));
            for (step, point) in series.points.iter_mut().enumerate() {
                let matched = seen.is_some_and(|seen| seen[step]);
                if matched != keep_matched {
                    *point = None;
                }
            }
        }
    };
    match binary.op {
        BinaryOp::And => filter(&mut left, &presence(&right), true),
        BinaryOp::Unless => filter(&mut left, &presence(&right), false),
        _ => {
            filter(&mut right, &presence(&left), false);
            join(&mut left, right);
        }
    }
    left
}

/// Adds series; points of equal labels go into one series where they do not collide.
fn join(left: &mut Matrix, right: Matrix) {
    for series in right {
        let same = left.iter_mut().find(|s| {
            s.labels == series.labels
                && s.points
                    .iter()
                    .zip(&series.points)
                    .all(|(a, b)| a.is_none() || b.is_none())
        });
        match same {
            Some(same) => {
                for (to, from) in same.points.iter_mut().zip(series.points) {
                    *to = to.or(from);
                }
            }
            None => left.push(series),
        }
    }
}
