//! Parameters of the query endpoints: from URL and form to times, steps and limits.
//!
//! The rules are Loki's, odd ones included: an integer of up to ten characters is seconds,
//! a longer one nanoseconds.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::model::labels::write_quoted;
use crate::model::time::{DAY, HOUR, MINUTE, SECOND};
use crate::model::{Direction, TimeRange, Timestamp};
use crate::server::error::LokiError;

/// Bytes of a form. The longest query has 128 KiB, percent-encoded three times as many.
const MAX_FORM_BYTES: usize = 1 << 20;

/// Points of one series: (end − start) / step may not be more.
const MAX_POINTS: i64 = 11_000;

/// Seconds that a tail may let lines wait.
const MAX_TAIL_DELAY: i64 = 5;

/// Parameters of a request, in order; those of the body before those of the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Takes them from the URL, and from a form-encoded body of a POST.
    pub async fn read(request: Request) -> Result<(HeaderMap, Self), LokiError> {
        let (parts, body) = request.into_parts();
        let mut pairs = Vec::new();
        if parts.method == Method::POST && is_form(&parts.headers) {
            decode_form(&read_form(body).await?, &mut pairs);
        }
        decode_form(parts.uri.query().unwrap_or("").as_bytes(), &mut pairs);
        Ok((parts.headers, Self(pairs)))
    }

    /// The first value of this name; an empty one counts as none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(n, _)| n == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// All values of these names.
    pub fn all<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(|(n, _)| names.contains(&n.as_str()))
            .map(|(_, v)| v.as_str())
    }

    /// The query text; empty when there is none, which the parser refuses better than we.
    pub fn query(&self) -> &str {
        self.get("query").unwrap_or("")
    }

    /// `start` and `end`, where `since` may stand for `start`.
    pub fn bounds(&self, now: Timestamp, max_length: Duration) -> Result<Bounds, LokiError> {
        let end = match self.get("end") {
            Some(text) => time("end", text)?,
            None => now,
        };
        // A wrong one is told even where it has no effect, as Loki does.
        let since = match self.get("since") {
            Some(text) => prometheus_duration(text)
                .ok_or_else(|| unparsable("since", text, "use a duration such as 1h30m or 7d"))?,
            None => HOUR,
        };
        let start = match self.get("start") {
            Some(text) => time("start", text)?,
            None => end.min(now).saturating_sub(since),
        };
        if end < start {
            return Err(LokiError::invalid("end must not be before start"));
        }
        check_length(end.saturating_sub(start), max_length)?;
        Ok(Bounds { start, end })
    }

    /// The query of a tail, to which the parameter `regexp` adds a filter.
    pub fn filtered_query(&self) -> String {
        let mut query = self.query().to_owned();
        if let Some(regexp) = self.get("regexp") {
            query.push_str(" |~ ");
            // Writing to a string cannot fail.
            let _ = write_quoted(&mut query, regexp);
        }
        query
    }

    /// Where the past of a tail begins: an hour before `now` unless `start` says.
    pub fn start_before(&self, now: Timestamp) -> Result<Timestamp, LokiError> {
        match self.get("start") {
            Some(text) => time("start", text),
            None => Ok(now.saturating_sub(HOUR)),
        }
    }

    /// `delay_for` of a tail, nanoseconds.
    pub fn delay(&self) -> Result<i64, LokiError> {
        let Some(text) = self.get("delay_for") else {
            return Ok(0);
        };
        let seconds: i64 = text
            .parse()
            .map_err(|_| LokiError::invalid(format!("delay_for {text:?} is not a number")))?;
        if !(0..=MAX_TAIL_DELAY).contains(&seconds) {
            return Err(LokiError::invalid(format!(
                "delay_for can't be greater than {MAX_TAIL_DELAY}, nor less than 0"
            )));
        }
        Ok(seconds * SECOND)
    }

    /// The time of an instant query.
    pub fn time(&self, now: Timestamp) -> Result<Timestamp, LokiError> {
        self.get("time").map_or(Ok(now), |text| time("time", text))
    }

    /// Nanoseconds between evaluation times. Checked for log queries as well, as in Loki.
    pub fn step(&self, bounds: Bounds) -> Result<i64, LokiError> {
        let length = bounds.end.saturating_sub(bounds.start);
        let step = match self.get("step") {
            Some(text) => step_length("step", text)?,
            None => (length / SECOND / 250).max(1) * SECOND,
        };
        if step <= 0 {
            return Err(LokiError::invalid("step must be positive"));
        }
        if length / step > MAX_POINTS {
            return Err(LokiError::invalid(format!(
                "step gives more than {MAX_POINTS} points per series; use a longer step or a \
                 shorter range"
            )));
        }
        Ok(step)
    }

    /// Nanoseconds between lines of a log query; 0: off.
    pub fn interval(&self) -> Result<i64, LokiError> {
        let Some(text) = self.get("interval") else {
            return Ok(0);
        };
        let interval = step_length("interval", text)?;
        if interval < 0 {
            return Err(LokiError::invalid(format!(
                "interval {text:?} is negative; use 0 or more"
            )));
        }
        Ok(interval)
    }

    /// Lines of a log query.
    pub fn limit(&self) -> Result<usize, LokiError> {
        match self.count("limit")? {
            None => Ok(100),
            Some(0) => Err(LokiError::invalid("limit must be positive")),
            Some(limit) => Ok(limit),
        }
    }

    /// A number of things, 0 or more.
    pub fn count(&self, name: &str) -> Result<Option<usize>, LokiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        // Go's Atoi takes a sign.
        let number: i64 = text
            .parse()
            .map_err(|_| LokiError::invalid(format!("{name} {text:?} is not a number")))?;
        usize::try_from(number)
            .map(Some)
            .map_err(|_| LokiError::invalid(format!("{name} must be positive")))
    }

    pub fn direction(&self) -> Result<Direction, LokiError> {
        match self.get("direction") {
            None => Ok(Direction::Backward),
            Some(text) if text.eq_ignore_ascii_case("backward") => Ok(Direction::Backward),
            Some(text) if text.eq_ignore_ascii_case("forward") => Ok(Direction::Forward),
            Some(text) => Err(LokiError::invalid(format!(
                "invalid direction '{text}'; use forward or backward"
            ))),
        }
    }
}

