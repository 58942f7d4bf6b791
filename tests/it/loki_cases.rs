//! Runs the cases of `fixtures/loki-end-to-end.json` against a server: push, one request,
//! one expected answer. The answers were recorded from a real Loki 3.7.6.
//!
//! Each case has its own tenant, so the server must run with `tenancy` on, and with the
//! settings of the case's [`Profile`]. Works against a Loki as well.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::appliance::{Appliance, Setup, encoded};

const CASES: &str = include_str!("../fixtures/loki-end-to-end.json");

const SECOND: i64 = 1_000_000_000;
const HOUR: i64 = 3600 * SECOND;

/// With which settings the server must run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `discover_service_name = []`, `discover_log_levels = false`.
    Plain,
    /// Both on.
    Default,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Case {
    pub id: String,
    pub feature: String,
    pub profile: Profile,
    /// Streams with times relative to T0.
    push: Option<Vec<Value>>,
    push_otlp_json: Option<Value>,
    request: Request,
    compare: Compare,
    expect: Expect,
}

#[derive(Clone, Debug, Deserialize)]
struct Request {
    method: String,
    path: String,
    params: Map<String, Value>,
    #[serde(default)]
    headers: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize)]
struct Compare {
    mode: Mode,
    /// The array that is a set, for [`Mode::Unordered`].
    field: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    Exact,
    Unordered,
    IgnoreValues,
    IgnoreScalarTime,
}

#[derive(Clone, Debug, Deserialize)]
struct Expect {
    status: u16,
    content_type: Option<String>,
    body: Option<Value>,
    text: Option<Text>,
}

/// What a plain text must say.
#[derive(Clone, Debug, Deserialize)]
struct Text {
    #[serde(default)]
    contains: Vec<String>,
    equals: Option<String>,
}

/// All cases of the file.
pub fn all() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        format: String,
        cases: Vec<Case>,
    }
    let file: File = serde_json::from_str(CASES).expect("the fixture is valid");
    assert_eq!(file.format, "loki-end-to-end/1");
    file.cases
}

/// Runs one case against the server at `base_url` (`http://host:port`). The error says what
/// was expected and what came.
pub fn run_case(base_url: &str, case: &Case) -> Result<(), String> {
    let run = Run {
        base_url,
        tenant: fresh_tenant(&case.id),
        t0: t0(),
        case,
    };
    run.push()?;
    let answer = run.ask()?;
    run.check(&answer)
}

/// Runs all cases of a profile. Returns those that failed, with the reason.
pub fn run_profile(base_url: &str, profile: Profile) -> Vec<(Case, String)> {
    let cases = all().into_iter().filter(|case| case.profile == profile);
    cases
        .filter_map(|case| run_case(base_url, &case).err().map(|why| (case, why)))
        .collect()
}

/// Start of the hour before this one.
fn t0() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_nanos();
    let now = i64::try_from(now).expect("before 2262");
    now - now % HOUR - HOUR
}

/// A tenant that nobody used before, on this server or another.
fn fresh_tenant(id: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    format!(
        "case-{id}-{}-{}-{count}",
        std::process::id(),
        started.as_millis()
    )
}

struct Run<'a> {
    base_url: &'a str,
    tenant: String,
    t0: i64,
    case: &'a Case,
}

struct Answer {
    status: u16,
    content_type: String,
    body: String,
}

