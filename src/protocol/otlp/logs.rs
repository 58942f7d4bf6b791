//! OTLP's log records → lines, as Loki stores them: attributes of the resource become
//! labels of the stream or metadata, everything else of a record its line and metadata.
//!
//! L1. Both encodings fill a [`Record`], which [`Collector`] alone maps, so one export gives
//!     the same batch in either.
//! L2. What can't be kept of a record refuses that record alone; what can't be read refuses
//!     the request.
//! L3. Names, values that repeat, and pairs of resource and scope are shared by the sets of
//!     a batch; text grows in one buffer.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::logs_text::{write_json, write_text};
use super::{logs_json, logs_proto};
use crate::model::{Labels, LabelsBuilder, LogEntry, Timestamp};
use crate::protocol::loki::push::metadata::{clean_value, normalize_name};
use crate::protocol::loki::push::{
    DecodeError, DecodeLimits, DecodedPush, ParsedLabels, Parts, RefusedPart, STREAM_COST,
    text_too_large,
};

/// Attributes of a resource that become labels, as Loki has it by default.
pub const RESOURCE_LABELS: [&str; 18] = [
    "service.name",
    "service.namespace",
    "service.instance.id",
    "deployment.environment",
    "deployment.environment.name",
    "cloud.region",
    "cloud.availability_zone",
    "k8s.cluster.name",
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.container.name",
    "container.name",
    "k8s.replicaset.name",
    "k8s.deployment.name",
    "k8s.statefulset.name",
    "k8s.daemonset.name",
    "k8s.cronjob.name",
    "k8s.job.name",
];

/// The service of a stream that would have no label at all.
const UNKNOWN_SERVICE: (&str, &str) = ("service_name", "unknown_service");

/// Pairs that one resource, one scope or one record may bring. Far above every limit on
/// stored metadata; it bounds the work on what will be refused anyway.
const MAX_PAIRS: usize = 512;

/// Values inside one record or resource. A tree of empty values takes twenty times its
/// bytes; a line of the default limit can't hold so many.
pub(super) const MAX_VALUES: usize = 256 << 10;

/// What becomes a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    labels: HashSet<String>,
    /// Streams without any label are named, as ingest names those without a service.
    pub name_unknown: bool,
    is_default: bool,
}

impl Default for Mapping {
    fn default() -> Self {
        Self::new(&RESOURCE_LABELS, false)
    }
}

impl Mapping {
    /// `labels`: attributes of the resource, as they are called there.
    pub fn new<T: AsRef<str>>(labels: &[T], name_unknown: bool) -> Self {
        let labels: HashSet<String> = labels.iter().map(|l| l.as_ref().to_owned()).collect();
        let is_default = labels.len() == RESOURCE_LABELS.len()
            && RESOURCE_LABELS.iter().all(|l| labels.contains(*l));
        Self {
            labels,
            name_unknown,
            is_default,
        }
    }

    fn is_label(&self, name: &[u8]) -> bool {
        std::str::from_utf8(name).is_ok_and(|name| self.labels.contains(name))
    }
}

/// Reads an export in protobuf. `now` is the time of records that have none.
pub fn decode_proto(
    body: &[u8],
    limits: &DecodeLimits,
    mapping: &Mapping,
    now: Option<Timestamp>,
) -> Result<DecodedPush, DecodeError> {
    let mut collector = Collector::new(limits, mapping, now);
    logs_proto::decode(body, &mut collector)?;
    collector.finish()
}

/// Reads an export in JSON.
pub fn decode_json(
    body: &[u8],
    limits: &DecodeLimits,
    mapping: &Mapping,
    now: Option<Timestamp>,
) -> Result<DecodedPush, DecodeError> {
    let mut collector = Collector::new(limits, mapping, now);
    logs_json::decode(body, &mut collector)?;
    collector.finish()
}

/// An `AnyValue`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Value<'a> {
    #[default]
    None,
    /// Not necessarily UTF-8.
    Text(Cow<'a, [u8]>),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(Cow<'a, [u8]>),
    Array(Vec<Value<'a>>),
    Map(Vec<Attribute<'a>>),
}

pub(super) type Attribute<'a> = (Cow<'a, [u8]>, Value<'a>);

/// What has been read of a log record.
#[derive(Default)]
pub(super) struct Record<'a> {
    pub time: u64,
    pub observed: u64,
    pub severity_number: i64,
    pub severity_text: Cow<'a, [u8]>,
    pub body: Value<'a>,
    pub attributes: Vec<Attribute<'a>>,
    pub dropped_attributes: u32,
    pub flags: u32,
    /// 16 bytes, or none.
    pub trace_id: Cow<'a, [u8]>,
    /// 8 bytes, or none.
    pub span_id: Cow<'a, [u8]>,
    pub event_name: Cow<'a, [u8]>,
}

