//! Methods of times and durations: `{{ __timestamp__.Year }}`.

use super::super::time::Time;
use super::super::value::{IntType, Value};
use super::data::duration_seconds;
use super::times::{format, unix_millis};
use super::{Args, Outcome, Type};

/// What is called with the value it belongs to and its arguments.
pub struct Method {
    pub name: &'static str,
    pub params: &'static [Type],
    pub run: for<'a> fn(&Value<'a>, &Args<'a>) -> Outcome<'a>,
}

const fn method(
    name: &'static str,
    params: &'static [Type],
    run: for<'a> fn(&Value<'a>, &Args<'a>) -> Outcome<'a>,
) -> Method {
    Method { name, params, run }
}

/// The method of a value's type with this name.
pub fn find(value: &Value<'_>, name: &str) -> Option<&'static Method> {
    let table: &'static [Method] = match value {
        Value::Time(_) => TIME,
        Value::Int(_, IntType::Duration) => DURATION,
        Value::Int(_, IntType::Month | IntType::Weekday) => NAMED,
        _ => return None,
    };
    table.iter().find(|method| method.name == name)
}

fn time(value: &Value<'_>) -> Time {
    match value {
        Value::Time(time) => time.clone(),
        _ => Time::zero(),
    }
}

fn nanos(value: &Value<'_>) -> i64 {
    match value {
        Value::Int(nanos, _) => *nanos,
        _ => 0,
    }
}

fn printed<'a>(value: &Value<'a>, _: &Args<'a>) -> Outcome<'a> {
    super::print::sprint(std::slice::from_ref(value), &Vec::new)
        .map(Value::text)
        .map_err(|_| super::too_long())
}

static NAMED: &[Method] = &[method("String", &[], printed)];

static TIME: &[Method] = &[
    method("String", &[], printed),
    method("Unix", &[], |value, _| {
        Ok(Value::Int(time(value).seconds, IntType::Int64))
    }),
    method("UnixMilli", &[], |value, _| {
        Ok(Value::Int(unix_millis(&time(value)), IntType::Int64))
    }),
    method("UnixMicro", &[], |value, _| {
        let time = time(value);
        let micros = time.seconds.wrapping_mul(1_000_000);
        let micros = micros.wrapping_add(i64::from(time.nanos / 1000));
        Ok(Value::Int(micros, IntType::Int64))
    }),
    method("UnixNano", &[], |value, _| {
        Ok(Value::Int(time(value).unix_nanos(), IntType::Int64))
    }),
    method("Year", &[], |value, _| {
        Ok(Value::int(time(value).civil().year))
    }),
    method("Month", &[], |value, _| {
        let month = time(value).civil().month;
        Ok(Value::Int(i64::from(month), IntType::Month))
    }),
    method("Day", &[], |value, _| {
        Ok(Value::int(i64::from(time(value).civil().day)))
    }),
    method("YearDay", &[], |value, _| {
        Ok(Value::int(i64::from(time(value).civil().year_day)))
    }),
    method("Weekday", &[], |value, _| {
        let weekday = time(value).civil().weekday;
        Ok(Value::Int(i64::from(weekday), IntType::Weekday))
    }),
    method("Hour", &[], |value, _| {
        Ok(Value::int(i64::from(time(value).civil().hour)))
    }),
    method("Minute", &[], |value, _| {
        Ok(Value::int(i64::from(time(value).civil().minute)))
    }),
    method("Second", &[], |value, _| {
        Ok(Value::int(i64::from(time(value).civil().second)))
    }),
    method("Nanosecond", &[], |value, _| {
        Ok(Value::int(i64::from(time(value).nanos)))
    }),
    method("IsZero", &[], |value, _| {
        Ok(Value::Bool(time(value).is_zero()))
    }),
    method("UTC", &[], in_utc),
    method("Local", &[], in_utc),
    method("Format", &[Type::Text], |value, args| {
        format(args.text(0), &time(value))
    }),
    method("Sub", &[Type::Time], |value, args| {
        Ok(duration(time(value).since(&args.time(0))))
    }),
    method("Add", &[Type::Duration], |value, args| {
        Ok(Value::Time(time(value).plus(args.int(0))))
    }),
    method(
        "AddDate",
        &[Type::Int, Type::Int, Type::Int],
        |value, args| {
            let moved = time(value).plus_date(args.int(0), args.int(1), args.int(2));
            Ok(Value::Time(moved))
        },
    ),
    method("Truncate", &[Type::Duration], |value, args| {
        Ok(Value::Time(time(value).truncate(args.int(0))))
    }),
    method("Before", &[Type::Time], |value, args| {
        Ok(Value::Bool(instant(&time(value)) < instant(&args.time(0))))
    }),
    method("After", &[Type::Time], |value, args| {
        Ok(Value::Bool(instant(&time(value)) > instant(&args.time(0))))
    }),
    method("Equal", &[Type::Time], |value, args| {
        Ok(Value::Bool(instant(&time(value)) == instant(&args.time(0))))
    }),
];

fn in_utc<'a>(value: &Value<'a>, _: &Args<'a>) -> Outcome<'a> {
    let time = time(value);
    Ok(Value::Time(Time::unix(time.seconds, time.nanos)))
}

fn instant(time: &Time) -> (i64, u32) {
    (time.seconds, time.nanos)
}

fn duration<'a>(nanos: i64) -> Value<'a> {
    Value::Int(nanos, IntType::Duration)
}

/// A duration in a unit, whole and rest apart, as Go does.
fn in_unit<'a>(value: &Value<'a>, unit: i64) -> Outcome<'a> {
    let nanos = nanos(value);
    let whole = (nanos / unit) as f64;
    Ok(Value::Float(whole + (nanos % unit) as f64 / unit as f64))
}

static DURATION: &[Method] = &[
    method("String", &[], printed),
    method("Nanoseconds", &[], |value, _| {
        Ok(Value::Int(nanos(value), IntType::Int64))
    }),
    method("Microseconds", &[], |value, _| {
        Ok(Value::Int(nanos(value) / 1_000, IntType::Int64))
    }),
    method("Milliseconds", &[], |value, _| {
        Ok(Value::Int(nanos(value) / 1_000_000, IntType::Int64))
    }),
    method("Seconds", &[], |value, _| {
        Ok(Value::Float(duration_seconds(nanos(value))))
    }),
    method("Minutes", &[], |value, _| in_unit(value, 60_000_000_000)),
    method("Hours", &[], |value, _| in_unit(value, 3_600_000_000_000)),
    method("Abs", &[], |value, _| {
        Ok(duration(nanos(value).saturating_abs()))
    }),
    method("Truncate", &[Type::Duration], |value, args| {
        let (nanos, unit) = (nanos(value), args.int(0));
        let rest = if unit > 0 { nanos % unit } else { 0 };
        Ok(duration(nanos - rest))
    }),
];