impl Run<'_> {
    fn push(&self) -> Result<(), String> {
        if let Some(streams) = &self.case.push {
            let streams: Vec<Value> = streams.iter().map(|s| self.absolute_stream(s)).collect();
            if !streams.is_empty() {
                self.send_push("/loki/api/v1/push", &json!({ "streams": streams }))?;
            }
        }
        if let Some(body) = &self.case.push_otlp_json {
            self.send_push("/otlp/v1/logs", &self.absolute(body))?;
        }
        Ok(())
    }

    fn send_push(&self, path: &str, body: &Value) -> Result<(), String> {
        let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
        let answer = self.send("POST", path, &headers, body.to_string().as_bytes())?;
        if answer.status == 204 {
            return Ok(());
        }
        Err(format!(
            "push: expected 204, got {}: {}",
            answer.status, answer.body
        ))
    }

    fn ask(&self) -> Result<Answer, String> {
        let Request {
            method,
            path,
            params,
            headers,
        } = &self.case.request;
        let mut headers: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| (name.clone(), text_of(value)))
            .collect();
        let mut form = String::new();
        for (name, value) in params {
            let values = match value {
                Value::Array(values) => values.iter().map(text_of).collect(),
                value => vec![text_of(value)],
            };
            for value in values {
                let value = self.absolute_text(&value).unwrap_or(value);
                let and = if form.is_empty() { "" } else { "&" };
                form += &format!("{and}{}={}", encoded(name), encoded(&value));
            }
        }
        if method == "POST" {
            let form_type = "application/x-www-form-urlencoded".to_owned();
            headers.push(("Content-Type".to_owned(), form_type));
            self.send("POST", path, &headers, form.as_bytes())
        } else {
            self.send(method, &format!("{path}?{form}"), &headers, b"")
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<Answer, String> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header("X-Scope-OrgID", &self.tenant);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(body).map_err(|e| format!("request: {e}"))?;
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(30)))
            .build();
        let mut response = ureq::Agent::new_with_config(config)
            .run(request)
            .map_err(|e| format!("{method} {path}: {e}"))?;
        let content_type = response.headers().get("content-type");
        let content_type = content_type
            .and_then(|v| v.to_str().ok())
            .unwrap_or("")
            .to_owned();
        let body = response
            .body_mut()
            .read_to_string()
            .map_err(|e| format!("body: {e}"))?;
        Ok(Answer {
            status: response.status().as_u16(),
            content_type,
            body,
        })
    }

    fn check(&self, answer: &Answer) -> Result<(), String> {
        let expect = &self.case.expect;
        if answer.status != expect.status {
            return Err(format!(
                "expected status {}, got {}: {}",
                expect.status, answer.status, answer.body
            ));
        }
        if let Some(content_type) = &expect.content_type
            && !answer.content_type.eq_ignore_ascii_case(content_type)
        {
            return Err(format!(
                "expected content type {content_type:?}, got {:?}",
                answer.content_type
            ));
        }
        if let Some(text) = &expect.text {
            check_text(text, &answer.body)?;
        }
        if let Some(body) = &expect.body {
            self.check_body(body, &answer.body)?;
        }
        Ok(())
    }

    fn check_body(&self, expected: &Value, got: &str) -> Result<(), String> {
        let mut got: Value =
            serde_json::from_str(got).map_err(|e| format!("not JSON: {e}: {got}"))?;
        if let Some(data) = got.get_mut("data").and_then(Value::as_object_mut) {
            data.remove("stats");
        }
        let mut expected = self.absolute(expected);
        self.make_times_absolute(&mut expected);
        let compare = &self.case.compare;
        match compare.mode {
            Mode::Exact => {
                for side in [&mut expected, &mut got] {
                    forget_order_by_details(side);
                }
            }
            Mode::Unordered => {
                let field = compare.field.as_deref().ok_or("the case names no field")?;
                for side in [&mut expected, &mut got] {
                    let array = side.get_mut(field).and_then(Value::as_array_mut);
                    array
                        .ok_or(format!("no array {field}"))?
                        .sort_by_key(Value::to_string);
                }
            }
            Mode::IgnoreValues => {
                for side in [&mut expected, &mut got] {
                    for value in result_of(side).iter_mut().flat_map(|r| r.as_array_mut()) {
                        value.iter_mut().for_each(blank_sample);
                    }
                }
            }
            Mode::IgnoreScalarTime => {
                for side in [&mut expected, &mut got] {
                    if let Some(time) = result_of(side).and_then(|r| r.get_mut(0)) {
                        *time = Value::Null;
                    }
                }
            }
        }
        same(&expected, &got, "")
            .map_err(|why| format!("{why}\nexpected {expected}\ngot      {got}"))
    }

    /// A pushed stream as it goes over the wire: times as decimal text.
    fn absolute_stream(&self, stream: &Value) -> Value {
        let mut stream = stream.clone();
        for entry in stream["values"].as_array_mut().into_iter().flatten() {
            if let Some(at) = entry.get(0).and_then(Value::as_i64) {
                entry[0] = Value::String((self.t0 + at).to_string());
            }
        }
        stream
    }

    /// Replaces each `@<n><unit>`, wherever it stands.
    fn absolute(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.absolute_text(text) {
                Some(absolute) => Value::String(absolute),
                None => value.clone(),
            },
            Value::Array(items) => items.iter().map(|v| self.absolute(v)).collect(),
            Value::Object(members) => members
                .iter()
                .map(|(k, v)| (k.clone(), self.absolute(v)))
                .collect(),
            other => other.clone(),
        }
    }

    /// T0 and the offset, in nanoseconds. `None`: not of the form `@<n><unit>`.
    fn absolute_text(&self, text: &str) -> Option<String> {
        let offset = text.strip_prefix('@')?;
        let unit_at = offset.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, unit) = offset.split_at(unit_at);
        let unit = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => SECOND,
            "m" => 60 * SECOND,
            "h" => HOUR,
            _ => return None,
        };
        Some((self.t0 + number.parse::<i64>().ok()? * unit).to_string())
    }

    /// Times in an expected result are relative to T0: nanoseconds in streams, seconds in
    /// everything else.
    fn make_times_absolute(&self, body: &mut Value) {
        let kind = body["data"]["resultType"].as_str().unwrap_or("").to_owned();
        let Some(result) = result_of(body) else {
            return;
        };
        let seconds = |sample: &mut Value| {
            if let Some(at) = sample[0].as_i64() {
                sample[0] = (self.t0 / SECOND + at).into();
            } else if let Some(at) = sample[0].as_f64() {
                sample[0] = ((self.t0 / SECOND) as f64 + at).into();
            }
        };
        match kind.as_str() {
            "scalar" => seconds(result),
            "streams" => {
                for stream in result.as_array_mut().into_iter().flatten() {
                    *stream = self.absolute_stream(stream);
                }
            }
            _ => {
                for series in result.as_array_mut().into_iter().flatten() {
                    series["values"]
                        .as_array_mut()
                        .into_iter()
                        .flatten()
                        .for_each(seconds);
                    if series["values"].is_null() {
                        series.as_object_mut().map(|s| s.remove("values"));
                        seconds(&mut series["value"]);
                    }
                }
            }
        }
    }
}

