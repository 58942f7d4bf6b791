//! Everything that a selector has in a range of time, piece by piece: for taking it elsewhere.
//!
//! X1. In order of days, streams, arrival; lines of one piece by time. Nothing is sorted over
//!     pieces, so what is in memory is one piece, and what is known of the chunks of one day.
//! X2. Each line is there once, as it was stored. Each day is as of the moment it is begun.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::answer::{QueryError, QueryStats};
use super::logs::{add, compile_error};
use super::prune::{Part, Unit, candidates, internal};
use super::scan::{Leveler, Sieve, scan};
use crate::logql::ast::LogExpr;
use crate::logql::pipeline::Pipeline;
use crate::model::trace::{Span, Tag, TagValue};
use crate::model::{Day, Labels, Matcher, TimeRange, Timestamp};
use crate::store::Store;
use crate::store::layout::Signal;
use crate::store::partition::Read;
use crate::store::snapshot::SpanDay;
use crate::store::span::SpanBlock;

/// A line that is taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedLine {
    pub at: Timestamp,
    /// Not necessarily UTF-8.
    pub line: Bytes,
    /// Labels of its stream.
    pub stream: Labels,
    /// Its structured metadata.
    pub structured: Labels,
    /// What stages of the query extracted.
    pub parsed: Labels,
}

/// Lines of a query.
pub struct LogExport {
    store: Store,
    tenant: Arc<str>,
    expr: LogExpr,
    pipeline: Pipeline,
    range: TimeRange,
    /// Stages may ask for `detected_level`; lines alone are exported without it.
    levels: bool,
    days: VecDeque<Day>,
    units: VecDeque<Unit>,
    stats: QueryStats,
}

impl LogExport {
    /// Prepares the lines that a log query gives in `range`, of all there are.
    pub fn new(
        store: Store,
        tenant: &str,
        expr: LogExpr,
        range: TimeRange,
        discover_levels: bool,
    ) -> Result<Self, QueryError> {
        let pipeline = Pipeline::compile(&expr).map_err(compile_error)?;
        let wanted = range.days();
        let days = store.days(Signal::Logs).into_iter();
        Ok(Self {
            days: days.filter(|day| wanted.contains(&day.0)).collect(),
            tenant: tenant.into(),
            levels: discover_levels && !pipeline.is_only_filters(),
            pipeline,
            expr,
            range,
            units: VecDeque::new(),
            stats: QueryStats::default(),
            store,
        })
    }

    /// What it cost so far; damaged chunks are counted there.
    pub fn stats(&self) -> &QueryStats {
        &self.stats
    }

    /// The next lines, or `None` at the end. Blocks while a chunk is read.
    pub fn next_piece(&mut self) -> Result<Option<Vec<ExportedLine>>, QueryError> {
        loop {
            if let Some(unit) = self.units.pop_front() {
                let lines = self.read(&unit)?;
                if !lines.is_empty() {
                    return Ok(Some(lines));
                }
            } else if let Some(day) = self.days.pop_front() {
                let range = TimeRange {
                    start: self.range.start.max(day.start()),
                    end: self.range.end.min(day.end()),
                };
                let (matchers, need) = (&self.expr.matchers, self.expr.need());
                let found =
                    candidates(&self.store, &self.tenant, matchers, range, &need, Part::ALL)?;
                let mut units = found.units;
                // Stable: of one stream they stay in order of arrival.
                units.sort_by(|a, b| a.stream().labels.cmp(&b.stream().labels));
                self.units = units.into();
            } else {
                return Ok(None);
            }
        }
    }

    fn read(&mut self, unit: &Unit) -> Result<Vec<ExportedLine>, QueryError> {
        let stream = unit.stream();
        let mut runner = self.pipeline.runner();
        runner.bind(&stream.labels);
        let mut leveler = Leveler::new();
        let mut found = Vec::new();
        let mut cost = QueryStats::default();
        let sieve = Sieve::of(&self.pipeline, &stream.labels);
        scan(unit, sieve, &mut cost, |lines, hits| {
            for index in hits {
                let i = *index as usize;
                let at = lines.at[i];
                if !self.range.contains(at) {
                    continue;
                }
                let (line, stored) = (lines.line(i), lines.metadata_of(i));
                let leveled;
                let metadata = if self.levels {
                    leveled = leveler.level(&stream.labels, stored, line);
                    Some(&leveled)
                } else {
                    stored
                };
                if let Some(outcome) = runner.run_rest(at, line, metadata) {
                    found.push(ExportedLine {
                        at,
                        line: Bytes::copy_from_slice(outcome.line()),
                        stream: outcome.stream_labels(),
                        structured: outcome.structured(),
                        parsed: outcome.parsed(),
                    });
                }
            }
            Ok(())
        })?;
        add(&mut self.stats, &cost);
        // A head has its lines in order of arrival.
        found.sort_by_key(|line| line.at);
        Ok(found)
    }
}

