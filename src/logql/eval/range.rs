//! Range aggregations: entries in, one value per series and evaluation time out.
//!
//! W1. At time T a range R with offset O covers (T−O−R, T−O]: start exclusive, end inclusive.
//! W2. A series has a point at T only if an entry of it lies in the window.
//! W3. Entries may come in any order; accumulators of parts add up to that of the whole.

use hashbrown::HashMap;

use super::EvalError;
use super::functions::over_samples;
use super::windows::{Cell, Windows};
use crate::logql::ast::{Conversion, MetricExpr, RangeAggregation, RangeFunction};
use crate::logql::entry::{Entry, NameId};
use crate::logql::pipeline::{Outcome, Runner};
use crate::logql::plan::{Group, Leaf};
use crate::logql::units;
use crate::model::labels::{Labels, LabelsBuilder, MatchOp};
use crate::model::log::Metadata;
use crate::model::series::{Grid, Matrix, Series};
use crate::model::time::{SECOND, Timestamp};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// How `__error__` calls a value that cannot be unwrapped.
const EXTRACTION_ERROR: &str = "SampleExtractionErr";
/// Series keys remembered by a sampler.
const MAX_KEYS: usize = 20_000;

/// What has been gathered of one series.
#[derive(Clone, Debug)]
enum Cells {
    /// Entries and their bytes by window, as differences from one window to the next: an entry
    /// costs the same however many windows hold it.
    Counts { lines: Vec<i64>, bytes: Vec<i64> },
    /// Single samples.
    Samples(Vec<(Timestamp, f64)>),
}

/// What one chunk gives to a leaf: samples by series, for windows that are unions of its
/// buckets.
#[derive(Clone, Debug)]
pub struct Part(Vec<(Labels, PartCells)>);

#[derive(Clone, Debug)]
enum PartCells {
    /// Any time of a bucket, and the bucket's lines and bytes.
    Counts(Box<[(Timestamp, u32, u64)]>),
    Samples(Box<[(Timestamp, f64)]>),
}

impl Part {
    /// Close to the memory it takes, bytes.
    pub fn memory(&self) -> usize {
        let of_cells = |cells: &PartCells| match cells {
            PartCells::Counts(cells) => 24 * cells.len(),
            PartCells::Samples(samples) => 16 * samples.len(),
        };
        let of_labels = |labels: &Labels| 64 + labels.text_bytes() + 96 * labels.len();
        let series = self.0.iter();
        let series = series.map(|(labels, cells)| of_labels(labels) + of_cells(cells));
        64 + series.sum::<usize>()
    }
}

/// Samples of a leaf, by series.
#[derive(Clone, Debug)]
pub struct Accumulator {
    windows: Windows,
    /// Of the last entry.
    cell: Cell,
    function: RangeFunction,
    parameter: f64,
    unwraps: bool,
    index: Map<Labels, usize>,
    series: Vec<(Labels, Cells)>,
    /// The first entry in a window that had an error.
    error: Option<(String, Labels)>,
    /// For `absent_over_time`: the labels of its series.
    absent_labels: Labels,
}

impl Accumulator {
    pub fn new(aggregation: &RangeAggregation, grid: Grid) -> Self {
        let windows = Windows {
            grid,
            range: aggregation.over.range,
            offset: aggregation.over.offset,
        };
        Self::over(aggregation, windows)
    }

    fn over(aggregation: &RangeAggregation, windows: Windows) -> Self {
        Self {
            windows,
            cell: windows.cell(windows.grid.start),
            function: aggregation.function,
            parameter: aggregation.parameter.unwrap_or(0.0),
            unwraps: aggregation.over.unwrap.is_some()
                && aggregation.function != RangeFunction::AbsentOverTime,
            index: Map::default(),
            series: Vec::new(),
            error: None,
            absent_labels: absent_labels(aggregation),
        }
    }

    /// Series so far.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Close to the memory it takes, bytes.
    pub fn memory(&self) -> usize {
        let cells: usize = self
            .series
            .iter()
            .map(|(labels, cells)| {
                labels.text_bytes()
                    + 128
                    + match cells {
                        Cells::Counts { lines, bytes } => 8 * (lines.len() + bytes.len()),
                        Cells::Samples(samples) => 16 * samples.capacity(),
                    }
            })
            .sum();
        cells
    }