fn result_of(body: &mut Value) -> Option<&mut Value> {
    body.get_mut("data")?.get_mut("result")
}

/// Streams are sorted by all their labels, among them the details of an error, whose wording
/// is free: without them, then.
fn forget_order_by_details(body: &mut Value) {
    const DETAILS: &str = "__error_details__";
    let Some(streams) = result_of(body).and_then(Value::as_array_mut) else {
        return;
    };
    if streams.iter().any(|s| s["stream"][DETAILS].is_string()) {
        streams.sort_by_key(|s| {
            let mut labels = s["stream"].clone();
            labels.as_object_mut().map(|l| l.remove(DETAILS));
            labels.to_string()
        });
    }
}

/// Removes a series' numbers and leaves their times.
fn blank_sample(series: &mut Value) {
    if let Some(sample) = series.get_mut("value").and_then(|v| v.get_mut(1)) {
        *sample = Value::Null;
    }
    for sample in series
        .get_mut("values")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(sample) = sample.get_mut(1) {
            *sample = Value::Null;
        }
    }
}

fn check_text(text: &Text, got: &str) -> Result<(), String> {
    if let Some(equals) = &text.equals
        && got != equals
    {
        return Err(format!("expected the text {equals:?}, got {got:?}"));
    }
    match text
        .contains
        .iter()
        .find(|part| !got.contains(part.as_str()))
    {
        Some(part) => Err(format!("expected {part:?} in {got:?}")),
        None => Ok(()),
    }
}

