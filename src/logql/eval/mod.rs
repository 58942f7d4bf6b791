//! What a metric expression means: series of samples in, series of samples out.
//!
//! Whoever runs a query asks for the [`leaves`] of its expression, fills an accumulator for
//! each ([`range`]), and hands the results to [`evaluate`].

pub mod aggregate;
pub mod binary;
pub mod range;

use super::ast::{
    Grouping, GroupingKind, MetricExpr, RangeAggregation, RangeFunction, VectorFunction,
};
use crate::model::Labels;
use crate::model::series::{Grid, Matrix, Series};

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EvalError {
    /// Read, but not executed by this version; the text names what.
    #[error("{0} is not supported yet")]
    Unsupported(String),
    /// Ambiguous matching of two vectors.
    #[error("{0}")]
    Matching(String),
}

/// Which labels the series of a leaf have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeriesLabels {
    /// Everything an entry has after its pipeline.
    All,
    /// Those of these that an entry has.
    By(Vec<String>),
    /// All but these.
    Without(Vec<String>),
}

impl SeriesLabels {
    fn of(grouping: Option<&Grouping>) -> Self {
        match grouping {
            None => Self::By(Vec::new()),
            Some(g) if g.kind == GroupingKind::By => Self::By(g.labels.clone()),
            Some(g) => Self::Without(g.labels.clone()),
        }
    }

    /// The series' labels of an entry's.
    pub fn of_labels(&self, labels: &Labels) -> Labels {
        match self {
            Self::All => labels.clone(),
            Self::By(names) => {
                let kept = labels.pairs().iter().filter(|(n, _)| names.iter().any(|b| **b == **n));
                Labels::from_pairs(kept.cloned())
            }
            Self::Without(names) => {
                let kept = labels.pairs().iter().filter(|(n, _)| !names.iter().any(|b| **b == **n));
                Labels::from_pairs(kept.cloned())
            }
        }
    }
}

/// A range aggregation of an expression, to be computed from lines.
#[derive(Clone, Debug)]
pub struct Leaf<'a> {
    pub range: &'a RangeAggregation,
    /// `sum by (x) (rate(…))` needs only x: adding up early gives the same sums.
    pub labels: SeriesLabels,
}

/// The range aggregations of an expression, in the order in which [`evaluate`] wants their
/// results. Fails on what this version does not execute.
pub fn leaves(expr: &MetricExpr) -> Result<Vec<Leaf<'_>>, EvalError> {
    let mut leaves = Vec::new();
    collect(expr, &mut leaves)?;
    Ok(leaves)
}

fn collect<'a>(expr: &'a MetricExpr, leaves: &mut Vec<Leaf<'a>>) -> Result<(), EvalError> {
    match expr {
        MetricExpr::Range(range) => {
            check_range(range)?;
            leaves.push(Leaf { range, labels: SeriesLabels::All });
        }
        MetricExpr::Vector(vector) => {
            if let (VectorFunction::Sum, MetricExpr::Range(range)) =
                (vector.function, &*vector.inner)
            {
                check_range(range)?;
                let labels = SeriesLabels::of(vector.grouping.as_ref());
                leaves.push(Leaf { range, labels });
                return Ok(());
            }
            collect(&vector.inner, leaves)?;
        }
        MetricExpr::Binary(binary) => {
            collect(&binary.left, leaves)?;
            collect(&binary.right, leaves)?;
        }
        MetricExpr::LabelReplace(_) => {
            return Err(EvalError::Unsupported("`label_replace`".into()));
        }
        MetricExpr::Variants(_) => return Err(EvalError::Unsupported("`variants`".into())),
        MetricExpr::Number(_) | MetricExpr::VectorOf(_) => {}
    }
    Ok(())
}

fn check_range(range: &RangeAggregation) -> Result<(), EvalError> {
    let unsupported = |what: &str| Err(EvalError::Unsupported(format!("`{what}`")));
    if range.over.unwrap.is_some() {
        return unsupported("unwrap");
    }
    match range.function {
        RangeFunction::CountOverTime
        | RangeFunction::Rate
        | RangeFunction::BytesOverTime
        | RangeFunction::BytesRate => Ok(()),
        other => unsupported(other.as_str()),
    }
}

/// A value while an expression is evaluated.
enum Value {
    Number(f64),
    Vector(Matrix),
}

