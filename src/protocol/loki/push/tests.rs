use std::io::Write;

use proptest::prelude::*;

use super::encode::{Entry, snappy};
use super::*;

fn limits() -> DecodeLimits {
    DecodeLimits::default()
}

fn json(body: &str) -> Result<DecodedPush, DecodeError> {
    decode_push(
        PushFormat::JsonV1,
        Coding::Identity,
        body.as_bytes(),
        &limits(),
    )
}

fn legacy(body: &str) -> Result<DecodedPush, DecodeError> {
    decode_push(
        PushFormat::JsonLegacy,
        Coding::Identity,
        body.as_bytes(),
        &limits(),
    )
}

fn protobuf(body: &[u8]) -> Result<DecodedPush, DecodeError> {
    decode_push(
        PushFormat::ProtobufSnappy,
        Coding::Identity,
        body,
        &limits(),
    )
}

/// One line per entry: `{labels} time line [name=value …]`.
fn shown(decoded: &DecodedPush) -> Vec<String> {
    let batch = &decoded.batch;
    let mut out = Vec::new();
    for stream in &batch.streams {
        for entry in &stream.entries {
            let line = String::from_utf8_lossy(batch.line(entry));
            let mut text = format!("{} {} {line}", stream.labels, entry.at);
            for (name, value) in batch.metadata(entry).into_iter().flat_map(|m| m.iter()) {
                text += &format!(" [{name}={value}]");
            }
            out.push(text);
        }
    }
    out
}

#[track_caller]
fn check_json(body: &str, expected: &[&str]) {
    assert_eq!(shown(&json(body).expect("valid")), expected, "{body}");
}

#[track_caller]
fn check_invalid(result: Result<DecodedPush, DecodeError>, part: &str) {
    match result {
        Err(DecodeError::Invalid(text)) => assert!(text.contains(part), "{text}"),
        other => panic!("expected an error with {part:?}, got {other:?}"),
    }
}

