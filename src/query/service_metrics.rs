//! Rates, failures and durations of services, from what blocks say of themselves.
//!
//! M1. A point counts the spans of the slots that it looks at, each once: from the summaries of
//!     sealed blocks, of those without one from their spans, and from what is open.
//! M2. An answer too large or too late is an error, never a part of the answer.

use std::collections::BTreeMap;
use std::ops::Range;

use hashbrown::{HashMap, HashSet};

use super::answer::QueryError;
use super::limits::Running;
use super::prune::internal;
use super::{Querier, QueryStats};
use crate::model::service_metrics::{
    DependencyLink, SLOT, ServiceMetric, ServiceMetricsQuery, ServiceSeries, scale, slot_of,
};
use crate::model::time::{SECOND, TimeRange, Timestamp};
use crate::runtime::permits::Permit;
use crate::store::partition::Read;
use crate::store::snapshot::{SpanDay, SpanSnapshot};
use crate::store::span::SpanBlock;
use crate::store::span::summary::{self, Cell, Tally};
use crate::store::{Store, StoreError};

/// Points of one series, as Prometheus has it.
const MAX_POINTS: u64 = 11_000;
/// Counts between two tidyings, and at a time taken from the budget.
const TIDY_EVERY: usize = 64 << 10;

impl Querier {
    /// A figure of services over time, sorted by service and operation.
    pub async fn service_metrics(
        &self,
        query: ServiceMetricsQuery,
    ) -> Result<Vec<ServiceSeries>, QueryError> {
        let run = async {
            let windows = Windows::new(&query)?;
            let bounds = Bounds {
                running: self.admission.enter().await?,
                max_bytes: self.limits.max_result_bytes,
            };
            let work = move |store: &Store| {
                run(&store.spans().map_err(internal)?, &query, &windows, &bounds)
            };
            self.on_pool(work).await
        };
        self.metrics
            .count("service_metrics", run.await, |_| None::<QueryStats>)
    }
}

impl Querier {
    /// Who called whom, by the starts of the called spans; sorted.
    pub async fn dependencies(&self, range: TimeRange) -> Result<Vec<DependencyLink>, QueryError> {
        let run = async {
            let running = self.admission.enter().await?;
            let work = move |store: &Store| {
                let found = store.dependencies(range).map_err(internal);
                drop(running);
                found
            };
            self.on_pool(work).await
        };
        self.metrics
            .count("dependencies", run.await, |_| None::<QueryStats>)
    }
}

/// What the answer may cost.
struct Bounds {
    running: Running,
    max_bytes: usize,
}

fn run(
    snapshot: &SpanSnapshot,
    query: &ServiceMetricsQuery,
    windows: &Windows,
    bounds: &Bounds,
) -> Result<Vec<ServiceSeries>, QueryError> {
    let mut counts = Counts::new(query, windows);
    for block in snapshot.blocks_in_memory() {
        block.tally(&mut counts);
    }
    for day in &snapshot.days {
        add_day(day, windows, &mut counts, bounds)?;
    }
    counts.answer(bounds)
}

/// Adds the sealed blocks of a day of arrival.
fn add_day(
    day: &SpanDay,
    windows: &Windows,
    counts: &mut Counts<'_>,
    bounds: &Bounds,
) -> Result<(), QueryError> {
    let wanted: Vec<u32> = day
        .blocks
        .iter()
        .filter(|meta| windows.overlap(slot_of(meta.min_start), slot_of(meta.max_start)))
        .map(|meta| meta.number)
        .collect();
    let Some(first) = wanted.first() else {
        return Ok(());
    };
    let mut missing = Vec::new();
    let mut next = wanted.iter().copied().peekable();
    let mut failure = Ok(());
    let read = day.partition.summaries_from(*first, |number, record| {
        while let Some(skipped) = next.next_if(|n| *n < number) {
            missing.push(skipped);
        }
        if next.next_if_eq(&number).is_some() {
            if let Err(what) = summary::decode(record, counts) {
                // Part of it may be counted already, so the block can't stand in for it.
                let place = format!("summary of block {number}");
                day.partition.note_record(&place, &what.to_string());
            }
            failure = counts.tidy(bounds);
        }
        failure.is_ok() && next.peek().is_some()
    });
    match read {
        Ok(()) => failure?,
        // Retention was quicker than the query.
        Err(StoreError::Gone(_)) => return Ok(()),
        Err(error) => return Err(internal(error)),
    }
    missing.extend(next);
    for number in missing {
        let read = day.partition.read(number, SpanBlock::decode);
        match read.map_err(internal)? {
            Read::Whole(block) => block.tally(counts),
            Read::Damaged => continue,
            Read::Gone => return Ok(()),
        }
        counts.tidy(bounds)?;
    }
    Ok(())
}

/// Which slots each point looks at. Slots that no point tells apart are one *unit*.
#[derive(Clone, Debug)]
struct Windows {
    points: Vec<Timestamp>,
    /// First slot that any point looks at, and last.
    first: i64,
    last: i64,
    /// Slots of a window.
    slots: i64,
    /// Slots of a unit; divides windows and the distances between them.
    unit: i64,
}

