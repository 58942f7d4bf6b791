//! What a query needs of the data: what must be in a line, which labels are looked at, and
//! whether lines are read at all.
//!
//! L1. A [`Leaf`] gives the same samples as its range aggregation would, or, where a `sum`
//!     stands directly above it, samples with the same sums.
//! L2. What is left out (parsers, `line_format`) is left out exactly where Loki leaves it out,
//!     since errors of a parser that does not run do not show.

use std::collections::BTreeSet;

use super::ast::*;
use super::check;
use super::entry::{Extract, NameId};
use super::pipeline::{CompileError, Pipeline};
use super::re2;
use super::stage::LabelTest;
use super::stage::pattern::LinePattern;
use super::template::Template;
use crate::model::labels::Matcher;
use crate::model::need::Need;
use crate::model::series::Grid;
use crate::model::time::TimeRange;

impl LogExpr {
    /// What a line must hold to come through.
    pub fn need(&self) -> Need {
        need_of(&self.stages)
    }
}

fn need_of(stages: &[Stage]) -> Need {
    let mut needs = Vec::new();
    for stage in stages {
        match stage {
            Stage::Line(filter) if !filter.op.is_negative() => {
                needs.push(Need::any(
                    filter
                        .operands
                        .iter()
                        .map(|operand| need_of_operand(filter.op, operand)),
                ));
            }
            // Behind these a filter sees another line.
            Stage::LineFormat(_) | Stage::Decolorize | Stage::Unpack => break,
            _ => {}
        }
    }
    Need::all(needs)
}

fn need_of_operand(op: LineOp, operand: &LineOperand) -> Need {
    match (op, operand) {
        (LineOp::Contains, LineOperand::Text(text)) if !text.is_empty() => {
            Need::Literal(text.as_bytes().to_vec())
        }
        (LineOp::Regex, LineOperand::Text(text)) => re2::need(text),
        (LineOp::Pattern, LineOperand::Text(text)) => {
            LinePattern::parse(text).map_or(Need::Anything, |pattern| pattern.need())
        }
        _ => Need::Anything,
    }
}

/// By which labels samples are kept apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Group {
    /// By all.
    All,
    By(Vec<String>),
    Without(Vec<String>),
}

impl Group {
    fn of(grouping: Option<&Grouping>) -> Self {
        match grouping {
            None => Self::By(Vec::new()),
            Some(grouping) => match grouping.kind {
                GroupingKind::By => Self::By(grouping.labels.clone()),
                GroupingKind::Without => Self::Without(grouping.labels.clone()),
            },
        }
    }
}

/// A range aggregation of a query, ready to be fed with entries.
#[derive(Debug)]
pub struct Leaf {
    pub aggregation: RangeAggregation,
    pub group: Group,
    pub(super) pipeline: Pipeline,
    /// What is left of the stages.
    stages: Vec<Stage>,
    pub(super) unwrap: Option<UnwrapTest>,
    /// The numbers of the labels of [`Group::By`].
    pub(super) by: Vec<NameId>,
}

/// `| unwrap`, compiled.
#[derive(Debug)]
pub(super) struct UnwrapTest {
    pub name: NameId,
    pub conversion: Conversion,
    pub filters: Vec<LabelTest>,
}

/// The range aggregations of a query, from left to right: the order in which
/// [`super::eval::evaluate`] takes their results.
pub fn leaves(expr: &MetricExpr) -> Result<Vec<Leaf>, CompileError> {
    let mut leaves = Vec::new();
    collect(expr, None, &mut leaves)?;
    Ok(leaves)
}

fn collect(
    expr: &MetricExpr,
    sum: Option<&VectorAggregation>,
    leaves: &mut Vec<Leaf>,
) -> Result<(), CompileError> {
    match expr {
        MetricExpr::Range(range) => {
            leaves.push(Leaf::compile(range, sum)?);
            Ok(())
        }
        MetricExpr::Vector(vector) => {
            let sum = (vector.function == VectorFunction::Sum).then_some(vector);
            collect(&vector.inner, sum, leaves)
        }
        MetricExpr::Binary(binary) => {
            collect(&binary.left, None, leaves)?;
            collect(&binary.right, None, leaves)
        }
        MetricExpr::LabelReplace(replace) => collect(&replace.inner, None, leaves),
        MetricExpr::Number(_) | MetricExpr::VectorOf(_) => Ok(()),
        MetricExpr::Variants(_) => Err(CompileError::Disabled("multi variant queries")),
    }
}

