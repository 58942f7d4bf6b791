//! `eq ne lt le gt ge not`: comparing as Go's templates do, only like with like.

use std::cmp::Ordering;

use super::super::print;
use super::super::value::{Basic, Value};
use super::{Args, Context, Function, Type, function, variadic};

const ANY: &[Type] = &[Type::Any];
const TWO: &[Type] = &[Type::Any, Type::Any];

pub static TABLE: &[Function] = &[
    variadic("eq", ANY, Type::Any, |context, args| {
        equal_to_any(context, args).map(Value::Bool)
    }),
    function("ne", TWO, |context, args| {
        equal_to_any(context, args).map(|equal| Value::Bool(!equal))
    }),
    function("lt", TWO, |_, args| {
        ordered(args, |order| order == Some(Ordering::Less))
    }),
    function("le", TWO, |_, args| {
        ordered(args, |order| {
            matches!(order, Some(Ordering::Less | Ordering::Equal))
        })
    }),
    // The negations of `le` and `lt`, which NaN shows.
    function("gt", TWO, |_, args| {
        ordered(args, |order| {
            !matches!(order, Some(Ordering::Less | Ordering::Equal))
        })
    }),
    function("ge", TWO, |_, args| {
        ordered(args, |order| order != Some(Ordering::Less))
    }),
    function("not", ANY, |_, args| Ok(Value::Bool(!truth(args.get(0))))),
];

/// Whether `if` takes a value as true: it is neither nothing, nor zero, nor empty.
pub fn truth(value: &Value<'_>) -> bool {
    match value {
        Value::Missing | Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Int(n, _) => *n != 0,
        Value::Float(x) => *x != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::Time(_) => true,
        Value::List(items) => !items.is_empty(),
        Value::Map(map) => !map.is_empty(),
        // A stream has at least one label.
        Value::Labels => true,
    }
}

/// Whether two kinds may be compared: the same, or both of whole numbers.
fn kinds_fit(a: Basic, b: Basic) -> bool {
    let whole = |kind| matches!(kind, Basic::Int | Basic::Uint);
    a == b || (whole(a) && whole(b))
}

fn incompatible(a: &Value<'_>, b: &Value<'_>) -> String {
    format!(
        "incompatible types for comparison: {} and {}",
        a.type_name(),
        b.type_name()
    )
}

fn equal_to_any(context: &Context<'_>, args: &Args<'_>) -> Result<bool, String> {
    let [first, others @ ..] = args.0.as_slice() else {
        return Err("missing argument for comparison".to_owned());
    };
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        if equal(context, first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(context: &Context<'_>, a: &Value<'_>, b: &Value<'_>) -> Result<bool, String> {
    if a.is_nil() || b.is_nil() {
        return Ok(a.is_nil() && b.is_nil());
    }
    let (left, right) = (a.basic(), b.basic());
    if !kinds_fit(left, right) {
        return Err(incompatible(a, b));
    }
    if left != Basic::None {
        return Ok(a.order(b) == Some(Ordering::Equal));
    }
    match (a, b) {
        (Value::Time(a), Value::Time(b)) => Ok(a == b),
        _ => {
            let of = |value: &Value<'_>, format: &[u8]| {
                let values = std::slice::from_ref(value);
                let printed = context.print(|labels| print::sprintf(format, values, labels))?;
                Ok::<_, String>(String::from_utf8_lossy(&printed).into_owned())
            };
            let (left, right) = (a.type_name(), b.type_name());
            Err(if left == right {
                format!("non-comparable type {}: {right}", of(b, b"%s")?)
            } else {
                let (a, b) = (of(a, b"%s")?, of(b, b"%v")?);
                format!("non-comparable types {a}: {left}, {right}: {b}")
            })
        }
    }
}

fn ordered<'a>(
    args: &Args<'a>,
    holds: impl Fn(Option<Ordering>) -> bool,
) -> Result<Value<'a>, String> {
    let (a, b) = (args.get(0), args.get(1));
    let (left, right) = (a.basic(), b.basic());
    if left == Basic::None || right == Basic::None {
        return Err("invalid type for comparison".to_owned());
    }
    if !kinds_fit(left, right) {
        return Err(incompatible(a, b));
    }
    if left == Basic::Bool {
        return Err("invalid type for comparison".to_owned());
    }
    Ok(Value::Bool(holds(a.order(b))))
}
