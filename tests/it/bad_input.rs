//! What the world can send: a clear status, a counter that moves, the good part kept, and
//! a process that goes on in the memory it was given.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::appliance::{Answer, Appliance, PATIENCE, Setup, now, streams_of};
use crate::senders::{
    SentSpan, gzip, loki_protobuf, otlp_json, otlp_protobuf, push_request, snappy, varint,
};

/// The budget of 256 MiB, code, stacks, and what the allocator keeps.
const MEMORY_MAX: u64 = 400 << 20;

const PROTOBUF: (&str, &str) = ("Content-Type", "application/x-protobuf");
const JSON: (&str, &str) = ("Content-Type", "application/json");
const THRIFT: (&str, &str) = ("Content-Type", "application/x-thrift");
const GZIP: (&str, &str) = ("Content-Encoding", "gzip");
const DEFLATE: (&str, &str) = ("Content-Encoding", "deflate");

fn captured(name: &str) -> Vec<u8> {
    fixture("captured", name)
}

fn fixture(kind: &str, name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/jaeger");
    std::fs::read(path.join(kind).join(name)).expect("a fixture")
}

/// Shrinks by a factor of a thousand.
fn gzip_bomb(megabytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeros = vec![b'0'; 1 << 20];
    for _ in 0..megabytes {
        encoder.write_all(&zeros).expect("into memory");
    }
    encoder.finish().expect("into memory")
}

/// A snappy header that promises almost 4 GiB.
fn snappy_bomb() -> Vec<u8> {
    let mut bomb = Vec::new();
    varint(&mut bomb, 0xffff_fff0);
    bomb.extend_from_slice(&[0; 100]);
    bomb
}

/// Noise that is the same every time.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(step).take(bytes).collect()
}

fn good_push() -> Vec<u8> {
    let line = b"a line".as_slice();
    push_request(&[("{job=\"x\"}".to_owned(), vec![(now(), line)])])
}

#[track_caller]
fn still_well(appliance: &Appliance) {
    let line = json!({ "streams": [{ "stream": { "job": "alive" },
        "values": [[now().to_string(), "still here"]] }] });
    let answer = appliance.push(&line);
    assert_eq!(answer.status, 204, "{}", answer.text());
    let found = appliance.lines("{job=\"alive\"}");
    assert_eq!(found.last().map(|(_, line)| &**line), Some("still here"));
    let (_, peak) = appliance.resident();
    assert!(peak < MEMORY_MAX, "{} MB at the peak", peak >> 20);
}