/// Whose records follow.
#[derive(Default)]
pub(super) struct Scope<'a> {
    pub name: Cow<'a, [u8]>,
    pub version: Cow<'a, [u8]>,
    pub attributes: Vec<Attribute<'a>>,
    pub dropped_attributes: u32,
}

/// Why a record alone is refused.
pub(super) struct Refused {
    pub reason: &'static str,
    pub message: String,
}

impl Refused {
    pub fn too_many_values() -> Self {
        Self {
            reason: "too_many_values",
            message: format!("a log record or resource holds more than {MAX_VALUES} values"),
        }
    }
}

type Pair = (Arc<str>, Arc<str>);

/// One stream of the batch.
struct Open {
    labels: Labels,
    entries: Vec<LogEntry>,
}

/// Maps what the decoders read.
pub(super) struct Collector<'m> {
    mapping: &'m Mapping,
    now: Option<Timestamp>,
    limits: &'m DecodeLimits,
    parts: Parts,
    text: Vec<u8>,
    streams: Vec<Open>,
    by_labels: HashMap<Labels, usize>,
    /// The stream of the resource at hand.
    stream: usize,
    /// Metadata of the resource at hand; with the scope's.
    resource: Vec<Pair>,
    shared: Vec<Pair>,
    /// The set of records that add nothing to `shared`.
    shared_set: Option<u32>,
    /// Why no record of this resource or scope can be kept.
    unfit: Option<&'static str>,
    /// The value that each name had last: many repeat from record to record.
    last: HashMap<Arc<str>, Arc<str>>,
    /// Names of what was nested, as joined.
    joined: HashMap<Box<str>, Arc<str>>,
    added: usize,
    made_up_time: bool,
    scratch: Vec<u8>,
}

impl<'m> Collector<'m> {
    fn new(limits: &'m DecodeLimits, mapping: &'m Mapping, now: Option<Timestamp>) -> Self {
        Self {
            mapping,
            now,
            limits,
            parts: Parts::new(limits),
            text: Vec::new(),
            streams: Vec::new(),
            by_labels: HashMap::new(),
            stream: 0,
            resource: Vec::new(),
            shared: Vec::new(),
            shared_set: None,
            unfit: None,
            last: HashMap::new(),
            joined: HashMap::new(),
            added: 0,
            made_up_time: false,
            scratch: Vec::new(),
        }
    }

