//! The process's own log, on stderr: text for a terminal, JSON for machines.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// Shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Text,
    Json,
}

/// Starts logging. `filter` is an EnvFilter text such as `info` or `info,watchpost=debug`.
/// Fails on a bad filter, or when a logger was set already.
pub fn init(filter: &str, format: Format) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|e| e.to_string())?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    match format {
        Format::Text => builder.finish().try_init().map_err(|e| e.to_string()),
        Format::Json => builder
            .json()
            .finish()
            .try_init()
            .map_err(|e| e.to_string()),
    }
}
