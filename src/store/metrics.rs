//! What the store counts.

use crate::telemetry::metrics::{Counter, Gauge, Metrics};

/// Counters and gauges of the store.
#[derive(Clone)]
pub struct StoreMetrics {
    pub journal_bytes: Counter,
    pub journal_errors: Counter,
    pub journal_damaged: Counter,
    pub journal_size: Gauge,
    pub replayed_records: Counter,
    pub lines_stored: Counter,
    pub lines_repeated: Counter,
    pub tail_dropped_lines: Counter,
    pub spans_stored: Counter,
    pub spans_repeated: Counter,
    pub chunks_sealed: Counter,
    pub blocks_sealed: Counter,
    pub sealed_line_bytes: Counter,
    pub sealed_stored_bytes: Counter,
    pub partitions: Gauge,
    pub partitions_dropped: Counter,
    pub streams: Gauge,
    pub heads: Gauge,
    pub disk_free: Gauge,
    pub checkpoints: Counter,
    pub delete_requests: Counter,
    pub delete_requests_waiting: Gauge,
    pub lines_erased: Counter,
    pub archived_traces: Counter,
    pub archived_spans: Counter,
    pub archive_bytes: Gauge,
}

impl StoreMetrics {
    pub fn new(m: &Metrics) -> Self {
        Self {
            journal_bytes: m.counter("journal_written_bytes", "Bytes of bodies journaled"),
            journal_errors: m.counter("journal_errors", "Appends that the disk refused"),
            journal_damaged: m.counter(
                "journal_damaged",
                "Journal records or segments that replay could not read",
            ),
            journal_size: m.gauge("journal_bytes", "Size of the journal"),
            replayed_records: m.counter("journal_replayed_records", "Records replayed at start"),
            lines_stored: m.counter("lines_stored", "Lines that entered a head"),
            lines_repeated: m.counter("lines_repeated", "Exact repetitions that were dropped"),
            tail_dropped_lines: m.counter(
                "tail_dropped_lines",
                "Lines that live tails missed because they read too slowly",
            ),
            spans_stored: m.counter("spans_stored", "Spans that entered a head"),
            spans_repeated: m.counter(
                "spans_repeated",
                "Exact repetitions of spans that were dropped",
            ),
            chunks_sealed: m.counter("chunks_sealed", "Chunks sealed"),
            blocks_sealed: m.counter("span_blocks_sealed", "Blocks of spans sealed"),
            sealed_line_bytes: m.counter("sealed_line_bytes", "Bytes of lines in sealed chunks"),
            sealed_stored_bytes: m.counter("sealed_stored_bytes", "Bytes of sealed chunks on disk"),
            partitions: m.gauge("partitions", "Days kept, logs and spans apart"),
            partitions_dropped: m.counter("partitions_dropped", "Days dropped by retention"),
            streams: m.gauge("streams", "Streams known"),
            heads: m.gauge("heads", "Open heads"),
            disk_free: m.gauge("disk_free_bytes", "Free bytes on the disk of storage.path"),
            checkpoints: m.counter("checkpoints", "Low-water marks written"),
            delete_requests: m.counter("delete_requests", "Delete requests taken"),
            delete_requests_waiting: m.gauge(
                "delete_requests_waiting",
                "Delete requests whose lines are still on the disk",
            ),
            lines_erased: m.counter(
                "lines_erased",
                "Lines that delete requests took off the disk",
            ),
            archived_traces: m.counter("archived_traces", "Requests to archive a trace, done"),
            archived_spans: m.counter("archived_spans", "Spans that entered the archive"),
            archive_bytes: m.gauge("archive_disk_bytes", "Size of the archive on disk, about"),
        }
    }
}