    /// The number of the series with these labels, for [`Self::add`].
    pub fn series(&mut self, labels: &Labels) -> usize {
        if let Some(number) = self.index.get(labels) {
            return *number;
        }
        let width = self.windows.grid.len() + 1;
        let cells = if self.unwraps {
            Cells::Samples(Vec::new())
        } else {
            Cells::Counts {
                lines: vec![0; width],
                bytes: if self.function.counts_bytes() {
                    vec![0; width]
                } else {
                    Vec::new()
                },
            }
        };
        self.series.push((labels.clone(), cells));
        self.index.insert(labels.clone(), self.series.len() - 1);
        self.series.len() - 1
    }

    /// Adds one sample: the unwrapped value, or the byte length of the line.
    pub fn add(&mut self, series: usize, at: Timestamp, value: f64) {
        match &mut self.series[series].1 {
            Cells::Samples(samples) => samples.push((at, value)),
            Cells::Counts { .. } => {
                self.add_counts(series, at, at, 1, value as u64);
            }
        }
    }

    /// Adds `lines` entries with `bytes` bytes that lie somewhere in `first..=last`. False, and
    /// nothing is added, when some windows hold only a part of that.
    pub fn add_counts(
        &mut self,
        series: usize,
        first: Timestamp,
        last: Timestamp,
        lines: u64,
        bytes: u64,
    ) -> bool {
        let (from, to) = self.holding(first);
        if first != last && self.windows.holding(last) != (from, to) {
            return false;
        }
        if from >= to {
            return true;
        }
        match &mut self.series[series].1 {
            Cells::Counts {
                lines: line_cells,
                bytes: byte_cells,
            } => {
                line_cells[from] += lines as i64;
                line_cells[to] -= lines as i64;
                if !byte_cells.is_empty() {
                    byte_cells[from] += bytes as i64;
                    byte_cells[to] -= bytes as i64;
                }
                true
            }
            Cells::Samples(_) => false,
        }
    }

    #[inline]
    fn holding(&mut self, at: Timestamp) -> (usize, usize) {
        if !self.cell.holds(at) {
            self.cell = self.windows.cell(at);
        }
        (self.cell.from, self.cell.to)
    }

    /// Whether a window holds this time.
    #[inline]
    pub fn wants(&mut self, at: Timestamp) -> bool {
        let (from, to) = self.holding(at);
        from < to
    }

    fn fail(&mut self, kind: &str, labels: Labels) {
        if self.error.is_none() {
            self.error = Some((kind.to_owned(), labels));
        }
    }

    /// Takes in what another part of the data gave.
    pub fn merge(&mut self, other: Self) {
        if let Some((kind, labels)) = other.error {
            self.fail(&kind, labels);
        }
        for (labels, cells) in other.series {
            let number = self.series(&labels);
            match (&mut self.series[number].1, cells) {
                (
                    Cells::Counts { lines, bytes },
                    Cells::Counts {
                        lines: more_lines,
                        bytes: more_bytes,
                    },
                ) => {
                    for (to, from) in lines.iter_mut().zip(more_lines) {
                        *to += from;
                    }
                    for (to, from) in bytes.iter_mut().zip(more_bytes) {
                        *to += from;
                    }
                }
                (Cells::Samples(samples), Cells::Samples(more)) => samples.extend(more),
                // Accumulators of one leaf hold one kind.
                (_, _) => debug_assert!(false, "accumulators of different leaves"),
            }
        }
    }

    /// What was gathered, as a part of something larger; `None` when an entry had an error.
    pub fn into_part(self) -> Option<Part> {
        if self.error.is_some() {
            return None;
        }
        let grid = self.windows.grid;
        let mut part = Vec::with_capacity(self.series.len());
        for (labels, cells) in self.series {
            let cells = match cells {
                Cells::Samples(samples) => PartCells::Samples(samples.into()),
                Cells::Counts { lines, bytes } => {
                    let (mut line_sum, mut byte_sum) = (0i64, 0i64);
                    let mut cells = Vec::new();
                    for (step, change) in lines.iter().enumerate().take(grid.len()) {
                        line_sum += change;
                        byte_sum += bytes.get(step).copied().unwrap_or(0);
                        if line_sum > 0 {
                            let count = u32::try_from(line_sum).ok()?;
                            cells.push((grid.at(step), count, byte_sum as u64));
                        }
                    }
                    PartCells::Counts(cells.into())
                }
            };
            part.push((labels, cells));
        }
        Some(Part(part))
    }

