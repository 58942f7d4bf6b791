//! Metric queries: samples of ranges in, series on a grid out.
//!
//! The scan feeds one [`range::Sampler`] per leaf and thread; their accumulators are merged and
//! finished; [`evaluate`] does the rest.

use std::fmt;

use super::ast::*;
use crate::model::labels::Labels;
use crate::model::series::{Grid, Matrix, Series};

mod aggregate;
mod binary;
mod functions;
mod label_replace;
pub mod range;
mod windows;

pub use range::{Accumulator, Part, Sampler};

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvalError {
    /// An entry with `__error__` came through.
    Pipeline { kind: String, series: Labels },
    /// Samples of two vectors match in more than one way.
    Matching(String),
    /// Something that is not there yet; the text names it.
    Unsupported(String),
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pipeline { kind, series } => write!(
                f,
                "pipeline error: '{kind}' for series: '{series}'.\n\
                 use a label filter to skip this error, e.g. | __error__!=\"{kind}\", or any \
                 error, e.g. | __error__=\"\""
            ),
            Self::Matching(text) => f.write_str(text),
            Self::Unsupported(what) => write!(f, "{what} is not supported yet"),
        }
    }
}

impl std::error::Error for EvalError {}

/// What a part of a query comes to.
enum Value {
    Number(f64),
    Matrix(Matrix),
}

/// The result of a query, given those of its [`super::leaves`] in order. Series without a point
/// are left out; the rest is sorted by labels.
pub fn evaluate(expr: &MetricExpr, grid: Grid, leaves: Vec<Matrix>) -> Result<Matrix, EvalError> {
    let mut leaves = leaves.into_iter();
    let mut matrix = match value(expr, grid, &mut leaves)? {
        Value::Matrix(matrix) => matrix,
        Value::Number(number) => constant(number, grid),
    };
    matrix.retain(|series| series.points.iter().any(Option::is_some));
    matrix.sort_by(|a, b| a.labels.cmp(&b.labels));
    Ok(matrix)
}

/// Puts the result of an instant query in the order that `sort` or `sort_desc` asks for, if one
/// of them occurs in the query. In range results they have no effect.
pub fn sort_instant(expr: &MetricExpr, matrix: &mut Matrix) {
    let Some(function) = sort_in(expr) else {
        return;
    };
    let value = |series: &Series| series.points.first().copied().flatten().unwrap_or(f64::NAN);
    matrix.sort_by(|a, b| {
        let (a, b) = (value(a), value(b));
        let order = match function {
            VectorFunction::SortDesc => b.partial_cmp(&a),
            _ => a.partial_cmp(&b),
        };
        // NaN comes last in either direction.
        order.unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    });
}

fn sort_in(expr: &MetricExpr) -> Option<VectorFunction> {
    match expr {
        MetricExpr::Vector(vector) => match vector.function {
            VectorFunction::Sort | VectorFunction::SortDesc => Some(vector.function),
            _ => sort_in(&vector.inner),
        },
        MetricExpr::Binary(binary) => sort_in(&binary.left).or_else(|| sort_in(&binary.right)),
        MetricExpr::LabelReplace(replace) => sort_in(&replace.inner),
        MetricExpr::Range(_)
        | MetricExpr::Number(_)
        | MetricExpr::VectorOf(_)
        | MetricExpr::Variants(_) => None,
    }
}

/// The number of a query that is nothing but a number: an instant query of it is a scalar.
pub fn as_number(expr: &MetricExpr) -> Option<f64> {
    match expr {
        MetricExpr::Number(number) => Some(*number),
        _ => None,
    }
}

fn constant(number: f64, grid: Grid) -> Matrix {
    vec![Series {
        labels: Labels::empty(),
        points: vec![Some(number); grid.len()],
    }]
}

fn value(
    expr: &MetricExpr,
    grid: Grid,
    leaves: &mut impl Iterator<Item = Matrix>,
) -> Result<Value, EvalError> {
    Ok(match expr {
        MetricExpr::Range(_) => Value::Matrix(leaves.next().unwrap_or_default()),
        MetricExpr::Number(number) => Value::Number(*number),
        MetricExpr::VectorOf(number) => Value::Matrix(constant(*number, grid)),
        MetricExpr::Vector(vector) => match value(&vector.inner, grid, leaves)? {
            Value::Matrix(matrix) => Value::Matrix(aggregate::aggregate(vector, matrix)),
            Value::Number(_) => {
                let name = vector.function.as_str();
                return Err(EvalError::Unsupported(format!("`{name}` of a number")));
            }
        },
        MetricExpr::Binary(binary) => {
            let left = value(&binary.left, grid, leaves)?;
            let right = value(&binary.right, grid, leaves)?;
            match (left, right) {
                (Value::Number(left), Value::Number(right)) => {
                    Value::Number(super::arithmetic::numbers(binary.op, left, right))
                }
                (Value::Matrix(matrix), Value::Number(number)) => {
                    Value::Matrix(binary::with_number(binary, matrix, number, Side::Right))
                }
                (Value::Number(number), Value::Matrix(matrix)) => {
                    Value::Matrix(binary::with_number(binary, matrix, number, Side::Left))
                }
                (Value::Matrix(left), Value::Matrix(right)) => {
                    Value::Matrix(binary::vectors(binary, left, right, grid)?)
                }
            }
        }
        MetricExpr::LabelReplace(replace) => match value(&replace.inner, grid, leaves)? {
            Value::Matrix(matrix) => Value::Matrix(label_replace::label_replace(replace, matrix)?),
            Value::Number(_) => {
                return Err(EvalError::Unsupported(
                    "`label_replace` of a number".to_owned(),
                ));
            }
        },
        MetricExpr::Variants(_) => return Err(EvalError::Unsupported("`variants`".to_owned())),
    })
}

#[cfg(test)]
mod tests;
