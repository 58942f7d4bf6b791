//! Delete requests: what they select is gone from every answer at once and from the disk
//! later, nothing else is, and no crash brings anything back.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, Setup, agent, encoded, now, request};

const PATH: &str = "/loki/api/v1/delete";
const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;

/// Erases as soon as a request came.
fn eager() -> Setup {
    Setup::default().set("loki.delete_request_cancel_period", "\"0s\"")
}

#[track_caller]
fn push(appliance: &Appliance, job: &str, lines: &[(i64, String)]) {
    let values: Vec<Value> = lines
        .iter()
        .map(|(at, line)| json!([at.to_string(), line]))
        .collect();
    let body = json!({ "streams": [{ "stream": { "job": job }, "values": values }] });
    let answer = appliance.push(&body);
    assert_eq!(answer.status, 204, "{}", answer.text());
}

fn ask(appliance: &Appliance, method: &str, parameters: &str, tenant: &str) -> Answer {
    let url = appliance.url("loki.listen", &format!("{PATH}{parameters}"));
    let headers: &[(&str, &str)] = match tenant {
        "" => &[],
        tenant => &[("X-Scope-OrgID", tenant)],
    };
    request(&agent(), method, &url, headers, &[]).expect("an answer")
}

/// Times in nanoseconds, as exact as lines are.
#[track_caller]
fn delete(appliance: &Appliance, query: &str, start: i64, end: i64) {
    let parameters = format!("?query={}&start={start}&end={end}", encoded(query));
    let answer = ask(appliance, "POST", &parameters, "");
    assert_eq!(answer.status, 204, "{query}: {}", answer.text());
}