#[test]
fn a_protobuf_push_becomes_streams_over_one_text() {
    let streams = vec![
        (
            r#"{b="2", a="1"}"#.to_owned(),
            vec![
                Entry::new(1_000_000_001, "one")
                    .with("x.y", "v")
                    .with("a", "w"),
                Entry::new(-1, "").with("x.y", "v").with("a", "w"),
                Entry::new(5, "three"),
            ],
        ),
        (r#"{a="empty"}"#.to_owned(), vec![]),
        (
            r#"{c="3"}"#.to_owned(),
            vec![Entry::new(7, "four").with("a", "b").with("a", "c")],
        ),
    ];
    let decoded = protobuf(&snappy(&streams)).expect("valid");
    assert_eq!(
        shown(&decoded),
        [
            r#"{a="1", b="2"} 1000000001 one [a=w] [x_y=v]"#,
            r#"{a="1", b="2"} -1  [a=w] [x_y=v]"#,
            r#"{a="1", b="2"} 5 three"#,
            r#"{c="3"} 7 four [a=c]"#,
        ]
    );
    assert_eq!(decoded.batch.metadata.len(), 2, "equal sets are one");
    assert!(decoded.refused.is_empty());
}

#[test]
fn a_request_without_streams_is_told_from_one_without_entries() {
    assert_eq!(protobuf(&[0]).err(), Some(DecodeError::NoStreams));
    assert_eq!(json("{}").err(), Some(DecodeError::NoStreams));
    assert_eq!(
        json(r#"{"streams":[]}"#).err(),
        Some(DecodeError::NoStreams)
    );
    assert_eq!(
        json(r#"{"streams":null}"#).err(),
        Some(DecodeError::NoStreams)
    );
    assert_eq!(legacy("{}").err(), Some(DecodeError::NoStreams));
    check_json(r#"{"streams":[{"stream":{"a":"1"},"values":[]}]}"#, &[]);
    check_json(r#"{"streams":[{"stream":{"a":"1"},"values":null}]}"#, &[]);
    check_json(r#"{"streams":[{}]}"#, &[]);
    let empty = protobuf(&snappy(&[("not even labels".to_owned(), vec![])])).expect("skipped");
    assert!(empty.batch.streams.is_empty());
}

#[test]
fn times_are_checked_for_range_entry_by_entry() {
    let mut far = Entry::new(0, "far");
    far.seconds = 1 << 40;
    let decoded = protobuf(&snappy(&[(
        r#"{a="1"}"#.into(),
        vec![far.clone(), Entry::new(1, "near")],
    )]));
    let decoded = decoded.expect("one entry is left");
    assert_eq!(shown(&decoded), [r#"{a="1"} 1 near"#]);
    assert_eq!(
        (decoded.refused[0].entries, decoded.refused[0].reason),
        (1, "time_out_of_range")
    );
    far.nanos = 1_000_000_000;
    check_invalid(
        protobuf(&snappy(&[(r#"{a="1"}"#.into(), vec![far])])),
        "nanoseconds",
    );
    let decoded = legacy(
        r#"{"streams":[{"labels":"{a=\"1\"}","entries":[{"ts":"9999-01-01T00:00:00Z","line":"x"}]}]}"#,
    );
    assert_eq!(decoded.expect("read").refused.len(), 1);
    check_invalid(
        json(r#"{"streams":[{"stream":{},"values":[["99999999999999999999","x"]]}]}"#),
        "99999999999999999999",
    );
}

#[test]
fn a_duplicate_label_costs_its_stream_only() {
    let decoded = protobuf(&snappy(&[
        (
            r#"{a="1", a="2"}"#.into(),
            vec![Entry::new(1, "x"), Entry::new(2, "y")],
        ),
        (r#"{a="1"}"#.into(), vec![Entry::new(3, "z")]),
    ]))
    .expect("valid");
    assert_eq!(shown(&decoded), [r#"{a="1"} 3 z"#]);
    assert_eq!(
        (decoded.refused[0].reason, decoded.refused[0].entries),
        ("duplicate_label", 2)
    );
}

#[test]
fn unparsable_labels_fail_the_whole_request_with_a_position() {
    let good = (r#"{a="1"}"#.to_owned(), vec![Entry::new(1, "x")]);
    for bad in ["{a-b=\"1\"}", "", "{"] {
        let bad = (bad.to_owned(), vec![Entry::new(1, "x")]);
        check_invalid(
            protobuf(&snappy(&[good.clone(), bad])),
            "couldn't parse labels",
        );
    }
    for (labels, place) in [
        (r#"{"a-b":"1"}"#, "1:3:"),
        (r#"{"a.b":"1"}"#, "1:3:"),
        (r#"{"1a":"1"}"#, "1:2:"),
        (r#"{"é":"1"}"#, "1:2:"),
        (r#"{"":"1"}"#, "1:2:"),
        (r#"{"a=\"1\", b":"1"}"#, "1:2:"),
    ] {
        let body = format!(r#"{{"streams":[{{"stream":{labels},"values":[["1","x"]]}}]}}"#);
        check_invalid(json(&body), "couldn't parse labels");
        check_invalid(json(&body), place);
    }
}

#[test]
fn json_follows_lokis_rules() {
    check_json(
        r#"{"other":[1,{"x":null}],"streams":[{"stream":{"b":"2","a":"1","e":""},"extra":1,
            "values":[["1","on\te"],null,["2"],["3","th\u0072ee",{"x.y":"\u00e9","9":""},7,"8"]]}]}"#,
        &[
            r#"{a="1", b="2"} 1 on	e"#,
            r#"{a="1", b="2"} 2 "#,
            r#"{a="1", b="2"} 3 three [key_9=] [x_y=é]"#,
        ],
    );
    // Values may come before labels; a number is taken as its text, the last key wins.
    check_json(
        r#"{"streams":[{"values":[["5","x"]],"stream":{"n":1.50,"m":1e3,"t":true,"z":"1","z":"2"}}]}"#,
        &[r#"{m="1e3", n="1.50", t="true", z="2"} 5 x"#],
    );
    check_json(
        r#"{"streams":[null,{"stream":{},"values":[["5","x"]]}]}"#,
        &["{} 5 x"],
    );
    for (values, part) in [
        (r#"[[1,"x"]]"#, "string of digits"),
        (r#"[["1.5","x"]]"#, "1.5"),
        (r#"[["","x"]]"#, "timestamp"),
        (r#"[[]]"#, "timestamp"),
        (r#"[["1",2]]"#, "line"),
        (r#"[["1","x",{"a":1}]]"#, "line"),
        (r#"[["1","x",["a"]]]"#, "structured metadata"),
        (r#"[["1","x",{"-":"1"}]]"#, "no letter or digit"),
        (r#"[["1","x",{"":"1"}]]"#, "no letter or digit"),
        (r#"{"1":"x"}"#, "entries"),
        (r#"["1","x"]"#, "entry"),
    ] {
        let body = format!(r#"{{"streams":[{{"stream":{{"a":"1"}},"values":{values}}}]}}"#);
        check_invalid(json(&body), part);
    }
    for body in [
        "",
        "[]",
        "null",
        "{\"streams\":[",
        "{\"streams\":{}}",
        "{} x",
    ] {
        check_invalid(json(body), "JSON");
    }
    check_invalid(
        json(r#"{"streams":[{"stream":{"a":null},"values":[["1","x"]]}]}"#),
        "null",
    );
}

#[test]
fn equal_metadata_is_one_set_in_json_too() {
    let body = r#"{"streams":[{"stream":{"a":"1"},"values":[
        ["1","x",{"t":"1","u":"2"}],["2","y",{"u":"2","t":"1"}],["3","z",{"t":"2"}],["4","w",{}]]}]}"#;
    let decoded = json(body).expect("valid");
    assert_eq!(decoded.batch.metadata.len(), 2);
    assert_eq!(decoded.batch.streams[0].entries[3].metadata, 0);
}

#[test]
fn legacy_json_has_label_text_and_rfc3339() {
    let decoded = legacy(
        r#"{"streams":[{"labels":"{b=\"2\",a=\"1\"}","entries":[
            {"ts":"1970-01-01T00:00:01.000000002Z","line":"x","structuredMetadata":{"k":"v"}},
            {"line":"y","ts":"1970-01-01T01:00:00+01:00"}, null, {"ts":"1970-01-01T00:00:00Z"}]}]}"#,
    )
    .expect("valid");
    assert_eq!(
        shown(&decoded),
        [
            r#"{a="1", b="2"} 1000000002 x [k=v]"#,
            r#"{a="1", b="2"} 0 y"#,
            r#"{a="1", b="2"} 0 "#,
        ]
    );
    check_invalid(
        legacy(r#"{"streams":[{"labels":"{","entries":[]}]}"#),
        "couldn't parse labels",
    );
    check_invalid(
        legacy(r#"{"streams":[{"labels":"{}","entries":[{"ts":"5","line":"x"}]}]}"#),
        "RFC 3339",
    );
    check_invalid(
        legacy(r#"{"streams":[{"labels":"{}","entries":[{"line":"x"}]}]}"#),
        "timestamp",
    );
}

#[test]
fn lines_that_are_not_utf8_are_kept_as_they_are() {
    let mut entry = Entry::new(1, "");
    entry.line = b"a\xffb".to_vec();
    entry.metadata.push(("k".into(), b"v\xff".to_vec()));
    let decoded = protobuf(&snappy(&[(r#"{a="1"}"#.into(), vec![entry])])).expect("valid");
    let entry = decoded.batch.streams[0].entries[0];
    assert_eq!(decoded.batch.line(&entry), b"a\xffb");
    assert_eq!(&*decoded.batch.metadata(&entry).expect("set")[0].1, "v ");
    let body = b"{\"streams\":[{\"stream\":{\"a\":\"1\"},\"values\":[[\"1\",\"a\xffb\"]]}]}";
    let decoded = decode_push(PushFormat::JsonV1, Coding::Identity, body, &limits());
    let decoded = decoded.expect("valid");
    assert_eq!(
        decoded.batch.line(&decoded.batch.streams[0].entries[0]),
        b"a\xffb"
    );
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

fn deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).expect("in memory");
    encoder.finish().expect("in memory")
}

#[test]
fn gzip_and_raw_deflate_are_unwrapped() {
    let body = br#"{"streams":[{"stream":{"a":"1"},"values":[["1","x"]]}]}"#;
    let decode = |format, coding, body: &[u8]| decode_push(format, coding, body, &limits());
    for (coding, wrapped) in [(Coding::Gzip, gzip(body)), (Coding::Deflate, deflate(body))] {
        let decoded = decode(PushFormat::JsonV1, coding, &wrapped).expect("valid");
        assert_eq!(shown(&decoded), [r#"{a="1"} 1 x"#]);
        check_invalid(
            decode(PushFormat::JsonV1, coding, &wrapped[..wrapped.len() - 2]),
            "valid",
        );
    }
    // Two members are one body.
    let (first, second) = body.split_at(20);
    let members = [gzip(first), gzip(second)].concat();
    assert!(decode(PushFormat::JsonV1, Coding::Gzip, &members).is_ok());
    // Outside the snappy block, too.
    let push = snappy(&[(r#"{a="1"}"#.into(), vec![Entry::new(1, "x")])]);
    assert!(decode(PushFormat::ProtobufSnappy, Coding::Gzip, &gzip(&push)).is_ok());
    // A zlib header is not raw deflate.
    let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    zlib.write_all(body).expect("in memory");
    let zlib = zlib.finish().expect("in memory");
    check_invalid(
        decode(PushFormat::JsonV1, Coding::Deflate, &zlib),
        "deflate",
    );
}

#[test]
fn bombs_are_refused_by_size_and_not_by_memory() {
    let small = DecodeLimits {
        max_text: 1000,
        max_parts: 10_000,
    };
    let too_large = |format, coding, body: &[u8]| {
        matches!(
            decode_push(format, coding, body, &small),
            Err(DecodeError::TooLarge(_))
        )
    };
    let blanks = vec![b' '; 1001];
    assert!(too_large(PushFormat::JsonV1, Coding::Gzip, &gzip(&blanks)));
    assert!(too_large(
        PushFormat::JsonV1,
        Coding::Deflate,
        &deflate(&blanks)
    ));
    assert!(too_large(PushFormat::JsonV1, Coding::Identity, &blanks));
    let packed = snap::raw::Encoder::new()
        .compress_vec(&blanks)
        .expect("small");
    assert!(too_large(
        PushFormat::ProtobufSnappy,
        Coding::Identity,
        &packed
    ));
    // A length of 4 GiB with nothing behind it.
    let mut claim = Vec::new();
    encode::varint(&mut claim, u64::from(u32::MAX));
    assert!(too_large(
        PushFormat::ProtobufSnappy,
        Coding::Identity,
        &claim
    ));
    check_invalid(
        decode_push(
            PushFormat::ProtobufSnappy,
            Coding::Identity,
            &claim,
            &DecodeLimits {
                max_text: usize::MAX,
                ..small
            },
        ),
        "claims more",
    );
    // Many empty entries: little text, much memory.
    let streams = vec![(r#"{a="1"}"#.to_owned(), vec![Entry::new(0, ""); 1000])];
    let packed = snappy(&streams);
    let wide = DecodeLimits {
        max_text: 1 << 20,
        max_parts: 10_000,
    };
    assert!(matches!(
        decode_push(PushFormat::ProtobufSnappy, Coding::Identity, &packed, &wide),
        Err(DecodeError::TooLarge(_))
    ));
}

#[test]
fn codes_in_the_journal_never_change() {
    let formats = [
        PushFormat::ProtobufSnappy,
        PushFormat::JsonV1,
        PushFormat::JsonLegacy,
        PushFormat::OtlpProto,
        PushFormat::OtlpJson,
    ];
    assert_eq!(formats.map(PushFormat::code), [1, 2, 3, 4, 5]);
    let codings = [
        Coding::Identity,
        Coding::Gzip,
        Coding::Deflate,
        Coding::Zstd,
    ];
    assert_eq!(codings.map(Coding::code), [0, 1, 2, 3]);
    for format in formats {
        assert_eq!(PushFormat::from_code(format.code()), Some(format));
    }
    for coding in codings {
        assert_eq!(Coding::from_code(coding.code()), Some(coding));
    }
    assert_eq!(
        (PushFormat::from_code(0), Coding::from_code(4)),
        (None, None)
    );
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let metadata = prop::collection::vec(
        ("[a-c]{1,2}", prop::collection::vec(32..127_u8, 0..6)),
        0..3,
    );
    let entry = (
        -9_000_000_000_i64..9_000_000_000,
        0..1_000_000_000_i32,
        any::<Vec<u8>>(),
        metadata,
    )
        .prop_map(|(seconds, nanos, line, metadata)| Entry {
            seconds,
            nanos,
            line,
            metadata,
        });
    prop::collection::vec(entry, 0..6)
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(all in prop::collection::vec(entries(), 1..4)) {
        let streams: Vec<_> =
            all.into_iter().enumerate().map(|(i, e)| (format!("{{s=\"{i}\"}}"), e)).collect();
        let decoded = protobuf(&snappy(&streams)).expect("valid");
        let batch = &decoded.batch;
        let mut left = batch.streams.iter();
        for (labels, entries) in streams.iter().filter(|(_, e)| !e.is_empty()) {
            let stream = left.next().expect("as many streams");
            prop_assert_eq!(&stream.labels.to_string(), labels);
            prop_assert_eq!(stream.entries.len(), entries.len());
            for (got, sent) in stream.entries.iter().zip(entries) {
                prop_assert_eq!(got.at, sent.seconds * 1_000_000_000 + i64::from(sent.nanos));
                prop_assert_eq!(batch.line(got), &sent.line[..]);
                let wanted: std::collections::BTreeMap<_, _> =
                    sent.metadata.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
                let set: Vec<_> = batch.metadata(got).into_iter().flat_map(|m| m.iter())
                    .map(|(n, v)| (&**n, v.as_bytes())).collect();
                prop_assert_eq!(set, wanted.into_iter().collect::<Vec<_>>());
            }
        }
        prop_assert!(left.next().is_none());
    }

    #[test]
    fn a_damaged_protobuf_is_an_error_or_a_valid_batch(
        all in entries(), flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut request = encode::request(&[(r#"{a="1"}"#.to_owned(), all)]);
        for (at, byte) in flips {
            let at = at.index(request.len());
            request[at] = byte;
        }
        request.truncate(cut.index(request.len() + 1));
        if let Ok(decoded) = proto::decode(request, &limits()) {
            // Every range must lie inside the text.
            let _ = shown(&decoded);
        }
    }

    #[test]
    fn random_bytes_never_panic(body in any::<Vec<u8>>(), format in 1..4_u8, coding in 0..3_u8) {
        let format = PushFormat::from_code(format).expect("in range");
        let coding = Coding::from_code(coding).expect("in range");
        let _ = decode_push(format, coding, &body, &limits());
    }

    #[test]
    fn random_json_like_text_never_panics(
        body in r#"\{"streams":\[\{"(stream|labels|values|entries)":[\[\]{}",:0-9a-z\\u\n]{0,30}"#,
    ) {
        if let Ok(decoded) = json(&body) { let _ = shown(&decoded); }
        if let Ok(decoded) = legacy(&body) { let _ = shown(&decoded); }
    }
}