/// Spans of a selector.
pub struct SpanExport {
    selector: Vec<Matcher>,
    /// Of starts.
    range: TimeRange,
    /// Days of arrival, oldest first, each with its blocks that may hold such spans.
    days: VecDeque<(SpanDay, VecDeque<u32>)>,
    /// What is not sealed.
    open: VecDeque<Arc<SpanBlock>>,
    damaged: u64,
}

impl SpanExport {
    /// Prepares the spans that begin in `range` and meet every matcher: `service`, `operation`,
    /// `kind`, `trace_id` and `span_id`, and otherwise a tag of the span or its process, in the
    /// name of which everything but letters, digits and `_` is a `_`.
    pub fn new(
        store: &Store,
        selector: Vec<Matcher>,
        range: TimeRange,
    ) -> Result<Self, QueryError> {
        let snapshot = store.spans().map_err(internal)?;
        let days = snapshot.days.iter().map(|day| {
            let blocks = day.blocks.iter();
            let wanted = blocks.filter(|meta| range.overlaps(meta.min_start, meta.max_start));
            (day.clone(), wanted.map(|meta| meta.number).collect())
        });
        let frozen = snapshot.frozen.iter();
        let frozen = frozen.map(|head| Arc::new(head.block.block().clone()));
        Ok(Self {
            days: days.collect(),
            open: frozen.chain(snapshot.open.iter().cloned()).collect(),
            selector,
            range,
            damaged: 0,
        })
    }

    /// Blocks that could not be read.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    /// The next spans, or `None` at the end. Blocks while a block is read.
    pub fn next_piece(&mut self) -> Result<Option<Vec<Span>>, QueryError> {
        loop {
            let block = match self.days.front_mut() {
                Some((day, numbers)) => {
                    let Some(number) = numbers.pop_front() else {
                        self.days.pop_front();
                        continue;
                    };
                    let read = day.partition.read(number, SpanBlock::decode);
                    match read.map_err(internal)? {
                        Read::Whole(block) => Arc::new(block),
                        Read::Damaged => {
                            self.damaged += 1;
                            continue;
                        }
                        Read::Gone => continue,
                    }
                }
                None => match self.open.pop_front() {
                    Some(block) => block,
                    None => return Ok(None),
                },
            };
            let wanted = |n: &usize| self.range.contains(block.start_of(*n));
            let spans = (0..block.len()).filter(wanted).map(|n| block.span(n));
            let spans: Vec<Span> = spans.filter(|span| self.matches(span)).collect();
            if !spans.is_empty() {
                return Ok(Some(spans));
            }
        }
    }

    fn matches(&self, span: &Span) -> bool {
        self.selector.iter().all(|matcher| match &*matcher.name {
            "service" | "service_name" => matcher.matches(&span.process.service),
            "operation" => matcher.matches(&span.operation),
            "kind" => matcher.matches(span.kind()),
            "trace_id" => matcher.matches(&format!("{:032x}", span.trace_id.0)),
            "span_id" => matcher.matches(&span.span_id.to_string()),
            name => {
                let tags = span.tags.iter().chain(&span.process.tags);
                let mut named = tags.filter(|tag| is_called(tag, name)).peekable();
                match named.peek() {
                    None => matcher.matches(""),
                    Some(_) => named.any(|tag| matcher.matches(&text_of(&tag.value))),
                }
            }
        })
    }
}

/// Whether a tag's key is written so in a selector.
fn is_called(tag: &Tag, name: &str) -> bool {
    let written = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    tag.key.chars().map(written).eq(name.chars())
}

fn text_of(value: &TagValue) -> String {
    match value {
        TagValue::String(text) => text.to_string(),
        TagValue::Bool(value) => value.to_string(),
        TagValue::Int64(number) => number.to_string(),
        TagValue::Float64(number) => number.to_string(),
        TagValue::Binary(bytes) => bytes.iter().map(|b| format!("{b:02x}")).collect(),
    }
}
