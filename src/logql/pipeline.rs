//! A pipeline ready to run: line filters that look at bytes only, then stages.
//!
//! R1. Lines are bytes and need not be UTF-8.
//! R2. The leading line filters see the line as it was stored, so they may be run over a
//!     whole buffer of lines at once; the rest of the pipeline runs line by line.
//! R3. A line that is rejected allocates nothing.

use std::fmt;

use memchr::memmem;

use super::ast::{LineFilter, LineOp, LineOperand, LogExpr, Stage};
use super::entry::{Class, Entry, LabelState, Names};
use super::error::ParseError;
use super::probe::Probe;
use super::re2;
use super::stage::{self, Step, Verdict, ip::IpPattern, pattern::LinePattern};
use crate::model::labels::Labels;
use crate::model::log::Metadata;
use crate::model::time::Timestamp;

pub use super::entry::Extract;

/// Why a query that reads well cannot be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompileError {
    /// A stage is wrong in itself.
    Invalid(ParseError),
    /// Part of the language, but switched off.
    Disabled(&'static str),
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Disabled(what) => write!(f, "{what} are disabled"),
        }
    }
}

impl std::error::Error for CompileError {}

impl From<ParseError> for CompileError {
    fn from(error: ParseError) -> Self {
        Self::Invalid(error)
    }
}

/// One line filter: any of the alternatives, or none of them when negated.
#[derive(Clone, Debug)]
pub struct LineMatcher {
    pub negated: bool,
    pub alternatives: Vec<LineTest>,
}

/// One alternative of a line filter.
#[derive(Clone, Debug)]
pub enum LineTest {
    /// Contains these bytes; empty ones are in every line.
    Literal(Box<memmem::Finder<'static>>),
    Regex(LineRegex),
    Pattern(LinePattern),
    Ip(IpPattern),
}

/// A regex of a line filter, and what is known of it.
#[derive(Clone, Debug)]
pub struct LineRegex {
    pub regex: regex::bytes::Regex,
    /// It has no anchors or word boundaries and cannot match a newline, so that its matches
    /// in a buffer of lines with newlines between them are its matches in the lines.
    pub is_local: bool,
}

impl LineTest {
    pub fn matches(&self, line: &[u8]) -> bool {
        match self {
            Self::Literal(finder) => finder.find(line).is_some(),
            Self::Regex(regex) => regex.regex.is_match(line),
            Self::Pattern(pattern) => pattern.matches(line),
            Self::Ip(pattern) => pattern.found_in(line),
        }
    }
}

impl LineMatcher {
    pub fn compile(filter: &LineFilter) -> Result<Self, String> {
        let alternatives = filter
            .operands
            .iter()
            .map(|operand| match (filter.op, operand) {
                (LineOp::Contains | LineOp::NotContains, LineOperand::Text(text)) => Ok(
                    LineTest::Literal(Box::new(memmem::Finder::new(text.as_bytes()).into_owned())),
                ),
                (LineOp::Contains | LineOp::NotContains, LineOperand::Ip(text)) => {
                    IpPattern::parse(text).map(LineTest::Ip)
                }
                (LineOp::Regex | LineOp::NotRegex, LineOperand::Text(text)) => {
                    let regex = re2::for_lines(text).map_err(|e| e.to_string())?;
                    let is_local = re2::is_local(text);
                    Ok(LineTest::Regex(LineRegex { regex, is_local }))
                }
                (LineOp::Pattern | LineOp::NotPattern, LineOperand::Text(text)) => {
                    LinePattern::parse(text).map(LineTest::Pattern)
                }
                (op, LineOperand::Ip(_)) => Err(format!(
                    "ip: invalid operation {}; use |= or !=",
                    op.as_str()
                )),
            })
            .collect::<Result<_, String>>()?;
        Ok(Self {
            negated: filter.op.is_negative(),
            alternatives,
        })
    }

    pub fn matches(&self, line: &[u8]) -> bool {
        self.alternatives.iter().any(|test| test.matches(line)) != self.negated
    }

    /// The literal, if that is all the filter asks for and it is not empty.
    pub fn single_literal(&self) -> Option<&memmem::Finder<'static>> {
        match self.alternatives.as_slice() {
            [LineTest::Literal(finder)] if !self.negated && !finder.needle().is_empty() => {
                Some(finder)
            }
            _ => None,
        }
    }

    /// The regex, if that is all the filter asks for.
    pub fn single_regex(&self) -> Option<&LineRegex> {
        match self.alternatives.as_slice() {
            [LineTest::Regex(regex)] if !self.negated => Some(regex),
            _ => None,
        }
    }

