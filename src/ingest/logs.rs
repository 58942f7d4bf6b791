//! Admission of pushed lines: the checks, in Loki's order, and what each refusal says.
//!
//! First all streams and entries are validated, then rates and the number of streams are
//! looked at, last the distance to each stream's newest entry. A check that fails ends the
//! checks of its stream or entry; the others are kept.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;

use crate::model::memo::Memo;
use crate::model::{Labels, LogBatch, LogEntry, StreamEntries, StreamId, Timestamp};

use super::discover::Discovery;
use super::limits::LogLimits;
use super::newest::NewestSeen;
use super::rate::Buckets;
use super::{FLAG_SERVICE_NAME, Refusal, RefusalKind};

/// Refusals told to the sender of one push; the rest is only counted. Without a bound, a
/// push of a million old entries would be answered with a million lines.
const MAX_TOLD: usize = 100;

/// Entries listed one by one in the refusal of those too far behind.
const MAX_BEHIND_LISTED: usize = 10;

/// How old entries of a stream with these labels may be; `None`: any age.
pub type AgeOf = dyn Fn(&Labels) -> Option<Duration> + Send + Sync;

/// How old entries of a stream may be, where streams differ in that.
pub struct StreamAges {
    /// No stream's are refused that are younger.
    pub shortest: Duration,
    pub of: Box<AgeOf>,
}

/// Places for streams admitted lately: 1 MiB with labels as they are.
const KNOWN: usize = 1024;
/// Streams with more text or more labels are looked at each time.
const KNOWN_TEXT: usize = 512;
const KNOWN_NAMES: usize = 32;

/// A stream with acceptable labels: what [`Admission`] makes of what was sent.
struct Known {
    tenant: Arc<str>,
    sent: Labels,
    labels: Labels,
    id: StreamId,
}

/// Decides what of a push is accepted.
pub struct Admission {
    limits: LogLimits,
    ages: Option<StreamAges>,
    /// `None`: no `service_name` is added.
    discovery: Option<Discovery>,
    /// Streams admitted lately.
    known: Memo<Known>,
    hasher: RandomState,
    newest: NewestSeen,
    tenant_rate: Option<Buckets<Arc<str>>>,
    stream_rate: Option<Buckets<StreamId>>,
}

/// What was left out of a batch, and whether the rest is still what was sent.
#[derive(Debug, Default)]
pub struct Admitted {
    pub refused_entries: usize,
    /// For the sender: at most [`MAX_TOLD`] and one that says how many more.
    pub refusals: Vec<Refusal>,
    /// Refused entries by reason.
    pub by_reason: BTreeMap<&'static str, usize>,
    /// The batch is what decoding its body again and [`complete`] would give.
    pub untouched: bool,
}

impl Admission {
    pub fn new(limits: LogLimits, discovery: Option<Discovery>) -> Self {
        Self {
            newest: NewestSeen::new(limits.max_streams),
            tenant_rate: Buckets::new(limits.ingestion_rate, limits.ingestion_burst),
            stream_rate: Buckets::new(limits.per_stream_rate, limits.per_stream_burst),
            limits,
            ages: None,
            discovery,
            known: Memo::new(KNOWN),
            hasher: RandomState::default(),
        }
    }

    /// The same, with ages that depend on the stream, beside the one for all.
    pub fn with_ages(self, ages: Option<StreamAges>) -> Self {
        Self { ages, ..self }
    }

    pub fn limits(&self) -> &LogLimits {
        &self.limits
    }

    /// Streams that got lines lately.
    pub fn active_streams(&self) -> usize {
        self.newest.len()
    }

    /// Flags to keep with a body, so that [`complete`] gives the same batch on replay.
    pub fn body_flags(&self) -> u8 {
        if self.discovery.is_some() {
            FLAG_SERVICE_NAME
        } else {
            0
        }
    }

    /// Gives streams their final labels and ids and leaves out what is not acceptable.
    /// `batch.streams` is empty when nothing is left.
    pub fn admit(&self, batch: &mut LogBatch, now: Timestamp) -> Admitted {
        let mut told = Told::default();
        let mut streams = std::mem::take(&mut batch.streams);
        let metadata: Vec<MetadataSize> = batch.metadata.iter().map(MetadataSize::of).collect();

        streams.retain_mut(|stream| {
            self.validate_labels(&batch.tenant, stream, &mut told)
                && self.validate_entries(stream, &metadata, now, &mut told)
        });
        self.limit_tenant(batch, &mut streams, &metadata, now, &mut told);
        streams.retain_mut(|stream| {
            self.limit_stream(&batch.tenant, stream, &metadata, now, &mut told)
        });
        batch.streams = streams;

        let known_to_replay = self.discovery.as_ref().is_none_or(Discovery::is_default);
        told.finish(known_to_replay)
    }

