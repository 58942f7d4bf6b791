//! Answers of log queries that begin before they are complete.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::appliance::{Appliance, PATIENCE, Setup, agent, encoded, now, request, streams_of};

/// Of lines; each flush makes a chunk of each.
const STREAMS: usize = 3;
const ROUNDS: usize = 5;
const LINES: usize = 20;

/// Slow while it reads the first units, and then for ever: what comes out comes before the end.
const NEVER_ENDS: &str = "scan-unit=12*sleep(150)->sleep(600000)";

/// A body as it arrives.
struct Incoming {
    headers: HashMap<String, String>,
    socket: BufReader<TcpStream>,
}

impl Incoming {
    fn ask(appliance: &Appliance, path: &str, headers: &[(&str, &str)]) -> Self {
        let address = appliance.address("loki.listen").expect("listens");
        let mut socket = TcpStream::connect(address).expect("connects");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        write!(socket, "{request}\r\n").expect("sends");
        let mut socket = BufReader::new(socket);
        let mut line = String::new();
        socket.read_line(&mut line).expect("a status");
        assert!(line.starts_with("HTTP/1.1 200"), "{line}");
        let mut headers = HashMap::new();
        loop {
            line.clear();
            socket.read_line(&mut line).expect("a header");
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        Self { headers, socket }
    }

    fn is_streamed(&self) -> bool {
        self.headers.get("transfer-encoding").map(String::as_str) == Some("chunked")
    }

    /// The next part of a chunked body; empty for its end, an error for none.
    fn part(&mut self) -> std::io::Result<Vec<u8>> {
        let mut size = String::new();
        self.socket.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim_end(), 16).map_err(std::io::Error::other)?;
        let mut part = vec![0; size + 2];
        self.socket.read_exact(&mut part)?;
        part.truncate(size);
        Ok(part)
    }

    /// The whole body.
    fn body(mut self) -> std::io::Result<Vec<u8>> {
        if let Some(length) = self.headers.get("content-length") {
            let mut body = vec![0; length.parse().expect("a length")];
            self.socket.read_exact(&mut body)?;
            return Ok(body);
        }
        assert!(self.is_streamed(), "{:?}", self.headers);
        let mut body = Vec::new();
        loop {
            match self.part()? {
                part if part.is_empty() => return Ok(body),
                part => body.extend(part),
            }
        }
    }
}

/// Many small chunks of a few streams, whose lines take turns.
fn filled() -> (Appliance, i64) {
    let appliance = Setup::default().start();
    let end = now();
    let mut number = 0;
    for _ in 0..ROUNDS {
        let mut streams = vec![Vec::new(); STREAMS];
        for _ in 0..LINES {
            for values in &mut streams {
                number += 1;
                let at = end - 1_000_000_000 * (1000 - number);
                values.push(json!([at.to_string(), format!("{{\"number\":{number}}}")]));
            }
        }
        let streams: Vec<_> = (0..STREAMS)
            .map(|n| json!({ "stream": { "job": "slow", "n": n.to_string() }, "values": streams[n] }))
            .collect();
        assert_eq!(appliance.push(&json!({ "streams": streams })).status, 204);
        appliance.flush();
    }
    (appliance, end)
}

fn restart(appliance: &mut Appliance, fail_points: &str) {
    assert!(appliance.stop().success());
    appliance.set_fail_points(fail_points);
    appliance.start();
    appliance.wait_recovered();
}

fn path(query: &str, end: i64, rest: &str) -> String {
    let (query, start) = (encoded(query), end - 3_600_000_000_000);
    format!("/loki/api/v1/query_range?query={query}&start={start}&end={end}{rest}")
}

fn plain(headers: &HashMap<String, String>, body: Vec<u8>) -> Vec<u8> {
    if headers.get("content-encoding").map(String::as_str) != Some("gzip") {
        return body;
    }
    let mut plain = Vec::new();
    let read = flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain);
    read.expect("a complete body");
    plain
}

