//! What Grafana's explorer may offer: labels that tell streams apart in words.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use crate::ingest::LogSink;
use crate::model::Labels;
use crate::protocol::loki::response;
use crate::server::error::LokiError;

use super::labels::{Asked, answer};
use super::{Api, LogReader};

/// Offered whatever their values look like.
const ALWAYS: [&str; 4] = ["cluster", "namespace", "instance", "pod"];

pub async fn labels<S: LogSink, R: LogReader>(
    State(api): State<Arc<Api<S, R>>>,
    request: Request,
) -> Response {
    answer(find(&api, request).await)
}

async fn find<S: LogSink, R: LogReader>(
    api: &Api<S, R>,
    request: Request,
) -> Result<Vec<u8>, LokiError> {
    let asked = Asked::read(api, request).await?;
    let selector = asked.selector()?;
    let selectors = if selector.is_empty() {
        Vec::new()
    } else {
        vec![selector]
    };
    let series = api
        .reader
        .series(&asked.tenant, asked.range, selectors)
        .await?;
    Ok(response::detected_labels(&offered(&series)))
}

/// Labels worth offering and their number of values: not those whose values are all
/// numbers or UUIDs, except flags of 0 and 1.
fn offered(series: &[Labels]) -> Vec<(&str, usize)> {
    let mut values: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (name, value) in series.iter().flat_map(Labels::iter) {
        values.entry(name).or_default().insert(value);
    }
    values
        .into_iter()
        .filter(|(name, values)| {
            ALWAYS.contains(name)
                || values.iter().all(|v| matches!(*v, "0" | "1"))
                || !values
                    .iter()
                    .all(|v| v.parse::<f64>().is_ok() || is_uuid(v))
        })
        .map(|(name, values)| (name, values.len()))
        .collect()
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let shape = groups == [8, 4, 4, 4, 12] || groups == [32];
    shape && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_numbers_and_ids_are_not_offered() {
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        let series = [
            Labels::from_pairs([
                ("app", "api"),
                ("id", uuid),
                ("n", "1"),
                ("flag", "1"),
                ("pod", "1"),
                ("some", "1"),
            ]),
            Labels::from_pairs([
                ("app", "web"),
                ("id", "5"),
                ("n", "2.5"),
                ("flag", "0"),
                ("pod", "2"),
                ("some", "x"),
            ]),
        ];
        assert_eq!(
            offered(&series),
            [("app", 2), ("flag", 2), ("pod", 2), ("some", 2)]
        );
        assert!(!is_uuid("123e4567-e89b-12d3-a456-42661417400g"));
    }
}
