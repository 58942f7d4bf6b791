//! Queries: `query`, `query_range`, `format_query`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::ingest::LogSink;
use crate::logql;
use crate::logql::ast::{Expr, MetricExpr};
use crate::model::Timestamp;
use crate::model::series::Grid;
use crate::protocol::loki::response::{self, Frame, Line, Stats};
use crate::query::answer::{
    AnswerEntry, LogAnswer, LogQuery, MetricAnswer, MetricQuery, QueryStats,
};
use crate::server::error::LokiError;

use super::params::{Bounds, Params, check_length};
use super::streaming::{self, Soon};
use super::{Api, LogReader, Options, json, render, tenant, typed_json};

/// The flag that keeps stream labels, metadata and parsed labels apart.
pub(super) const CATEGORIZE: &str = "categorize-labels";

pub async fn range<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    query_range(api, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

pub async fn instant<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    query(api, request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

pub async fn format_query<S: LogSink, R: LogReader>(
    State(_): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    const JSON: &str = "application/json; charset=utf-8";
    let params = match Params::read(request).await {
        Ok((_, params)) => params,
        Err(error) => return error.into_response(),
    };
    match logql::parse(params.query()) {
        Ok(expr) => typed_json(
            StatusCode::OK,
            JSON,
            response::formatted_query(&logql::format(&expr)),
        ),
        Err(error) => typed_json(
            StatusCode::BAD_REQUEST,
            JSON,
            response::invalid_query(&error.to_string()),
        ),
    }
}

async fn query_range<S: LogSink, R: LogReader>(
    api: Arc<Api<S, R>>,
    request: Request,
) -> Result<Response, LokiError> {
    let (headers, params) = Params::read(request).await?;
    let tenant = tenant(&api.options, &headers)?;
    let expr = parse(params.query())?;
    let bounds = params.bounds(api.clock.now(), api.options.max_query_length)?;
    let step = params.step(bounds)?;
    let limit = params.limit()?;
    let direction = params.direction()?;
    let interval = params.interval()?;
    match expr {
        Expr::Log(expr) => {
            check_limit(limit, &api.options)?;
            let flags = encoding_flags(&headers);
            let query = LogQuery {
                expr,
                range: bounds.half_open(),
                limit,
                direction,
                interval,
                categorize: flags.iter().any(|f| f == CATEGORIZE),
            };
            let categorize = query.categorize;
            let growing = api.reader.growing_logs(&tenant, query);
            match streaming::soon(growing, categorize, &flags, &api.metrics).await? {
                Soon::Begun(response) => Ok(response),
                Soon::Complete(answer) => {
                    let lines = answer.streams.iter().map(|s| s.entries.len()).sum();
                    render(&api, lines, move || streams(&answer, categorize, &flags)).await
                }
            }
        }
        Expr::Metric(expr) => {
            let grid = aligned(bounds, step);
            let answer = api
                .reader
                .metric(&tenant, MetricQuery { expr, grid })
                .await?;
            let answer = limit_series(answer, &api.options, &headers)?;
            let points = answer.matrix.len() * grid.len();
            render(&api, points, move || {
                response::matrix(
                    &grid,
                    &answer.matrix,
                    &frame(&answer.stats, &answer.warnings),
                )
            })
            .await
        }
    }
}

async fn query<S: LogSink, R: LogReader>(
    api: Arc<Api<S, R>>,
    request: Request,
) -> Result<Response, LokiError> {
    let (headers, params) = Params::read(request).await?;
    let tenant = tenant(&api.options, &headers)?;
    let expr = parse(params.query())?;
    let at = params.time(api.clock.now())?;
    let limit = params.limit()?;
    params.direction()?;
    let expr = match expr {
        Expr::Metric(expr) => expr,
        Expr::Log(_) => {
            check_limit(limit, &api.options)?;
            return Err(LokiError::invalid(
                "log queries can't run as instant queries; use query_range",
            ));
        }
    };
    check_length(longest_range(&expr), api.options.max_query_length)?;
    if let MetricExpr::Number(value) = expr {
        return Ok(json(response::scalar(at, value, &Frame::default())));
    }
    let query = MetricQuery {
        expr,
        grid: Grid::instant(at),
    };
    let answer = api.reader.metric(&tenant, query).await?;
    let answer = limit_series(answer, &api.options, &headers)?;
    render(&api, answer.matrix.len(), move || {
        response::vector(at, &answer.matrix, &frame(&answer.stats, &answer.warnings))
    })
    .await
}

/// A query that can be run: it parses and its stages can be built.
pub(super) fn parse(text: &str) -> Result<Expr, LokiError> {
    let expr = logql::parse(text)?;
    logql::check::pipeline(&expr)?;
    Ok(expr)
}

fn streams(answer: &LogAnswer, categorize: bool, flags: &[String]) -> Vec<u8> {
    let streams = answer.streams.iter().map(|stream| {
        let lines = stream.entries.iter();
        let lines = lines.map(move |entry| shown(entry, categorize));
        (&stream.labels, lines)
    });
    response::streams(
        streams,
        &Frame {
            flags,
            ..frame(&answer.stats, &answer.stats.warnings())
        },
    )
}

pub(super) fn shown(entry: &AnswerEntry, categorize: bool) -> Line<'_> {
    Line {
        at: entry.at,
        text: &entry.line,
        categories: categorize.then_some((&entry.structured, &entry.parsed)),
    }
}

pub(super) fn frame<'a>(stats: &QueryStats, warnings: &'a [String]) -> Frame<'a> {
    let stats = Stats {
        exec_seconds: stats.elapsed.as_secs_f64(),
        queue_seconds: stats.queued.as_secs_f64(),
        lines: stats.lines,
        bytes: stats.bytes,
        lines_matched: stats.lines_matched,
        entries_returned: stats.entries_returned,
        chunks_total: stats.chunks_total,
        chunks_candidate: stats.chunks_candidate,
        chunks_decoded: stats.chunks_decoded,
        compressed_bytes: stats.compressed_bytes,
        decompressed_bytes: stats.decompressed_bytes,
        head_lines: stats.head_lines,
        head_bytes: stats.head_bytes,
        streams: stats.streams,
    };
    Frame {
        stats,
        warnings,
        flags: &[],
    }
}

