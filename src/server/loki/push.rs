//! Pushes: from a request to `ingest`, with bounds on bytes and memory on the way.
//!
//! This is where 25,000 small pushes a second and a 30 MB one have to get along: small
//! bodies are decoded where they are read, large ones on the CPU pool.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

use crate::ingest::{self, FLAG_SERVICE_NAME, LogSink, Refusal, RefusalKind, Taken};
use crate::model::LogBatch;
use crate::protocol::loki::push::{
    Coding, DecodeLimits, DecodedPush, PushFormat, RefusedPart, decode_push_with, expected_bytes,
};
use crate::protocol::otlp::logs::{Mapping, RESOURCE_LABELS};
use crate::runtime::permits::Permit;
use crate::runtime::pool::Lane;
use crate::server::error::LokiError;

use super::{Api, Options, tenant};

/// Bodies that decode to no more than this are decoded at once: 20 µs or so, less than
/// handing them over and back would delay others.
const INLINE_BYTES: usize = 256 << 10;

/// Memory asked for at least, and asked for again when a body without a length grows.
const BODY_STEP: usize = 64 << 10;

/// A sender that stalls must not keep the memory taken for its body.
const READ_WITHIN: Duration = Duration::from_secs(30);

pub async fn push_v1<S: LogSink, R: super::LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(push(&api, request, PushFormat::JsonV1).await)
}

pub async fn push_legacy<S: LogSink, R: super::LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(push(&api, request, PushFormat::JsonLegacy).await)
}

fn answer(result: Result<(), LokiError>) -> Response {
    match result {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => error.with_newline().into_response(),
    }
}

async fn push<S: LogSink, R>(
    api: &Api<S, R>,
    request: Request,
    json: PushFormat,
) -> Result<(), LokiError> {
    let tenant = tenant(&api.options, request.headers())?;
    let format = format_of(request.headers(), json)?;
    let coding = coding_of(request.headers(), format)?;
    // Held until the push is acknowledged.
    let (body, _body_memory) = read_body(api, request).await?;
    let taken = take(api, tenant, format, coding, body).await?;
    LokiError::of_refusals(&taken.refusals).map_or(Ok(()), Err)
}

/// Decodes a body and hands on what is in it.
pub(in crate::server) async fn take<S: LogSink, R>(
    api: &Api<S, R>,
    tenant: Arc<str>,
    format: PushFormat,
    coding: Coding,
    body: Bytes,
) -> Result<Taken, LokiError> {
    let (decoded, memory) = decode(api, format, coding, &body).await?;
    let mut batch = decoded.batch;
    batch.tenant = tenant;
    let mut taken = Taken::default();
    for part in decoded.refused {
        api.ingest.count_refused(part.reason, part.entries);
        taken.refused_entries += part.entries;
        taken.refusals.push(refusal_of(part));
    }
    let received = (!decoded.once_only).then(|| (format.code(), coding.code(), body));
    let admitted = api.ingest.push_logs(batch, received, Some(memory)).await?;
    taken.refused_entries += admitted.refused_entries;
    taken.refusals.extend(admitted.refusals);
    Ok(taken)
}

fn refusal_of(part: RefusedPart) -> Refusal {
    Refusal {
        kind: RefusalKind::Invalid,
        reason: part.reason,
        message: part.message,
    }
}

/// `application/json` is JSON, everything else snappy and protobuf.
fn format_of(headers: &HeaderMap, json: PushFormat) -> Result<PushFormat, LokiError> {
    let Some(content_type) = headers.get(header::CONTENT_TYPE) else {
        return Ok(PushFormat::ProtobufSnappy);
    };
    let media_type = media_type(content_type)
        .ok_or_else(|| LokiError::invalid(format!("content type {content_type:?} is malformed")))?;
    let is_json = media_type.eq_ignore_ascii_case("application/json");
    Ok(if is_json {
        json
    } else {
        PushFormat::ProtobufSnappy
    })
}

/// The type without its parameters; `None` when either is malformed.
fn media_type(value: &HeaderValue) -> Option<&str> {
    let token = |text: &str| {
        let allowed = |b: u8| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b);
        !text.is_empty() && text.bytes().all(allowed)
    };
    let mut parts = value.to_str().ok()?.split(';').map(str::trim);
    let media_type = parts.next()?;
    if media_type.is_empty() {
        return Some(media_type);
    }
    let well_formed = match media_type.split_once('/') {
        Some((kind, subtype)) => token(kind) && token(subtype),
        None => token(media_type),
    };
    let parameters_well_formed = parts.filter(|p| !p.is_empty()).all(|parameter| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            token(name) && (token(value) || (value.len() > 1 && value.starts_with('"')))
        })
    });
    (well_formed && parameters_well_formed).then_some(media_type)
}