    /// Gives a stream its final labels and its id.
    fn validate_labels(
        &self,
        tenant: &Arc<str>,
        stream: &mut StreamEntries,
        told: &mut Told,
    ) -> bool {
        let hash = self.hasher.hash_one(&stream.labels);
        let known = self.known.get(hash, |known| {
            let is_same = known.sent == stream.labels && known.tenant == *tenant;
            is_same.then(|| (known.labels.clone(), known.id))
        });
        if let Some((labels, id)) = known {
            (stream.labels, stream.id) = (labels, id);
            return true;
        }
        let sent = stream.labels.clone();
        if let Some(discovery) = &self.discovery
            && let Some(labels) = discovery.complete(&stream.labels)
        {
            stream.labels = labels;
        }
        let Some((reason, message)) = self.labels_fault(&stream.labels) else {
            stream.id = StreamId::of(tenant, &stream.labels);
            if sent.text_bytes() <= KNOWN_TEXT && sent.len() <= KNOWN_NAMES {
                let (tenant, labels, id) = (tenant.clone(), stream.labels.clone(), stream.id);
                let known = Known {
                    tenant,
                    sent,
                    labels,
                    id,
                };
                self.known.put(hash, known);
            }
            return true;
        };
        told.refuse(RefusalKind::Invalid, reason, stream.entries.len(), || {
            message
        });
        false
    }

    fn labels_fault(&self, labels: &Labels) -> Option<(&'static str, String)> {
        let limits = &self.limits;
        if labels.is_empty() {
            return Some((
                "missing_labels",
                "at least one label pair is required per stream".to_owned(),
            ));
        }
        let counted = labels.len() - usize::from(labels.get("service_name").is_some());
        if exceeds(counted, limits.max_label_names) {
            return Some((
                "max_label_names_per_series",
                format!(
                    "stream '{labels}' has {counted} label names; limit {}",
                    limits.max_label_names
                ),
            ));
        }
        for (name, value) in labels.iter() {
            if exceeds(name.len(), limits.max_label_name_length) {
                return Some((
                    "label_name_too_long",
                    format!("stream '{labels}' has label name too long: '{name}'"),
                ));
            }
            if exceeds(value.len(), limits.max_label_value_length) {
                return Some((
                    "label_value_too_long",
                    format!("stream '{labels}' has label value too long: '{value}'"),
                ));
            }
        }
        None
    }

    /// Whether an entry is left.
    fn validate_entries(
        &self,
        stream: &mut StreamEntries,
        metadata: &[MetadataSize],
        now: Timestamp,
        told: &mut Told,
    ) -> bool {
        let limits = &self.limits;
        let mut oldest = limits
            .reject_older_than
            .map_or(i64::MIN, |age| before(now, age));
        if let Some(ages) = &self.ages
            && stream
                .entries
                .iter()
                .any(|e| e.at < before(now, ages.shortest))
            && let Some(age) = (ages.of)(&stream.labels)
        {
            oldest = oldest.max(before(now, age));
        }
        let latest = limits
            .creation_grace_period
            .map_or(i64::MAX, |grace| now.saturating_add(nanoseconds(grace)));
        let max_line = or_unlimited(limits.max_line_size);
        let (max_size, max_count) = (
            or_unlimited(limits.max_metadata_size),
            or_unlimited(limits.max_metadata_count),
        );
        let labels = &stream.labels;
        stream.entries.retain(|entry| {
            let size = MetadataSize::of_entry(metadata, entry);
            // Nearly always all is well: one branch.
            if entry.at >= oldest
                && entry.at <= latest
                && entry.len as usize <= max_line
                && size.bytes <= max_size
                && size.pairs <= max_count
            {
                return true;
            }
            let mut refuse = |reason, message: &dyn Fn() -> String| {
                told.refuse(RefusalKind::Invalid, reason, 1, message);
            };
            if entry.at < oldest {
                refuse("greater_than_max_sample_age", &|| {
                    format!(
                        "entry for stream '{labels}' has timestamp too old: {}, oldest acceptable \
                         timestamp is: {}",
                        rfc3339(entry.at),
                        rfc3339(oldest)
                    )
                });
            } else if entry.at > latest {
                refuse("too_far_in_future", &|| {
                    format!(
                        "entry for stream '{labels}' has timestamp too new: {}",
                        rfc3339(entry.at)
                    )
                });
            } else if entry.len as usize > max_line {
                refuse("line_too_long", &|| {
                    format!(
                        "max entry size of {max_line} bytes exceeded for stream '{labels}' by an \
                         entry of {} bytes",
                        entry.len
                    )
                });
            } else if size.bytes > max_size {
                refuse("structured_metadata_too_large", &|| {
                    format!(
                        "stream '{labels}' has structured metadata too large: {} bytes, limit: \
                         {max_size} bytes",
                        size.bytes
                    )
                });
            } else {
                refuse("structured_metadata_too_many", &|| {
                    format!(
                        "stream '{labels}' has too many structured metadata labels: {}, limit: \
                         {max_count}",
                        size.pairs
                    )
                });
            }
            false
        });
        !stream.entries.is_empty()
    }

