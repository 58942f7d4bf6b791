//! Operations between vectors and numbers, and between vectors.

use hashbrown::{HashMap, HashSet};

use super::EvalError;
pub use crate::logql::arithmetic::numbers;
use crate::logql::ast::{Binary, BinaryOp, Matching, Side};
use crate::model::series::{Matrix, Series};
use crate::model::{Labels, LabelsBuilder};

/// The result for one pair; a comparison without `bool` keeps `kept` or nothing.
fn apply(binary: &Binary, left: f64, right: f64, kept: f64) -> Option<f64> {
    match binary.op {
        BinaryOp::Compare(compare) if !binary.returns_bool => {
            compare.holds(left, right).then_some(kept)
        }
        op => Some(numbers(op, left, right)),
    }
}

fn each_point(mut vector: Matrix, change: impl Fn(f64) -> Option<f64>) -> Matrix {
    for series in &mut vector {
        for point in &mut series.points {
            *point = point.and_then(&change);
        }
    }
    vector.retain(|series| series.points.iter().any(Option::is_some));
    vector
}

/// A vector on the left and a number on the right.
pub fn vector_number(binary: &Binary, left: Matrix, right: f64) -> Matrix {
    each_point(left, |value| apply(binary, value, right, value))
}

/// A number on the left and a vector on the right.
pub fn number_vector(binary: &Binary, left: f64, right: Matrix) -> Matrix {
    each_point(right, |value| apply(binary, left, value, value))
}

/// Labels by which a sample finds its partner.
fn signature(matching: &Matching, labels: &Labels) -> Labels {
    let named = |name: &str| matching.labels.iter().any(|l| l == name);
    let kept = labels.pairs().iter().filter(|(name, _)| named(name) == matching.on);
    Labels::from_pairs(kept.cloned())
}

/// Two vectors.
pub fn vectors(binary: &Binary, left: Matrix, right: Matrix) -> Result<Matrix, EvalError> {
    if binary.op.is_set_operation() {
        return Ok(sets(binary, left, right));
    }
    let matching = &binary.matching;
    let many = matching.group.as_ref().map(|group| group.many);
    let steps = left.first().or(right.first()).map_or(0, |s| s.points.len());
    // `one` is the side on which a signature may occur once at a time.
    let (many_side, one_side) =
        if many == Some(Side::Right) { (&right, &left) } else { (&left, &right) };
    let mut partners: HashMap<Labels, Vec<usize>> = HashMap::new();
    for (i, series) in one_side.iter().enumerate() {
        partners.entry(signature(matching, &series.labels)).or_default().push(i);
    }
    let mut results: HashMap<Labels, usize> = HashMap::new();
    let mut out: Matrix = Vec::new();
    // For one-to-one: which signature was used at which time.
    let mut used: HashSet<(usize, usize)> = HashSet::new();
    for series in many_side {
        let Some(candidates) = partners.get(&signature(matching, &series.labels)) else {
            continue;
        };
        for i in 0..steps {
            let Some(value) = series.points[i] else { continue };
            let mut present = candidates.iter().filter(|c| one_side[**c].points[i].is_some());
            let Some(partner) = present.next() else { continue };
            if present.next().is_some() {
                let side = if many == Some(Side::Right) { "left" } else { "right" };
                return Err(EvalError::Matching(format!(
                    "found duplicate series for the match group {} on the {side} hand-side of the \
                     operation; many-to-many matching not allowed: matching labels must be unique \
                     on one side",
                    signature(matching, &series.labels)
                )));
            }
            if many.is_none() && !used.insert((*partner, i)) {
                return Err(EvalError::Matching(
                    "multiple matches for labels: many-to-one matching must be explicit \
                     (group_left/group_right)"
                        .into(),
                ));
            }
            let other = one_side[*partner].points[i].unwrap_or(f64::NAN);
            let (l, r) = if many == Some(Side::Right) { (other, value) } else { (value, other) };
            let Some(result) = apply(binary, l, r, l) else { continue };
            let labels = result_labels(matching, &series.labels, &one_side[*partner].labels);
            let place = *results.entry(labels.clone()).or_insert_with(|| {
                out.push(Series { labels, points: vec![None; steps] });
                out.len() - 1
            });
            out[place].points[i] = Some(result);
        }
    }
    Ok(out)
}

fn result_labels(matching: &Matching, many: &Labels, one: &Labels) -> Labels {
    let Some(group) = &matching.group else { return signature(matching, many) };
    let mut labels = LabelsBuilder::from_labels(many);
    for name in &group.include {
        match one.get(name) {
            Some(value) if !value.is_empty() => {
                labels.set(name.as_str(), value);
            }
            _ => {
                labels.remove(name);
            }
        }
    }
    labels.build()
}

/// `and`, `or`, `unless`: values and labels stay as they are.
fn sets(binary: &Binary, mut left: Matrix, mut right: Matrix) -> Matrix {
    let matching = &binary.matching;
    let present = |side: &Matrix| -> HashSet<(Labels, usize)> {
        let mut present = HashSet::new();
        for series in side {
            let signature = signature(matching, &series.labels);
            let times = series.points.iter().enumerate().filter(|(_, p)| p.is_some());
            present.extend(times.map(|(i, _)| (signature.clone(), i)));
        }
        present
    };
    let keep = |side: &mut Matrix, other: &HashSet<(Labels, usize)>, when: bool| {
        for series in side.iter_mut() {
            let signature = signature(matching, &series.labels);
            for (i, point) in series.points.iter_mut().enumerate() {
                if other.contains(&(signature.clone(), i)) != when {
                    *point = None;
                }
            }
        }
        side.retain(|series| series.points.iter().any(Option::is_some));
    };
    match binary.op {
        BinaryOp::And => {
            let other = present(&right);
            keep(&mut left, &other, true);
        }
        BinaryOp::Unless => {
            let other = present(&right);
            keep(&mut left, &other, false);
        }
        _ => {
            let other = present(&left);
            keep(&mut right, &other, false);
            for series in right {
                // The same labels may come from both sides at different times.
                match left.iter_mut().find(|l| l.labels == series.labels) {
                    Some(same) => {
                        for (a, b) in same.points.iter_mut().zip(series.points) {
                            *a = a.or(b);
                        }
                    }
                    None => left.push(series),
                }
            }
        }
    }
    left
}
