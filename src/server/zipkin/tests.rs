use std::net::SocketAddr;

use super::*;
use crate::server::spans::memory::{Memory, fixture, gzip, metrics, send, serve, sink};

const JSON: (&str, &str) = ("content-type", "application/json");
const THRIFT: (&str, &str) = ("content-type", "application/x-thrift");

async fn door() -> (SocketAddr, Arc<Memory>) {
    let sink = sink();
    let options = ZipkinOptions {
        max_body_bytes: 10_000,
    };
    let address = serve(router(sink.clone(), metrics().1, &options)).await;
    (address, sink)
}

#[tokio::test]
async fn each_form_of_both_versions_gets_202_and_nothing_else() {
    for (path, header, body, format) in [
        (
            "/api/v1/spans",
            JSON,
            "pyzipkin-v1-json",
            SpanFormat::ZipkinJsonV1,
        ),
        (
            "/api/v1/spans",
            THRIFT,
            "zipkin-v1-thrift",
            SpanFormat::ZipkinThrift,
        ),
        (
            "/api/v2/spans",
            ("content-type", "application/json; charset=utf-8"),
            "nodeotel-zipkin",
            SpanFormat::ZipkinJsonV2,
        ),
    ] {
        let body = fixture(&format!("captured/{body}.bin"));
        for (headers, body) in [
            (vec![header], body.clone()),
            (vec![header, ("content-encoding", "gzip")], gzip(&body)),
        ] {
            let (address, sink) = door().await;
            let answer = send(address, "POST", path, &headers, body).await;
            assert_eq!((answer.status, answer.text()), (202, ""), "{path}");
            assert_eq!(sink.only().1, format);
        }
    }
    let (address, sink) = door().await;
    let span = [
        &[0x0a, 20][..],
        &[0x0a, 8, 0, 0, 0, 0, 0, 0, 0, 1],
        &[0x1a, 8, 0, 0, 0, 0, 0, 0, 0, 2],
    ]
    .concat();
    let headers = [("content-type", "application/x-protobuf")];
    let answer = send(address, "POST", "/api/v2/spans", &headers, span).await;
    assert_eq!((answer.status, answer.text()), (202, ""));
    assert_eq!(sink.only().1, SpanFormat::ZipkinProto);
}

#[tokio::test]
async fn errors_say_what_is_wrong() {
    let (address, _sink) = door().await;
    for (path, headers, body, status, gist) in [
        (
            "/api/v2/spans",
            vec![],
            &b"[]"[..],
            400,
            "Cannot parse Content-Type: ",
        ),
        (
            "/api/v2/spans",
            vec![THRIFT],
            b"[]",
            400,
            "Unsupported Content-Type",
        ),
        (
            "/api/v2/spans",
            vec![JSON],
            b"[",
            400,
            "Unable to process request body: ",
        ),
        (
            "/api/v1/spans",
            vec![THRIFT],
            b"",
            400,
            "Unable to process request body: ",
        ),
        (
            "/api/v2/spans",
            vec![JSON],
            &[b' '; 10_001],
            413,
            "larger than 10000 bytes",
        ),
    ] {
        let answer = send(address, "POST", path, &headers, body.to_vec()).await;
        assert_eq!(answer.status, status, "{path} {gist}");
        assert!(answer.text().contains(gist), "{}", answer.text());
    }
    let empty = send(address, "POST", "/api/v2/spans", &[JSON], b"[]".to_vec()).await;
    assert_eq!(empty.status, 202);
    let get = send(address, "GET", "/api/v2/spans", &[], Vec::new()).await;
    assert_eq!(get.status, 405);
}

#[tokio::test]
async fn a_page_of_any_origin_may_send() {
    let (address, _sink) = door().await;
    let headers = [
        ("origin", "http://shop.example"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type"),
    ];
    let answer = send(address, "OPTIONS", "/api/v2/spans", &headers, Vec::new()).await;
    assert_eq!(answer.status, 200);
    let header = |name: &str| {
        answer
            .headers
            .get(name)
            .map(|v| v.to_str().unwrap().to_owned())
    };
    assert_eq!(header("access-control-allow-origin").as_deref(), Some("*"));
    assert_eq!(
        header("access-control-allow-methods").as_deref(),
        Some("POST")
    );
    assert_eq!(
        header("access-control-allow-headers").as_deref(),
        Some("content-type")
    );
}
