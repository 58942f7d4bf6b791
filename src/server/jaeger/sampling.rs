//! What Jaeger's clients ask before they sample: over HTTP on the agent's and the
//! collector's port, over gRPC on the collector's.

pub mod adaptive;
pub mod file;
mod rules;
mod strategy;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};
use tonic::Status;

use crate::protocol::wire::jaeger::api_v2;
use crate::server::grpc::jaeger::sampling_manager_server::{
    SamplingManager, SamplingManagerServer,
};

use super::{query_pairs, text_error};
use adaptive::Adaptive;
use file::StrategiesFile;
use strategy::{Spelling, Strategy};

/// Where strategies come from.
#[derive(Clone)]
pub enum Strategies {
    /// Jaeger's default for every service.
    Default,
    File(Arc<StrategiesFile>),
    Adaptive(Arc<Adaptive>),
}

impl Strategies {
    /// What clients of a service are told, or why nothing can be said.
    fn of(&self, service: &str) -> Result<Strategy, String> {
        match self {
            Self::Default => Ok(Strategy::default()),
            Self::File(file) => file.of(service),
            Self::Adaptive(adaptive) => Ok(adaptive.of(service)),
        }
    }
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
            let strategy = strategies.of(&service);
            match strategy.and_then(|strategy| strategy.json(spelling)) {
                Ok(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
                Err(error) => text_error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    &format!("collector error: {error}"),
                ),
            }
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
        match self.strategies.of(&request.get_ref().service_name) {
            Ok(strategy) => Ok(tonic::Response::new(strategy.proto())),
            Err(error) => Err(Status::unavailable(error)),
        }
    }
}

#[cfg(test)]
mod tests;
