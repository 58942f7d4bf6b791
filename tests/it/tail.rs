//! Live tails over real websockets: each line once, in order, whatever happens beside.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use crate::appliance::{Appliance, PATIENCE, Setup, encoded, now};

/// A listener.
struct Ear {
    socket: WebSocket<TcpStream>,
}

/// How a tail ended.
#[derive(Debug, PartialEq)]
enum Heard {
    Message(Value),
    /// Code and reason.
    Closed(u16, String),
    /// Nothing within the time.
    Silence,
}

impl Ear {
    fn at(appliance: &Appliance, path: &str, headers: &[(&'static str, &str)]) -> Self {
        let address = appliance.address("loki.listen").expect("listening");
        let mut request = format!("ws://{address}{path}")
            .into_client_request()
            .expect("a request");
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, value.parse().expect("a header"));
        }
        let stream = TcpStream::connect(address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let (socket, answer) = tungstenite::client(request, stream).expect("an upgrade");
        assert_eq!(answer.status(), 101);
        Self { socket }
    }

    fn of(appliance: &Appliance, logql: &str, rest: &str) -> Self {
        let path = format!("/loki/api/v1/tail?query={}{rest}", encoded(logql));
        Self::at(appliance, &path, &[])
    }

    fn hear(&mut self, within: Duration) -> Heard {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Heard::Silence;
            }
            self.socket
                .get_ref()
                .set_read_timeout(Some(left))
                .expect("set");
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    return Heard::Message(serde_json::from_str(&text).expect("JSON"));
                }
                Ok(Message::Close(frame)) => {
                    let frame = frame.expect("a reason");
                    return Heard::Closed(frame.code.into(), frame.reason.to_string());
                }
                Ok(Message::Ping(_)) => {}
                Ok(other) => panic!("not expected: {other:?}"),
                Err(Error::Io(e))
                    if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Heard::Silence;
                }
                Err(error) => panic!("the connection broke: {error}"),
            }
        }
    }

    #[track_caller]
    fn message(&mut self) -> Value {
        match self.hear(PATIENCE) {
            Heard::Message(message) => message,
            other => panic!("no message but {other:?}"),
        }
    }

    /// The next `count` lines with their streams' `app`, as they come.
    #[track_caller]
    fn lines(&mut self, count: usize) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        while lines.len() < count {
            let message = self.message();
            assert_eq!(message.get("dropped_entries"), None, "nothing is dropped");
            lines.extend(lines_of(&message));
        }
        lines
    }
}

fn lines_of(message: &Value) -> Vec<(String, String)> {
    let streams = message["streams"].as_array().expect("streams");
    assert!(streams.len() <= 100 && !streams.is_empty(), "{message}");
    let line = |stream: &Value| {
        let values = stream["values"].as_array().expect("values");
        assert_eq!(values.len(), 1, "one element for each line");
        let app = stream["stream"]["app"].as_str().expect("app").to_owned();
        (app, values[0][1].as_str().expect("a line").to_owned())
    };
    streams.iter().map(line).collect()
}

fn stream(app: &str, lines: &[(i64, String)]) -> Value {
    let values: Vec<Value> = lines
        .iter()
        .map(|(at, line)| json!([at.to_string(), line]))
        .collect();
    json!({ "stream": { "app": app }, "values": values })
}

#[track_caller]
fn push(appliance: &Appliance, streams: &[Value]) {
    let answer = appliance.push(&json!({ "streams": streams }));
    assert_eq!(answer.status, 204, "{}", answer.text());
}

/// Each stream's lines are 0, 1, 2 … without a gap or a repetition.
#[track_caller]
fn check_each_once(lines: &[(String, String)], streams: usize, each: usize) {
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    for (app, line) in lines {
        let expected = next.entry(app).or_default();
        assert_eq!(*line, expected.to_string(), "of {app}");
        *expected += 1;
    }
    assert_eq!(next.len(), streams);
    assert!(next.values().all(|n| *n == each), "{next:?}");
}

