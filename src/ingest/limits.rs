//! What is acceptable: the figures, with Loki's defaults where they make sense here.

use std::time::Duration;

/// Limits on pushed logs. 0 switches a limit off.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLimits {
    /// Labels of a stream, `service_name` not counted.
    pub max_label_names: usize,
    /// Bytes.
    pub max_label_name_length: usize,
    /// Bytes.
    pub max_label_value_length: usize,
    /// Entries older than this are refused. `None`: any age is accepted.
    pub reject_older_than: Option<Duration>,
    /// How far in the future an entry may be. `None`: any time is accepted.
    pub creation_grace_period: Option<Duration>,
    /// Bytes.
    pub max_line_size: usize,
    /// Bytes of names and values of one entry.
    pub max_metadata_size: usize,
    /// Pairs of one entry.
    pub max_metadata_count: usize,
    /// How far an entry may lie behind the newest of its stream. `None`: any distance.
    pub max_behind: Option<Duration>,
    /// Bytes of lines and metadata a second, for each tenant. Loki's default is 4 MB/s, to
    /// protect the other tenants of a cluster; one machine for one team has none to
    /// protect and takes far more, so it is off unless wanted.
    pub ingestion_rate: u64,
    pub ingestion_burst: u64,
    /// The same for each stream. Loki: 3 MB/s, 15 MB; off for the same reason.
    pub per_stream_rate: u64,
    pub per_stream_burst: u64,
    /// Streams that got lines within the last hour. Loki has 5000 a tenant; ours is a
    /// bound on memory (heads), so it counts all tenants together.
    pub max_streams: usize,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            max_label_names: 15,
            max_label_name_length: 1024,
            max_label_value_length: 2048,
            reject_older_than: Some(Duration::from_secs(7 * 24 * 3600)),
            creation_grace_period: Some(Duration::from_secs(600)),
            max_line_size: 256 << 10,
            max_metadata_size: 64 << 10,
            max_metadata_count: 128,
            max_behind: Some(Duration::from_secs(3600)),
            ingestion_rate: 0,
            ingestion_burst: 6 << 20,
            per_stream_rate: 0,
            per_stream_burst: 15 << 20,
            max_streams: 100_000,
        }
    }
}