/// A range as asked for; `start <= end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub start: Timestamp,
    pub end: Timestamp,
}

impl Bounds {
    /// As log queries mean it.
    pub fn half_open(self) -> TimeRange {
        TimeRange::new(self.start, self.end)
    }

    /// As the metadata endpoints mean it.
    pub fn inclusive(self) -> TimeRange {
        TimeRange::inclusive(self.start, self.end)
    }
}

/// Refuses ranges longer than `max` nanoseconds.
pub fn check_length(length: i64, max: Duration) -> Result<(), LokiError> {
    let max = i64::try_from(max.as_nanos()).unwrap_or(i64::MAX);
    if max > 0 && length > max {
        return Err(LokiError::invalid(format!(
            "range of {} is longer than max_query_length ({}); ask for less at a time",
            shown_duration(length),
            shown_duration(max)
        )));
    }
    Ok(())
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.split(';').next())
        .is_some_and(|v| {
            v.trim()
                .eq_ignore_ascii_case("application/x-www-form-urlencoded")
        })
}

async fn read_form(body: Body) -> Result<Vec<u8>, LokiError> {
    match Limited::new(body, MAX_FORM_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(e) if e.is::<LengthLimitError>() => Err(LokiError::too_large(format!(
            "form is larger than {MAX_FORM_BYTES} bytes"
        ))),
        Err(e) => Err(LokiError::invalid(format!("form could not be read: {e}"))),
    }
}

/// `a=b&c=d` with `+` for blanks and `%xx`; what is no valid escape stays as it is.
fn decode_form(text: &[u8], pairs: &mut Vec<(String, String)>) {
    for pair in text.split(|b| *b == b'&').filter(|p| !p.is_empty()) {
        let (name, value) = match memchr::memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        pairs.push((percent_decode(name), percent_decode(value)));
    }
}

