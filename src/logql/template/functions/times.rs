//! Functions of time. The local zone is UTC.

use super::super::layout;
use super::super::number::parse_int;
use super::super::time::{self, Time};
use super::super::value::{IntType, Value};
use super::{Function, Outcome, Type, bounded, function};

const TIME: &[Type] = &[Type::Time];
/// Longest layout: each part of it is looked for from every byte on.
const MAX_LAYOUT: usize = 1024;

pub static TABLE: &[Function] = &[
    function("__timestamp__", &[], |context, _| {
        Ok(Value::Time(Time::from_nanos(context.data.timestamp())))
    }),
    function("now", &[], |_, _| Ok(Value::Time(Time::now()))),
    function("date", &[Type::Text, Type::Any], |_, args| {
        let time = match args.get(1) {
            Value::Time(time) => Time {
                zone: time::Zone::Utc,
                ..time.clone()
            },
            Value::Int(seconds, IntType::Int | IntType::Int64) => Time::unix(*seconds, 0),
            _ => Time::now(),
        };
        format(args.text(0), &time)
    }),
    function("toDate", &[Type::Text, Type::Text], |_, args| {
        parse(args.text(0), args.text(1), None)
    }),
    function(
        "toDateInZone",
        &[Type::Text, Type::Text, Type::Text],
        |_, args| {
            let name = String::from_utf8_lossy(args.text(1));
            let place = time::place(&name);
            parse(args.text(0), args.text(2), place.as_ref())
        },
    ),
    function("unixEpoch", TIME, |_, args| {
        Ok(Value::text(args.time(0).seconds.to_string()))
    }),
    function("unixEpochMillis", TIME, |_, args| {
        Ok(Value::text(unix_millis(&args.time(0)).to_string()))
    }),
    function("unixEpochNanos", TIME, |_, args| {
        Ok(Value::text(args.time(0).unix_nanos().to_string()))
    }),
    function("unixToTime", &[Type::Text], |_, args| {
        let text = String::from_utf8_lossy(args.text(0));
        let fail = |why: String| Err(format!("unable to parse time '{text}': {why}"));
        let Some(number) = parse_int(&text, 10) else {
            return fail(format!(
                "strconv.ParseInt: parsing {text:?}: invalid syntax"
            ));
        };
        // The length says the unit.
        let nanos = match text.len() {
            5 => return Ok(Value::Time(Time::unix(number * 86_400, 0))),
            10 => return Ok(Value::Time(Time::unix(number, 0))),
            13 => number.wrapping_mul(1_000_000),
            16 => number.wrapping_mul(1_000),
            19 => number,
            _ => return fail("expected 5, 10, 13, 16 or 19 digits".to_owned()),
        };
        Ok(Value::Time(Time::from_nanos(nanos)))
    }),
];

pub fn unix_millis(time: &Time) -> i64 {
    time.seconds
        .wrapping_mul(1000)
        .wrapping_add(i64::from(time.nanos / 1_000_000))
}

pub fn format<'a>(layout: &[u8], time: &Time) -> Outcome<'a> {
    if layout.len() > MAX_LAYOUT {
        return Err(format!("a layout is longer than {MAX_LAYOUT} bytes"));
    }
    let text = layout::format_bytes(layout, time);
    bounded(Some(text.len()))?;
    Ok(Value::text(text))
}

/// What does not fit the layout is the zero time, without an error.
fn parse<'a>(layout: &[u8], text: &[u8], place: Option<&jiff::tz::TimeZone>) -> Outcome<'a> {
    if layout.len() > MAX_LAYOUT {
        return Err(format!("a layout is longer than {MAX_LAYOUT} bytes"));
    }
    let time = layout::parse(layout, text, place).unwrap_or_else(Time::zero);
    Ok(Value::Time(time))
}
