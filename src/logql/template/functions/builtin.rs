//! Functions that belong to Go's templates: logic, printing, and looking into values.

use super::super::print;
use super::super::value::{IntType, Text, Value};
use super::{Args, Context, Function, Outcome, Run, Type, function, variadic};

const ANY: &[Type] = &[Type::Any];

pub static TABLE: &[Function] = &[
    Function {
        name: "and",
        params: ANY,
        rest: Some(Type::Any),
        run: Run::And,
    },
    Function {
        name: "or",
        params: ANY,
        rest: Some(Type::Any),
        run: Run::Or,
    },
    // There is nothing to call: no value is a function.
    variadic("call", ANY, Type::Any, |_, args| {
        Err(match args.get(0) {
            value if value.is_nil() => "call of nil".to_owned(),
            value => format!("non-function of type {}", value.type_name()),
        })
    }),
    variadic("print", &[], Type::Any, |context, args| {
        let text = context.print(|labels| print::sprint(&args.0, labels))?;
        Ok(Value::text(text))
    }),
    variadic("println", &[], Type::Any, |context, args| {
        let text = context.print(|labels| print::sprintln(&args.0, labels))?;
        Ok(Value::text(text))
    }),
    variadic("printf", &[Type::Text], Type::Any, |context, args| {
        let (format, values) = (args.text(0), &args.0[1..]);
        let text = context.print(|labels| print::sprintf(format, values, labels))?;
        Ok(Value::text(text))
    }),
    function("len", ANY, |context, args| {
        let len = match args.get(0) {
            Value::Text(text) => text.len(),
            Value::List(items) => items.len(),
            Value::Map(map) => map.len(),
            Value::Labels => context.data.labels().len(),
            Value::Null => return Err("len of nil pointer".to_owned()),
            Value::Missing => {
                return Err("reflect: call of reflect.Value.Type on zero Value".to_owned());
            }
            other => return Err(format!("len of type {}", other.type_name())),
        };
        Ok(Value::int(len as i64))
    }),
    variadic("index", ANY, Type::Any, index),
    variadic("slice", ANY, Type::Any, slice),
    function("__line__", &[], |context, _| {
        Ok(Value::Text(Text::Borrowed(context.data.line())))
    }),
];

/// A place in something of this length; the end counts.
fn place(index: &Value<'_>, len: usize) -> Result<usize, String> {
    let at = match index {
        Value::Int(at, _) => *at,
        value if value.is_nil() => return Err("cannot index slice/array with nil".to_owned()),
        other => {
            return Err(format!(
                "cannot index slice/array with type {}",
                other.type_name()
            ));
        }
    };
    usize::try_from(at)
        .ok()
        .filter(|at| *at <= len)
        .ok_or_else(|| format!("index out of range: {at}"))
}

fn index<'a>(context: &mut Context<'a>, args: &Args<'a>) -> Outcome<'a> {
    let mut item = args.get(0).clone();
    if item.is_nil() {
        return Err("index of untyped nil".to_owned());
    }
    for key in &args.0[1..] {
        item = match &item {
            Value::Missing | Value::Null => return Err("index of nil pointer".to_owned()),
            Value::Text(text) => {
                let at = place(key, text.len())?;
                let byte = text.get(at).ok_or("reflect: string index out of range")?;
                Value::Int(i64::from(*byte), IntType::Uint8)
            }
            Value::List(items) => {
                let at = place(key, items.len())?;
                items
                    .get(at)
                    .ok_or("reflect: slice index out of range")?
                    .clone()
            }
            Value::Map(map) => {
                let found = map.get(&*member(key)?);
                found.cloned().unwrap_or(Value::Null)
            }
            Value::Labels => {
                let name = member(key)?;
                let found = std::str::from_utf8(&name)
                    .ok()
                    .and_then(|name| context.data.label(name));
                Value::Text(Text::Borrowed(found.unwrap_or(b"")))
            }
            other => return Err(format!("can't index item of type {}", other.type_name())),
        };
    }
    Ok(item)
}

/// The name of a member.
fn member<'a>(key: &Value<'a>) -> Result<Text<'a>, String> {
    match key {
        Value::Text(name) => Ok(name.clone()),
        value if value.is_nil() => Err("value is nil; should be of type string".to_owned()),
        other => Err(format!(
            "value has type {}; should be string",
            other.type_name()
        )),
    }
}

fn slice<'a>(_: &mut Context<'a>, args: &Args<'a>) -> Outcome<'a> {
    let item = args.get(0);
    let places = &args.0[1..];
    if item.is_nil() {
        return Err("slice of untyped nil".to_owned());
    }
    if places.len() > 3 {
        return Err(format!("too many slice indexes: {}", places.len()));
    }
    let len = match item {
        Value::Text(_) if places.len() == 3 => {
            return Err("cannot 3-index slice a string".to_owned());
        }
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        other => return Err(format!("can't slice item of type {}", other.type_name())),
    };
    let mut bounds = [0, len, len];
    for (bound, given) in bounds.iter_mut().zip(places) {
        *bound = place(given, len)?;
    }
    let [start, end, most] = bounds;
    if start > end {
        return Err(format!("invalid slice index: {start} > {end}"));
    }
    if end > most {
        return Err(format!("invalid slice index: {end} > {most}"));
    }
    Ok(match item {
        Value::Text(Text::Borrowed(text)) => Value::Text(Text::Borrowed(&text[start..end])),
        Value::Text(text) => Value::text(text[start..end].to_vec()),
        Value::List(items) => Value::List(items[start..end].into()),
        other => other.clone(),
    })
}