impl Leaf {
    fn compile(
        range: &RangeAggregation,
        sum: Option<&VectorAggregation>,
    ) -> Result<Self, CompileError> {
        // Stages that will be left out must be right, too.
        check::stages(&range.over.log)?;
        let group = group_of(range, sum);
        let stages = without_idle_formats(range);
        let unwrap = range.over.unwrap.as_ref();
        let extract = match &group {
            Group::By(names) => match referenced(&stages, unwrap) {
                Some(mut wanted) => {
                    wanted.extend(names.iter().cloned());
                    Extract::Only(wanted)
                }
                None => Extract::All,
            },
            Group::All | Group::Without(_) => Extract::All,
        };
        let stages = match &extract {
            Extract::Only(wanted) if wanted.is_empty() => stages
                .into_iter()
                .filter(|stage| !is_parser(stage))
                .collect(),
            _ => stages,
        };
        let mut pipeline = Pipeline::of_stages(&stages, extract)?;
        let names = pipeline.names_mut();
        let by = match &group {
            Group::By(labels) => labels.iter().map(|label| names.id(label)).collect(),
            Group::All | Group::Without(_) => Vec::new(),
        };
        let unwrap = match unwrap {
            None => None,
            Some(unwrap) => Some(UnwrapTest {
                name: names.id(&unwrap.name),
                conversion: unwrap.conversion,
                filters: unwrap
                    .filters
                    .iter()
                    .map(|filter| {
                        LabelTest::compile(filter, names)
                            .map_err(|e| super::ParseError::in_stage(format!("| {filter}"), e))
                    })
                    .collect::<Result<_, _>>()?,
            }),
        };
        Ok(Self {
            aggregation: range.clone(),
            group,
            pipeline,
            stages,
            unwrap,
            by,
        })
    }

    /// The streams that are looked at.
    pub fn selector(&self) -> &[Matcher] {
        &self.aggregation.over.log.matchers
    }

    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// What a line must hold to give a sample.
    pub fn need(&self) -> Need {
        need_of(&self.stages)
    }

    /// Entries that lie in any window of the grid.
    pub fn time_range(&self, grid: Grid) -> TimeRange {
        let over = &self.aggregation.over;
        let end = grid.start.max(grid.end);
        TimeRange::new(
            grid.start
                .saturating_sub(over.offset)
                .saturating_sub(over.range)
                .saturating_add(1),
            end.saturating_sub(over.offset).saturating_add(1),
        )
    }

    /// False: every entry counts as it is, so that timestamps, lengths and counts are enough.
    pub fn needs_lines(&self) -> bool {
        !self.stages.is_empty() || self.unwrap.is_some()
    }

    /// False: the text of lines is never looked at, and an empty text gives the same samples
    /// (but for the functions that count bytes, for which this is always true unless
    /// [`Self::needs_lines`] is false).
    pub fn needs_text(&self) -> bool {
        self.needs_lines()
            && (self.aggregation.function.counts_bytes() || self.stages.iter().any(reads_text))
    }

    /// Whether the values of single entries make the samples, not their number and bytes.
    pub fn needs_values(&self) -> bool {
        self.unwrap.is_some()
    }

    /// Whether samples are kept apart by anything.
    pub fn groups_by_labels(&self) -> bool {
        self.group != Group::By(Vec::new())
    }

    /// True: entries that lie in the same windows give the same samples whatever their times.
    pub fn ignores_times(&self) -> bool {
        let shows_time = |stage: &Stage| {
            // Templates have the entry's time.
            matches!(stage, Stage::LineFormat(_) | Stage::LabelFormat(_))
        };
        self.unwrap.is_none() && !self.stages.iter().any(shows_time)
    }

    /// False: structured metadata changes nothing.
    pub fn needs_metadata(&self) -> bool {
        self.needs_lines() || self.group != Group::By(Vec::new())
    }
}