fn percent_decode(text: &[u8]) -> String {
    let hex = |b: Option<&u8>| char::from(*b?).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(b) = text.get(at) {
        at += 1;
        match b {
            b'+' => out.push(b' '),
            b'%' => match (hex(text.get(at)), hex(text.get(at + 1))) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b => out.push(*b),
        }
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

fn unparsable(name: &str, text: &str, advice: &str) -> LokiError {
    LokiError::invalid(format!(
        "could not parse '{name}' parameter: {text:?}; {advice}"
    ))
}

/// A point in time: seconds with a fraction, seconds, nanoseconds, or RFC 3339.
fn time(name: &str, text: &str) -> Result<Timestamp, LokiError> {
    parse_time(text)
        .ok_or_else(|| unparsable(name, text, "use Unix seconds, Unix nanoseconds or RFC 3339"))
}

pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    if text.contains('.')
        && let Ok(seconds) = text.parse::<f64>()
    {
        let whole = seconds.floor();
        let millis = ((seconds - whole) * 1000.0).round();
        let in_range = whole.abs() < i64::MAX as f64 / 1e9 - 1.0;
        return in_range.then(|| whole as i64 * SECOND + millis as i64 * 1_000_000);
    }
    if let Ok(number) = text.parse::<i64>() {
        return if text.len() <= 10 {
            number.checked_mul(SECOND)
        } else {
            Some(number)
        };
    }
    let at: jiff::Timestamp = text.parse().ok()?;
    i64::try_from(at.as_nanosecond()).ok()
}

/// Seconds with a fraction, or a Prometheus duration.
fn step_length(name: &str, text: &str) -> Result<i64, LokiError> {
    let bad = || {
        LokiError::invalid(format!(
            "cannot parse {text:?} to a valid duration for {name}; use seconds or a duration such \
             as 30s"
        ))
    };
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * 1e9;
        // NaN is in no range.
        return if nanos.abs() < i64::MAX as f64 {
            Ok(nanos as i64)
        } else {
            Err(bad())
        };
    }
    prometheus_duration(text).ok_or_else(bad)
}

/// Units of a Prometheus duration, longest first.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * DAY),
    ("w", 7 * DAY),
    ("d", DAY),
    ("h", HOUR),
    ("m", MINUTE),
    ("s", SECOND),
    ("ms", SECOND / 1000),
];

/// `1h30m`: whole numbers, each unit at most once and in this order. `0` needs no unit.
pub(super) fn prometheus_duration(text: &str) -> Option<i64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total = 0_i64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at_checked(digits)?;
        let letters = after.bytes().take_while(u8::is_ascii_lowercase).count();
        let (unit, after) = after.split_at_checked(letters)?;
        let at = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .filter(|at| *at >= next_unit)?;
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(UNITS[at].1)?)?;
        next_unit = at + 1;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// As Prometheus prints it: years and weeks only where nothing is left over.