    /// Adds a part whose buckets make up the windows here.
    pub fn add_part(&mut self, part: &Part) {
        for (labels, cells) in &part.0 {
            let mut series = None;
            match cells {
                PartCells::Counts(cells) => {
                    for (at, lines, bytes) in cells {
                        if self.wants(*at) {
                            let number = *series.get_or_insert_with(|| self.series(labels));
                            self.add_counts(number, *at, *at, u64::from(*lines), *bytes);
                        }
                    }
                }
                PartCells::Samples(samples) => {
                    for (at, value) in samples {
                        if self.wants(*at) {
                            let number = *series.get_or_insert_with(|| self.series(labels));
                            self.add(number, *at, *value);
                        }
                    }
                }
            }
        }
    }

    /// The values at every evaluation time.
    pub fn finish(self) -> Result<Matrix, EvalError> {
        if let Some((kind, series)) = self.error {
            return Err(EvalError::Pipeline { kind, series });
        }
        let windows = self.windows;
        let steps = windows.grid.len();
        let seconds = windows.range as f64 / SECOND as f64;
        if self.function == RangeFunction::AbsentOverTime {
            let mut points = vec![Some(1.0); steps];
            for (_, cells) in &self.series {
                if let Cells::Counts { lines, .. } = cells {
                    let mut running = 0;
                    for (point, change) in points.iter_mut().zip(lines) {
                        running += change;
                        if running > 0 {
                            *point = None;
                        }
                    }
                }
            }
            return Ok(vec![Series {
                labels: self.absent_labels,
                points,
            }]);
        }
        let mut matrix = Vec::with_capacity(self.series.len());
        for (labels, cells) in self.series {
            let points: Vec<Option<f64>> = match cells {
                Cells::Counts { lines, bytes } => {
                    let (mut line_sum, mut byte_sum) = (0, 0);
                    (0..steps)
                        .map(|step| {
                            line_sum += lines[step];
                            byte_sum += bytes.get(step).copied().unwrap_or(0);
                            (line_sum > 0).then(|| match self.function {
                                RangeFunction::Rate => line_sum as f64 / seconds,
                                RangeFunction::BytesOverTime => byte_sum as f64,
                                RangeFunction::BytesRate => byte_sum as f64 / seconds,
                                _ => line_sum as f64,
                            })
                        })
                        .collect()
                }
                Cells::Samples(samples) => {
                    over_samples(windows, self.function, self.parameter, samples)
                }
            };
            if points.iter().any(Option::is_some) {
                matrix.push(Series { labels, points });
            }
        }
        Ok(matrix)
    }
}

/// The labels that a selector fixes: named once, by equality.
fn absent_labels(aggregation: &RangeAggregation) -> Labels {
    let matchers = &aggregation.over.log.matchers;
    let mut builder = LabelsBuilder::default();
    for matcher in matchers {
        let named_once = matchers.iter().filter(|m| m.name == matcher.name).count() == 1;
        if matcher.op == MatchOp::Equal && named_once && !matcher.value.is_empty() {
            builder.set(matcher.name.as_str(), matcher.value.as_str());
        }
    }
    builder.build()
}

/// Feeds entries of one stream after the other into an [`Accumulator`]; one per thread.
#[derive(Debug)]
pub struct Sampler<'p> {
    runner: Runner<'p>,
    book: Book<'p>,
}

/// The part of a sampler that keeps series apart.
#[derive(Debug)]
struct Book<'p> {
    leaf: &'p Leaf,
    accumulator: Accumulator,
    /// Series by the bytes that tell them apart.
    keys: Map<Box<[u8]>, usize>,
    /// The series of entries of the bound stream with the stream's labels only.
    plain: Option<usize>,
    key: Vec<u8>,
    /// `__error__` was asked for, so it is a label like others.
    keeps_errors: bool,
}

impl<'p> Sampler<'p> {
    pub fn new(leaf: &'p Leaf, grid: Grid) -> Self {
        Self::feeding(leaf, Accumulator::new(&leaf.aggregation, grid))
    }

    /// For a part of the data: windows of length `range`, whatever the leaf asks for.
    pub fn of_part(leaf: &'p Leaf, grid: Grid, range: i64) -> Self {
        let offset = 0;
        let windows = Windows {
            grid,
            range,
            offset,
        };
        Self::feeding(leaf, Accumulator::over(&leaf.aggregation, windows))
    }

    fn feeding(leaf: &'p Leaf, accumulator: Accumulator) -> Self {
        let keeps_errors = matches!(
            &leaf.group,
            Group::By(names) if names.iter().any(|name| name == "__error__")
        );
        Self {
            runner: leaf.pipeline.runner(),
            book: Book {
                leaf,
                accumulator,
                keys: Map::default(),
                plain: None,
                key: Vec::new(),
                keeps_errors,
            },
        }
    }