#[track_caller]
fn requests(appliance: &Appliance) -> Vec<Value> {
    let answer = ask(appliance, "GET", "", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().as_array().expect("a list").clone()
}

#[track_caller]
fn wait_processed(appliance: &Appliance) {
    appliance.wait("the requests to be processed", || {
        let answer = appliance.try_get("loki.listen", PATH).ok()?;
        let all = answer.json();
        let all = all.as_array()?;
        all.iter().all(|r| r["status"] == "processed").then_some(())
    });
}

fn texts(appliance: &Appliance, query: &str) -> Vec<String> {
    let lines = appliance.lines(query).into_iter();
    lines.map(|(_, line)| line).collect()
}

/// The sum of an instant query, 0 for an empty answer.
#[track_caller]
fn sum(appliance: &Appliance, query: &str, at: i64) -> f64 {
    let path = format!("/loki/api/v1/query?query={}&time={at}", encoded(query));
    let answer = appliance.get("loki.listen", &path);
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let result = answer.json()["data"]["result"].clone();
    let values = result.as_array().expect("a vector").iter();
    values
        .map(|v| v["value"][1].as_str().and_then(|n| n.parse::<f64>().ok()))
        .map(|n| n.expect("a number"))
        .sum()
}

#[track_caller]
fn stats(appliance: &Appliance, query: &str, start: i64, end: i64) -> (u64, u64) {
    let query = encoded(query);
    let path = format!("/loki/api/v1/index/stats?query={query}&start={start}&end={end}");
    let stats = appliance.get("loki.listen", &path).json();
    let number = |name: &str| stats[name].as_u64().expect("a number");
    (number("entries"), number("bytes"))
}

/// A quarter past two hours ago on a minute, within one day.
fn base() -> i64 {
    let day = 86_400 * SECOND;
    let at = now() - 2 * 3600 * SECOND;
    let at = at - at % MINUTE;
    // An hour of lines must not cross midnight.
    if at % day > day - 3600 * SECOND {
        at - 3600 * SECOND
    } else {
        at
    }
}

/// One line a second: every fifth is secret.
fn mixed(from: i64, n: i64) -> Vec<(i64, String)> {
    (0..n)
        .map(|i| {
            let word = if i % 5 == 0 { "secret" } else { "harmless" };
            (from + i * SECOND, format!("{word} line number {i}"))
        })
        .collect()
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().map(|e| match e.metadata() {
        Ok(m) if m.is_dir() => bytes_below(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn what_is_deleted_is_gone_from_every_answer_at_once() {
    let appliance = Setup::default().start();
    let base = base();
    let end = base + 600 * SECOND;
    let all = mixed(base + 1, 600);
    // Half of it sealed, half of it not.
    push(&appliance, "mixed", &all[..300]);
    push(&appliance, "whole", &mixed(base + 1, 50));
    push(&appliance, "other", &mixed(base + 1, 10));
    appliance.flush();
    push(&appliance, "mixed", &all[300..]);
    let count = "sum(count_over_time({job=\"mixed\"}[10m]))";
    let bytes = "sum(bytes_over_time({job=\"mixed\"}[10m]))";
    assert_eq!(sum(&appliance, count, end), 600.0);

    delete(&appliance, "{job=\"mixed\"} |= \"secret\"", base, now());
    delete(&appliance, "{job=\"whole\"}", base, now());
    let kept: Vec<(i64, String)> = all
        .iter()
        .filter(|(_, line)| !line.contains("secret"))
        .cloned()
        .collect();
    let kept_bytes: usize = kept.iter().map(|(_, line)| line.len()).sum();
    let check = |appliance: &Appliance| {
        assert_eq!(appliance.lines("{job=\"mixed\"}"), kept);
        assert!(texts(appliance, "{job=\"mixed\"} |= \"secret\"").is_empty());
        assert_eq!(sum(appliance, count, end), 480.0);
        assert_eq!(sum(appliance, bytes, end), kept_bytes as f64);
        let secret = "sum(count_over_time({job=\"mixed\"} |= \"secret\" [10m]))";
        assert_eq!(sum(appliance, secret, end), 0.0);
        let found = stats(appliance, "{job=\"mixed\"}", base, now());
        assert_eq!(found, (480, kept_bytes as u64));
        assert_eq!(stats(appliance, "{job=\"whole\"}", base, now()), (0, 0));
        assert!(texts(appliance, "{job=\"whole\"}").is_empty());
        let range = format!("start={base}&end={}", now());
        let path = format!("/loki/api/v1/label/job/values?{range}");
        let values = appliance.get("loki.listen", &path).json();
        assert_eq!(values["data"], json!(["mixed", "other"]));
        let path = format!("/loki/api/v1/series?match[]=%7Bjob%3D~%22.%2B%22%7D&{range}");
        let series = appliance.get("loki.listen", &path).json();
        assert_eq!(series["data"].as_array().map(Vec::len), Some(2), "{series}");
        assert_eq!(texts(appliance, "{job=\"other\"}").len(), 10);
    };
    check(&appliance);
    // Sealed since, and chunks that were there before: the same.
    appliance.flush();
    check(&appliance);
    assert_eq!(requests(&appliance)[0]["status"], "received");

    // What comes later stays, although it looks the same.
    push(&appliance, "whole", &mixed(base + 1, 3));
    push(&appliance, "mixed", &[(base + 2, "a new secret".into())]);
    let later = ["secret line number 0", "harmless line number 1"];
    assert_eq!(texts(&appliance, "{job=\"whole\"}")[..2], later);
    assert_eq!(texts(&appliance, "{job=\"mixed\"} |= \"secret\"").len(), 1);
    appliance.flush();
    assert_eq!(texts(&appliance, "{job=\"whole\"}").len(), 3);
    assert_eq!(sum(&appliance, count, end), 481.0);
}

#[test]
fn a_request_survives_a_kill_and_replay_keeps_what_came_before_and_after_apart() {
    let mut appliance = Setup::default().start();
    let base = base();
    push(&appliance, "a", &mixed(base, 20));
    delete(&appliance, "{job=\"a\"}", base, now());
    let new = [(base + 3, "new among the old".to_owned())];
    push(&appliance, "a", &new);
    for _ in 0..3 {
        appliance.kill();
        appliance.start();
        appliance.wait_recovered();
        assert_eq!(appliance.lines("{job=\"a\"}"), new);
        assert_eq!(requests(&appliance).len(), 1);
    }
    appliance.flush();
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    assert_eq!(appliance.lines("{job=\"a\"}"), new);

    // Erased, with the journal still there: replay brings nothing back.
    appliance.change(|s| s.set("loki.delete_request_cancel_period", "\"0s\""));
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    wait_processed(&appliance);
    assert_eq!(appliance.lines("{job=\"a\"}"), new);
    for _ in 0..2 {
        appliance.kill();
        appliance.start();
        appliance.wait_recovered();
        assert_eq!(appliance.lines("{job=\"a\"}"), new);
        assert_eq!(requests(&appliance)[0]["status"], "processed");
    }
    assert_eq!(appliance.metric("delete_requests_waiting", &[]), 0.0);
}

#[test]
fn deleted_lines_leave_the_disk() {
    let mut appliance = eager().start();
    let base = base();
    // Hexadecimal noise shrinks by half: what is left on the disk says what is there.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |n: i64, word: &str| {
        let mut line = format!("{word} {n} ");
        for _ in 0..60 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            line.push_str(&format!("{state:016x}"));
        }
        line
    };
    let mut kept = 0;
    for part in 0..12 {
        let lines: Vec<(i64, String)> = (0..250)
            .map(|i| {
                let n = part * 250 + i;
                let word = if n % 4 == 0 { "keep" } else { "topsecretword" };
                kept += usize::from(n % 4 == 0);
                (base + n * SECOND / 10, noise(n, word))
            })
            .collect();
        push(&appliance, "big", &lines);
        let gone: Vec<(i64, String)> = (0..250)
            .map(|i| {
                let n = part * 250 + i;
                (base + n * SECOND / 10, noise(n, "gone"))
            })
            .collect();
        push(&appliance, "gone", &gone);
    }
    appliance.flush();
    let db = appliance.data_dir().join("db");
    let before = bytes_below(&db);
    assert!(before > 2_500_000, "{before}");
    delete(
        &appliance,
        "{job=\"big\"} |= \"topsecretword\"",
        base,
        now(),
    );
    delete(&appliance, "{job=\"gone\"}", base, now());
    wait_processed(&appliance);
    assert_eq!(texts(&appliance, "{job=\"big\"}").len(), kept);
    assert!(texts(&appliance, "{job=\"gone\"}").is_empty());
    assert_eq!(appliance.metric("lines_erased", &[]), 3000.0 + 2250.0);
    // Obsolete files go in the background.
    appliance.wait("the files to shrink", || {
        (bytes_below(&db) < before / 3).then_some(())
    });
    // The word index is made anew, without the word, and the journal lets go of the pushes.
    let index = appliance.data_dir().join("index");
    appliance.wait("the index to forget", || {
        (!holds(&index, b"topsecretword")).then_some(())
    });
    appliance.flush();
    appliance.wait("the journal to shrink", || {
        (bytes_below(&appliance.data_dir().join("journal")) < 10_000).then_some(())
    });
    assert!(appliance.stop().success());
    appliance.start();
    appliance.wait_recovered();
    assert_eq!(texts(&appliance, "{job=\"big\"} |= \"keep\"").len(), kept);
    assert!(texts(&appliance, "{job=\"big\"} |= \"topsecretword\"").is_empty());
    // New chunks are found by their words: no number is used twice.
    let new = [(base + 1, "freshword in a new chunk".to_owned())];
    push(&appliance, "gone", &new);
    appliance.flush();
    assert_eq!(appliance.lines("{job=\"gone\"} |= \"freshword\""), new);
}

fn holds(dir: &Path, word: &[u8]) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries.flatten().any(|e| match e.metadata() {
        Ok(m) if m.is_dir() => holds(&e.path(), word),
        _ => {
            std::fs::read(e.path()).is_ok_and(|bytes| memchr::memmem::find(&bytes, word).is_some())
        }
    })
}

#[test]
fn a_kill_at_any_step_of_erasing_loses_no_other_line_and_brings_none_back() {
    let mut appliance = eager().start();
    let base = base();
    let day = 86_400 * SECOND;
    // Several chunks in two days.
    let mut all = Vec::new();
    for at in [base - day, base] {
        for part in 0..4 {
            let lines = mixed(at + part * 100 * SECOND, 100);
            push(&appliance, "k", &lines);
            appliance.flush();
            all.extend(lines);
        }
    }
    all.sort();
    let kept: Vec<(i64, String)> = all
        .into_iter()
        .filter(|(_, line)| !line.contains("secret"))
        .collect();
    assert_eq!(texts(&appliance, "{job=\"k\"}").len(), 800);
    appliance.set_fail_points("erase-write=sleep(60000)");
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    let start = base - 2 * day;
    delete(&appliance, "{job=\"k\"} |= \"secret\"", start, now());
    let steps = [
        ("erase-write=1*sleep(30)->1*off->sleep(60000)", "a chunk"),
        ("erase-before-flush=sleep(60000)", "the flush"),
        ("erase-before-compact=sleep(60000)", "the compaction"),
        ("erase-before-compact=1*off->sleep(60000)", "the second day"),
        ("erase-before-processed=sleep(60000)", "the mark"),
        ("", ""),
    ];
    for (points, step) in steps {
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(appliance.lines("{job=\"k\"}"), kept, "before {step}");
        assert_ne!(requests(&appliance)[0]["status"], "processed", "{step}");
        appliance.set_fail_points(points);
        appliance.kill();
        appliance.start();
        appliance.wait_recovered();
        assert_eq!(appliance.lines("{job=\"k\"}"), kept, "after {step}");
    }
    wait_processed(&appliance);
    assert_eq!(appliance.lines("{job=\"k\"}"), kept);
    let end = base + 600 * SECOND;
    assert_eq!(
        sum(&appliance, "sum(count_over_time({job=\"k\"}[10m]))", end),
        320.0
    );
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    assert_eq!(appliance.lines("{job=\"k\"}"), kept);
    assert_eq!(requests(&appliance)[0]["status"], "processed");
}

#[test]
fn a_request_can_be_taken_back_until_it_is_processed() {
    let mut appliance = Setup::default().start();
    let base = base();
    let all = mixed(base, 10);
    push(&appliance, "c", &all);
    delete(&appliance, "{job=\"c\"}", base, now());
    assert!(texts(&appliance, "{job=\"c\"}").is_empty());
    let id = requests(&appliance)[0]["request_id"].clone();
    let id = id.as_str().expect("an id");
    let answer = ask(&appliance, "DELETE", &format!("?request_id={id}"), "");
    assert_eq!((answer.status, &*answer.text()), (204, ""));
    assert_eq!(appliance.lines("{job=\"c\"}"), all);
    assert_eq!(requests(&appliance), Vec::<Value>::new());
    let again = ask(&appliance, "DELETE", &format!("?request_id={id}"), "");
    assert_eq!(again.status, 404, "{}", again.text());
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    assert_eq!(appliance.lines("{job=\"c\"}"), all);

    appliance.change(|s| s.set("loki.delete_request_cancel_period", "\"0s\""));
    appliance.stop();
    appliance.start();
    appliance.wait_recovered();
    delete(&appliance, "{job=\"c\"}", base, now());
    wait_processed(&appliance);
    let id = requests(&appliance)[0]["request_id"].clone();
    let path = format!("?request_id={}&force=true", id.as_str().expect("an id"));
    let answer = ask(&appliance, "DELETE", &path, "");
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("already processed"));
}

#[test]
fn tenants_delete_and_see_their_own_only() {
    let appliance = eager().set("loki.tenancy", "true").start();
    let base = base();
    let line = json!({ "streams": [{ "stream": { "job": "t" },
        "values": [[base.to_string(), "of a tenant"]] }] });
    for tenant in ["one", "two"] {
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Scope-OrgID", tenant),
        ];
        let body = line.to_string();
        let path = "/loki/api/v1/push";
        let answer = appliance.post("loki.listen", path, &headers, body.as_bytes());
        assert_eq!(answer.status, 204, "{}", answer.text());
    }
    assert_eq!(ask(&appliance, "GET", "", "").status, 401);
    let query = encoded("{job=\"t\"}");
    let parameters = format!("?query={query}&start={base}");
    assert_eq!(ask(&appliance, "PUT", &parameters, "one").status, 204);
    let listed = |tenant| ask(&appliance, "GET", "", tenant).json();
    let own = listed("one");
    assert_eq!(own.as_array().map(Vec::len), Some(1));
    assert_eq!(listed("two"), json!([]));
    let id = own[0]["request_id"].as_str().expect("an id").to_owned();
    let cancel = ask(&appliance, "DELETE", &format!("?request_id={id}"), "two");
    assert_eq!(cancel.status, 404);
    let lines = |tenant| {
        let path = format!(
            "/loki/api/v1/query_range?query={query}&start={base}&end={}",
            now()
        );
        let url = appliance.url("loki.listen", &path);
        let headers = [("X-Scope-OrgID", tenant)];
        let answer = request(&agent(), "GET", &url, &headers, &[]).expect("an answer");
        crate::appliance::streams_of(&answer.json()).len()
    };
    appliance.wait("the request to be processed", || {
        (listed("one")[0]["status"] == "processed").then_some(())
    });
    assert_eq!((lines("one"), lines("two")), (0, 1));
}

