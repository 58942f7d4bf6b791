//! Functions of numbers. Whatever they get is converted first; what is no number is 0.

use super::super::value::{IntType, Value};
use super::convert::{to_float, to_int};
use super::decimal::Decimal;
use super::{Args, Context, Function, Outcome, Type, function, variadic};

const ANY: &[Type] = &[Type::Any];
const TWO: &[Type] = &[Type::Any, Type::Any];

pub static TABLE: &[Function] = &[
    function("int", ANY, |_, args| Ok(Value::int(to_int(args.get(0))))),
    function("float64", ANY, |_, args| {
        Ok(Value::Float(to_float(args.get(0))))
    }),
    variadic("add", &[], Type::Any, |_, args| {
        ints(args, 0, i64::wrapping_add)
    }),
    variadic("mul", ANY, Type::Any, |_, args| {
        ints(args, 1, i64::wrapping_mul)
    }),
    function("sub", TWO, |_, args| {
        let (a, b) = (to_int(args.get(0)), to_int(args.get(1)));
        Ok(int64(a.wrapping_sub(b)))
    }),
    function("div", TWO, |_, args| divide(args, i64::wrapping_div)),
    function("mod", TWO, |_, args| divide(args, i64::wrapping_rem)),
    variadic("max", ANY, Type::Any, |_, args| {
        Ok(int64(args.0.iter().map(to_int).max().unwrap_or(0)))
    }),
    variadic("min", ANY, Type::Any, |_, args| {
        Ok(int64(args.0.iter().map(to_int).min().unwrap_or(0)))
    }),
    variadic("maxf", ANY, Type::Any, |_, args| floats(args, f64_max)),
    variadic("minf", ANY, Type::Any, |_, args| floats(args, f64_min)),
    variadic("addf", &[], Type::Any, |_, args| {
        let zero = Value::int(0);
        decimals(&zero, &args.0, |a, b| Ok(a.plus(b)))
    }),
    variadic("subf", ANY, Type::Any, |_, args| {
        decimals(args.get(0), &args.0[1..], |a, b| Ok(a.minus(b)))
    }),
    variadic("mulf", ANY, Type::Any, |_, args| {
        decimals(args.get(0), &args.0[1..], |a, b| Ok(a.times(b)))
    }),
    variadic("divf", ANY, Type::Any, |_, args| {
        decimals(args.get(0), &args.0[1..], Decimal::over)
    }),
    function("ceil", ANY, |_, args| {
        Ok(Value::Float(to_float(args.get(0)).ceil()))
    }),
    function("floor", ANY, |_, args| {
        Ok(Value::Float(to_float(args.get(0)).floor()))
    }),
    variadic("round", &[Type::Any, Type::Int], Type::Float, round),
];

fn int64<'a>(n: i64) -> Value<'a> {
    Value::Int(n, IntType::Int64)
}

fn ints<'a>(args: &Args<'a>, start: i64, join: fn(i64, i64) -> i64) -> Outcome<'a> {
    Ok(int64(args.0.iter().map(to_int).fold(start, join)))
}

fn divide<'a>(args: &Args<'a>, join: fn(i64, i64) -> i64) -> Outcome<'a> {
    match to_int(args.get(1)) {
        0 => Err("runtime error: integer divide by zero".to_owned()),
        by => Ok(int64(join(to_int(args.get(0)), by))),
    }
}

/// As Go's: NaN is the result once there is one.
fn f64_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}

fn f64_min(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.min(b)
    }
}

fn floats<'a>(args: &Args<'a>, join: fn(f64, f64) -> f64) -> Outcome<'a> {
    let folded = args.0.iter().map(to_float).reduce(join);
    Ok(Value::Float(folded.unwrap_or(0.0)))
}

fn decimals<'a>(
    first: &Value<'a>,
    rest: &[Value<'a>],
    join: impl Fn(Decimal, Decimal) -> Result<Decimal, String>,
) -> Outcome<'a> {
    let mut result = Decimal::of(to_float(first))?;
    for value in rest {
        result = join(result, Decimal::of(to_float(value))?)?;
    }
    Ok(Value::Float(result.to_float()))
}

/// Up from .5 on (or what the third argument says), else down; so -1.2 becomes -2, as sprig
/// has it.
fn round<'a>(_: &mut Context<'a>, args: &Args<'a>) -> Outcome<'a> {
    let up_from = match args.0.get(2) {
        Some(Value::Float(x)) => *x,
        _ => 0.5,
    };
    let places = args.int(1).clamp(-400, 400) as i32;
    let power = 10f64.powi(places);
    let shifted = power * to_float(args.get(0));
    let rounded = if shifted.fract() >= up_from {
        shifted.ceil()
    } else {
        shifted.floor()
    };
    Ok(Value::Float(rounded / power))
}