impl Windows {
    fn new(query: &ServiceMetricsQuery) -> Result<Self, QueryError> {
        let signed = |nanoseconds: u64| i64::try_from(nanoseconds).unwrap_or(i64::MAX);
        let step = signed(query.step.max(1));
        let count = (query.lookback / query.step.max(1)).saturating_add(1);
        if count > MAX_POINTS {
            let text =
                format!("{count} points a series, at most {MAX_POINTS}; ask for a longer step");
            return Err(QueryError::TooMuch(text));
        }
        let start = query.end.saturating_sub(signed(query.lookback));
        let points: Vec<Timestamp> = (0..count as i64)
            .map(|n| start.saturating_add(n.saturating_mul(step)))
            .take_while(|at| *at <= query.end)
            .collect();
        let slots = query.rate_per.max(1).div_ceil(SLOT as u64) as i64;
        let unit = match step % SLOT {
            0 => gcd(step / SLOT, slots),
            _ => 1,
        };
        Ok(Self {
            first: slot_of(start) - slots + 1,
            last: points.last().map_or(slot_of(start), |at| slot_of(*at)),
            points,
            slots,
            unit,
        })
    }

    fn overlap(&self, first: i64, last: i64) -> bool {
        first <= self.last && last >= self.first
    }

    /// The unit of a slot that any point may look at.
    fn unit_of(&self, slot: i64) -> Option<u64> {
        (self.first..=self.last)
            .contains(&slot)
            .then(|| ((slot - self.first) / self.unit) as u64)
    }

    /// The units that a point looks at.
    fn units_of(&self, at: Timestamp) -> Range<u64> {
        let end = (slot_of(at) + 1 - self.first) / self.unit;
        (end - self.slots / self.unit) as u64..end as u64
    }

    fn seconds(&self) -> f64 {
        self.slots as f64 * (SLOT / SECOND) as f64
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What one unit has, of one step of duration where they are asked for.
#[derive(Clone, Copy)]
struct Count {
    /// Unit, then step.
    key: u64,
    calls: u64,
    errors: u64,
}

const STEP_BITS: u32 = 16;

impl Count {
    fn unit(&self) -> u64 {
        self.key >> STEP_BITS
    }

    fn step(&self) -> u16 {
        self.key as u16
    }
}

/// Counts as they come, by series.
struct Counts<'a> {
    query: &'a ServiceMetricsQuery,
    windows: &'a Windows,
    services: HashSet<&'a str>,
    places: HashMap<String, HashMap<String, usize>>,
    names: Vec<(String, Option<String>)>,
    series: Vec<Vec<Count>>,
    /// Where the cell before this went: most have the same operation.
    last: Option<usize>,
    added: usize,
    /// Counts that were left when they were last tidied.
    tidied: usize,
    permit: Option<Permit>,
}

impl Tally for Counts<'_> {
    fn wants(&self, service: &str) -> bool {
        self.services.contains(service)
    }

    fn cell(&mut self, cell: Cell<'_>) {
        let Some(unit) = self.windows.unit_of(cell.slot) else {
            return;
        };
        if !self.query.kinds.iter().any(|kind| kind == cell.kind) {
            return;
        }
        let place = self.place(cell.service, cell.operation);
        let series = &mut self.series[place];
        let before = series.len();
        let mut add = |step: u16, calls, errors| {
            let key = unit << STEP_BITS | u64::from(step);
            match series.last_mut() {
                Some(last) if last.key == key => {
                    last.calls = last.calls.saturating_add(calls);
                    last.errors = last.errors.saturating_add(errors);
                }
                _ => series.push(Count { key, calls, errors }),
            }
        };
        match self.query.metric {
            ServiceMetric::Latency { .. } => {
                cell.durations
                    .iter()
                    .for_each(|(step, n)| add(*step, *n, 0));
            }
            ServiceMetric::CallRate | ServiceMetric::ErrorRate => add(0, cell.calls, cell.errors),
        }
        self.added += series.len() - before;
    }
}

impl<'a> Counts<'a> {
    fn new(query: &'a ServiceMetricsQuery, windows: &'a Windows) -> Self {
        Self {
            query,
            windows,
            services: query.services.iter().map(String::as_str).collect(),
            places: HashMap::new(),
            names: Vec::new(),
            series: Vec::new(),
            last: None,
            added: 0,
            tidied: 0,
            permit: None,
        }
    }

    fn place(&mut self, service: &str, operation: &str) -> usize {
        let operation = if self.query.by_operation {
            operation
        } else {
            ""
        };
        if let Some(last) = self.last {
            let (known, its) = &self.names[last];
            if known == service && its.as_deref().unwrap_or_default() == operation {
                return last;
            }
        }
        let of_service = self.places.entry_ref(service).or_default();
        let place = *of_service.entry_ref(operation).or_insert_with(|| {
            let name = self.query.by_operation.then(|| operation.to_owned());
            self.names.push((service.to_owned(), name));
            self.series.push(Vec::new());
            self.series.len() - 1
        });
        self.last = Some(place);
        place
    }