#[test]
fn requests_are_checked_as_loki_checks_them() {
    let mut appliance = Setup::default().start();
    let start = now() / SECOND - 100;
    let query = encoded("{job=\"x\"}");
    let future = now() / SECOND + 3600;
    let rows = [
        (format!("?start={start}"), 400, "query not set"),
        (format!("?query={query}"), 400, "start time not set"),
        (
            format!("?query={query}&start=yesterday"),
            400,
            "invalid start time",
        ),
        (
            format!("?query={query}&start={start}&end=x"),
            400,
            "invalid end time",
        ),
        (
            format!("?query={query}&start={start}&end={future}"),
            400,
            "in the future",
        ),
        (
            format!("?query={query}&start={start}&end={}", start - 1),
            400,
            "can't be greater",
        ),
        (
            format!("?query=%7Bjob&start={start}"),
            400,
            "invalid query expression",
        ),
        (
            format!("?query={}&start={start}", encoded("{job=~\".*\"}")),
            400,
            "invalid query expression",
        ),
        (
            format!("?query={}&start={start}", encoded("rate({a=\"b\"}[5m])")),
            400,
            "invalid query expression",
        ),
        (
            format!("?query={query}&start={start}&max_interval=soon"),
            400,
            "max_interval",
        ),
    ];
    for (parameters, status, part) in rows {
        let answer = ask(&appliance, "POST", &parameters, "");
        assert_eq!(answer.status, status, "{parameters}: {}", answer.text());
        assert!(
            answer.text().contains(part),
            "{parameters}: {}",
            answer.text()
        );
    }
    let answer = ask(&appliance, "DELETE", "", "");
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert_eq!(ask(&appliance, "PATCH", "", "").status, 405);
    assert_eq!(requests(&appliance), Vec::<Value>::new());
    let good = format!("?query={query}&start={start}.5&end={start}.75&max_interval=1h");
    assert_eq!(ask(&appliance, "POST", &good, "").status, 204);
    let listed = &requests(&appliance)[0];
    assert_eq!(listed["start_time"], json!(start as f64 + 0.5));
    assert_eq!(listed["end_time"], json!(start as f64 + 0.75));
    assert_eq!(listed["query"], "{job=\"x\"}");
    assert_eq!(listed["status"], "received");

    appliance.change(|s| s.set("loki.limits.deletion_mode", "\"disabled\""));
    appliance.stop();
    appliance.start();
    for method in ["GET", "POST", "DELETE"] {
        assert_eq!(ask(&appliance, method, &good, "").status, 403, "{method}");
    }
}

