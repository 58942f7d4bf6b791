//! Days that are rewritten: without what has expired under a rule of retention, and with small
//! chunks merged. No line is lost, doubled or shown again, whoever looks and whenever it ends.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, Setup, encoded, now, today};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

/// Midnight, so many days ago.
fn midnight(days: i64) -> i64 {
    today() - days * DAY
}

/// Late in the day before yesterday, which has been over for a day.
fn evening() -> i64 {
    midnight(1) - 3 * 3600 * SECOND
}

#[track_caller]
fn push(appliance: &Appliance, labels: &Value, lines: &[(i64, String)]) {
    let values: Vec<Value> = lines
        .iter()
        .map(|(at, line)| json!([at.to_string(), line]))
        .collect();
    let body = json!({ "streams": [{ "stream": labels, "values": values }] });
    let answer = appliance.push(&body);
    assert_eq!(answer.status, 204, "{}", answer.text());
}

#[track_caller]
fn ask(appliance: &Appliance, path: &str) -> Answer {
    let answer = appliance.get("loki.listen", path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer
}

fn sum(appliance: &Appliance, query: &str, at: i64) -> f64 {
    let path = format!("/loki/api/v1/query?query={}&time={at}", encoded(query));
    let answer = ask(appliance, &path).json();
    let value = &answer["data"]["result"][0]["value"][1];
    value
        .as_str()
        .map_or(0.0, |text| text.parse().expect("a number"))
}

fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(m) if m.is_dir() => bytes_below(&entry.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

/// Many small chunks of some streams in one evening; what they hold.
fn fill(appliance: &Appliance, rounds: i64) -> Vec<(i64, String)> {
    let start = evening();
    let mut all = Vec::new();
    for round in 0..rounds {
        for stream in 0..4 {
            let lines: Vec<(i64, String)> = (0..5)
                .map(|i| {
                    let at = start + (round * 60 + i * 4 + stream) * SECOND;
                    (
                        at,
                        format!("stream{stream} round {round} line {i} uniqueword"),
                    )
                })
                .collect();
            push(
                appliance,
                &json!({"app": "quiet", "n": stream.to_string()}),
                &lines,
            );
            all.extend(lines);
        }
        appliance.flush();
    }
    all.sort();
    all
}

#[test]
fn streams_of_a_selector_are_kept_less_long() {
    let mut appliance = Setup::default().start();
    let old = evening();
    // Noise that hardly shrinks: what is left on the disk says what is there.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let many: Vec<(i64, String)> = (0..5000)
        .map(|n| {
            let mut line = format!("{n} ");
            for _ in 0..40 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                line.push_str(&format!("{state:016x}"));
            }
            (old + n, line)
        })
        .collect();
    push(&appliance, &json!({"app": "a", "env": "dev"}), &many);
    push(
        &appliance,
        &json!({"app": "a", "env": "prod"}),
        &[(old, "stays".into())],
    );
    push(
        &appliance,
        &json!({"app": "b", "env": "dev"}),
        &[(old, "audit".into())],
    );
    appliance.flush();
    let db = appliance.data_dir().join("db");
    let before = bytes_below(&db);
    assert_eq!(appliance.lines("{app=\"a\"}").len(), 5001);

    let rules = r#"
        [[retention]]
        selector = '{env="dev"}'
        period = "1d"
        [[retention]]
        selector = '{env="dev", app="b"}'
        period = "30d"
        priority = 1
        [[retention]]
        signal = "traces"
        period = "2d"
    "#;
    let check = appliance.command(&["check-config"]).output().expect("runs");
    assert!(check.status.success());
    assert!(appliance.stop().success());
    appliance.change(|setup| setup.table(rules));
    appliance.start();
    appliance.wait_recovered();
    // At once, whether anything has been rewritten or not.
    let (start, end) = (midnight(6), now());
    let names = |appliance: &Appliance| {
        let path = format!("/loki/api/v1/label/env/values?start={start}&end={end}");
        ask(appliance, &path).json()["data"].clone()
    };
    let check = |appliance: &Appliance, when: &str| {
        let texts = |query| -> Vec<String> {
            let lines = appliance.lines(query);
            lines.into_iter().map(|(_, line)| line).collect()
        };
        assert_eq!(texts("{app=\"a\"}"), ["stays"], "{when}");
        assert_eq!(texts("{app=\"b\"}"), ["audit"], "{when}");
        assert_eq!(texts("{env=\"dev\"} |= \"1\"").len(), 0, "{when}");
        let count = "sum(count_over_time({app=~\"a|b\"}[6d]))";
        assert_eq!(sum(appliance, count, now()), 2.0, "{when}");
        let path = format!(
            "/loki/api/v1/series?match[]={}&start={start}&end={end}",
            encoded("{app=\"a\"}")
        );
        let series = ask(appliance, &path).json();
        assert_eq!(series["data"].as_array().map(Vec::len), Some(1), "{when}");
        assert_eq!(names(appliance), json!(["dev", "prod"]), "{when}");
        let path = format!(
            "/loki/api/v1/index/stats?query={}&start={start}&end={end}",
            encoded("{env=\"dev\"}")
        );
        assert_eq!(ask(appliance, &path).json()["entries"], 1, "{when}");
        let path = format!(
            "/loki/api/v1/index/volume?query={}&start={start}&end={end}",
            encoded("{app=\"a\"}")
        );
        let volume = ask(appliance, &path).json();
        assert_eq!(
            volume["data"]["result"][0]["value"][1], "5",
            "{when}: {volume}"
        );
    };
    check(&appliance, "at once");
    appliance.wait("the day to be rewritten", || {
        (appliance.metric("days_rewritten", &[]) == 1.0).then_some(())
    });
    check(&appliance, "rewritten");
    assert_eq!(appliance.metric("expired_lines", &[]), 5000.0);
    appliance.wait("the bytes to leave", || {
        (bytes_below(&db) < before / 4).then_some(())
    });
    // What would expire at once is refused, of the others it is taken.
    let late = |env: &str, app: &str| {
        let values = json!([[(old + 1).to_string(), "late"]]);
        let labels = json!({"app": app, "env": env});
        appliance.push(&json!({ "streams": [{ "stream": labels, "values": values }] }))
    };
    let refused = late("dev", "c");
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(
        refused.text().contains("timestamp too old"),
        "{}",
        refused.text()
    );
    assert_eq!(late("prod", "c").status, 204);
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    check(&appliance, "after a crash");
}

#[test]
fn a_rule_that_can_not_be_read_is_told_with_its_line() {
    let appliance = Setup::default()
        .table("[[retention]]\nselector = '{env='\nperiod = \"1d\"\n")
        .prepare();
    for arguments in [["check-config"], ["serve"]] {
        let output = appliance.command(&arguments).output().expect("runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(
            said.contains("retention.selector") && said.contains("{env="),
            "{said}"
        );
    }
}

#[test]
fn whoever_asks_while_chunks_are_merged_sees_each_line_once() {
    let mut appliance = Setup::default().start();
    let all = fill(&appliance, 40);
    let end = midnight(1);
    appliance.set_fail_points("rewrite-chunk=sleep(200);rewrite-before-switch=sleep(300)");
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let counting = scope.spawn(|| {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                let count = sum(
                    &appliance,
                    "sum(count_over_time({app=\"quiet\"}[12h]))",
                    end,
                );
                assert_eq!(count, all.len() as f64);
                asked += 1;
            }
            asked
        });
        let reading = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(appliance.lines("{app=\"quiet\"}"), all);
                let found = appliance.lines("{app=\"quiet\"} |= \"uniqueword\"");
                assert_eq!(found.len(), all.len());
            }
        });
        appliance.wait("the merge", || {
            (appliance.metric("days_rewritten", &[]) == 1.0).then_some(())
        });
        std::thread::sleep(Duration::from_millis(300));
        done.store(true, Ordering::Relaxed);
        assert!(counting.join().expect("no panic") > 3);
        reading.join().expect("no panic");
    });
    assert_eq!(appliance.metric("rewrite_before_chunks", &[]), 160.0);
    assert_eq!(appliance.metric("rewrite_after_chunks", &[]), 4.0);
    let (before, after) = (
        appliance.metric("rewrite_before_bytes", &[]),
        appliance.metric("rewrite_after_bytes", &[]),
    );
    assert!(after * 2.0 < before, "{before} to {after}");
    assert_eq!(appliance.lines("{app=\"quiet\"}"), all);
    assert_eq!(
        appliance
            .lines("{app=\"quiet\"} |= \"round 17 line 3\"")
            .len(),
        4
    );
}

