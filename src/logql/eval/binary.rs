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
    // Per step: which results have been given, where each signature may give one only.
    let mut results: Matrix = Vec::new();
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
            let mut found = partners.iter().filter(|s| s.points[step].is_some());
            let Some(partner) = found.next() else {
                continue;
            };
            if let Some(other) = found.next() {
                let side = match one_side {
                    Side::Left => "left",
                    Side::Right => "right",
                };
                return Err(EvalError::Matching(format!(
                    "found duplicate series for the match group {key} on the {side} hand-side \
                     of the operation: [{}, {}]; many-to-many matching not allowed: matching \
                     labels must be unique on one side",
                    partner.labels, other.labels
                )));
            }
            let one_value = partner.points[step].unwrap_or(f64::NAN);
            let (l, r) = match one_side {
                Side::Right => (many_value, one_value),
                Side::Left => (one_value, many_value),
            };
            let Some(value) = apply(binary, l, r, l) else {
                continue;
            };
            let labels = result_labels(series, partner, &key, matching);
            let at = *result_of.entry(labels.clone()).or_insert_with(|| {
                results.push(Series {
                    labels,
                    points: vec![None; grid.len()],
                });
                results.len() - 1
            });
            if results[at].points[step].replace(value).is_some() {
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
        }
    }
    if matching.group.is_none() {
        one_to_one(binary, many, grid, &by_signature)?;
    }
    Ok(results)
}

/// Refuses two samples of the many side that match the same sample, also where a comparison
/// filtered one of them out or their labels tell them apart.
fn one_to_one(
    binary: &Binary,
    many: &[Series],
    grid: Grid,
    by_signature: &Map<Labels, Vec<&Series>>,
) -> Result<(), EvalError> {
    let mut seen: Map<Labels, Vec<&Series>> = Map::default();
    for series in many {
        let key = signature(&series.labels, &binary.matching);
        let Some(partners) = by_signature.get(&key) else {
            continue;
        };
        let earlier = seen.entry(key.clone()).or_default();
        let twice = (0..grid.len()).any(|step| {
            series.points[step].is_some()
                && earlier.iter().any(|s| s.points[step].is_some())
                && partners.iter().any(|s| s.points[step].is_some())
        });
        if twice {
            return Err(EvalError::Matching(format!(
                "multiple matches for labels: many-to-one matching must be explicit \
                 (group_left/group_right); match group {key}"
            )));
        }
        earlier.push(series);
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
