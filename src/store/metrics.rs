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
    pub summary_bytes: Counter,
    pub links_found: Counter,
    pub links_orphaned: Counter,
    pub links_forgotten: Counter,
    pub link_orphans: Gauge,
    pub links_waiting: Gauge,
    pub link_bytes: Counter,
    pub sealed_line_bytes: Counter,
    pub sealed_stored_bytes: Counter,
    pub partitions: Gauge,
    pub partitions_dropped: Counter,
    pub partitions_dropped_for_room: Counter,
    pub streams: Gauge,
    pub heads: Gauge,
    pub disk_free: Gauge,
    pub disk_used: Gauge,
    pub checkpoints: Counter,
    pub delete_requests: Counter,
    pub delete_requests_waiting: Gauge,
    pub lines_erased: Counter,
    pub days_rewritten: Counter,
    pub rewrite_before_bytes: Counter,
    pub rewrite_after_bytes: Counter,
    pub rewrite_before_chunks: Counter,
    pub rewrite_after_chunks: Counter,
    pub expired_lines: Counter,
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
            summary_bytes: m.counter(
                "span_summary_bytes",
                "Bytes of what sealed blocks of spans say of services",
            ),
            links_found: m.counter(
                "dependency_calls",
                "Calls between services that linking spans found",
            ),
            links_orphaned: m.counter(
                "dependency_orphans",
                "Spans whose parent was nowhere when they were linked",
            ),
            links_forgotten: m.counter(
                "dependency_orphans_forgotten",
                "Spans whose parent is no longer waited for, or was not looked for, since there were too many",
            ),
            link_orphans: m.gauge(
                "dependency_orphans_waiting",
                "Parents that linked spans wait for, by service and minute",
            ),
            links_waiting: m.gauge(
                "dependency_blocks_waiting",
                "Sealed blocks of spans that are not linked yet",
            ),
            link_bytes: m.counter(
                "dependency_bytes",
                "Bytes of stored calls between services",
            ),
            sealed_line_bytes: m.counter("sealed_line_bytes", "Bytes of lines in sealed chunks"),
            sealed_stored_bytes: m.counter("sealed_stored_bytes", "Bytes of sealed chunks on disk"),
            partitions: m.gauge("partitions", "Days kept, logs and spans apart"),
            partitions_dropped: m
                .counter("partitions_dropped", "Days dropped, logs and spans apart"),
            partitions_dropped_for_room: m.counter(
                "partitions_dropped_for_room",
                "Days dropped before their age for max_bytes or min_free_bytes",
            ),
            streams: m.gauge("streams", "Streams known"),
            heads: m.gauge("heads", "Open heads"),
            disk_free: m.gauge("disk_free_bytes", "Free bytes on the disk of storage.path"),
            disk_used: m.gauge(
                "disk_used_bytes",
                "Bytes that everything below storage.path takes",
            ),
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
            days_rewritten: m.counter(
                "days_rewritten",
                "Days rewritten, to merge small chunks or without what has expired",
            ),
            rewrite_before_bytes: m.counter(
                "rewrite_before_bytes",
                "Bytes on disk of days before they were rewritten, index included",
            ),
            rewrite_after_bytes: m.counter(
                "rewrite_after_bytes",
                "Bytes on disk of rewritten days, index included: what rewriting wrote",
            ),
            rewrite_before_chunks: m.counter(
                "rewrite_before_chunks",
                "Chunks of days before they were rewritten",
            ),
            rewrite_after_chunks: m.counter("rewrite_after_chunks", "Chunks of rewritten days"),
            expired_lines: m.counter(
                "expired_lines",
                "Lines taken off the disk under a rule of retention, days that went whole left out",
            ),
            archived_traces: m.counter("archived_traces", "Requests to archive a trace, done"),
            archived_spans: m.counter("archived_spans", "Spans that entered the archive"),
            archive_bytes: m.gauge("archive_disk_bytes", "Size of the archive on disk, about"),
        }
    }
}
