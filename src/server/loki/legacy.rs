//! `/api/prom/query`: log queries as clients of Loki before 1.0 ask them.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};

use crate::ingest::LogSink;
use crate::logql;
use crate::logql::ast::{Expr, LineFilter, LineOp, LineOperand, Stage};
use crate::protocol::loki::legacy;
use crate::query::answer::{LogAnswer, LogQuery};
use crate::server::error::LokiError;

use super::params::Params;
use super::query::{check_limit, frame, parse, render};
use super::{Api, LogReader, tenant};

pub async fn query<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(&api, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

async fn answer<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<Response, LokiError> {
    let (headers, params) = Params::read(request).await?;
    let tenant = tenant(&api.options, &headers)?;
    let Expr::Log(mut expr) = parse(params.query())? else {
        return Err(LokiError::invalid(
            "legacy endpoints only support log queries; use /loki/api/v1/query_range",
        ));
    };
    if let Some(regexp) = params.get("regexp") {
        expr.stages.push(Stage::Line(LineFilter {
            op: LineOp::Regex,
            operands: vec![LineOperand::Text(regexp.to_owned())],
        }));
        logql::check::pipeline(&Expr::Log(expr.clone()))?;
    }
    let bounds = params.bounds(api.clock.now(), api.options.max_query_length)?;
    params.step(bounds)?;
    let limit = params.limit()?;
    check_limit(limit, &api.options)?;
    let (direction, interval) = (params.direction()?, params.interval()?);
    let query = LogQuery {
        expr,
        range: bounds.half_open(),
        limit,
        direction,
        interval,
        categorize: false,
    };
    let answer = api.reader.logs(&tenant, query).await?;
    let lines = answer.streams.iter().map(|s| s.entries.len()).sum();
    render(api, lines, move || streams(&answer)).await
}

fn streams(answer: &LogAnswer) -> Vec<u8> {
    let streams = answer.streams.iter().map(|stream| {
        let lines = stream.entries.iter().map(|e| (e.at, &*e.line));
        (&stream.labels, lines)
    });
    legacy::streams(streams, &frame(&answer.stats, &[]).stats)
}