    /// The entries that follow belong to this stream.
    pub fn bind(&mut self, stream: &Labels) {
        self.runner.bind(stream);
        self.book.plain = None;
        if !matches!(self.book.leaf.group, Group::By(_)) {
            // Their keys hold only what differs from the stream.
            self.book.keys.clear();
        }
    }

    /// Whether an entry of this time would be looked at.
    #[inline]
    pub fn wants(&mut self, at: Timestamp) -> bool {
        self.book.accumulator.wants(at)
    }

    /// Whether entries of `first..=last` all lie in the same windows.
    pub fn same_windows(&self, first: Timestamp, last: Timestamp) -> bool {
        let windows = self.book.accumulator.windows;
        windows.holding(first) == windows.holding(last)
    }

    /// Adds `lines` entries of the windows of `at`, which all passed the leading line filters
    /// and differ in nothing that makes samples. For pipelines of line filters only.
    pub fn add_alike(&mut self, at: Timestamp, lines: u64, bytes: u64) {
        if lines == 0 || !self.wants(at) {
            return;
        }
        if let Some(mut outcome) = self.runner.run_rest(at, b"", None) {
            let series = self.book.series(&mut outcome.entry);
            let added = self
                .book
                .accumulator
                .add_counts(series, at, at, lines, bytes);
            debug_assert!(added, "only counts are alike");
        }
    }

    /// Runs one entry through the whole pipeline. True: it gave a sample.
    pub fn add(&mut self, at: Timestamp, line: &[u8], metadata: Option<&Metadata>) -> bool {
        if !self.wants(at) {
            return false;
        }
        match self.runner.run(at, line, metadata) {
            Some(outcome) => self.book.take(outcome),
            None => false,
        }
    }

    /// Like [`Self::add`], for a line that passed the leading line filters already.
    pub fn add_rest(&mut self, at: Timestamp, line: &[u8], metadata: Option<&Metadata>) -> bool {
        if !self.wants(at) {
            return false;
        }
        match self.runner.run_rest(at, line, metadata) {
            Some(outcome) => self.book.take(outcome),
            None => false,
        }
    }

    /// Adds an entry whose line was not read, for a leaf that needs no lines.
    pub fn add_unread(&mut self, at: Timestamp, line_len: u64, metadata: Option<&Metadata>) {
        debug_assert!(!self.book.leaf.needs_lines());
        if !self.wants(at) {
            return;
        }
        if let Some(mut outcome) = self.runner.run_rest(at, b"", metadata) {
            let series = self.book.series(&mut outcome.entry);
            self.book
                .accumulator
                .add_counts(series, at, at, 1, line_len);
        }
    }

    /// Adds entries without metadata that lie somewhere in `first..=last`, for a leaf that needs
    /// no lines. False, and nothing is added, when a window holds only a part of them: then
    /// they must be added one by one.
    pub fn add_counted(
        &mut self,
        first: Timestamp,
        last: Timestamp,
        lines: u64,
        bytes: u64,
    ) -> bool {
        debug_assert!(!self.book.leaf.needs_lines());
        let windows = self.book.accumulator.windows;
        let (from, to) = windows.holding(first);
        if windows.holding(last) != (from, to) {
            return false;
        }
        if from >= to {
            return true;
        }
        let Some(mut outcome) = self.runner.run_rest(first, b"", None) else {
            return true;
        };
        let series = self.book.series(&mut outcome.entry);
        self.book
            .accumulator
            .add_counts(series, first, last, lines, bytes)
    }

    /// Series so far, for limits.
    pub fn series_count(&self) -> usize {
        self.book.accumulator.series_count()
    }

    pub fn accumulator(&self) -> &Accumulator {
        &self.book.accumulator
    }

    /// Adds what a part of the data gave before.
    pub fn add_part(&mut self, part: &Part) {
        self.book.accumulator.add_part(part);
    }

    pub fn into_accumulator(self) -> Accumulator {
        self.book.accumulator
    }
}