fn coding_of(headers: &HeaderMap, format: PushFormat) -> Result<Coding, LokiError> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else {
        return Ok(Coding::Identity);
    };
    match value.as_bytes() {
        b"" | b"identity" => Ok(Coding::Identity),
        b"gzip" => Ok(Coding::Gzip),
        b"deflate" => Ok(Coding::Deflate),
        // It says what the body is anyway.
        b"snappy" if format == PushFormat::ProtobufSnappy => Ok(Coding::Identity),
        _ => Err(LokiError::invalid(format!(
            "content encoding {value:?} is not supported; use gzip, deflate or none"
        ))),
    }
}

/// The body, and the memory taken for it.
pub(in crate::server) async fn read_body<S, R>(
    api: &Api<S, R>,
    request: Request,
) -> Result<(Bytes, Permit), LokiError> {
    let Options {
        max_push_bytes: max,
        memory_patience,
        ..
    } = api.options;
    let announced = announced_length(request.headers());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large(max));
    }
    let announced = announced.unwrap_or(0) as usize;
    let mut permit = api
        .memory
        .take(announced.max(BODY_STEP), memory_patience)
        .await?;

    let read = collect(request.into_body(), announced, max, &mut permit);
    match tokio::time::timeout(READ_WITHIN, read).await {
        Ok(body) => Ok((body?, permit)),
        Err(_) => Err(LokiError::unavailable(format!(
            "push was not received within {} s",
            READ_WITHIN.as_secs()
        ))),
    }
}

/// Reads a body, growing `permit` where it is longer than announced.
async fn collect(
    mut body: Body,
    announced: usize,
    max: usize,
    permit: &mut Permit,
) -> Result<Bytes, LokiError> {
    // Small bodies come in one piece, which is then used as it is.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|e| LokiError::invalid(format!("push could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let read = first.len().max(all.len()) + data.len();
        if read > max {
            return Err(too_large(max));
        }
        if read > permit.bytes() {
            permit.try_grow((read - permit.bytes()).max(BODY_STEP))?;
        }
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(announced.max(read));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn too_large(max: usize) -> LokiError {
    LokiError::too_large(format!("push is larger than {max} bytes"))
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// The batch, and the memory taken for it.
async fn decode<S, R>(
    api: &Api<S, R>,
    format: PushFormat,
    coding: Coding,
    body: &Bytes,
) -> Result<(DecodedPush, Permit), LokiError> {
    let limits = api.options.decode;
    let expected = expected_bytes(format, coding, body, &limits);
    let mut permit = api
        .memory
        .take(expected, api.options.memory_patience)
        .await?;
    let now = Some(api.clock.now());
    let decoded = if expected <= INLINE_BYTES {
        decode_push_with(format, coding, body, &limits, &api.options.otlp, now)?
    } else {
        let (body, mapping) = (body.clone(), api.options.otlp.clone());
        api.pool
            .run(Lane::First, move || {
                decode_push_with(format, coding, &body, &limits, &mapping, now)
            })
            .await??
    };
    let actual = decoded.occupied;
    if actual > permit.bytes() {
        // Taken already: what is missing is only booked, and if it can't be, said so.
        permit.try_grow(actual - permit.bytes())?;
    } else {
        permit.shrink_to(actual);
    }
    Ok((decoded, permit))
}

/// Decodes again what the journal kept: the batch as it was accepted.
pub fn replay(
    tenant: &Arc<str>,
    format: u8,
    coding: u8,
    flags: u8,
    body: &[u8],
) -> Result<LogBatch, String> {
    let format = PushFormat::from_code(format).ok_or("unknown push format")?;
    let coding = Coding::from_code(coding).ok_or("unknown content coding")?;
    // A body was kept only if it was mapped by the default list.
    let mapping = Mapping::new(&RESOURCE_LABELS, flags & FLAG_SERVICE_NAME != 0);
    let limits = DecodeLimits::replay();
    let decoded = decode_push_with(format, coding, body, &limits, &mapping, None)
        .map_err(|e| e.to_string())?;
    let mut batch = decoded.batch;
    batch.tenant = tenant.clone();
    ingest::complete(&mut batch, flags);
    Ok(batch)
}