#[test]
fn a_kill_at_any_step_of_rewriting_leaves_every_line_once() {
    let mut appliance = Setup::default().start();
    let mut all = fill(&appliance, 40);
    let steps = [
        ("rewrite-chunk=2*off->sleep(60000)", "a chunk"),
        ("rewrite-before-index=sleep(60000)", "the index"),
        ("rewrite-before-switch=sleep(60000)", "the switch"),
        (
            "rewrite-named=sleep(60000)",
            "the day is shown under its new name",
        ),
        ("rewrite-switched=sleep(60000)", "the old one goes"),
        ("", ""),
    ];
    for (points, step) in steps {
        appliance.set_fail_points(points);
        appliance.kill();
        appliance.start();
        appliance.wait_recovered();
        assert_eq!(
            appliance.lines("{app=\"quiet\"}"),
            all,
            "on the way to {step}"
        );
        std::thread::sleep(Duration::from_millis(2500));
        if points.contains("rewrite-named") {
            // Its writer sleeps, and the next start finds the day under its new name.
            continue;
        }
        assert_eq!(appliance.lines("{app=\"quiet\"}"), all, "before {step}");
        // What comes late to a day on its way is there as well.
        let late = (evening() + all.len() as i64, format!("late, before {step}"));
        push(
            &appliance,
            &json!({"app": "quiet", "n": "late"}),
            std::slice::from_ref(&late),
        );
        appliance.flush();
        all.push(late);
        all.sort();
    }
    assert_eq!(appliance.lines("{app=\"quiet\"}"), all);
    appliance.kill();
    appliance.start();
    appliance.wait_recovered();
    assert_eq!(appliance.lines("{app=\"quiet\"}"), all);
    let index = appliance.data_dir().join("index");
    let days = std::fs::read_dir(index).expect("a directory").count();
    assert_eq!(days, 1, "what a kill left is gone");
}