#[test]
fn the_first_lines_leave_while_the_query_reads_and_it_ends_with_its_client() {
    let (mut appliance, end) = filled();
    restart(&mut appliance, NEVER_ENDS);
    let path = path("{job=\"slow\"}", end, "&limit=1000");
    let mut answer = Incoming::ask(&appliance, &path, &[]);
    assert!(answer.is_streamed());
    let mut begun = String::new();
    while !begun.contains("\"number\\\":300") {
        let part = answer.part().expect("more");
        assert!(!part.is_empty(), "ended: {begun}");
        begun.push_str(&String::from_utf8(part).expect("text"));
    }
    // The newest line's stream stands first, and no other one yet.
    assert!(
        begun.starts_with(
            "{\"status\":\"success\",\"data\":{\"resultType\":\"streams\",\"result\":[{\"stream\":{"
        ),
        "{begun}"
    );
    assert_eq!(begun.matches("\"stream\":").count(), 1, "{begun}");
    assert_eq!(appliance.metric("queries", &[("kind", "logs")]), 0.0);
    drop(answer);
    let held = || appliance.metric("memory_used_bytes", &[("account", "queries")]);
    appliance.wait("the query's end", || (held() == 0.0).then_some(()));
    // Nobody broke it off but its client.
    assert_eq!(appliance.metric("query_answers_broken", &[]), 0.0);
    appliance.kill();
}

#[test]
fn a_compressed_answer_leaves_as_early() {
    let (mut appliance, end) = filled();
    restart(&mut appliance, NEVER_ENDS);
    let path = path("{job=\"slow\"}", end, "&limit=1000");
    let mut answer = Incoming::ask(&appliance, &path, &[("accept-encoding", "gzip")]);
    assert!(answer.is_streamed());
    assert_eq!(answer.headers["content-encoding"], "gzip");
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    loop {
        let part = answer.part().expect("more");
        assert!(!part.is_empty());
        decoder.write_all(&part).expect("gzip");
        decoder.flush().expect("gzip");
        if String::from_utf8_lossy(decoder.get_ref()).contains("\"number\\\":300") {
            break;
        }
    }
    appliance.kill();
}

/// Streams by their labels.
fn by_labels(result: &Value) -> HashMap<String, Value> {
    let streams = result.as_array().expect("streams");
    let by_labels: HashMap<_, _> = streams
        .iter()
        .map(|s| (s["stream"].to_string(), s["values"].clone()))
        .collect();
    assert_eq!(by_labels.len(), streams.len(), "each stream once");
    by_labels
}

#[test]
fn a_late_answer_has_the_streams_and_lines_of_a_quick_one() {
    let (mut appliance, end) = filled();
    let queries = [
        ("{job=\"slow\"}", "&limit=1000", None),
        ("{job=\"slow\"}", "&limit=1000&direction=forward", None),
        ("{job=\"slow\"}", "&limit=101", None),
        ("{job=\"slow\"} | json", "&limit=7&direction=forward", None),
        (
            "{job=\"slow\"} | json",
            "&limit=1000",
            Some("categorize-labels"),
        ),
        ("{job=\"slow\"} |= \"number\"", "&limit=1000&gzip=1", None),
    ];
    let ask = |appliance: &Appliance, late: bool| -> Vec<Value> {
        let one = |(query, rest, flags): &(&str, &str, Option<&str>)| {
            let mut headers = Vec::new();
            if let Some(flags) = flags {
                headers.push(("x-loki-response-encoding-flags", *flags));
            }
            if rest.contains("gzip") {
                headers.push(("accept-encoding", "gzip"));
            }
            let answer = Incoming::ask(appliance, &path(query, end, rest), &headers);
            let names = answer.headers.clone();
            // A compressed answer never has a length.
            assert!(late == answer.is_streamed() || rest.contains("gzip"));
            let body = answer.body().expect("a complete body");
            serde_json::from_slice(&plain(&names, body)).expect("JSON")
        };
        queries.iter().map(one).collect()
    };
    let quick = ask(&appliance, false);
    restart(&mut appliance, "scan-unit=sleep(250)");
    let late = ask(&appliance, true);
    for ((query, quick), mut late) in queries.iter().zip(quick).zip(late) {
        let (data, slow) = (&quick["data"], &mut late["data"]);
        assert_eq!(by_labels(&data["result"]), by_labels(&slow["result"]));
        // The first line's stream is first, the others are sorted.
        let streams = slow["result"].as_array_mut().expect("streams");
        let first = streams.remove(0);
        let expected = if query.1.contains("forward") { 1 } else { 300 };
        let newest = format!("{{\"number\":{expected}}}");
        assert_eq!(first["values"][0][1], newest, "{query:?}");
        let all = data["result"].as_array().expect("streams").iter();
        let others: Vec<_> = all
            .filter(|stream| stream["stream"] != first["stream"])
            .cloned()
            .collect();
        assert_eq!(*streams, others, "{query:?}");
        for key in ["resultType", "encodingFlags"] {
            assert_eq!(data[key], slow[key], "{query:?}");
        }
        let returned = |data: &Value| data["stats"]["summary"]["totalEntriesReturned"].clone();
        assert_eq!(returned(data), returned(slow));
    }
}