#[test]
fn filter_only_leaves_the_disk_alone() {
    let mut appliance = eager()
        .set("loki.limits.deletion_mode", "\"filter-only\"")
        .start();
    let base = base();
    push(&appliance, "f", &mixed(base, 10));
    appliance.flush();
    delete(&appliance, "{job=\"f\"}", base, now());
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(requests(&appliance)[0]["status"], "received");
    assert!(texts(&appliance, "{job=\"f\"}").is_empty());
    let id = requests(&appliance)[0]["request_id"].clone();
    let path = format!("?request_id={}", id.as_str().expect("an id"));
    assert_eq!(ask(&appliance, "DELETE", &path, "").status, 204);
    assert_eq!(texts(&appliance, "{job=\"f\"}").len(), 10);
    appliance.stop();
}

/// Bytes of `index/volume` for a job.
#[track_caller]
fn volume(appliance: &Appliance, job: &str, start: i64, end: i64) -> u64 {
    let query = encoded(&format!("{{job=\"{job}\"}}"));
    let path = format!("/loki/api/v1/index/volume?query={query}&start={start}&end={end}");
    let answer = appliance.get("loki.listen", &path);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let result = answer.json()["data"]["result"].clone();
    let value = result[0]["value"][1].as_str().map(str::to_owned);
    value.map_or(0, |bytes| bytes.parse().expect("a number"))
}