/// Listeners come while lines are pushed and chunks are sealed: what is past to one is live
/// to the other, and new streams appear all the time.
#[test]
fn every_listener_hears_every_line_once_and_in_order_whenever_it_comes() {
    const STREAMS: usize = 4;
    const ROUNDS: usize = 60;
    const LINES: usize = 10;
    let appliance = Setup::default().start();
    let begun = now();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pusher = scope.spawn(|| {
            for round in 0..ROUNDS {
                let lines: Vec<(i64, String)> = (round * LINES..(round + 1) * LINES)
                    .map(|n| (begun + n as i64 * 1000, n.to_string()))
                    .collect();
                // The last stream begins half-way: its name was not there before.
                let streams: Vec<Value> = (0..STREAMS)
                    .filter(|s| s + 1 < STREAMS)
                    .map(|s| stream(&format!("s{s}"), &lines))
                    .collect();
                push(&appliance, &streams);
                if round >= ROUNDS / 2 {
                    let from = (round - ROUNDS / 2) * LINES;
                    let lines: Vec<(i64, String)> = (from..from + LINES)
                        .map(|n| (begun + n as i64 * 1000, n.to_string()))
                        .collect();
                    push(&appliance, &[stream("late", &lines)]);
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                appliance.flush();
            }
        });
        let ears: Vec<_> = (0..8)
            .map(|i| {
                let appliance = &appliance;
                scope.spawn(move || {
                    std::thread::sleep(Duration::from_millis(40 * i));
                    let limit = "&limit=100000";
                    let mut ear = Ear::of(appliance, r#"{app=~".+"}"#, limit);
                    ear.lines((STREAMS - 1) * ROUNDS * LINES + ROUNDS / 2 * LINES)
                })
            })
            .collect();
        pusher.join().expect("pushed");
        for ear in ears {
            let lines = ear.join().expect("heard");
            let (late, others): (Vec<_>, Vec<_>) =
                lines.into_iter().partition(|(app, _)| app == "late");
            check_each_once(&others, STREAMS - 1, ROUNDS * LINES);
            check_each_once(&late, 1, ROUNDS / 2 * LINES);
        }
    });
    appliance.wait("the tails to end", || {
        (appliance.metric("tails", &[]) == 0.0).then_some(())
    });
    assert_eq!(appliance.metric("tail_dropped_lines", &[]), 0.0);
}