pub fn shown_duration(nanos: i64) -> String {
    let mut millis = nanos / 1_000_000;
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (name, length) in UNITS {
        let length = length / 1_000_000;
        let exact_only = matches!(name, "y" | "w");
        if millis >= length && (!exact_only || millis % length == 0) {
            out += &format!("{}{name}", millis / length);
            millis %= length;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_356_060 * SECOND;

    fn params(query: &str) -> Params {
        let mut pairs = Vec::new();
        decode_form(query.as_bytes(), &mut pairs);
        Params(pairs)
    }

    #[test]
    fn forms_are_decoded_leniently() {
        let p = params("query=%7Ba%3D%22b+c%22%7D&x&match[]=1&match%5B%5D=2&bad=%zz%4&&e=%ff");
        assert_eq!(p.query(), r#"{a="b c"}"#);
        assert_eq!(p.all(&["match", "match[]"]).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(p.get("bad"), Some("%zz%4"));
        assert_eq!((p.get("x"), p.get("e")), (None, Some("\u{fffd}")));
    }

    #[test]
    fn times_have_lokis_four_forms() {
        for (text, at) in [
            ("1795356060", Some(NOW)),
            ("1795356060000000001", Some(NOW + 1)),
            ("1795356060.5", Some(NOW + SECOND / 2)),
            ("1795356060.0014", Some(NOW + 1_000_000)),
            ("-1.5", Some(-1_500_000_000)),
            ("-100000000", Some(-100_000_000 * SECOND)),
            ("-1000000000", Some(-1_000_000_000)),
            ("4000000000", Some(4_000_000_000 * SECOND)),
            ("9999999999", None),
            ("2026-11-22T14:01:00Z", Some(1_795_356_060 * SECOND)),
            (
                "2026-11-22T15:01:00.000000007+01:00",
                Some(1_795_356_060 * SECOND + 7),
            ),
            ("yesterday", None),
            ("1e9", None),
            ("9e99.0", None),
            ("nan.", None),
        ] {
            assert_eq!(parse_time(text), at, "{text}");
        }
    }

    #[test]
    fn bounds_default_to_the_hour_before_now_or_end() {
        let bounds = |query: &str| {
            params(query)
                .bounds(NOW, Duration::from_secs(721 * 3600))
                .map(|b| (b.start, b.end))
        };
        assert_eq!(bounds(""), Ok((NOW - HOUR, NOW)));
        assert_eq!(bounds("since=1d2h"), Ok((NOW - 26 * HOUR, NOW)));
        assert_eq!(bounds("end=1795352460"), Ok((NOW - 2 * HOUR, NOW - HOUR)));
        // An end in the future: the hour before now.
        assert_eq!(bounds("end=1795359660"), Ok((NOW - HOUR, NOW + HOUR)));
        assert_eq!(bounds("start=5&end=5"), Ok((5 * SECOND, 5 * SECOND)));
        let error = |query: &str| format!("{:?}", bounds(query).expect_err(query));
        assert!(error("start=6&end=5").contains("before start"));
        assert!(error("start=yesterday").contains(r#"'start' parameter: \"yesterday\""#));
        assert!(error("end=x").contains("'end'"));
        assert!(error("since=1.5h").contains("'since'"));
        assert!(bounds("start=0&end=2595600").is_ok());
        assert!(
            error("start=0&end=2595601")
                .contains("range of 30d1h1s is longer than max_query_length (30d1h)")
        );
    }

    #[test]
    fn a_step_is_seconds_or_a_duration() {
        let hour = Bounds {
            start: 0,
            end: HOUR,
        };
        let step = |query: &str| params(query).step(hour);
        assert_eq!(step(""), Ok(14 * SECOND));
        assert_eq!(
            params("").step(Bounds {
                start: 0,
                end: MINUTE
            }),
            Ok(SECOND)
        );
        assert_eq!(step("step=0.5"), Ok(SECOND / 2));
        assert_eq!(step("step=500ms"), Ok(SECOND / 2));
        assert_eq!(step("step=1m30s"), Ok(90 * SECOND));
        for bad in [
            "1.5s", "0", "-1", "0s", "nan", "inf", "1s1m", "1m1m", "x", "1", "s",
        ] {
            let result = step(&format!("step={bad}"));
            assert_eq!(result.is_err(), bad != "1", "{bad}");
        }
        assert!(step("step=320ms").is_err(), "11250 points");
        assert!(step("step=0.3273").is_ok(), "10999 points");
        assert_eq!(params("interval=2s").interval(), Ok(2 * SECOND));
        assert_eq!(params("").interval(), Ok(0));
        assert!(params("interval=-1").interval().is_err());
    }

    #[test]
    fn limits_and_directions_are_checked() {
        assert_eq!(params("").limit(), Ok(100));
        assert_eq!(params("limit=7").limit(), Ok(7));
        for bad in ["0", "-1", "x", "1.0", "99999999999999999999"] {
            assert!(params(&format!("limit={bad}")).limit().is_err(), "{bad}");
        }
        assert_eq!(params("").direction(), Ok(Direction::Backward));
        assert_eq!(
            params("direction=FORWARD").direction(),
            Ok(Direction::Forward)
        );
        assert!(params("direction=up").direction().is_err());
    }

    #[test]
    fn durations_are_shown_as_prometheus_shows_them() {
        assert_eq!(shown_duration(721 * HOUR), "30d1h");
        assert_eq!(shown_duration(14 * DAY), "2w");
        assert_eq!(shown_duration(365 * DAY), "1y");
        assert_eq!(shown_duration(SECOND + 5_000_000), "1s5ms");
    }
}