impl Book<'_> {
    /// Takes the sample of an entry that came through. True: it gave one.
    fn take(&mut self, mut outcome: Outcome<'_>) -> bool {
        let entry = &mut outcome.entry;
        let value = match &self.leaf.unwrap {
            None => entry.line().len() as f64,
            Some(unwrap) => {
                let Some(value) = unwrapped(entry, unwrap.name, unwrap.conversion) else {
                    return false;
                };
                if !unwrap.filters.iter().all(|filter| filter.passes(entry)) {
                    return false;
                }
                // Of an error that was dropped before, no details are left on a value.
                if !entry.has_error() {
                    entry.remove(NameId::ERROR_DETAILS);
                }
                value
            }
        };
        if !self.keeps_errors && entry.has_error() {
            if self.accumulator.error.is_none() {
                let kind = entry.label(NameId::ERROR).unwrap_or(b"");
                let kind = String::from_utf8_lossy(kind).into_owned();
                let labels = entry.labels();
                self.accumulator.fail(&kind, labels);
            }
            return true;
        }
        let at = entry.at;
        let series = self.series(entry);
        self.accumulator.add(series, at, value);
        true
    }

    /// The series that an entry belongs to.
    fn series(&mut self, entry: &mut Entry<'_>) -> usize {
        if let Some(series) = self.plain
            && entry.is_unchanged()
        {
            return series;
        }
        self.key.clear();
        match &self.leaf.group {
            Group::By(_) => {
                for name in &self.leaf.by {
                    match entry.label(*name) {
                        None => self.key.extend_from_slice(&u32::MAX.to_le_bytes()),
                        Some(value) => {
                            self.key
                                .extend_from_slice(&(value.len() as u32).to_le_bytes());
                            self.key.extend_from_slice(value);
                        }
                    }
                }
            }
            Group::All | Group::Without(_) => entry.write_key(&mut self.key),
        }
        let series = match self.keys.get(self.key.as_slice()) {
            Some(series) => *series,
            None => {
                let labels = self.labels(entry);
                let series = self.accumulator.series(&labels);
                if self.keys.len() >= MAX_KEYS {
                    self.keys.clear();
                }
                self.keys
                    .insert(self.key.clone().into_boxed_slice(), series);
                series
            }
        };
        if entry.is_unchanged() {
            self.plain = Some(series);
        }
        series
    }

    /// The labels of the series that an entry belongs to.
    fn labels(&self, entry: &mut Entry<'_>) -> Labels {
        let unwrapped = self.leaf.unwrap.as_ref().map(|unwrap| unwrap.name);
        match &self.leaf.group {
            Group::By(_) => {
                let mut builder = LabelsBuilder::default();
                for name in &self.leaf.by {
                    if let Some(value) = entry.label(*name) {
                        let value = String::from_utf8_lossy(value);
                        builder.set(entry.name(*name).clone(), &*value);
                    }
                }
                builder.build()
            }
            Group::All if unwrapped.is_none() => entry.labels(),
            group => {
                let mut builder = LabelsBuilder::from_labels(&entry.labels());
                if let Group::Without(names) = group {
                    for name in names {
                        builder.remove(name);
                    }
                }
                if let Some(name) = unwrapped {
                    builder.remove(entry.name(name));
                }
                builder.build()
            }
        }
    }
}

/// The value of the unwrapped label; `None`: the entry has none. What cannot be converted is 0
/// and marks the entry.
fn unwrapped(entry: &mut Entry<'_>, name: NameId, conversion: Conversion) -> Option<f64> {
    let value = entry.label(name).filter(|value| !value.is_empty())?;
    let text = String::from_utf8_lossy(value);
    let converted = match conversion {
        Conversion::Number => units::number(&text),
        Conversion::Bytes => units::byte_size(&text).map(|bytes| bytes as f64),
        Conversion::Duration | Conversion::DurationSeconds => {
            units::go_duration(&text).map(|nanos| {
                let (whole, rest) = (nanos / SECOND, nanos % SECOND);
                whole as f64 + rest as f64 / SECOND as f64
            })
        }
    };
    if converted.is_none() {
        let details = format!("cannot convert {text:?} of label {}", entry.name(name));
        entry.set_error(EXTRACTION_ERROR, &details);
    }
    Some(converted.unwrap_or(0.0))
}

impl MetricExpr {
    /// The longest range of the query, nanoseconds; 0 without one.
    pub fn longest_range(&self) -> i64 {
        match self {
            Self::Range(range) => range.over.range,
            Self::Vector(vector) => vector.inner.longest_range(),
            Self::Binary(binary) => binary
                .left
                .longest_range()
                .max(binary.right.longest_range()),
            Self::LabelReplace(replace) => replace.inner.longest_range(),
            Self::Variants(variants) => variants.over.range,
            Self::Number(_) | Self::VectorOf(_) => 0,
        }
    }
}
