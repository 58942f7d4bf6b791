//! What Jaeger's clients ask before they sample: over HTTP on the agent's and the
//! collector's port, over gRPC on the collector's.

use std::fmt::Write;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};
use serde::Deserialize;
use tonic::Status;

use crate::protocol::wire::jaeger::api_v2;
use crate::server::grpc::jaeger::sampling_manager_server::{
    SamplingManager, SamplingManagerServer,
};

use super::{query_pairs, text_error};

/// What a client does that nobody has a better strategy for.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SamplingOptions {
    pub default_type: SamplingType,
    /// A probability, or traces per second.
    pub default_param: f64,
}

impl Default for SamplingOptions {
    /// As Jaeger without a strategies file: one trace in a thousand.
    fn default() -> Self {
        Self {
            default_type: SamplingType::Probabilistic,
            default_param: 0.001,
        }
    }
}

/// How `default_param` is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamplingType {
    Probabilistic,
    RateLimiting,
}

/// What a client is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Strategy {
    /// Probability of each trace, 0 to 1.
    Probabilistic(f64),
    /// Traces per second; 16 bits on the wire.
    RateLimiting(i16),
}

/// The strategies of all services.
#[derive(Clone, Debug)]
pub struct Strategies {
    default: Strategy,
}

impl Strategies {
    /// Checks the options; the text says what is wrong with them.
    pub fn new(options: SamplingOptions) -> Result<Self, String> {
        let param = options.default_param;
        let default = match options.default_type {
            SamplingType::Probabilistic if (0.0..=1.0).contains(&param) => {
                Strategy::Probabilistic(param)
            }
            SamplingType::RateLimiting if (0.0..=f64::from(i16::MAX)).contains(&param) => {
                Strategy::RateLimiting(param as i16)
            }
            SamplingType::Probabilistic => {
                return Err(format!(
                    "sampling probability {param} is not between 0 and 1"
                ));
            }
            SamplingType::RateLimiting => {
                return Err(format!(
                    "{param} traces per second are not between 0 and {}",
                    i16::MAX
                ));
            }
        };
        Ok(Self { default })
    }

    /// What clients of a service are told.
    pub fn of(&self, _service: &str) -> Strategy {
        self.default
    }
}

/// How a strategy's type is spelled: clients before 2017 know only its number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Name,
    Number,
}

fn json(strategy: Strategy, spelling: Spelling) -> String {
    let (name, number) = match strategy {
        Strategy::Probabilistic(_) => ("\"PROBABILISTIC\"", "0"),
        Strategy::RateLimiting(_) => ("\"RATE_LIMITING\"", "1"),
    };
    let mut text = String::from("{\"strategyType\":");
    text.push_str(if spelling == Spelling::Name {
        name
    } else {
        number
    });
    // Writing to a String cannot fail.
    let _ = match strategy {
        Strategy::Probabilistic(rate) => {
            write!(
                text,
                ",\"probabilisticSampling\":{{\"samplingRate\":{rate}}}}}"
            )
        }
        Strategy::RateLimiting(traces) => {
            write!(
                text,
                ",\"rateLimitingSampling\":{{\"maxTracesPerSecond\":{traces}}}}}"
            )
        }
    };
    text
}

/// The agent's port 5778.
pub fn router(strategies: Arc<Strategies>) -> Router {
    Router::new()
        .route("/sampling", get(named))
        .route("/", get(numbered))
        .route(
            "/baggageRestrictions",
            get(|uri: Uri| baggage(uri, "baggage not implemented")),
        )
        .with_state(strategies)
}

/// The same on the collector's port 14268.
pub fn collector_router(strategies: Arc<Strategies>) -> Router {
    let refusal = "baggage restrictions not implemented";
    Router::new()
        .route("/api/sampling", get(named))
        .route(
            "/api/baggageRestrictions",
            get(move |uri: Uri| baggage(uri, refusal)),
        )
        .with_state(strategies)
}

/// gRPC `SamplingManager`.
pub fn service(strategies: Arc<Strategies>) -> SamplingManagerServer<GrpcSampling> {
    SamplingManagerServer::new(GrpcSampling { strategies })
}

async fn named(State(strategies): State<Arc<Strategies>>, uri: Uri) -> Response {
    answer(&strategies, &uri, Spelling::Name)
}

async fn numbered(State(strategies): State<Arc<Strategies>>, uri: Uri) -> Response {
    answer(&strategies, &uri, Spelling::Number)
}

fn answer(strategies: &Strategies, uri: &Uri, spelling: Spelling) -> Response {
    match the_service(uri) {
        Ok(service) => {
            let body = json(strategies.of(&service), spelling);
            ([(CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(response) => *response,
    }
}

/// Jaeger's servers have the route, and nothing behind it.
async fn baggage(uri: Uri, refusal: &'static str) -> Response {
    match the_service(&uri) {
        Ok(_) => text_error(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("collector error: {refusal}"),
        ),
        Err(response) => *response,
    }
}

fn the_service(uri: &Uri) -> Result<String, Box<Response>> {
    let mut services = query_pairs(uri)
        .into_iter()
        .filter(|(key, _)| key == "service");
    match (services.next(), services.next()) {
        (Some((_, service)), None) => Ok(service),
        _ => Err(Box::new(text_error(
            StatusCode::BAD_REQUEST,
            "'service' parameter must be provided once",
        ))),
    }
}

/// Answers `SamplingManager`.
pub struct GrpcSampling {
    strategies: Arc<Strategies>,
}

#[tonic::async_trait]
impl SamplingManager for GrpcSampling {
    async fn get_sampling_strategy(
        &self,
        request: tonic::Request<api_v2::SamplingStrategyParameters>,
    ) -> Result<tonic::Response<api_v2::SamplingStrategyResponse>, Status> {
        let mut response = api_v2::SamplingStrategyResponse::default();
        match self.strategies.of(&request.get_ref().service_name) {
            Strategy::Probabilistic(sampling_rate) => {
                response.strategy_type = api_v2::SamplingStrategyType::Probabilistic as i32;
                response.probabilistic_sampling =
                    Some(api_v2::ProbabilisticSamplingStrategy { sampling_rate });
            }
            Strategy::RateLimiting(traces) => {
                response.strategy_type = api_v2::SamplingStrategyType::RateLimiting as i32;
                response.rate_limiting_sampling = Some(api_v2::RateLimitingSamplingStrategy {
                    max_traces_per_second: i32::from(traces),
                });
            }
        }
        Ok(tonic::Response::new(response))
    }
}

#[cfg(test)]
mod tests;