#[test]
fn an_answer_that_fails_after_it_began_is_broken_off_and_never_looks_complete() {
    let (mut appliance, end) = filled();
    appliance.change(|setup| setup.set("loki.limits.query_timeout", "\"3s\""));
    appliance.expect_log("a log answer that had begun was broken off");
    for coding in ["identity", "gzip"] {
        restart(&mut appliance, "scan-unit=10*sleep(150)->sleep(4000)");
        let path = path("{job=\"slow\"}", end, "&limit=1000");
        let mut answer = Incoming::ask(&appliance, &path, &[("accept-encoding", coding)]);
        assert!(answer.is_streamed());
        assert!(!answer.part().expect("it begins").is_empty());
        let error = answer.body().expect_err("no end");
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
        let broken = appliance.metric("query_answers_broken", &[("reason", "failed")]);
        assert_eq!(broken, 1.0);
        assert_eq!(appliance.metric("queries_failed", &[("kind", "logs")]), 1.0);
    }
}

/// Nothing was certain, so nothing had left: the status tells.
#[test]
fn a_query_without_a_line_keeps_its_status_however_long_it_takes() {
    let (mut appliance, end) = filled();
    appliance.change(|setup| setup.set("loki.limits.query_timeout", "\"1s\""));
    appliance.expect_log("query timed out");
    restart(&mut appliance, "scan-unit=sleep(300)");
    let path = path("{job=\"slow\"} != \"number\"", end, "");
    assert_eq!(appliance.get("loki.listen", &path).status, 504);
}

/// It joined, and missed what had been acknowledged before it came.
#[test]
fn a_query_after_a_push_joins_none_that_began_before_it() {
    let (mut appliance, end) = filled();
    restart(&mut appliance, "scan-unit=sleep(100)");
    let path = path("{job=\"slow\"}", end, "&limit=1000");
    let url = appliance.url("loki.listen", &path);
    let held = || appliance.metric("memory_used_bytes", &[("account", "queries")]);
    let shared = || appliance.metric("queries_shared", &[]);
    let begin = || {
        let url = url.clone();
        let asked = std::thread::spawn(move || {
            let answer = request(&agent(), "GET", &url, &[], b"").expect("an answer");
            streams_of(&answer.json()).len()
        });
        appliance.wait("a query that runs", || (held() > 0.0).then_some(()));
        asked
    };
    let before = begin();
    let at = (end - 1).to_string();
    let streams = json!([{ "stream": { "job": "slow", "n": "0" }, "values": [[at, "late"]] }]);
    assert_eq!(appliance.push(&json!({ "streams": streams })).status, 204);
    let after = streams_of(&appliance.get("loki.listen", &path).json());
    assert_eq!((after.len(), &*after[0].1), (301, "late"));
    assert!(before.join().expect("no panic") >= 300);
    appliance.wait("no query", || (held() == 0.0).then_some(()));
    // Without a push between they are one.
    let known = shared();
    let first = begin();
    let second = streams_of(&appliance.get("loki.listen", &path).json());
    assert_eq!((second.len(), first.join().expect("no panic")), (301, 301));
    assert_eq!(shared() - known, 1.0);
}
