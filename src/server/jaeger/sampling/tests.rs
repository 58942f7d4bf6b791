use super::*;
use crate::server::grpc::jaeger::sampling_manager_client::SamplingManagerClient;
use crate::server::spans::memory::{channel, send, serve};

fn default() -> Arc<Strategies> {
    Arc::new(Strategies::Default)
}

/// Of a file with this text.
fn of_file(text: &str) -> Arc<Strategies> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("strategies.json");
    std::fs::write(&path, text).unwrap();
    let metrics = file::FileMetrics::new(&crate::telemetry::metrics::Metrics::default());
    Arc::new(Strategies::File(Arc::new(StrategiesFile::open(
        path, metrics,
    ))))
}

#[tokio::test]
async fn the_agents_port_names_the_type_and_its_root_numbers_it() {
    let address = serve(router(default())).await;
    let named = send(address, "GET", "/sampling?service=unknown", &[], "").await;
    assert_eq!(
        (named.status, named.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(
        named.text(),
        r#"{"strategyType":"PROBABILISTIC","probabilisticSampling":{"samplingRate":0.001}}"#
    );
    let numbered = send(address, "GET", "/?service=x", &[], "").await;
    assert_eq!(
        numbered.text(),
        r#"{"strategyType":0,"probabilisticSampling":{"samplingRate":0.001}}"#
    );
    let limit = r#"{"default_strategy": {"type": "ratelimiting", "param": 10}}"#;
    let limiting = serve(router(of_file(limit))).await;
    let limiting = send(limiting, "GET", "/sampling?service=x", &[], "").await;
    assert_eq!(
        limiting.text(),
        r#"{"strategyType":"RATE_LIMITING","rateLimitingSampling":{"maxTracesPerSecond":10}}"#
    );
}

#[tokio::test]
async fn the_service_must_be_named_once() {
    let address = serve(router(default()).merge(collector_router(default()))).await;
    for path in [
        "/sampling",
        "/sampling?service=a&service=b",
        "/?x=1",
        "/baggageRestrictions",
        "/api/sampling",
    ] {
        let answer = send(address, "GET", path, &[], "").await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(
            answer.text(),
            "'service' parameter must be provided once\n",
            "{path}"
        );
    }
    assert_eq!(
        send(address, "POST", "/sampling?service=a", &[], "")
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn baggage_is_refused_as_jaeger_refuses_it() {
    let address = serve(router(default()).merge(collector_router(default()))).await;
    let agent = send(address, "GET", "/baggageRestrictions?service=a", &[], "").await;
    assert_eq!(
        (agent.status, agent.text()),
        (500, "collector error: baggage not implemented\n")
    );
    let collector = send(
        address,
        "GET",
        "/api/baggageRestrictions?service=a",
        &[],
        "",
    )
    .await;
    assert_eq!(
        (collector.status, collector.text()),
        (
            500,
            "collector error: baggage restrictions not implemented\n"
        )
    );
    assert_eq!(collector.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn grpc_tells_the_same() {
    let router =
        Router::new().route_service("/jaeger.api_v2.SamplingManager/{*rest}", service(default()));
    let mut client = SamplingManagerClient::new(channel(serve(router).await).await);
    let request = api_v2::SamplingStrategyParameters {
        service_name: "x".into(),
    };
    let answer = client
        .get_sampling_strategy(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        answer.strategy_type(),
        api_v2::SamplingStrategyType::Probabilistic
    );
    assert_eq!(answer.probabilistic_sampling.unwrap().sampling_rate, 0.001);
    assert_eq!(answer.rate_limiting_sampling, None);
}

#[tokio::test]
async fn every_door_tells_the_rules_of_a_file() {
    let strategies = of_file(
        r#"{"service_strategies": [{"service": "a b", "type": "probabilistic", "param": 0.5,
            "operation_strategies": [{"operation": "op", "type": "probabilistic", "param": 0.2}]}]}"#,
    );
    let operations = concat!(
        r#""probabilisticSampling":{"samplingRate":0.5},"operationSampling":{"#,
        r#""defaultSamplingProbability":0.5,"defaultLowerBoundTracesPerSecond":0,"#,
        r#""perOperationStrategies":[{"operation":"op","#,
        r#""probabilisticSampling":{"samplingRate":0.2}}],"defaultUpperBoundTracesPerSecond":0}}"#
    );
    let http = router(strategies.clone()).merge(collector_router(strategies.clone()));
    let address = serve(http).await;
    for (path, kind) in [
        ("/sampling", r#""PROBABILISTIC""#),
        ("/api/sampling", r#""PROBABILISTIC""#),
        ("/", "0"),
    ] {
        let answer = send(address, "GET", &format!("{path}?service=a+b"), &[], "").await;
        let expected = format!(r#"{{"strategyType":{kind},{operations}"#);
        assert_eq!(answer.text(), expected, "{path}");
    }
    let grpc = Router::new().route_service(
        "/jaeger.api_v2.SamplingManager/{*rest}",
        service(strategies),
    );
    let mut client = SamplingManagerClient::new(channel(serve(grpc).await).await);
    let service_name = "a b".into();
    let request = api_v2::SamplingStrategyParameters { service_name };
    let answer = client.get_sampling_strategy(request).await.unwrap();
    let sampling = answer.into_inner().operation_sampling.unwrap();
    assert_eq!(sampling.default_sampling_probability, 0.5);
    let operation = &sampling.per_operation_strategies[0];
    let rate = operation.probabilistic_sampling.unwrap().sampling_rate;
    assert_eq!((operation.operation.as_str(), rate), ("op", 0.2));
}

#[tokio::test]
async fn without_a_good_file_every_door_says_so() {
    let strategies = of_file("{");
    let address = serve(router(strategies.clone())).await;
    let answer = send(address, "GET", "/sampling?service=a", &[], "").await;
    assert_eq!(answer.status, 500);
    assert!(
        answer
            .text()
            .starts_with("collector error: strategies file ")
    );
    let grpc = Router::new().route_service(
        "/jaeger.api_v2.SamplingManager/{*rest}",
        service(strategies),
    );
    let mut client = SamplingManagerClient::new(channel(serve(grpc).await).await);
    let request = api_v2::SamplingStrategyParameters::default();
    let error = client.get_sampling_strategy(request).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable);
    // More traces than Thrift can tell.
    let limit = r#"{"default_strategy": {"type": "ratelimiting", "param": 40000}}"#;
    let address = serve(router(of_file(limit))).await;
    let answer = send(address, "GET", "/sampling?service=a", &[], "").await;
    assert_eq!(answer.status, 500);
    assert!(answer.text().contains("higher than int16"));
}