/// Evaluates an expression over a grid, given the results of its leaves in order.
pub fn evaluate(
    expr: &MetricExpr,
    grid: Grid,
    leaves: Vec<Matrix>,
) -> Result<Matrix, EvalError> {
    let mut leaves = leaves.into_iter();
    Ok(match value(expr, grid, &mut leaves)? {
        Value::Vector(matrix) => matrix,
        Value::Number(number) => constant(number, grid),
    })
}

fn constant(number: f64, grid: Grid) -> Matrix {
    vec![Series { labels: Labels::empty(), points: vec![Some(number); grid.len()] }]
}

fn value(
    expr: &MetricExpr,
    grid: Grid,
    leaves: &mut impl Iterator<Item = Matrix>,
) -> Result<Value, EvalError> {
    Ok(match expr {
        MetricExpr::Range(_) => Value::Vector(leaves.next().unwrap_or_default()),
        MetricExpr::Number(number) => Value::Number(*number),
        MetricExpr::VectorOf(number) => Value::Vector(constant(*number, grid)),
        MetricExpr::Vector(vector) => {
            let inner = match value(&vector.inner, grid, leaves)? {
                Value::Vector(matrix) => matrix,
                Value::Number(number) => constant(number, grid),
            };
            Value::Vector(aggregate::aggregate(vector, inner, grid)?)
        }
        MetricExpr::Binary(binary) => {
            let left = value(&binary.left, grid, leaves)?;
            let right = value(&binary.right, grid, leaves)?;
            match (left, right) {
                (Value::Number(left), Value::Number(right)) => {
                    Value::Number(binary::numbers(binary.op, left, right))
                }
                (Value::Vector(left), Value::Number(right)) => {
                    Value::Vector(binary::vector_number(binary, left, right))
                }
                (Value::Number(left), Value::Vector(right)) => {
                    Value::Vector(binary::number_vector(binary, left, right))
                }
                (Value::Vector(left), Value::Vector(right)) => {
                    Value::Vector(binary::vectors(binary, left, right)?)
                }
            }
        }
        MetricExpr::LabelReplace(_) => {
            return Err(EvalError::Unsupported("`label_replace`".into()));
        }
        MetricExpr::Variants(_) => return Err(EvalError::Unsupported("`variants`".into())),
    })
}