/// Start rounded down and end rounded up to multiples of the step, as Loki does because it
/// splits queries by the hour.
fn aligned(bounds: Bounds, step: i64) -> Grid {
    let down = |at: Timestamp| at.saturating_sub(at.rem_euclid(step));
    let end = down(bounds.end);
    let end = if end < bounds.end {
        end.saturating_add(step)
    } else {
        end
    };
    Grid {
        start: down(bounds.start),
        end,
        step,
    }
}

pub(super) fn check_limit(limit: usize, options: &Options) -> Result<(), LokiError> {
    let max = options.max_entries_limit;
    if max > 0 && limit > max {
        return Err(LokiError::invalid(format!(
            "limit is above max_entries_limit_per_query ({limit} > {max})"
        )));
    }
    Ok(())
}

/// Refuses too many series; Grafana's log explorer gets the first ones and a warning.
fn limit_series(
    mut answer: MetricAnswer,
    options: &Options,
    headers: &HeaderMap,
) -> Result<MetricAnswer, LokiError> {
    let max = options.max_query_series;
    answer
        .matrix
        .retain(|series| series.points.iter().any(Option::is_some));
    if max == 0 || answer.matrix.len() <= max {
        return Ok(answer);
    }
    let explorer = headers
        .get("x-query-tags")
        .and_then(|v| v.to_str().ok())
        .is_some_and(|tags| tags.contains("Source=grafana-lokiexplore-app"));
    if !explorer {
        return Err(LokiError::invalid(format!(
            "maximum number of series ({max}) reached for a single query; aggregate by fewer \
             labels or narrow the selector"
        )));
    }
    answer.matrix.truncate(max);
    answer.warnings.push(format!(
        "maximum number of series ({max}) reached: the answer is not complete"
    ));
    Ok(answer)
}

pub(super) fn encoding_flags(headers: &HeaderMap) -> Vec<String> {
    let mut flags: Vec<String> = Vec::new();
    for value in headers.get_all("x-loki-response-encoding-flags") {
        for flag in value
            .to_str()
            .unwrap_or("")
            .split(',')
            .filter(|f| !f.is_empty())
        {
            if !flags.iter().any(|f| f == flag) {
                flags.push(flag.to_owned());
            }
        }
    }
    flags
}

/// The longest range in a query, nanoseconds.
fn longest_range(expr: &MetricExpr) -> i64 {
    // Trees are at most `ast::MAX_DEPTH` deep.
    match expr {
        MetricExpr::Range(range) => range.over.range,
        MetricExpr::Vector(vector) => longest_range(&vector.inner),
        MetricExpr::Binary(binary) => longest_range(&binary.left).max(longest_range(&binary.right)),
        MetricExpr::LabelReplace(replace) => longest_range(&replace.inner),
        MetricExpr::Variants(variants) => variants.over.range,
        MetricExpr::Number(_) | MetricExpr::VectorOf(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::SECOND;

    #[test]
    fn a_range_is_widened_to_multiples_of_the_step() {
        let grid = |start: i64, end: i64, step: i64| {
            let grid = aligned(
                Bounds {
                    start: start * SECOND,
                    end: end * SECOND,
                },
                step * SECOND,
            );
            (grid.start / SECOND, grid.end / SECOND, grid.len())
        };
        assert_eq!(grid(20, 70, 60), (0, 120, 3));
        assert_eq!(grid(60, 120, 60), (60, 120, 2));
        assert_eq!(grid(-10, 10, 60), (-60, 60, 3));
        assert_eq!(grid(61, 61, 60), (60, 120, 2));
        let edge = aligned(
            Bounds {
                start: i64::MIN,
                end: i64::MAX,
            },
            SECOND,
        );
        assert!(edge.start <= edge.end);
    }

    #[test]
    fn the_longest_range_is_found_wherever_it_stands() {
        let query = r#"sum(rate({a="b"}[5m])) / on () (topk(2, count_over_time({a="b"}[2h])) + 1)"#;
        let Expr::Metric(expr) = logql::parse(query).expect("valid") else {
            panic!("metric")
        };
        assert_eq!(longest_range(&expr), 7200 * SECOND);
    }
}