    /// The records that follow are this resource's.
    pub fn begin_resource(&mut self, attributes: &[Attribute<'_>]) -> Result<(), DecodeError> {
        let mut labels = LabelsBuilder::default();
        self.parts.metadata.begin(&[]);
        self.added = 0;
        for (name, value) in attributes {
            if self.mapping.is_label(name) {
                self.add_labels(&normalize_name(name)?, value, &mut labels)?;
            } else {
                self.add(name, value)?;
            }
        }
        let mut labels = labels.build();
        if labels.is_empty() && self.mapping.name_unknown {
            labels = Labels::from_pairs([UNKNOWN_SERVICE]);
        }
        self.resource = self.parts.metadata.take_pairs();
        self.unfit = (self.added > MAX_PAIRS).then_some("resource");
        self.stream = match self.by_labels.get(&labels) {
            Some(stream) => *stream,
            None => {
                self.parts.spend(STREAM_COST + 2 * labels.text_bytes())?;
                self.streams.push(Open {
                    labels: labels.clone(),
                    entries: Vec::new(),
                });
                self.by_labels.insert(labels, self.streams.len() - 1);
                self.streams.len() - 1
            }
        };
        self.begin_scope(&Scope::default())
    }

    /// The records that follow are this scope's, of the resource begun last.
    pub fn begin_scope(&mut self, scope: &Scope<'_>) -> Result<(), DecodeError> {
        self.parts.metadata.begin(&self.resource);
        self.added = 0;
        for (name, value) in &scope.attributes {
            self.add(name, value)?;
        }
        for (name, value) in [
            ("scope_name", &scope.name),
            ("scope_version", &scope.version),
        ] {
            if !value.is_empty() {
                self.add_field(name, value)?;
            }
        }
        if scope.dropped_attributes > 0 {
            let count = scope.dropped_attributes.to_string();
            self.add_field("scope_dropped_attributes_count", count.as_bytes())?;
        }
        if self.unfit != Some("resource") {
            self.unfit = (self.added > MAX_PAIRS).then_some("scope");
        }
        self.shared = self.parts.metadata.take_pairs();
        self.shared_set = None;
        Ok(())
    }

    /// Takes a record, or the reason why its decoder could not make one.
    pub fn record(&mut self, record: Result<&Record<'_>, Refused>) -> Result<(), DecodeError> {
        self.parts.seen += 1;
        let taken = match record {
            Ok(record) => self.take(record)?,
            Err(refused) => Err(refused),
        };
        if let Err(Refused { reason, message }) = taken {
            match self.parts.refused.iter_mut().find(|p| p.reason == reason) {
                Some(part) => part.entries += 1,
                None => self.parts.refused.push(RefusedPart {
                    reason,
                    message,
                    entries: 1,
                }),
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &Record<'_>) -> Result<Result<(), Refused>, DecodeError> {
        if let Some(what) = self.unfit {
            return Ok(Err(too_many_pairs(what)));
        }
        if !matches!(record.trace_id.len(), 0 | 16) || !matches!(record.span_id.len(), 0 | 8) {
            return Ok(Err(Refused {
                reason: "bad_id",
                message: "a log record has a trace id that is not 16 bytes long, or a span id \
                          that is not 8"
                    .into(),
            }));
        }
        let time = if record.time > 0 {
            record.time
        } else {
            record.observed
        };
        let at = match i64::try_from(time) {
            Ok(0) => {
                self.made_up_time = true;
                self.now.unwrap_or(0)
            }
            Ok(at) => at,
            Err(_) => {
                return Ok(Err(Refused {
                    reason: "time_out_of_range",
                    message: "a log record has a timestamp beyond the year 2261".into(),
                }));
            }
        };
        let Some(metadata) = self.metadata(record)? else {
            return Ok(Err(too_many_pairs("log record")));
        };
        let start = self.text.len();
        match &record.body {
            body @ (Value::Array(_) | Value::Map(_)) => write_json(&mut self.text, body),
            body => write_text(&mut self.text, body),
        }
        if self.text.len() > self.limits.max_text {
            return Err(text_too_large(self.limits));
        }
        let entries = &mut self.streams[self.stream].entries;
        if entries.capacity() == entries.len() {
            // Booked where the vector grows: it doubles.
            self.parts
                .spend(entries.len().max(4) * size_of::<LogEntry>())?;
        }
        // `max_text` is at most 4 GiB.
        entries.push(LogEntry {
            at,
            start: start as u32,
            len: (self.text.len() - start) as u32,
            metadata,
        });
        Ok(Ok(()))
    }

    /// The number of the record's set; `None` when it has too many pairs.
    fn metadata(&mut self, record: &Record<'_>) -> Result<Option<u32>, DecodeError> {
        self.added = 0;
        self.parts.metadata.begin(&self.shared);
        for (name, value) in &record.attributes {
            self.add(name, value)?;
            if self.added > MAX_PAIRS {
                self.parts.metadata.take_pairs();
                return Ok(None);
            }
        }
        if record.time > 0 && record.observed > 0 {
            self.add_number("observed_timestamp", record.observed)?;
        }
        if record.severity_number != 0 {
            self.add_number("severity_number", record.severity_number)?;
        }
        if !record.severity_text.is_empty() {
            self.add_field("severity_text", &record.severity_text)?;
        }
        if record.dropped_attributes > 0 {
            self.add_number("dropped_attributes_count", record.dropped_attributes)?;
        }
        if record.flags > 0 {
            self.add_number("flags", record.flags)?;
        }
        if !record.event_name.is_empty() {
            self.add_field("event_name", &record.event_name)?;
        }
        for (name, id) in [("trace_id", &record.trace_id), ("span_id", &record.span_id)] {
            if id.iter().any(|byte| *byte != 0) {
                let mut digits = [0; 32];
                let digits = hex(id, &mut digits);
                self.add_field(name, digits)?;
            }
        }
        if self.added == 0 {
            if let Some(number) = self.shared_set {
                self.parts.metadata.take_pairs();
                return Ok(Some(number));
            }
            let number = self.close()?;
            self.shared_set = Some(number);
            return Ok(Some(number));
        }
        self.close().map(Some)
    }

    fn close(&mut self) -> Result<u32, DecodeError> {
        let (number, cost) = self.parts.metadata.close();
        // A cost says that the set is new: then it holds the shared pairs as well.
        if cost > 0 {
            self.parts
                .spend(cost + self.shared.len() * size_of::<Pair>())?;
        }
        Ok(number)
    }

    /// Adds an attribute to the set being made; what nests becomes several pairs.
    fn add(&mut self, name: &[u8], value: &Value<'_>) -> Result<(), DecodeError> {
        if let Value::Map(values) = value {
            let prefix = normalize_name(name)?;
            for (name, value) in values {
                self.add_nested(&prefix, name, value)?;
            }
            return Ok(());
        }
        let (name, is_new) = self.parts.metadata.normal_name(name)?;
        if is_new {
            self.parts.spend(2 * name.len() + NAME_COST)?;
        }
        self.add_value(name, value)
    }

    /// Depth is bounded by the decoders.
    fn add_nested(
        &mut self,
        prefix: &str,
        name: &[u8],
        value: &Value<'_>,
    ) -> Result<(), DecodeError> {
        if self.added > MAX_PAIRS {
            return Ok(());
        }
        let name = format!("{prefix}_{}", normalize_name(name)?);
        if let Value::Map(values) = value {
            for (inner, value) in values {
                self.add_nested(&name, inner, value)?;
            }
            return Ok(());
        }
        let name = self.joined_name(name)?;
        self.add_value(name, value)
    }

    fn joined_name(&mut self, name: String) -> Result<Arc<str>, DecodeError> {
        if let Some(known) = self.joined.get(name.as_str()) {
            return Ok(known.clone());
        }
        self.parts.spend(2 * name.len() + NAME_COST)?;
        let shared: Arc<str> = name.as_str().into();
        self.joined.insert(name.into(), shared.clone());
        Ok(shared)
    }

    fn add_value(&mut self, name: Arc<str>, value: &Value<'_>) -> Result<(), DecodeError> {
        let mut text = std::mem::take(&mut self.scratch);
        text.clear();
        let bytes = match value {
            Value::Text(bytes) => &**bytes,
            Value::Array(_) => {
                write_json(&mut text, value);
                &text
            }
            _ => {
                write_text(&mut text, value);
                &text
            }
        };
        let added = self.add_pair(name, bytes);
        // A large one was the exception.
        text.clear();
        text.shrink_to(64 << 10);
        self.scratch = text;
        added
    }

    /// Adds a field of the record itself, by a name that is normal.
    fn add_field(&mut self, name: &str, value: &[u8]) -> Result<(), DecodeError> {
        let (name, _) = self.parts.metadata.normal_name(name.as_bytes())?;
        self.add_pair(name, value)
    }

    fn add_number(&mut self, name: &str, value: impl std::fmt::Display) -> Result<(), DecodeError> {
        use std::io::Write;
        let mut digits = [0_u8; 24];
        let mut rest = &mut digits[..];
        // A 64-bit integer has at most 20 characters.
        let _ = write!(rest, "{value}");
        let left = rest.len();
        let len = digits.len() - left;
        let digits = digits;
        self.add_field(name, &digits[..len])
    }

    fn add_pair(&mut self, name: Arc<str>, value: &[u8]) -> Result<(), DecodeError> {
        self.added += 1;
        let value: Arc<str> = match self.last.get(&name) {
            Some(last) if last.as_bytes() == value => last.clone(),
            _ => {
                self.parts.spend(VALUE_COST + value.len())?;
                let value: Arc<str> = clean_value(value).as_ref().into();
                self.last.insert(name.clone(), value.clone());
                value
            }
        };
        self.parts.spend(size_of::<Pair>())?;
        self.parts.metadata.add_pair(name, value);
        Ok(())
    }

    /// Adds an attribute to the labels; what nests becomes several.
    fn add_labels(
        &mut self,
        name: &str,
        value: &Value<'_>,
        labels: &mut LabelsBuilder,
    ) -> Result<(), DecodeError> {
        self.added += 1;
        if self.added > MAX_PAIRS {
            return Ok(());
        }
        if let Value::Map(values) = value {
            for (inner, value) in values {
                let name = format!("{name}_{}", normalize_name(inner)?);
                self.add_labels(&name, value, labels)?;
            }
            return Ok(());
        }
        let mut text = Vec::new();
        match value {
            Value::Array(_) => write_json(&mut text, value),
            _ => write_text(&mut text, value),
        }
        self.parts.spend(VALUE_COST + name.len() + text.len())?;
        // An empty value is none.
        if !text.is_empty() {
            labels.set(name, clean_value(&text).as_ref());
        }
        Ok(())
    }

    fn finish(mut self) -> Result<DecodedPush, DecodeError> {
        for stream in std::mem::take(&mut self.streams) {
            let labels = ParsedLabels {
                labels: stream.labels,
                duplicate: None,
            };
            self.parts.push_stream(labels, stream.entries, 0)?;
        }
        let mut decoded = self.parts.finish(self.text)?;
        decoded.once_only = self.made_up_time || !self.mapping.is_default;
        Ok(decoded)
    }
}

/// What a name or a value occupies beside its text: counters, map entry, allocator's overhead.
const NAME_COST: usize = 64;
const VALUE_COST: usize = 32;

fn too_many_pairs(what: &str) -> Refused {
    Refused {
        reason: "structured_metadata_too_many",
        message: format!("a {what} has more than {MAX_PAIRS} attributes"),
    }
}

/// Lower-case digits of an id of at most 16 bytes.
fn hex<'b>(id: &[u8], digits: &'b mut [u8; 32]) -> &'b [u8] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in id.iter().zip(digits.as_chunks_mut::<2>().0) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    &digits[..2 * id.len().min(16)]
}

#[cfg(test)]
mod tests;