    /// Empties `streams` when the tenant sends too fast.
    fn limit_tenant(
        &self,
        batch: &LogBatch,
        streams: &mut Vec<StreamEntries>,
        metadata: &[MetadataSize],
        now: Timestamp,
        told: &mut Told,
    ) {
        let Some(buckets) = &self.tenant_rate else {
            return;
        };
        let bytes = streams.iter().map(|s| weight(s, metadata)).sum();
        if buckets.take(batch.tenant.clone(), bytes, now) {
            return;
        }
        let lines: usize = streams.iter().map(|s| s.entries.len()).sum();
        told.refuse(RefusalKind::Limited, "rate_limited", lines, || {
            format!(
                "ingestion rate limit exceeded for user {} (limit: {} bytes/sec) while attempting \
                 to ingest '{lines}' lines totaling '{bytes}' bytes, reduce log volume or raise \
                 the limit",
                shown_tenant(&batch.tenant),
                self.limits.ingestion_rate,
            )
        });
        streams.clear();
    }

    /// Whether an entry is left.
    fn limit_stream(
        &self,
        tenant: &str,
        stream: &mut StreamEntries,
        metadata: &[MetadataSize],
        now: Timestamp,
        told: &mut Told,
    ) -> bool {
        let labels = &stream.labels;
        let count = stream.entries.len();
        let Ok(newest) = self.newest.get(stream.id, now) else {
            told.refuse(RefusalKind::Limited, "stream_limit", count, || {
                format!(
                    "maximum active stream limit exceeded when trying to create stream \
                     '{labels}': {} streams are active; use fewer label values or raise \
                     max_streams",
                    self.limits.max_streams,
                )
            });
            return false;
        };
        if let Some(buckets) = &self.stream_rate {
            let bytes = weight(stream, metadata);
            if !buckets.take(stream.id, bytes, now) {
                told.refuse(RefusalKind::Limited, "per_stream_rate_limit", count, || {
                    format!(
                        "Per stream rate limit exceeded (limit: {} bytes/sec) while attempting to \
                         ingest for stream '{labels}' totaling {bytes} bytes; split the stream or \
                         raise the limit",
                        self.limits.per_stream_rate,
                    )
                });
                return false;
            }
        }
        self.drop_far_behind(tenant, stream, newest, told);
        match stream.entries.iter().map(|e| e.at).max() {
            Some(newest) => {
                self.newest.note(stream.id, newest, now);
                true
            }
            None => false,
        }
    }

    fn drop_far_behind(
        &self,
        tenant: &str,
        stream: &mut StreamEntries,
        newest: Option<Timestamp>,
        told: &mut Told,
    ) {
        let Some(max_behind) = self.limits.max_behind else {
            return;
        };
        // Entries of this push count as well, in their order.
        let mut newest = newest.unwrap_or(i64::MIN);
        let total = stream.entries.len();
        let mut listed = String::new();
        let mut behind = 0;
        stream.entries.retain(|entry| {
            let oldest = before(newest, max_behind);
            if entry.at < oldest {
                behind += 1;
                if behind <= MAX_BEHIND_LISTED {
                    let at = rfc3339(entry.at);
                    // Writing to a string cannot fail.
                    let _ = writeln!(
                        listed,
                        "entry with timestamp {at} ignored, reason: 'entry too far behind, entry \
                         timestamp is: {at}, oldest acceptable timestamp is: {}',",
                        rfc3339(oldest)
                    );
                }
                return false;
            }
            newest = newest.max(entry.at);
            true
        });
        if behind > 0 {
            told.refuse(RefusalKind::Invalid, "too_far_behind", behind, || {
                format!(
                    "{listed}user '{}', total ignored: {behind} out of {total} for stream: {}",
                    shown_tenant(tenant),
                    stream.labels
                )
            });
        }
    }
}