fn group_of(range: &RangeAggregation, sum: Option<&VectorAggregation>) -> Group {
    use RangeFunction::*;
    if range.function == AbsentOverTime {
        return Group::By(Vec::new());
    }
    if range.grouping.is_some() {
        return Group::of(range.grouping.as_ref());
    }
    match (range.function, sum) {
        (CountOverTime | Rate | BytesOverTime | BytesRate | SumOverTime, Some(sum)) => {
            Group::of(sum.grouping.as_ref())
        }
        _ => Group::All,
    }
}

fn is_parser(stage: &Stage) -> bool {
    matches!(
        stage,
        Stage::Json(_) | Stage::Logfmt(_) | Stage::Regexp(_) | Stage::Pattern(_) | Stage::Unpack
    )
}

fn uses_line(stage: &Stage) -> bool {
    match stage {
        Stage::LineFormat(template) => template.contains("__line__"),
        Stage::LabelFormat(formats) => formats.iter().any(|format| {
            matches!(format, LabelFormat::Template { template, .. } if template.contains("__line__"))
        }),
        _ => false,
    }
}

fn reads_text(stage: &Stage) -> bool {
    is_parser(stage)
        || matches!(
            stage,
            Stage::Line(_) | Stage::LineFormat(_) | Stage::Decolorize
        )
        || uses_line(stage)
}

/// The stages without each `line_format` whose line nobody looks at.
fn without_idle_formats(range: &RangeAggregation) -> Vec<Stage> {
    let mut line_is_read = range.function.counts_bytes();
    let mut kept = Vec::new();
    for stage in range.over.log.stages.iter().rev() {
        if matches!(stage, Stage::LineFormat(_)) && !line_is_read {
            continue;
        }
        line_is_read |= is_parser(stage) || matches!(stage, Stage::Line(_)) || uses_line(stage);
        kept.push(stage.clone());
    }
    kept.reverse();
    kept
}

/// The labels that stages look at; `None`: any.
fn referenced(stages: &[Stage], unwrap: Option<&Unwrap>) -> Option<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for stage in stages {
        match stage {
            Stage::Label(filter) => filter_names(filter, &mut names),
            Stage::LineFormat(template) => template_names(template, &mut names)?,
            Stage::LabelFormat(formats) => {
                for format in formats {
                    match format {
                        LabelFormat::Rename { from, .. } => {
                            names.insert(from.clone());
                        }
                        LabelFormat::Template { template, .. } => {
                            template_names(template, &mut names)?;
                        }
                    }
                }
            }
            Stage::Drop(picks) | Stage::Keep(picks) => {
                for pick in picks {
                    if let LabelPick::Matching(matcher) = pick {
                        names.insert(matcher.name.clone());
                    }
                }
            }
            Stage::Line(_)
            | Stage::Json(_)
            | Stage::Logfmt(_)
            | Stage::Regexp(_)
            | Stage::Pattern(_)
            | Stage::Unpack
            | Stage::Decolorize => {}
        }
    }
    if let Some(unwrap) = unwrap {
        names.insert(unwrap.name.clone());
        for filter in &unwrap.filters {
            filter_names(filter, &mut names);
        }
    }
    Some(names)
}

fn filter_names(filter: &LabelFilter, names: &mut BTreeSet<String>) {
    match filter {
        LabelFilter::Text(matcher) => {
            names.insert(matcher.name.clone());
        }
        LabelFilter::Number { name, .. }
        | LabelFilter::Duration { name, .. }
        | LabelFilter::Bytes { name, .. }
        | LabelFilter::Ip { name, .. } => {
            names.insert(name.clone());
        }
        LabelFilter::And(left, right) | LabelFilter::Or(left, right) => {
            filter_names(left, names);
            filter_names(right, names);
        }
    }
}