/// Whether the expression asks for the order of its instant result: `sort` anywhere in it.
pub fn is_sorted(expr: &MetricExpr) -> bool {
    match expr {
        MetricExpr::Vector(vector) => {
            matches!(vector.function, VectorFunction::Sort | VectorFunction::SortDesc)
                || is_sorted(&vector.inner)
        }
        MetricExpr::Binary(binary) => is_sorted(&binary.left) || is_sorted(&binary.right),
        MetricExpr::LabelReplace(replace) => is_sorted(&replace.inner),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::ast::Expr;

    /// Evaluates a query whose leaves all have these series over two steps.
    #[track_caller]
    fn check(query: &str, leaf: &[(&str, [Option<f64>; 2])], expected: &[(&str, [Option<f64>; 2])]) {
        let Ok(Expr::Metric(expr)) = crate::logql::parse(query) else { panic!("{query}") };
        let series = |(label, points): &(&str, [Option<f64>; 2])| Series {
            labels: Labels::from_pairs(label.split(',').filter_map(|l| l.split_once('='))),
            points: points.to_vec(),
        };
        let leaf: Matrix = leaf.iter().map(series).collect();
        let count = leaves(&expr).unwrap().len();
        let grid = Grid { start: 0, end: 10, step: 10 };
        let mut result = evaluate(&expr, grid, vec![leaf; count]).unwrap();
        result.sort_by(|a, b| a.labels.cmp(&b.labels));
        let expected: Matrix = expected.iter().map(series).collect();
        assert_eq!(result, expected, "{query}");
    }

    const LEAF: &[(&str, [Option<f64>; 2])] = &[
        ("app=a,host=x", [Some(1.0), Some(2.0)]),
        ("app=a,host=y", [Some(3.0), None]),
        ("app=b,host=x", [None, Some(5.0)]),
    ];

    #[test]
    fn grafanas_health_check_is_one_sample_of_two() {
        check("vector(1)+vector(1)", &[], &[("", [Some(2.0), Some(2.0)])]);
    }

    #[test]
    fn aggregations_group_by_the_labels_that_exist() {
        let rate = "count_over_time({app=~\".+\"}[1m])";
        check(&format!("max by (app) ({rate})"), LEAF, &[
            ("app=a", [Some(3.0), Some(2.0)]),
            ("app=b", [None, Some(5.0)]),
        ]);
        check(&format!("count({rate})"), LEAF, &[("", [Some(2.0), Some(2.0)])]);
        check(&format!("avg without (app) ({rate})"), LEAF, &[
            ("host=x", [Some(1.0), Some(3.5)]),
            ("host=y", [Some(3.0), None]),
        ]);
        check(&format!("topk(1, {rate})"), LEAF, &[
            ("app=a,host=y", [Some(3.0), None]),
            ("app=b,host=x", [None, Some(5.0)]),
        ]);
        check(&format!("bottomk by (host) (1, {rate})"), LEAF, &[
            ("app=a,host=x", [Some(1.0), Some(2.0)]),
            ("app=a,host=y", [Some(3.0), None]),
        ]);
    }

    #[test]
    fn numbers_apply_to_every_sample_and_comparisons_filter() {
        let rate = "count_over_time({app=~\".+\"}[1m])";
        check(&format!("{rate} * 2 > 4"), LEAF, &[
            ("app=a,host=y", [Some(6.0), None]),
            ("app=b,host=x", [None, Some(10.0)]),
        ]);
        check(&format!("2 < {rate}"), LEAF, &[
            ("app=a,host=y", [Some(3.0), None]),
            ("app=b,host=x", [None, Some(5.0)]),
        ]);
        check(&format!("{rate} > bool 2"), LEAF, &[
            ("app=a,host=x", [Some(0.0), Some(0.0)]),
            ("app=a,host=y", [Some(1.0), None]),
            ("app=b,host=x", [None, Some(1.0)]),
        ]);
    }

    #[test]
    fn division_by_zero_is_not_a_number() {
        let Ok(Expr::Metric(expr)) = crate::logql::parse("vector(1) / 0") else { panic!() };
        let result = evaluate(&expr, Grid::instant(0), Vec::new()).unwrap();
        assert!(result[0].points[0].unwrap().is_nan());
    }

    #[test]
    fn vectors_match_by_labels_and_ambiguity_is_an_error() {
        let rate = "count_over_time({app=~\".+\"}[1m])";
        check(&format!("{rate} / {rate}"), LEAF, &[
            ("app=a,host=x", [Some(1.0), Some(1.0)]),
            ("app=a,host=y", [Some(1.0), None]),
            ("app=b,host=x", [None, Some(1.0)]),
        ]);
        check(&format!("{rate} or vector(7)"), LEAF, &[
            ("", [Some(7.0), Some(7.0)]),
            ("app=a,host=x", [Some(1.0), Some(2.0)]),
            ("app=a,host=y", [Some(3.0), None]),
            ("app=b,host=x", [None, Some(5.0)]),
        ]);
        check(&format!("{rate} unless on (host) max by (host) ({rate} > 4)"), LEAF, &[
            ("app=a,host=x", [Some(1.0), None]),
            ("app=a,host=y", [Some(3.0), None]),
        ]);
        check(&format!("{rate} - on (app) group_left () max by (app) ({rate})"), LEAF, &[
            ("app=a,host=x", [Some(-2.0), Some(0.0)]),
            ("app=a,host=y", [Some(0.0), None]),
            ("app=b,host=x", [None, Some(0.0)]),
        ]);
        let ambiguous = format!("{rate} + on (app) {rate}");
        let Ok(Expr::Metric(expr)) = crate::logql::parse(&ambiguous) else { panic!() };
        let leaf: Matrix = vec![
            Series { labels: Labels::from_pairs([("app", "a"), ("h", "1")]), points: vec![Some(1.0)] },
            Series { labels: Labels::from_pairs([("app", "a"), ("h", "2")]), points: vec![Some(1.0)] },
        ];
        let result = evaluate(&expr, Grid::instant(0), vec![leaf.clone(), leaf]);
        assert!(matches!(result, Err(EvalError::Matching(_))), "{result:?}");
    }

    #[test]
    fn a_sum_passes_its_grouping_to_its_range() {
        let query = "sum by (app) (rate({a=\"b\"}[1m])) / 2";
        let Ok(Expr::Metric(expr)) = crate::logql::parse(query) else { panic!() };
        let leaves = leaves(&expr).unwrap();
        assert_eq!(leaves[0].labels, SeriesLabels::By(vec!["app".into()]));
    }
}
