use std::net::SocketAddr;

use super::*;
use crate::model::service_metrics::ServiceSeries;
use crate::runtime::clock::Clock;
use crate::server::jaeger::query_http::{QueryOptions, router};
use crate::server::spans::memory::{Answer, Memory, send, serve, sink};

/// 2026-11-22T00:00:00Z in nanoseconds.
const NOW: i64 = 1_795_305_600_000_000_000;

async fn start() -> (SocketAddr, Arc<Memory>) {
    let memory = sink();
    let router = router(memory.clone(), Clock::fixed(NOW), &QueryOptions::default());
    (serve(router).await, memory)
}

async fn get(path: &str) -> (Answer, Arc<Memory>) {
    let (address, memory) = start().await;
    (send(address, "GET", path, &[], "").await, memory)
}

async fn query(path: &str) -> ServiceMetricsQuery {
    let (answer, memory) = get(path).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    memory.metrics_queries.lock().pop().unwrap()
}

#[tokio::test]
async fn metrics_have_jaegers_defaults() {
    let found = query("/api/metrics/calls?service=web").await;
    let expected = ServiceMetricsQuery {
        metric: ServiceMetric::CallRate,
        services: vec!["web".into()],
        by_operation: false,
        kinds: vec!["server".into()],
        end: NOW,
        lookback: 3_600_000_000_000,
        step: 5_000_000_000,
        rate_per: 600_000_000_000,
    };
    assert_eq!(found, expected);
}

#[tokio::test]
async fn every_parameter_is_read() {
    let found = query(
        "/api/metrics/latencies?service=a%20b&service=x,y&quantile=0.95&groupByOperation=true\
         &endTs=1000&lookback=500&step=100&ratePer=60000&spanKind=client&spanKind=unspecified",
    )
    .await;
    let expected = ServiceMetricsQuery {
        metric: ServiceMetric::Latency { quantile: 0.95 },
        // The UI joins services with commas, which a name may have as well.
        services: ["a b", "x,y", "x", "y"].map(str::to_owned).into(),
        by_operation: true,
        kinds: vec!["client".into(), "".into()],
        end: 1_000_000_000,
        lookback: 500_000_000,
        step: 100_000_000,
        rate_per: 60_000_000_000,
    };
    assert_eq!(found, expected);
}

#[tokio::test]
async fn wrong_parameters_are_named() {
    for (path, message) in [
        (
            "calls",
            "unable to parse param 'service': please provide at least one service name",
        ),
        (
            "errors?service=",
            "unable to parse param 'service': please provide at least one service name",
        ),
        (
            "latencies?service=a",
            "unable to parse param 'quantile': strconv.ParseFloat: parsing \"\": invalid syntax",
        ),
        (
            "latencies?service=a&quantile=x",
            "unable to parse param 'quantile': strconv.ParseFloat: parsing \"x\": invalid syntax",
        ),
        (
            "latencies?service=a&quantile=NaN",
            "unable to parse param 'quantile': please provide a quantile between (0, 1]",
        ),
        (
            "latencies?service=a&quantile=0",
            "unable to parse param 'quantile': please provide a quantile between (0, 1]",
        ),
        (
            "calls?service=a&groupByOperation=foo",
            "unable to parse param 'groupByOperation': strconv.ParseBool: parsing \"foo\": invalid syntax",
        ),
        (
            "calls?service=a&spanKind=foo",
            "unable to parse param 'spanKind': unsupported span kind: 'foo'",
        ),
        (
            "calls?service=a&spanKind=",
            "unable to parse param 'spanKind': unsupported span kind: ''",
        ),
        (
            "calls?service=a&endTs=x",
            "unable to parse param 'endTs': strconv.ParseInt: parsing \"x\": invalid syntax",
        ),
        (
            "calls?service=a&lookback=-1",
            "unable to parse param 'lookback': -1 is too small, at least 0 is needed",
        ),
        (
            "calls?service=a&step=0",
            "unable to parse param 'step': 0 is too small, at least 1 is needed",
        ),
        (
            "calls?service=a&ratePer=0",
            "unable to parse param 'ratePer': 0 is too small, at least 1 is needed",
        ),
    ] {
        let (answer, memory) = get(&format!("/api/metrics/{path}")).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.json()["errors"][0]["msg"], message, "{path}");
        assert!(memory.metrics_queries.lock().is_empty());
    }
}

#[tokio::test]
async fn families_are_named_as_jaeger_names_them() {
    let (address, memory) = start().await;
    let ask = async |path: &str| send(address, "GET", path, &[], "").await.text().to_owned();
    assert_eq!(
        ask("/api/metrics/calls?service=web").await,
        r#"{"name":"service_call_rate","type":"GAUGE","help":"calls/sec, grouped by service","metrics":[]}"#
    );
    *memory.series.lock() = vec![ServiceSeries {
        service: "web".into(),
        operation: Some("GET /".into()),
        points: vec![
            (NOW, 12.5),
            (NOW + 500_000_000, f64::NAN),
            (NOW + SECOND, 1.0),
        ],
    }];
    assert_eq!(
        ask("/api/metrics/latencies?service=web&quantile=0.95&groupByOperation=1").await,
        r#"{"name":"service_operation_latencies","type":"GAUGE","help":"0.95th quantile latency, grouped by service & operation","metrics":[{"labels":[{"name":"operation","value":"GET /"},{"name":"service_name","value":"web"}],"metricPoints":[{"gaugeValue":{"doubleValue":12.5},"timestamp":"2026-11-22T00:00:00Z"},{"gaugeValue":{"doubleValue":"NaN"},"timestamp":"2026-11-22T00:00:00.5Z"},{"gaugeValue":{"doubleValue":1},"timestamp":"2026-11-22T00:00:01Z"}]}]}"#
    );
    memory.series.lock()[0].operation = None;
    let errors = ask("/api/metrics/errors?service=web").await;
    assert!(errors.starts_with(
        r#"{"name":"service_error_rate","type":"GAUGE","help":"error rate, computed as a fraction of errors/sec over calls/sec, grouped by service","metrics":[{"labels":[{"name":"service_name","value":"web"}],"#
    ), "{errors}");
}

#[tokio::test]
async fn the_least_step_is_a_slot() {
    let (answer, _) = get("/api/metrics/minstep").await;
    assert_eq!(
        answer.text(),
        r#"{"data":10000,"total":0,"limit":0,"offset":0,"errors":null}"#
    );
}
