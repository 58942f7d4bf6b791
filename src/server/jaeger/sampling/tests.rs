use super::*;
use crate::server::grpc::jaeger::sampling_manager_client::SamplingManagerClient;
use crate::server::spans::memory::{channel, send, serve};

fn strategies(default_type: SamplingType, default_param: f64) -> Arc<Strategies> {
    Arc::new(
        Strategies::new(SamplingOptions {
            default_type,
            default_param,
        })
        .unwrap(),
    )
}

fn default() -> Arc<Strategies> {
    Arc::new(Strategies::new(SamplingOptions::default()).unwrap())
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
    let limiting = serve(router(strategies(SamplingType::RateLimiting, 10.0))).await;
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

#[test]
fn options_outside_of_what_the_wire_holds_are_refused() {
    for (default_type, default_param) in [
        (SamplingType::Probabilistic, 1.1),
        (SamplingType::Probabilistic, f64::NAN),
        (SamplingType::RateLimiting, 32_768.0),
        (SamplingType::RateLimiting, -1.0),
    ] {
        assert!(
            Strategies::new(SamplingOptions {
                default_type,
                default_param
            })
            .is_err()
        );
    }
}