/// Compares exactly, but for numbers (by value) and what the cases leave open: the wording
/// of `__error_details__`, and texts of which only the gist is given.
fn same(expected: &Value, got: &Value, place: &str) -> Result<(), String> {
    match (expected, got) {
        (Value::Object(e), Value::String(got)) if e.contains_key("gist") => {
            let text: Text = serde_json::from_value(expected.clone()).map_err(|e| e.to_string())?;
            check_text(&text, got)
        }
        (Value::Object(e), Value::Object(g)) => {
            if let Some(name) = g.keys().find(|k| !e.contains_key(*k)) {
                return Err(format!("{place}/{name}: not expected"));
            }
            for (name, expected) in e {
                let place = format!("{place}/{name}");
                let Some(got) = g.get(name) else {
                    return Err(format!("{place}: missing"));
                };
                let any_text = name == "__error_details__" && expected != "";
                match got.as_str() {
                    Some(details) if any_text && !details.is_empty() => {}
                    _ => same(expected, got, &place)?,
                }
            }
            Ok(())
        }
        (Value::Array(e), Value::Array(g)) => {
            if e.len() != g.len() {
                return Err(format!(
                    "{place}: expected {} elements, got {}",
                    e.len(),
                    g.len()
                ));
            }
            let mut pairs = e.iter().zip(g).enumerate();
            pairs.try_for_each(|(i, (e, g))| same(e, g, &format!("{place}/{i}")))
        }
        // 60 and 60.0 are the same time.
        (Value::Number(e), Value::Number(g)) if e.as_f64() == g.as_f64() => Ok(()),
        (e, g) if e == g => Ok(()),
        (e, g) => Err(format!("{place}: expected {e}, got {g}")),
    }
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Against any server, such as a real Loki: our expectations can be wrong, too.
#[test]
#[ignore = "needs a server: LOKI_CASES_URL, and LOKI_CASES_PROFILE=default if it runs so"]
fn the_cases_pass_on_a_server_of_your_choice() {
    let url = std::env::var("LOKI_CASES_URL").expect("LOKI_CASES_URL is set");
    let profile = match std::env::var("LOKI_CASES_PROFILE").as_deref() {
        Ok("default") => Profile::Default,
        _ => Profile::Plain,
    };
    let failed = run_profile(&url, profile);
    let told: Vec<String> = failed
        .iter()
        .map(|(case, why)| format!("{} ({}): {why}", case.id, case.feature))
        .collect();
    assert!(
        failed.is_empty(),
        "{} failed:\n{}",
        failed.len(),
        told.join("\n")
    );
}

#[test]
fn every_case_can_be_read_and_its_own_answer_passes() {
    let cases = all();
    assert_eq!(cases.len(), 182);
    for case in &cases {
        let run = Run {
            base_url: "",
            tenant: String::new(),
            t0: t0(),
            case,
        };
        let Some(body) = &case.expect.body else {
            continue;
        };
        // A text of which only the gist is given can't be its own answer.
        if case.id == "format-query-bad" {
            continue;
        }
        let mut answer = run.absolute(body);
        run.make_times_absolute(&mut answer);
        if let Some(data) = answer.get_mut("data").and_then(Value::as_object_mut) {
            data.insert("stats".into(), json!({"summary": {}}));
        }
        run.check_body(body, &answer.to_string()).expect(&case.id);
        // And one that differs does not.
        let answer = json!({"status": "success", "data": {"resultType": "x"}});
        assert!(
            run.check_body(body, &answer.to_string()).is_err(),
            "{}",
            case.id
        );
    }
}

#[test]
fn answers_are_compared_as_the_case_says() {
    let check = |id: &str, change: &dyn Fn(&mut Value)| {
        let cases = all();
        let case = cases.iter().find(|c| c.id == id).expect("a case");
        let run = Run {
            base_url: "",
            tenant: String::new(),
            t0: t0(),
            case,
        };
        let body = case.expect.body.as_ref().expect("a body");
        let mut answer = run.absolute(body);
        run.make_times_absolute(&mut answer);
        change(&mut answer);
        run.check_body(body, &answer.to_string())
    };
    let swap = |field: &'static str| {
        move |answer: &mut Value| answer[field].as_array_mut().expect("an array").swap(0, 1)
    };
    assert!(check("detected-labels", &swap("detectedLabels")).is_ok());
    let reversed = |answer: &mut Value| {
        answer["data"].as_array_mut().expect("an array").swap(0, 1);
    };
    assert!(check("labels", &reversed).is_err());
    assert!(check("scalar-instant", &|a| a["data"]["result"][0] = json!(1)).is_ok());
    assert!(check("scalar-instant", &|a| a["data"]["result"][1] = json!("1")).is_err());
    let value = |a: &mut Value| a["data"]["result"][0]["value"][1] = json!("1");
    assert!(check("default-volume-service", &value).is_ok());
    assert!(check("index-volume", &value).is_err());
    let name = |a: &mut Value| a["data"]["result"][0]["metric"] = json!({"x": "y"});
    assert!(check("default-volume-service", &name).is_err());
    let line = |a: &mut Value| a["data"]["result"][0]["values"][0][1] = json!("other");
    assert!(
        check("log-forward", &line)
            .unwrap_err()
            .contains("/data/result/0/values/0/1")
    );
}