    /// Whether every line passes, as with `|= ""`.
    fn keeps_all(&self) -> bool {
        !self.negated
            && self
                .alternatives
                .iter()
                .any(|test| matches!(test, LineTest::Literal(finder) if finder.needle().is_empty()))
    }
}

/// The stages of a query, compiled.
#[derive(Debug)]
pub struct Pipeline {
    leading: Vec<LineMatcher>,
    probe: Option<Probe>,
    steps: Vec<Box<dyn Step>>,
    names: Names,
    extract: Extract,
}

impl Pipeline {
    /// Compiles the stages of a log query: every label is part of the answer.
    pub fn compile(log: &LogExpr) -> Result<Self, CompileError> {
        Self::of_stages(&log.stages, Extract::All)
    }

    /// Compiles stages of which only some labels are looked at later.
    pub fn of_stages(stages: &[Stage], extract: Extract) -> Result<Self, CompileError> {
        let mut leading = Vec::new();
        let mut rest = stages;
        while let Some((Stage::Line(filter), after)) = rest.split_first() {
            let matcher = LineMatcher::compile(filter)
                .map_err(|reason| ParseError::in_stage(&rest[0], reason))?;
            if !matcher.keeps_all() {
                leading.push(matcher);
            }
            rest = after;
        }
        let mut names = Names::default();
        let steps = rest
            .iter()
            .map(|stage| stage::compile(stage, &mut names))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            leading,
            probe: Probe::of(rest),
            steps,
            names,
            extract,
        })
    }

    /// The line filters at the head of the pipeline.
    pub fn leading_filters(&self) -> &[LineMatcher] {
        &self.leading
    }

    /// What lines must hold for the filters behind a parser, besides the leading line filters.
    pub fn probe(&self) -> Option<&Probe> {
        self.probe.as_ref()
    }

    /// Whether nothing follows the leading line filters: labels and lines stay as they are.
    pub fn is_only_filters(&self) -> bool {
        self.steps.is_empty()
    }

    /// What runs the pipeline in one thread.
    pub fn runner(&self) -> Runner<'_> {
        Runner {
            pipeline: self,
            state: LabelState::new(&self.names, &self.extract),
        }
    }

    #[cfg(test)]
    pub(super) fn extract(&self) -> &Extract {
        &self.extract
    }

    /// Numbers of names, for those who look at labels behind the pipeline. Before `runner`.
    pub(super) fn names_mut(&mut self) -> &mut Names {
        &mut self.names
    }
}

/// Runs a pipeline over the entries of one stream after the other.
#[derive(Debug)]
pub struct Runner<'p> {
    pipeline: &'p Pipeline,
    state: LabelState,
}

impl Runner<'_> {
    /// The entries that follow belong to this stream.
    pub fn bind(&mut self, stream: &Labels) {
        self.state.bind(stream);
    }

    /// The whole pipeline on one entry; `None`: rejected.
    pub fn run<'a>(
        &'a mut self,
        at: Timestamp,
        line: &'a [u8],
        metadata: Option<&Metadata>,
    ) -> Option<Outcome<'a>> {
        if !self.pipeline.leading.iter().all(|m| m.matches(line)) {
            return None;
        }
        self.run_rest(at, line, metadata)
    }

    /// The pipeline behind its leading line filters, for lines that passed those.
    pub fn run_rest<'a>(
        &'a mut self,
        at: Timestamp,
        line: &'a [u8],
        metadata: Option<&Metadata>,
    ) -> Option<Outcome<'a>> {
        let mut entry = Entry::begin(&mut self.state, at, line, metadata);
        for step in &self.pipeline.steps {
            if step.run(&mut entry) == Verdict::Reject {
                return None;
            }
        }
        Some(Outcome { entry })
    }
}

/// An entry that came through.
pub struct Outcome<'a> {
    pub(super) entry: Entry<'a>,
}

impl Outcome<'_> {
    /// The final line, not necessarily UTF-8.
    pub fn line(&self) -> &[u8] {
        self.entry.line()
    }

    /// The final labels, all classes in one set; the stream's own set if nothing changed.
    pub fn labels(&mut self) -> Labels {
        self.entry.labels()
    }

    /// The stream's labels as the pipeline left them.
    pub fn stream_labels(&self) -> Labels {
        self.entry.labels_of(Class::Stream)
    }

    /// Structured metadata as the pipeline left it.
    pub fn structured(&self) -> Labels {
        self.entry.labels_of(Class::Metadata)
    }

    /// What parsers and formatters set, `__error__` among it.
    pub fn parsed(&self) -> Labels {
        self.entry.labels_of(Class::Parsed)
    }
}