#[test]
fn a_push_that_cannot_be_read_is_refused_with_its_status() {
    let appliance = Setup::default().start();
    let good = snappy(&good_push());
    let text = json!({ "streams": [{ "stream": { "job": "x" }, "values": [["1", "y"]] }] });
    let text = text.to_string().into_bytes();
    let nested = b"[".repeat(1 << 20);
    let nested_object = b"{\"a\":".repeat(1 << 18);
    let huge = vec![b' '; 65 << 20];
    let mut invalid_utf8 = b"{\"streams\":[{\"stream\":{\"a\":\"".to_vec();
    invalid_utf8.extend_from_slice(b"\xff\xfe\"},\"values\":[[\"1\",\"x\"]]}]}");
    type Body<'a> = (&'a str, &'a [(&'a str, &'a str)], Vec<u8>, u16);
    let bodies: [Body<'_>; 21] = [
        ("nothing", &[PROTOBUF], Vec::new(), 400),
        (
            "noise",
            &[PROTOBUF],
            [&[100], &noise(1000)[..]].concat(),
            400,
        ),
        (
            "noise within snappy",
            &[PROTOBUF],
            snappy(&noise(1000)),
            400,
        ),
        (
            "half of a good one",
            &[PROTOBUF],
            good[..good.len() / 2].to_vec(),
            400,
        ),
        (
            "half of one within snappy",
            &[PROTOBUF],
            snappy(&good_push()[..20]),
            400,
        ),
        ("not compressed", &[PROTOBUF], good_push(), 400),
        ("a snappy length bomb", &[PROTOBUF], snappy_bomb(), 413),
        ("a gzip bomb", &[JSON, GZIP], gzip_bomb(200), 413),
        (
            "a gzip bomb of protobuf",
            &[PROTOBUF, GZIP],
            gzip_bomb(200),
            413,
        ),
        ("noise as gzip", &[JSON, GZIP], noise(1000), 400),
        ("noise as deflate", &[JSON, DEFLATE], noise(1000), 400),
        (
            "half of a gzip",
            &[JSON, GZIP],
            gzip(&text)[..30].to_vec(),
            400,
        ),
        (
            "an unknown coding",
            &[JSON, ("Content-Encoding", "br")],
            text.clone(),
            400,
        ),
        (
            "a wrong type",
            &[("Content-Type", "application json")],
            text.clone(),
            400,
        ),
        ("noise as JSON", &[JSON], noise(1000), 400),
        (
            "half of a JSON",
            &[JSON],
            text[..text.len() / 2].to_vec(),
            400,
        ),
        ("no JSON at all", &[JSON], Vec::new(), 400),
        ("deeply nested arrays", &[JSON], nested, 400),
        ("deeply nested objects", &[JSON], nested_object, 400),
        ("labels that are not UTF-8", &[JSON], invalid_utf8, 400),
        ("too many bytes", &[JSON], huge, 413),
    ];
    let count = bodies.len();
    let mut wrong = Vec::new();
    for (what, headers, body, status) in bodies {
        let count = || {
            let status = status.to_string();
            let labels = [("endpoint", "/loki/api/v1/push"), ("status", &*status)];
            appliance.metric("http_requests", &labels)
        };
        let before = count();
        let answer = appliance.post_in_vain("loki.listen", "/loki/api/v1/push", headers, &body);
        if answer.status != status || answer.text().trim().is_empty() {
            wrong.push(format!(
                "{what}: {} instead of {status}: {}",
                answer.status,
                answer.text()
            ));
        } else if count() != before + 1.0 {
            wrong.push(format!("{what}: not counted"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {count}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert_eq!(appliance.metric("ingest_lines", &[]), 0.0);
    still_well(&appliance);
}

#[test]
fn of_a_push_the_good_part_is_kept_and_the_rest_counted_by_reason() {
    let appliance = Setup::default().start();
    let long = "x".repeat(10 << 20);
    let now = now();
    let year_2100 = 4_102_444_800_000_000_000_i64;
    let labels: serde_json::Map<String, Value> =
        (0..1000).map(|n| (format!("l{n}"), json!("v"))).collect();
    let value = |at: i64, line: &str| json!([at.to_string(), line]);
    let job = json!({ "job": "part" });
    let cases: [(&str, Value, Value); 5] = [
        ("line_too_long", job.clone(), value(now, &long)),
        (
            "max_label_names_per_series",
            Value::Object(labels),
            value(now, "of many labels"),
        ),
        (
            "greater_than_max_sample_age",
            job.clone(),
            value(0, "of 1970"),
        ),
        (
            "too_far_in_future",
            job.clone(),
            value(year_2100, "of 2100"),
        ),
        (
            "label_value_too_long",
            json!({ "job": "y".repeat(3000) }),
            value(now, "of a long value"),
        ),
    ];
    for (n, (reason, stream, bad)) in cases.into_iter().enumerate() {
        let good = format!("good {n}");
        let at = now + n as i64;
        let body = if stream == job {
            json!({ "streams": [{ "stream": job, "values": [bad, value(at, &good)] }] })
        } else {
            json!({ "streams": [{ "stream": stream, "values": [bad] },
                                { "stream": job, "values": [value(at, &good)] }] })
        };
        let answer = appliance.push(&body);
        assert_eq!(answer.status, 400, "{reason}: {}", answer.text());
        assert!(
            answer.body.len() < 100_000,
            "{reason}: {} bytes of answer",
            answer.body.len()
        );
        assert_eq!(
            appliance.metric("ingest_refused_lines", &[("reason", reason)]),
            1.0,
            "{reason}"
        );
    }
    let found: Vec<String> = appliance
        .lines("{job=~\".+\"}")
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(found, ["good 0", "good 1", "good 2", "good 3", "good 4"]);
    still_well(&appliance);
}

#[test]
fn a_line_of_any_bytes_comes_back_as_valid_json() {
    let mut appliance = Setup::default().start();
    let lines: [&[u8]; 4] = [
        b"good before",
        b"bad \xff\xfe bytes",
        b"nul \0 and \x1b[31m",
        b"good after",
    ];
    let entries = lines
        .iter()
        .zip(now()..)
        .map(|(line, at)| (at, *line))
        .collect();
    let body = loki_protobuf(&[("{job=\"bytes\"}".to_owned(), entries)]);
    let answer = appliance.post("loki.listen", "/loki/api/v1/push", &[PROTOBUF], &body);
    assert_eq!(answer.status, 204, "{}", answer.text());
    for _ in 0..2 {
        let found: Vec<String> = appliance
            .lines("{job=\"bytes\"}")
            .into_iter()
            .map(|(_, line)| line)
            .collect();
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!((&*found[0], &*found[3]), ("good before", "good after"));
        assert!(
            found[1].starts_with("bad \u{fffd}") && found[1].ends_with(" bytes"),
            "{found:?}"
        );
        assert_eq!(found[2], "nul \0 and \x1b[31m");
        let found = appliance.lines("{job=\"bytes\"} |= \"bytes\"");
        assert_eq!(found.len(), 1, "{found:?}");
        appliance.flush();
        appliance.kill();
        appliance.start();
        appliance.wait_recovered();
    }
}

#[test]
fn exports_of_spans_that_cannot_be_read_are_refused_and_counted() {
    let appliance = Setup::default().start();
    let span = SentSpan {
        trace: 7,
        span: 8,
        parent: 0,
        name: "x".into(),
        start: now(),
        seq: "1".into(),
    };
    let good = otlp_protobuf("svc", std::slice::from_ref(&span));
    let good_json = otlp_json("svc", std::slice::from_ref(&span))
        .to_string()
        .into_bytes();
    let batch = captured("go-http.bin");
    let nested = b"{\"resourceSpans\":".repeat(1 << 18);
    type Body<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Vec<u8>, u16);
    let bodies: [Body<'_>; 16] = [
        ("otlp.http", "noise", &[PROTOBUF], noise(1000), 400),
        (
            "otlp.http",
            "half",
            &[PROTOBUF],
            good[..good.len() / 2].to_vec(),
            400,
        ),
        (
            "otlp.http",
            "half of JSON",
            &[JSON],
            good_json[..good_json.len() / 2].to_vec(),
            400,
        ),
        ("otlp.http", "noise as JSON", &[JSON], noise(1000), 400),
        ("otlp.http", "nested JSON", &[JSON], nested, 400),
        (
            "otlp.http",
            "noise as gzip",
            &[JSON, GZIP],
            noise(1000),
            400,
        ),
        (
            "otlp.http",
            "a gzip bomb",
            &[PROTOBUF, GZIP],
            gzip_bomb(100),
            413,
        ),
        (
            "otlp.http",
            "too many bytes",
            &[PROTOBUF],
            vec![0; 17 << 20],
            413,
        ),
        (
            "otlp.http",
            "another type",
            &[("Content-Type", "text/plain")],
            good.clone(),
            415,
        ),
        (
            "jaeger.collector.http",
            "nothing",
            &[THRIFT],
            Vec::new(),
            400,
        ),
        (
            "jaeger.collector.http",
            "noise",
            &[THRIFT],
            noise(1000),
            400,
        ),
        (
            "jaeger.collector.http",
            "half",
            &[THRIFT],
            batch[..batch.len() / 2].to_vec(),
            400,
        ),
        (
            "jaeger.collector.http",
            "a length bomb",
            &[THRIFT],
            {
                // A list of 2^31 - 1 spans.
                let mut bytes = vec![15, 0, 2, 12];
                bytes.extend_from_slice(&i32::MAX.to_be_bytes());
                bytes
            },
            400,
        ),
        (
            "jaeger.collector.http",
            "another type",
            &[JSON],
            batch.clone(),
            400,
        ),
        (
            "jaeger.collector.http",
            "a gzip bomb",
            &[THRIFT, GZIP],
            gzip_bomb(100),
            413,
        ),
        (
            "jaeger.collector.http",
            "too many bytes",
            &[THRIFT],
            vec![0; 17 << 20],
            413,
        ),
    ];
    let mut wrong = Vec::new();
    for (key, what, headers, body, status) in bodies {
        let (path, transport) = match key {
            "otlp.http" => ("/v1/traces", "otlp_http"),
            _ => ("/api/traces", "jaeger_http"),
        };
        let count = || appliance.metric("span_messages_refused", &[("transport", transport)]);
        let before = count();
        let answer = appliance.post_in_vain(key, path, headers, &body);
        if answer.status != status {
            wrong.push(format!(
                "{key} {what}: {} instead of {status}: {}",
                answer.status,
                answer.text()
            ));
        } else if count() != before + 1.0 {
            wrong.push(format!("{key} {what}: not counted"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(appliance.metric("spans_stored", &[]), 0.0);

    // A span without an id is left out, the one beside it is kept.
    let mut export = otlp_json("svc", &[span.clone(), SentSpan { span: 9, ..span }]);
    export["resourceSpans"][0]["scopeSpans"][0]["spans"][1]["traceId"] = json!("");
    let answer = appliance.post(
        "otlp.http",
        "/v1/traces",
        &[JSON],
        export.to_string().as_bytes(),
    );
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(
        answer.json()["partialSuccess"]["rejectedSpans"],
        "1",
        "{}",
        answer.text()
    );
    assert_eq!(appliance.metric("spans_stored", &[]), 1.0);
    still_well(&appliance);
}

#[test]
fn datagrams_that_cannot_be_read_are_counted_and_the_next_one_is_taken() {
    let appliance = Setup::default().start();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let port = appliance
        .address("jaeger.agent.compact")
        .expect("listening");
    let refused = || appliance.metric("span_messages_refused", &[("transport", "udp_compact")]);
    let taken = || appliance.metric("spans_accepted", &[("transport", "udp_compact")]);
    let (_, before) = appliance.resident();
    let index: Value =
        serde_json::from_slice(&fixture("malformed", "index.json")).expect("the index");
    for case in index.as_array().expect("cases") {
        let file = case["file"].as_str().expect("a file");
        let accepted = case["expect"]
            .as_str()
            .is_some_and(|e| e.contains("are accepted"));
        let (refused_before, taken_before) = (refused(), taken());
        socket
            .send_to(&fixture("malformed", file), port)
            .expect("sent");
        let good = captured("go-traefik64.bin");
        socket.send_to(&good, port).expect("sent");
        let wanted = taken_before + if accepted { 4.0 } else { 2.0 };
        appliance.wait(file, || (taken() >= wanted).then_some(()));
        assert_eq!(taken(), wanted, "{file}");
        let more = if accepted { 0.0 } else { 1.0 };
        assert_eq!(refused(), refused_before + more, "{file}");
    }
    // Larger than any that is taken.
    let refused_before = refused();
    socket.send_to(&vec![0; 65_100], port).expect("sent");
    appliance.wait("the large one", || {
        (refused() > refused_before).then_some(())
    });
    let (_, after) = appliance.resident();
    assert!(
        after < before + (64 << 20),
        "{} MB more",
        (after - before) >> 20
    );
    still_well(&appliance);
}

#[test]
fn a_port_for_grpc_outlives_whoever_speaks_something_else() {
    let appliance = Setup::default().start();
    for key in ["otlp.grpc", "jaeger.collector.grpc"] {
        let address = appliance.address(key).expect("listening");
        let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        preface.extend(noise(10_000));
        // A frame of 16 MB that never comes.
        let frame =
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x04\x00\x00\x00\x00\x00".to_vec();
        for sent in [
            noise(10_000),
            preface,
            frame,
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ] {
            let mut stream = TcpStream::connect(address).expect("connects");
            stream
                .set_read_timeout(Some(Duration::from_millis(200)))
                .expect("set");
            let _ = stream.write_all(&sent);
            let _ = stream.read(&mut [0; 100]);
        }
        // An answer in gRPC's way: the status is in the head.
        let grpc = [("Content-Type", "application/grpc")];
        let path = match key {
            "otlp.grpc" => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            _ => "/jaeger.api_v2.CollectorService/PostSpans",
        };
        let mut message = vec![0, 0, 0, 0, 100];
        message.extend(noise(100));
        let answer = appliance.post(key, path, &grpc, &message);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(appliance.metric("spans_stored", &[]), 0.0);
    still_well(&appliance);
}

#[test]
fn a_full_disk_refuses_what_can_be_sent_again_and_answers_queries() {
    let mut appliance = Setup::default().start();
    let line = |n: i64| {
        json!({ "streams": [{ "stream": { "job": "disk" },
            "values": [[(now() + n).to_string(), format!("line {n}")]] }] })
    };
    assert_eq!(appliance.push(&line(0)).status, 204);
    assert!(appliance.stop().success());

    appliance.expect_log("nearly full");
    appliance.expect_log("request failed");
    appliance.change(|setup| setup.set("storage.min_free_bytes", "\"1000000TiB\""));
    appliance.start();
    appliance.wait_recovered();
    assert!(
        appliance
            .get("loki.listen", "/ready")
            .text()
            .contains("nearly full")
    );
    let span = SentSpan {
        trace: 7,
        span: 8,
        parent: 0,
        name: "x".into(),
        start: now(),
        seq: "1".into(),
    };
    let export = otlp_json("svc", &[span]).to_string();
    let is_retryable = |answer: Answer| {
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(
            answer.text().contains("min_free_bytes"),
            "{}",
            answer.text()
        );
    };
    is_retryable(appliance.push(&line(1)));
    is_retryable(appliance.post("otlp.http", "/v1/traces", &[JSON], export.as_bytes()));
    let answer = appliance.post(
        "jaeger.collector.http",
        "/api/traces",
        &[THRIFT],
        &captured("go-http.bin"),
    );
    assert_eq!(answer.status, 500, "as Jaeger says it: {}", answer.text());
    assert_eq!(
        appliance.metric("ingest_refused_lines", &[("reason", "no_space")]),
        1.0
    );
    assert_eq!(
        appliance.metric("spans_refused", &[("reason", "no_space")]),
        3.0
    );
    assert_eq!(
        appliance.lines("{job=\"disk\"}").len(),
        1,
        "what is there can be read"
    );
    assert!(appliance.stop().success());

    appliance.change(|setup| setup.set("storage.min_free_bytes", "\"1MiB\""));
    appliance.start();
    appliance.wait_recovered();
    assert_eq!(appliance.push(&line(2)).status, 204);
    let found: Vec<String> = appliance
        .lines("{job=\"disk\"}")
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(found, ["line 0", "line 2"], "nothing of what was refused");
}

#[test]
fn what_is_open_has_to_find_room_on_the_disk_when_it_is_sealed() {
    let mut appliance = Setup::default()
        .set("storage.min_free_bytes", "\"64MiB\"")
        .prepare();
    appliance.expect_log("nearly full");
    appliance.expect_log("request failed");
    // 4 MiB more than must be left.
    appliance.set_fail_points(&format!("disk-free=return({})", 68 << 20));
    appliance.start();
    let letters = noise(41 * 200 * 4096);
    let letters: String = letters.iter().map(|b| char::from(b'a' + b % 26)).collect();
    let push = |n: usize| {
        let value = |i: usize| {
            let line = &letters[(n * 200 + i) * 4096..][..4096];
            json!([(now() + i as i64).to_string(), line])
        };
        let values: Vec<Value> = (0..200).map(value).collect();
        appliance.push(&json!({ "streams": [{ "stream": { "job": "open" }, "values": values }] }))
    };
    // 0.8 MB each. What was pushed before the disk is looked at again is taken.
    let refused = (0..40).map(push).position(|answer| answer.status == 503);
    assert!(refused.is_some_and(|n| n >= 4), "{refused:?}");
    appliance.flush();
    let taken = || push(40).status == 204;
    let deadline = std::time::Instant::now() + PATIENCE;
    while !taken() {
        assert!(std::time::Instant::now() < deadline, "sealed, and no room");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_client_that_stalls_or_goes_away_holds_nothing_up() {
    let appliance = Setup::default().start();
    let address = appliance.address("loki.listen").expect("listening");
    let mut stalled = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(address).expect("connects");
        // 60 MB are promised and never come: together they would be 3 GB.
        let head = "POST /loki/api/v1/push HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                    content-length: 60000000\r\n\r\n{\"streams\":";
        stream.write_all(head.as_bytes()).expect("sent");
        stalled.push(stream);
    }
    drop(stalled.split_off(10));
    drop(stalled);
    let begun = std::time::Instant::now();
    let line = json!({ "streams": [{ "stream": { "job": "later" },
        "values": [[now().to_string(), "x"]] }] });
    while appliance.push(&line).status != 204 {
        assert!(begun.elapsed() < PATIENCE, "never taken again");
        std::thread::sleep(Duration::from_millis(50));
    }
    let found = streams_of(
        &appliance
            .get(
                "loki.listen",
                "/loki/api/v1/query_range?query=%7Bjob%3D%22later%22%7D",
            )
            .json(),
    );
    assert_eq!(found.len(), 1);
    still_well(&appliance);
}