/// Cases whose feature is not there yet, and why. docs/compatibility.md lists them, too.
const NOT_YET: [(&str, &str); 13] = [
    ("line-format-mix", "functions in templates"),
    ("line-format-error", "functions in templates"),
    ("line-format-funcs", "functions in templates"),
    ("line-format-strings", "functions in templates"),
    ("line-format-units", "functions in templates"),
    ("line-format-range", "actions in templates"),
    ("line-format-printf", "functions in templates"),
    ("index-volume", "volume"),
    ("index-volume-labels", "volume"),
    ("default-volume-service", "volume"),
    ("detected-fields", "detected fields"),
    ("detected-field-values", "detected fields"),
    ("default-detected-fields-sm", "detected fields"),
];

fn appliance(profile: Profile) -> Appliance {
    let setup = Setup::default().set("loki.tenancy", true);
    // As in Loki: one case asks for more.
    let setup = setup.set("loki.limits.max_entries_limit_per_query", 5000);
    match profile {
        Profile::Plain => setup
            .set("loki.discover_service_name", "[]")
            .set("loki.discover_log_levels", false)
            .start(),
        Profile::Default => setup.start(),
    }
}

#[track_caller]
fn check_profile(profile: Profile) {
    let mut appliance = appliance(profile);
    // Loki answers 500 to that, and so do we.
    appliance.expect_log("many-to-many matching not allowed");
    let failed = run_profile(&appliance.url("loki.listen", ""), profile);
    let mut told = Vec::new();
    for (case, why) in &failed {
        if !NOT_YET.iter().any(|(id, _)| *id == case.id) {
            told.push(format!("{} ({}): {why}", case.id, case.feature));
        }
    }
    for (id, why) in NOT_YET {
        let ours = all()
            .iter()
            .any(|case| case.id == id && case.profile == profile);
        if ours && !failed.iter().any(|(case, _)| case.id == id) {
            told.push(format!("{id}: passes; remove it from NOT_YET ({why})"));
        }
    }
    assert!(
        told.is_empty(),
        "{} differ:\n{}",
        told.len(),
        told.join("\n\n")
    );
}

#[test]
fn answers_are_those_of_a_loki_without_discovery() {
    check_profile(Profile::Plain);
}

#[test]
fn answers_are_those_of_a_loki_with_its_defaults() {
    check_profile(Profile::Default);
}