fn template_names(text: &str, names: &mut BTreeSet<String>) -> Option<()> {
    let template = Template::parse("line", text).ok()?;
    names.extend(template.fields()?.into_iter().map(str::to_owned));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::{ast::Expr, parse};

    fn only_leaf(query: &str) -> Leaf {
        let Expr::Metric(metric) = parse(query).unwrap() else {
            panic!("{query} is a metric query");
        };
        leaves(&metric).unwrap().remove(0)
    }

    fn need(stages: &str) -> Need {
        let Expr::Log(log) = parse(&format!("{{a=\"b\"}} {stages}")).unwrap() else {
            panic!("a log query");
        };
        log.need()
    }

    fn literal(text: &str) -> Need {
        Need::Literal(text.into())
    }

    #[test]
    fn line_filters_say_what_a_line_must_hold() {
        assert_eq!(
            need("|= \"a\" != \"b\" | json |= \"c\""),
            Need::All(vec![literal("a"), literal("c")])
        );
        assert_eq!(
            need("|= \"a\" or \"b\""),
            Need::Any(vec![literal("a"), literal("b")])
        );
        assert_eq!(need("|= \"a\" or \"\""), Need::Anything);
        assert_eq!(need("|= ip(\"1.2.3.4\")"), Need::Anything);
        assert_eq!(need("| decolorize |= \"a\""), Need::Anything);
        assert_eq!(
            need("|> \"ab<_>cd\""),
            Need::All(vec![literal("ab"), literal("cd")])
        );
    }

    #[test]
    fn regexes_say_what_a_line_must_hold() {
        assert_eq!(
            need("|~ `took=\\d+m?s`"),
            Need::All(vec![literal("took="), literal("s")])
        );
        assert_eq!(
            need("|~ `error|warn`"),
            Need::Any(vec![literal("error"), literal("warn")])
        );
        assert_eq!(need("|~ `(?i)Error`"), Need::Folded(b"error".to_vec()));
        assert_eq!(
            need("|~ `(?i)time-?out 42`"),
            Need::All(vec![
                Need::Folded(b"time".to_vec()),
                Need::Folded(b"out 42".to_vec()),
                literal(" 42")
            ])
        );
        assert_eq!(need("|~ `a*`"), Need::Anything);
        assert_eq!(need("|~ `x|`"), Need::Anything);
    }

    #[test]
    fn a_count_of_a_selector_needs_no_lines() {
        assert!(!only_leaf("rate({a=\"b\"}[1m])").needs_lines());
        assert!(only_leaf("rate({a=\"b\"}[1m])").needs_metadata());
        assert!(
            !only_leaf("sum(rate({a=\"b\"} | json | line_format `{{.x}}` [1m]))").needs_lines()
        );
        assert!(!only_leaf("sum(rate({a=\"b\"}[1m]))").needs_metadata());
        assert!(only_leaf("sum(bytes_rate({a=\"b\"} | line_format `{{.x}}` [1m]))").needs_lines());
        assert!(only_leaf("rate({a=\"b\"} |= \"x\" [1m])").needs_text());
        assert!(!only_leaf("rate({a=\"b\"} | level=\"x\" [1m])").needs_text());
        assert!(only_leaf("rate({a=\"b\"} | json [1m])").needs_lines());
    }

    #[test]
    fn variants_are_disabled_as_in_loki() {
        let query = "variants(count_over_time({a=\"b\"}[1m])) of ({a=\"b\"}[1m])";
        let Expr::Metric(metric) = parse(query).unwrap() else {
            panic!("{query} is a metric query");
        };
        let error = leaves(&metric).unwrap_err().to_string();
        assert_eq!(error, "multi variant queries are disabled");
    }

    #[test]
    fn parsers_extract_what_templates_look_at() {
        let extracts = |stages: &str| {
            let leaf = only_leaf(&format!(
                "sum by (x) (rate({{a=\"b\"}} | json {stages} [1m]))"
            ));
            match leaf.pipeline.extract() {
                Extract::Only(names) => names.iter().cloned().collect::<Vec<_>>().join(" "),
                Extract::All => "all".to_owned(),
            }
        };
        let stage = "| label_format x=`{{ if .p }}{{ .q | lower }}{{ end }}`";
        assert_eq!(extracts(stage), "p q x");
        assert_eq!(extracts("| label_format x=`{{ range . }}{{ end }}`"), "all");
    }

    #[test]
    fn a_sum_lends_its_grouping_to_counts_only() {
        let by = |names: &[&str]| Group::By(names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(
            only_leaf("sum by (x) (rate({a=\"b\"}[1m]))").group,
            by(&["x"])
        );
        assert_eq!(
            only_leaf("max by (x) (rate({a=\"b\"}[1m]))").group,
            Group::All
        );
        assert_eq!(
            only_leaf("sum by (x) (max_over_time({a=\"b\"} | unwrap v [1m]))").group,
            Group::All
        );
        assert_eq!(
            only_leaf("max_over_time({a=\"b\"} | unwrap v [1m]) by (y)").group,
            by(&["y"])
        );
    }
}
