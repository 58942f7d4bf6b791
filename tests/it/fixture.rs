//! Data directories of released formats, which every later version has to open.
//!
//! `tests/fixtures/data-v1` and `data-v2` were written by `WRITE_FIXTURE=<directory> cargo test --test
//! it fixture`, which writes one of the present format.

use std::path::Path;

use serde_json::{Value, json};

use crate::appliance::{Appliance, Setup};

/// 2026-11-30T00:00:00Z
const DAY: i64 = 1_795_996_800_000_000_000;

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// Whatever the date is when the test runs.
fn setup() -> Setup {
    Setup::default()
        .set("storage.retention", "\"36500d\"")
        .set("loki.limits.reject_old_samples_max_age", "\"36500d\"")
        .set("loki.limits.creation_grace_period", "\"36500d\"")
}

fn line(n: i64) -> String {
    format!("line {n} order={} of the fixture", 4_700 + n)
}

/// Lines 0 to 99, of which line 42 is deleted, in a chunk; 100 to 119 in the journal.
fn push(appliance: &Appliance, numbers: std::ops::Range<i64>) {
    let values: Vec<Value> = numbers
        .map(
            |n| json!([(DAY + n * 1_000_000_000).to_string(), line(n), {"trace": format!("t{n}")}]),
        )
        .collect();
    let body = json!({"streams": [{"stream": {"app": "fixture", "host": "a"}, "values": values}]});
    assert_eq!(appliance.push(&body).status, 204);
}

fn push_spans(appliance: &Appliance, numbers: std::ops::Range<i64>) {
    let spans: Vec<Value> = numbers
        .map(|n| {
            let start = DAY + n * 1_000_000_000;
            json!({
                "traceId": format!("{:032x}", 1 + n / 10), "spanId": format!("{:016x}", 1 + n),
                "name": format!("op {}", n % 3), "kind": 2,
                "startTimeUnixNano": start.to_string(),
                "endTimeUnixNano": (start + 5_000_000).to_string(),
                "attributes": [{"key": "http.status_code", "value": {"intValue": "200"}}],
            })
        })
        .collect();
    let body = json!({"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": "shop"}}]},
        "scopeSpans": [{"spans": spans}],
    }]});
    let headers = [("Content-Type", "application/json")];
    let answer = appliance.post(
        "otlp.http",
        "/v1/traces",
        &headers,
        body.to_string().as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn exported(appliance: &Appliance, signal: &str, query: &str) -> Vec<Value> {
    let query = crate::appliance::encoded(query);
    let path = format!("/export?signal={signal}&query={query}");
    let answer = appliance.get("loki.listen", &path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let text = answer.text();
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[track_caller]
fn check(appliance: &Appliance) {
    let lines = exported(appliance, "logs", "{app=\"fixture\"}");
    let texts: Vec<&str> = lines.iter().filter_map(|l| l["line"].as_str()).collect();
    let expected: Vec<String> = (0..120).filter(|n| *n != 42).map(line).collect();
    assert_eq!(texts, expected);
    assert_eq!(lines[7]["structuredMetadata"]["trace"], "t7");
    assert_eq!(lines[7]["timestamp"], "2026-11-30T00:00:07Z");
    assert_eq!(
        exported(appliance, "logs", "{host=\"a\"} |= \"4777\"").len(),
        1
    );
    assert_eq!(
        exported(appliance, "traces", "{service=\"shop\"}").len(),
        60
    );
    let some = "{operation=\"op 1\", http_status_code=\"200\"}";
    assert_eq!(exported(appliance, "traces", some).len(), 20);
    let trace = appliance.get("jaeger.query.http", &format!("/api/traces/{:032x}", 2));
    assert_eq!(
        trace.json()["data"][0]["spans"].as_array().map(Vec::len),
        Some(10)
    );
}

#[test]
fn a_directory_of_version_1_opens_with_everything_in_it() {
    opens_with_everything_in_it("data-v1");
}

#[test]
fn a_directory_of_version_2_opens_with_everything_in_it() {
    opens_with_everything_in_it("data-v2");
}

#[track_caller]
fn opens_with_everything_in_it(fixture: &str) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let fixture = fixtures.join(fixture);
    let mut appliance = setup().prepare();
    copy_dir(&fixture, &appliance.data_dir());
    let verified = appliance.command(&["verify"]).output().expect("runs");
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert!(verified.status.success(), "{said}");
    // Twice: what the first start makes of it must open as well.
    for _ in 0..2 {
        appliance.start();
        appliance.wait_recovered();
        check(&appliance);
        appliance.flush();
        check(&appliance);
        assert!(appliance.stop().success());
    }
}

#[test]
fn a_newer_version_is_refused_with_a_word_about_why() {
    let mut appliance = Setup::default().prepare();
    std::fs::create_dir_all(appliance.data_dir()).expect("created");
    std::fs::write(appliance.data_dir().join("FORMAT"), "5\n").expect("written");
    let why = appliance.try_start().expect_err("refused");
    assert!(why.contains("newer version"), "{why}");
    appliance.expect_log("");
}

/// Writes a fixture of the present format, where that is asked for.
#[test]
fn a_fixture_is_written_on_demand() {
    let Some(to) = std::env::var_os("WRITE_FIXTURE") else {
        return;
    };
    let mut appliance = setup().start();
    push(&appliance, 0..100);
    push_spans(&appliance, 0..40);
    let delete = "/loki/api/v1/delete?query=%7Bapp%3D%22fixture%22%7D%20%7C%3D%20%224742%22\
                  &start=1795996800";
    assert_eq!(appliance.post("loki.listen", delete, &[], b"").status, 204);
    appliance.flush();
    push(&appliance, 100..120);
    push_spans(&appliance, 40..60);
    assert!(appliance.stop().success());
    let to = Path::new(&to);
    copy_dir(&appliance.data_dir(), to);
    for name in ["LOCK", "db/LOCK", "db/LOG"] {
        let _ = std::fs::remove_file(to.join(name));
    }
}
