//! What the operators do to two numbers; shared by the parser (which folds) and by evaluation.

use super::ast::BinaryOp;

/// Division and remainder by zero give NaN; comparisons give 1 or 0. Set operations have no
/// meaning for numbers and are refused before.
pub fn numbers(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div if right == 0.0 => f64::NAN,
        BinaryOp::Div => left / right,
        BinaryOp::Mod if right == 0.0 => f64::NAN,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Compare(compare) => f64::from(u8::from(compare.holds(left, right))),
        BinaryOp::Or | BinaryOp::And | BinaryOp::Unless => f64::NAN,
    }
}
