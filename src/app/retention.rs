//! How long what is kept, from the configuration to the store and to ingest.

use std::time::Duration;

use anyhow::Context;

use crate::config::Config;
use crate::ingest::logs::StreamAges;
use crate::logql;
use crate::store::layout::Signal;
use crate::store::retention::{Rule, Rules};

/// The rules of `[[retention]]`.
pub fn rules(config: &Config) -> anyhow::Result<Rules> {
    let mut logs = Vec::new();
    for rule in &config.retention.logs {
        let matchers = match rule.selector.as_str() {
            "" => Vec::new(),
            text => logql::parse_selector_or_all(text)
                .with_context(|| format!("retention.selector {text}"))?,
        };
        logs.push(Rule {
            matchers,
            period: rule.period,
            priority: rule.priority,
        });
    }
    Ok(Rules {
        logs: logs.into(),
        spans: config.retention.traces,
    })
}

/// For how long days of logs are kept at most; `None`: for ever.
pub fn longest(config: &Config, rules: &Rules) -> Option<Duration> {
    rules.longest(config.storage.retention, Signal::Logs)
}

/// What retention would drop at once is refused instead; `None` when all streams are kept alike.
pub fn stream_ages(config: &Config, rules: Rules) -> Option<StreamAges> {
    let retention = config.storage.retention;
    let periods = rules.logs.iter().filter_map(|rule| rule.period);
    let shortest = periods.chain(retention).min()?;
    if rules.logs.is_empty() {
        return None;
    }
    Some(StreamAges {
        shortest,
        of: Box::new(move |labels| rules.of(labels).map_or(retention, |rule| rule.period)),
    })
}