/// Gives a batch that was decoded again the labels and ids that it got when it was
/// accepted. `flags` are those of `Received::Body`.
pub fn complete(batch: &mut LogBatch, flags: u8) {
    let discovery = (flags & FLAG_SERVICE_NAME != 0).then(Discovery::default);
    for stream in &mut batch.streams {
        if let Some(labels) = discovery.as_ref().and_then(|d| d.complete(&stream.labels)) {
            stream.labels = labels;
        }
        stream.id = StreamId::of(&batch.tenant, &stream.labels);
    }
}

/// What to tell the sender: one refusal as it is, several with equal ones grouped.
pub fn error_text(refusals: &[Refusal]) -> String {
    if let [only] = refusals {
        return only.message.clone();
    }
    // In order of first occurrence.
    let mut groups: Vec<(&str, usize)> = Vec::new();
    for refusal in refusals {
        match groups
            .iter_mut()
            .find(|(message, _)| *message == refusal.message)
        {
            Some((_, count)) => *count += 1,
            None => groups.push((&refusal.message, 1)),
        }
    }
    let texts: Vec<String> = groups
        .iter()
        .map(|(message, count)| format!("{count} errors like: {message}"))
        .collect();
    texts.join("; ")
}

/// Collects refusals.
#[derive(Default)]
struct Told {
    refusals: Vec<Refusal>,
    entries: usize,
    untold: usize,
    by_reason: BTreeMap<&'static str, usize>,
}

impl Told {
    fn refuse(
        &mut self,
        kind: RefusalKind,
        reason: &'static str,
        entries: usize,
        message: impl FnOnce() -> String,
    ) {
        self.entries += entries;
        *self.by_reason.entry(reason).or_default() += entries;
        // A limit changes the answer's status: it is always told.
        if self.refusals.len() < MAX_TOLD
            || (kind == RefusalKind::Limited && self.refusals.iter().all(|r| r.kind != kind))
        {
            self.refusals.push(Refusal {
                kind,
                reason,
                message: message(),
            });
        } else {
            self.untold += entries;
        }
    }

    fn finish(mut self, known_to_replay: bool) -> Admitted {
        if self.untold > 0 {
            self.refusals.push(Refusal {
                kind: RefusalKind::Invalid,
                reason: "untold",
                message: format!("{} more entries were refused", self.untold),
            });
        }
        Admitted {
            untouched: self.entries == 0 && self.refusals.is_empty() && known_to_replay,
            refused_entries: self.entries,
            refusals: self.refusals,
            by_reason: self.by_reason,
        }
    }
}

/// What one metadata set counts.
#[derive(Clone, Copy, Default)]
struct MetadataSize {
    bytes: usize,
    pairs: usize,
}

impl MetadataSize {
    fn of(set: &crate::model::Metadata) -> Self {
        Self {
            bytes: set.iter().map(|(n, v)| n.len() + v.len()).sum(),
            pairs: set.len(),
        }
    }

    #[inline]
    fn of_entry(sizes: &[Self], entry: &LogEntry) -> Self {
        match entry.metadata {
            0 => Self::default(),
            number => sizes.get(number as usize - 1).copied().unwrap_or_default(),
        }
    }
}

/// Bytes that rates are measured by.
fn weight(stream: &StreamEntries, metadata: &[MetadataSize]) -> u64 {
    let of = |e: &LogEntry| u64::from(e.len) + MetadataSize::of_entry(metadata, e).bytes as u64;
    stream.entries.iter().map(of).sum()
}

fn exceeds(found: usize, limit: usize) -> bool {
    limit > 0 && found > limit
}

fn or_unlimited(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { limit }
}

fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn before(at: Timestamp, distance: Duration) -> Timestamp {
    at.saturating_sub(nanoseconds(distance))
}

/// Loki calls the only tenant so when there is no tenancy.
fn shown_tenant(tenant: &str) -> &str {
    if tenant.is_empty() { "fake" } else { tenant }
}

fn rfc3339(at: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at)) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => format!("{at} ns"),
    }
}
