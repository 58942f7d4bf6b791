//! Vector aggregations: `sum by (a) (…)`, `topk(3, …)` and their like, one step at a time.

use hashbrown::HashMap;

use crate::logql::ast::{Grouping, GroupingKind, VectorAggregation, VectorFunction};
use crate::model::labels::{Labels, LabelsBuilder};
use crate::model::series::{Matrix, Series};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

pub fn aggregate(vector: &VectorAggregation, matrix: Matrix) -> Matrix {
    match vector.function {
        // The order is made at the end.
        VectorFunction::Sort | VectorFunction::SortDesc => matrix,
        VectorFunction::Topk | VectorFunction::Bottomk | VectorFunction::ApproxTopk => {
            extremes(vector, matrix)
        }
        _ => fold(vector, &matrix),
    }
}

/// The labels of the group that a series belongs to.
fn group_labels(labels: &Labels, grouping: Option<&Grouping>) -> Labels {
    let Some(grouping) = grouping else {
        return Labels::empty();
    };
    let mut builder = LabelsBuilder::default();
    for (name, value) in labels.pairs() {
        let listed = grouping.labels.iter().any(|label| **label == **name);
        if listed == (grouping.kind == GroupingKind::By) {
            builder.set(name.clone(), value.clone());
        }
    }
    builder.build()
}

/// For each group its labels and the series in it, in order of appearance.
fn groups<'m>(vector: &VectorAggregation, matrix: &'m [Series]) -> Vec<(Labels, Vec<&'m Series>)> {
    let mut index: Map<Labels, usize> = Map::default();
    let mut groups: Vec<(Labels, Vec<&Series>)> = Vec::new();
    for series in matrix {
        let labels = group_labels(&series.labels, vector.grouping.as_ref());
        let at = *index.entry(labels.clone()).or_insert_with(|| {
            groups.push((labels, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(series);
    }
    groups
}

fn fold(vector: &VectorAggregation, matrix: &[Series]) -> Matrix {
    let steps = matrix.first().map_or(0, |series| series.points.len());
    groups(vector, matrix)
        .into_iter()
        .map(|(labels, members)| {
            let points = (0..steps)
                .map(|step| {
                    let values = members.iter().filter_map(|series| series.points[step]);
                    fold_values(vector.function, values)
                })
                .collect();
            Series { labels, points }
        })
        .collect()
}

fn fold_values(function: VectorFunction, values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut count = 0.0;
    let (mut sum, mut mean, mut squares) = (0.0, 0.0, 0.0);
    let mut extreme = f64::NAN;
    for value in values {
        count += 1.0;
        sum += value;
        let delta = value - mean;
        mean += delta / count;
        squares += delta * (value - mean);
        let replaces = match function {
            VectorFunction::Min => value < extreme,
            VectorFunction::Max => value > extreme,
            _ => false,
        };
        if replaces || extreme.is_nan() {
            extreme = value;
        }
    }
    if count == 0.0 {
        return None;
    }
    Some(match function {
        VectorFunction::Avg => sum / count,
        VectorFunction::Count => count,
        VectorFunction::Min | VectorFunction::Max => extreme,
        VectorFunction::Stdvar => squares / count,
        VectorFunction::Stddev => (squares / count).sqrt(),
        _ => sum,
    })
}

/// The k largest or smallest of each group, step by step, under their own labels.
fn extremes(vector: &VectorAggregation, matrix: Matrix) -> Matrix {
    let k = usize::try_from(vector.parameter.unwrap_or(1)).unwrap_or(usize::MAX);
    let smallest = vector.function == VectorFunction::Bottomk;
    let mut index: Map<Labels, usize> = Map::default();
    let mut members: Vec<Vec<usize>> = Vec::new();
    for (number, series) in matrix.iter().enumerate() {
        let labels = group_labels(&series.labels, vector.grouping.as_ref());
        let at = *index.entry(labels).or_insert_with(|| {
            members.push(Vec::new());
            members.len() - 1
        });
        members[at].push(number);
    }
    // Of equal values those with the first labels, whatever order the series came in: the
    // same question has the same answer.
    for group in &mut members {
        group.sort_by(|a, b| matrix[*a].labels.cmp(&matrix[*b].labels));
    }
    let steps = matrix.first().map_or(0, |series| series.points.len());
    let mut kept: Matrix = matrix
        .iter()
        .map(|series| Series {
            labels: series.labels.clone(),
            points: vec![None; steps],
        })
        .collect();
    let mut present: Vec<(f64, usize)> = Vec::new();
    for step in 0..steps {
        for group in &members {
            present.clear();
            present.extend(
                group
                    .iter()
                    .filter_map(|n| Some((matrix[*n].points[step]?, *n))),
            );
            present.sort_by(|(a, _), (b, _)| {
                let order = if smallest {
                    a.partial_cmp(b)
                } else {
                    b.partial_cmp(a)
                };
                // NaN is the first to go.
                order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            });
            for (value, number) in present.iter().take(k) {
                kept[*number].points[step] = Some(*value);
            }
        }
    }
    kept
}