#[test]
fn the_past_is_the_newest_lines_oldest_first_and_pipelines_apply_to_past_and_present() {
    let appliance = Setup::default().start();
    let begun = now();
    let numbered = |range: std::ops::Range<i64>| -> Vec<(i64, String)> {
        range
            .map(|n| (begun + n, format!("level=warn n={n}")))
            .collect()
    };
    push(
        &appliance,
        &[stream("a", &numbered(0..50)), stream("b", &numbered(0..50))],
    );
    let query = r#"{app="a"} |~ "n=.*[05]$" | logfmt | line_format "{{.n}}""#;
    let mut ear = Ear::of(&appliance, query, "&limit=3");
    let lines = |lines: &[&str]| -> Vec<(String, String)> {
        lines
            .iter()
            .map(|l| ("a".to_owned(), (*l).to_owned()))
            .collect()
    };
    assert_eq!(ear.lines(3), lines(&["35", "40", "45"]));
    push(
        &appliance,
        &[
            stream("a", &numbered(50..60)),
            stream("b", &numbered(50..60)),
        ],
    );
    assert_eq!(ear.lines(2), lines(&["50", "55"]));

    // An exact repetition is not stored, so it is no news either.
    push(&appliance, &[stream("a", &numbered(55..61))]);
    assert_eq!(ear.lines(1), lines(&["60"]));

    let path = format!(
        "/loki/api/v1/tail?query={}&limit=1&encoding_flags=categorize-labels",
        encoded(r#"{app="a"} | logfmt"#)
    );
    for headers in [
        &[][..],
        &[("x-loki-response-encoding-flags", "categorize-labels")],
    ] {
        let message = Ear::at(&appliance, &path, headers).message();
        assert_eq!(message["encodingFlags"], json!(["categorize-labels"]));
        let stream = &message["streams"][0];
        assert_eq!(stream["stream"], json!({ "app": "a", "service_name": "a" }));
        assert_eq!(
            stream["values"][0][2],
            json!({ "structuredMetadata": { "detected_level": "warn" },
                    "parsed": { "level": "warn", "n": "60" } })
        );
    }

    let path = format!("/api/prom/tail?query={}&limit=1", encoded(r#"{app="b"}"#));
    let message = Ear::at(&appliance, &path, &[]).message();
    assert_eq!(message["dropped_entries"], Value::Null);
    let entry = &message["streams"][0]["entries"][0];
    assert_eq!(entry["line"], "level=warn n=59");
    assert!(entry["ts"].as_str().expect("a time").ends_with('Z'));
    assert!(
        message["streams"][0]["labels"]
            .as_str()
            .expect("text")
            .contains("app=\"b\"")
    );
}

#[test]
fn a_delay_puts_lines_of_streams_in_the_order_of_their_times() {
    let appliance = Setup::default().start();
    let mut ear = Ear::of(&appliance, r#"{app=~".+"}"#, "&delay_for=3");
    appliance.wait("it", || {
        (appliance.metric("tails", &[]) == 1.0).then_some(())
    });
    let at = now();
    let (ago, delay) = (1_000_000, 3_000_000_000);
    let sent = [("a", 100), ("b", 300), ("c", 200)]
        .map(|(app, millis)| stream(app, &[(at - millis * ago, app.to_owned())]));
    push(&appliance, &sent);
    let heard: Vec<String> = ear.lines(3).into_iter().map(|(app, _)| app).collect();
    assert_eq!(heard, ["b", "c", "a"]);
    assert!(now() >= at - 100 * ago + delay, "each waits for its time");
}

/// One reads as it should, the other not at all until much more has come than may wait.
#[test]
fn who_reads_too_slowly_misses_lines_and_is_told_and_nobody_else_is_harmed() {
    let appliance = Setup::default().start();
    let mut slow = Ear::of(&appliance, r#"{app="a"}"#, "");
    let mut quick = Ear::of(&appliance, r#"{app="a"}"#, "");
    appliance.wait("both", || {
        (appliance.metric("tails", &[]) == 2.0).then_some(())
    });
    let begun = now();
    let width = 20_000;
    let mut number = 0;
    let begun_at = Instant::now();
    while appliance.metric("tail_dropped_lines", &[]) == 0.0 {
        assert!(number < 10_000, "the slow one is never at its end");
        let lines: Vec<(i64, String)> = (number..number + 50)
            .map(|n| (begun + n, format!("{n} {}", "x".repeat(width))))
            .collect();
        push(&appliance, &[stream("a", &lines)]);
        for (_, line) in quick.lines(50) {
            assert!(line.starts_with(&format!("{number} ")), "{}", &line[..20]);
            number += 1;
        }
    }
    let used = appliance.metric("memory_used_bytes", &[("account", "tails")]);
    assert!(
        used > 1e6 && used <= (256 << 20) as f64 / 8.0 + 4e6,
        "{used}"
    );
    if begun_at.elapsed() < Duration::from_secs(10) {
        // It begins to read: the rest comes in order, then the news of what was dropped.
        let last = (begun + number, "last".to_owned());
        let mut heard = Vec::new();
        let mut dropped = 0;
        push(&appliance, &[stream("a", &[last])]);
        while !heard.iter().any(|line| line == "last") || dropped == 0 {
            let message = slow.message();
            dropped += message["dropped_entries"].as_array().map_or(0, Vec::len);
            heard.extend(
                lines_of(&message)
                    .into_iter()
                    .map(|(_, line)| line.split(' ').next().unwrap_or_default().to_owned()),
            );
            // The first of these may have been too many as well.
            push(&appliance, &[stream("a", &[(now(), "last".to_owned())])]);
        }
        heard.retain(|line| line != "last");
        assert!(heard.len() < number as usize);
        assert!(
            heard
                .iter()
                .zip(0..)
                .all(|(line, n)| *line == n.to_string())
        );
    }
    drop((slow, quick));
    appliance.wait("their memory", || {
        (appliance.metric("memory_used_bytes", &[("account", "tails")]) == 0.0).then_some(())
    });
}

#[test]
fn who_does_not_read_at_all_is_let_go() {
    if std::env::var_os("SLOW").is_none() {
        return; // 15 s
    }
    let appliance = Setup::default().start();
    let _stuck = Ear::of(&appliance, r#"{app="a"}"#, "");
    appliance.wait("it", || {
        (appliance.metric("tails", &[]) == 1.0).then_some(())
    });
    let begun = Instant::now();
    while appliance.metric("tails_ended", &[("reason", "stuck")]) == 0.0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it stays");
        let lines: Vec<(i64, String)> = (0..50).map(|_| (now(), "x".repeat(20_000))).collect();
        push(&appliance, &[stream("a", &lines)]);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() >= Duration::from_secs(14));
    assert_eq!(appliance.metric("tails", &[]), 0.0);
}

#[test]
fn what_is_no_live_query_is_refused_with_the_reason() {
    let appliance = Setup::default()
        .set("loki.limits.max_concurrent_tail_requests", 2)
        .set("loki.limits.max_entries_limit_per_query", 5000)
        .start();
    for (query, rest, part) in [
        ("{", "", "parse error"),
        (r#"{a="b"}"#, "&delay_for=6", "delay_for"),
        (r#"{a="b"}"#, "&delay_for=x", "delay_for"),
        (r#"{a="b"}"#, "&limit=5001", "max_entries_limit"),
        (r#"{a="b"}"#, "&start=x", "start"),
        (r#"{a="b"}"#, "", "websocket"),
    ] {
        let path = format!("/loki/api/v1/tail?query={}{rest}", encoded(query));
        let answer = appliance.get("loki.listen", &path);
        assert_eq!(answer.status, 400, "{query} {rest}");
        assert!(answer.text().contains(part), "{}", answer.text());
    }
    let error = u16::from(CloseCode::Error);
    let mut metric = Ear::of(&appliance, r#"rate({a="b"}[1m])"#, "");
    let text = "parse error : only log selector is supported".to_owned();
    assert_eq!(metric.hear(PATIENCE), Heard::Closed(error, text));

    let first = Ear::of(&appliance, r#"{a="b"}"#, "");
    let _second = Ear::of(&appliance, r#"{a="b"}"#, "");
    appliance.wait("two", || {
        (appliance.metric("tails", &[]) == 2.0).then_some(())
    });
    let mut third = Ear::of(&appliance, r#"{a="b"}"#, "");
    let text = "max concurrent tail requests limit exceeded, count > limit (3 > 2)".to_owned();
    assert_eq!(third.hear(PATIENCE), Heard::Closed(error, text));
    assert_eq!(appliance.metric("tails_refused", &[]), 1.0);
    drop(first);
    appliance.wait("one", || {
        (appliance.metric("tails", &[]) == 1.0).then_some(())
    });
    let mut fourth = Ear::of(&appliance, r#"{a="b"}"#, "");
    assert_eq!(fourth.hear(Duration::from_millis(300)), Heard::Silence);
}

#[test]
fn tenants_do_not_hear_each_other() {
    let appliance = Setup::default().set("loki.tenancy", true).start();
    let path = format!("/loki/api/v1/tail?query={}", encoded(r#"{app="a"}"#));
    assert_eq!(appliance.get("loki.listen", &path).status, 401);
    let mut ear = Ear::at(&appliance, &path, &[("x-scope-orgid", "one")]);
    for tenant in ["two", "one"] {
        let headers = [
            ("Content-Type", "application/json"),
            ("X-Scope-OrgID", tenant),
        ];
        let body = json!({ "streams": [stream("a", &[(now(), tenant.to_owned())])] });
        let path = "/loki/api/v1/push";
        let answer = appliance.post("loki.listen", path, &headers, body.to_string().as_bytes());
        assert_eq!(answer.status, 204);
    }
    assert_eq!(ear.lines(1), [("a".to_owned(), "one".to_owned())]);
}

/// What the journal brings back is past, not news.
#[test]
fn after_a_crash_the_past_is_past_and_the_end_is_told() {
    let mut appliance = Setup::default().start();
    let begun = now();
    let lines: Vec<(i64, String)> = (0..500).map(|n| (begun + n, n.to_string())).collect();
    push(&appliance, &[stream("a", &lines[..490])]);
    appliance.kill();
    appliance.start();
    let mut ear = Ear::of(&appliance, r#"{app="a"} |= "4""#, "&limit=1");
    appliance.wait_recovered();
    // The server listens a moment after the handshake: from the first of these that is heard on.
    let is_marker = |line: &str| line.starts_with("marker");
    let begins = (0..600).any(|n| {
        push(
            &appliance,
            &[stream("a", &[(now(), format!("marker 4 {n}"))])],
        );
        match ear.hear(Duration::from_millis(100)) {
            Heard::Message(message) => lines_of(&message).iter().any(|(_, line)| is_marker(line)),
            _ => false,
        }
    });
    assert!(begins, "nothing is heard");
    push(&appliance, &[stream("a", &lines[490..])]);
    // Before the replay has come to it, the past may be empty; what is new comes in any case.
    let mut heard = Vec::new();
    while heard.len() < 10 {
        heard.extend(ear.lines(1));
        heard.retain(|(_, line)| line != "489" && !is_marker(line));
    }
    let heard: Vec<String> = heard.into_iter().map(|(_, line)| line).collect();
    let new: Vec<String> = (490..500).map(|n| n.to_string()).collect();
    assert_eq!(heard, new);
    appliance.signal(libc::SIGTERM);
    let text = "the server is shutting down".to_owned();
    assert_eq!(
        ear.hear(PATIENCE),
        Heard::Closed(u16::from(CloseCode::Away), text)
    );
    assert!(appliance.wait_for_exit().success());
}

/// The figures of docs/benchmarks.md; `SECONDS` for another time than a minute.
#[test]
#[ignore = "a minute of load, for its figures"]
fn a_thousand_lines_a_second_reach_twenty_listeners() {
    const EARS: usize = 20;
    const EACH_TICK: usize = 10;
    let seconds: usize = std::env::var("SECONDS").map_or(60, |s| s.parse().expect("a number"));
    let total = seconds * 1000;
    let appliance = Setup::default().start();
    std::thread::scope(|scope| {
        let ears: Vec<_> = (0..EARS)
            .map(|_| {
                let mut ear = Ear::of(&appliance, r#"{app="load"}"#, "");
                scope.spawn(move || {
                    let (mut next, mut slowest) = (0, 0_i64);
                    while next < total {
                        let message = ear.message();
                        let heard_at = now();
                        assert_eq!(message.get("dropped_entries"), None);
                        for (_, line) in lines_of(&message) {
                            let (number, rest) = line.split_once(' ').expect("two words");
                            assert_eq!(number, next.to_string());
                            let sent: i64 = rest
                                .split(' ')
                                .next()
                                .unwrap_or("")
                                .parse()
                                .expect("a time");
                            slowest = slowest.max(heard_at - sent);
                            next += 1;
                        }
                    }
                    slowest
                })
            })
            .collect();
        let all = EARS as f64;
        appliance.wait("all", || {
            (appliance.metric("tails", &[]) == all).then_some(())
        });
        let begun = Instant::now();
        let padding = "x".repeat(180);
        for tick in 0..total / EACH_TICK {
            let at = now();
            let lines: Vec<(i64, String)> = (0..EACH_TICK)
                .map(|i| {
                    (
                        at + i as i64,
                        format!("{} {at} {padding}", tick * EACH_TICK + i),
                    )
                })
                .collect();
            push(&appliance, &[stream("load", &lines)]);
            if tick % 500 == 0 {
                let (resident, _) = appliance.resident();
                println!(
                    "{:>3} s: RSS {} MiB",
                    begun.elapsed().as_secs(),
                    resident >> 20
                );
            }
            let due = begun + Duration::from_millis(10 * (tick as u64 + 1));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let slowest = ears
            .into_iter()
            .map(|ear| ear.join().expect("every line once"))
            .max();
        let (resident, peak) = appliance.resident();
        println!(
            "{total} lines to each of {EARS} in {:.1} s; latest {:.0} ms after its push; RSS {} MiB, peak {} MiB",
            begun.elapsed().as_secs_f64(),
            slowest.unwrap_or(0) as f64 / 1e6,
            resident >> 20,
            peak >> 20,
        );
    });
    assert_eq!(appliance.metric("tail_dropped_lines", &[]), 0.0);
}