#[test]
fn volumes_patterns_and_kept_results_leave_deleted_lines_out() {
    let mut appliance = eager()
        .set("loki.delete_request_cancel_period", "\"2s\"")
        .start();
    let base = base();
    let end = base + 600 * SECOND;
    let mut all = mixed(base + 1, 500);
    // Of another shape, so that their template is another.
    for (_, line) in all.iter_mut().filter(|(_, line)| line.contains("secret")) {
        line.insert_str(0, "a password in the ");
    }
    push(&appliance, "mixed", &all[..300]);
    appliance.flush();
    push(&appliance, "mixed", &all[300..]);
    let bytes = |word: &str| -> u64 {
        let lines = all.iter().filter(|(_, line)| line.contains(word));
        lines.map(|(_, line)| line.len() as u64).sum()
    };
    // Reads lines, so that what chunks gave is kept.
    let words = "sum(count_over_time({job=\"mixed\"} |= \"line\" [10m]))";
    let query = encoded("{job=\"mixed\"}");
    let patterns = format!("/loki/api/v1/patterns?query={query}&start={base}&end={end}");
    let check = |appliance: &Appliance, stage: &str, secret: bool| {
        let all = bytes("harmless") + if secret { bytes("secret") } else { 0 };
        assert_eq!(volume(appliance, "mixed", base, end), all, "{stage}");
        // Minutes that the range cuts as well.
        let cut = volume(appliance, "mixed", base + 90 * SECOND, end - 90 * SECOND);
        assert!(cut > 0 && cut < all, "{stage}: {cut}");
        let lines = if secret { 500.0 } else { 400.0 };
        for _ in 0..2 {
            assert_eq!(sum(appliance, words, end), lines, "{stage}");
        }
        let answer = appliance.get("loki.listen", &patterns).text().to_owned();
        assert!(answer.contains("harmless"), "{stage}: {answer}");
        assert_eq!(answer.contains("secret"), secret, "{stage}: {answer}");
    };
    check(&appliance, "before", true);
    delete(&appliance, "{job=\"mixed\"} |= \"secret\"", base, end);
    check(&appliance, "asked for", false);
    wait_processed(&appliance);
    check(&appliance, "erased", false);
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    check(&appliance, "after a crash", false);
}