    /// Adds up what belongs together when it has become much, and asks for the memory of the
    /// rest.
    fn tidy(&mut self, bounds: &Bounds) -> Result<(), QueryError> {
        bounds.running.check()?;
        if self.added < self.tidied.max(TIDY_EVERY) {
            return Ok(());
        }
        self.tidied = 0;
        for series in &mut self.series {
            tidy(series);
            self.tidied += series.len();
        }
        self.added = 0;
        // As much again may come before the next time.
        let bytes = 2 * self.tidied.max(TIDY_EVERY) * size_of::<Count>();
        if bytes > bounds.max_bytes {
            return Err(QueryError::TooMuch(format!(
                "the answer takes more than {} MiB; ask for fewer services, a shorter time or a longer step",
                bounds.max_bytes >> 20
            )));
        }
        let taken = match &mut self.permit {
            None => bounds
                .running
                .account
                .try_take(bytes)
                .map(|permit| self.permit = Some(permit)),
            Some(permit) => permit.try_grow(bytes.saturating_sub(permit.bytes())),
        };
        taken.map_err(|e| QueryError::Busy(format!("{e}; try again")))
    }

    fn answer(self, bounds: &Bounds) -> Result<Vec<ServiceSeries>, QueryError> {
        let mut sorted = BTreeMap::new();
        for (names, mut counts) in self.names.into_iter().zip(self.series) {
            bounds.running.check()?;
            tidy(&mut counts);
            let points = match self.query.metric {
                ServiceMetric::Latency { quantile } => latencies(self.windows, &counts, quantile),
                ServiceMetric::CallRate => rates(self.windows, &counts),
                ServiceMetric::ErrorRate => failures(self.windows, &counts),
            };
            if !points.is_empty() {
                sorted.insert(names, points);
            }
        }
        let series = sorted
            .into_iter()
            .map(|((service, operation), points)| ServiceSeries {
                service,
                operation,
                points,
            });
        Ok(series.collect())
    }
}

fn tidy(counts: &mut Vec<Count>) {
    counts.sort_unstable_by_key(|count| count.key);
    counts.dedup_by(|later, first| {
        let same = later.key == first.key;
        if same {
            first.calls = first.calls.saturating_add(later.calls);
            first.errors = first.errors.saturating_add(later.errors);
        }
        same
    });
}

/// Calls `enter` and `leave` as the window moves from point to point, and `look` at each.
fn slide<T>(
    windows: &Windows,
    counts: &[Count],
    mut state: T,
    step: impl Fn(&mut T, &Count, bool),
    mut look: impl FnMut(&T, Timestamp),
) {
    let (mut entered, mut left) = (0, 0);
    for at in &windows.points {
        let units = windows.units_of(*at);
        while entered < counts.len() && counts[entered].unit() < units.end {
            step(&mut state, &counts[entered], true);
            entered += 1;
        }
        while left < entered && counts[left].unit() < units.start {
            step(&mut state, &counts[left], false);
            left += 1;
        }
        look(&state, *at);
    }
}

/// Calls and errors in the window.
fn add_up((calls, errors): &mut (u128, u128), count: &Count, enters: bool) {
    if enters {
        *calls += u128::from(count.calls);
        *errors += u128::from(count.errors);
    } else {
        *calls -= u128::from(count.calls);
        *errors -= u128::from(count.errors);
    }
}

fn rates(windows: &Windows, counts: &[Count]) -> Vec<(Timestamp, f64)> {
    let mut points = Vec::new();
    slide(windows, counts, (0, 0), add_up, |(calls, _), at| {
        if *calls > 0 || !points.is_empty() {
            points.push((at, *calls as f64 / windows.seconds()));
        }
    });
    points
}

fn failures(windows: &Windows, counts: &[Count]) -> Vec<(Timestamp, f64)> {
    let mut points = Vec::new();
    slide(windows, counts, (0, 0), add_up, |(calls, errors), at| {
        if *calls > 0 {
            points.push((at, *errors as f64 / *calls as f64));
        }
    });
    points
}

fn latencies(windows: &Windows, counts: &[Count], share: f64) -> Vec<(Timestamp, f64)> {
    const MILLISECOND: f64 = 1e6;
    let steps = counts.iter().map(Count::step);
    let (least, most) = (steps.clone().min().unwrap_or(0), steps.max().unwrap_or(0));
    let mut points = Vec::new();
    let add = |state: &mut Vec<u64>, count: &Count, enters| {
        let spans = &mut state[usize::from(count.step() - least)];
        if enters {
            *spans = spans.saturating_add(count.calls);
        } else {
            *spans = spans.saturating_sub(count.calls);
        }
    };
    let state = vec![0; usize::from(most - least) + 1];
    slide(windows, counts, state, add, |state, at| {
        let counts = (least..).zip(state.iter().copied());
        if let Some(duration) = scale::quantile(counts, share) {
            points.push((at, duration / MILLISECOND));
        }
    });
    points
}

#[cfg(test)]
mod tests;
