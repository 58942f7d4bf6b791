//! Rules beyond the grammar.
//!
//! What belongs to the language is checked while reading ([`super::parse`] calls it); what is
//! found only when a pipeline is built is [`pipeline`]: `format_query` takes such queries,
//! running them is an error.

use super::ast::*;
use super::error::ParseError;
use super::parser::first_duplicate;
use super::stage::template::name_of;
use super::stage::{ip, json_path, pattern};
use super::{re2, template};
use crate::model::labels::{MatchOp, Matcher};

type Result<T> = std::result::Result<T, ParseError>;

/// Checks every selector of a query.
pub(super) fn expr(expr: &Expr) -> Result<()> {
    match expr {
        Expr::Log(log) => selector(&log.matchers),
        Expr::Metric(metric) => each_log(metric, &mut |log| selector(&log.matchers)),
    }
}

/// Calls `visit` for the log part of every range of a query.
fn each_log(metric: &MetricExpr, visit: &mut dyn FnMut(&LogExpr) -> Result<()>) -> Result<()> {
    match metric {
        MetricExpr::Range(range) => visit(&range.over.log),
        MetricExpr::Vector(vector) => each_log(&vector.inner, visit),
        MetricExpr::Binary(binary) => {
            each_log(&binary.left, visit)?;
            each_log(&binary.right, visit)
        }
        MetricExpr::LabelReplace(replace) => each_log(&replace.inner, visit),
        MetricExpr::Variants(variants) => {
            for variant in &variants.variants {
                each_log(variant, visit)?;
            }
            visit(&variants.over.log)
        }
        MetricExpr::Number(_) | MetricExpr::VectorOf(_) => Ok(()),
    }
}

/// A selector must name something: one matcher that says what a label is, not what it is not,
/// and that an absent label does not satisfy.
pub(super) fn selector(matchers: &[Matcher]) -> Result<()> {
    let names_something = matchers
        .iter()
        .any(|m| matches!(m.op, MatchOp::Equal | MatchOp::Regex) && !m.matches(""));
    if names_something {
        return Ok(());
    }
    Err(ParseError::new(
        "queries require at least one regexp or equality matcher that does not have an \
         empty-compatible value. For instance, app=~\".*\" does not meet this requirement, but \
         app=~\".+\" will",
    ))
}

/// Joins two sides, computing what is known (A3).
pub(super) fn binary(
    op: BinaryOp,
    left: MetricExpr,
    right: MetricExpr,
    returns_bool: bool,
    matching: Matching,
) -> Result<MetricExpr> {
    if op.is_set_operation() {
        for (side, leg) in [("left", &left), ("right", &right)] {
            if let MetricExpr::Number(value) = leg {
                return Err(ParseError::new(format!(
                    "unexpected literal for {side} leg of logical/set binary operation ({}): \
                     {value}",
                    op.as_str()
                )));
            }
        }
    }
    if returns_bool && !matches!(op, BinaryOp::Compare(_)) {
        return Err(ParseError::new(format!(
            "bool modifier can only be used on comparison operators, not on {}",
            op.as_str()
        )));
    }
    if let (MetricExpr::Number(left), MetricExpr::Number(right)) = (&left, &right) {
        return Ok(MetricExpr::Number(super::arithmetic::numbers(
            op, *left, *right,
        )));
    }
    Ok(MetricExpr::Binary(Box::new(Binary {
        op,
        left,
        right,
        returns_bool,
        matching,
    })))
}

pub(super) fn vector_aggregation(
    function: VectorFunction,
    parameter: Option<f64>,
    grouping: Option<Grouping>,
    inner: MetricExpr,
) -> Result<VectorAggregation> {
    let name = function.as_str();
    let parameter = match (function.takes_parameter(), parameter) {
        (true, None) => {
            return Err(ParseError::new(format!(
                "parameter required for operation {name}"
            )));
        }
        (false, Some(parameter)) => {
            return Err(ParseError::new(format!(
                "unsupported parameter for operation {name}({parameter},"
            )));
        }
        (true, Some(k)) if k < 1.0 || k.fract() != 0.0 || k > 1e15 => {
            return Err(ParseError::new(format!(
                "invalid parameter (must be a whole number greater than 0) {name}({k},"
            )));
        }
        (_, parameter) => parameter.map(|k| k as u64),
    };
    let grouping = grouping.filter(|g| g.kind == GroupingKind::Without || !g.labels.is_empty());
    let ungrouped = matches!(
        function,
        VectorFunction::Sort | VectorFunction::SortDesc | VectorFunction::ApproxTopk
    );
    if ungrouped && grouping.as_ref().is_some_and(|g| !g.labels.is_empty()) {
        return Err(ParseError::new(format!(
            "grouping not allowed for {name} aggregation"
        )));
    }
    if let MetricExpr::Number(value) = inner {
        return Err(ParseError::new(format!(
            "{name} aggregates series, not the number {value}; write vector({value})"
        )));
    }
    Ok(VectorAggregation {
        function,
        parameter,
        grouping,
        inner: Box::new(inner),
    })
}

pub(super) fn range_aggregation(range: &RangeAggregation) -> Result<()> {
    let name = range.function.as_str();
    let quantile = range.function == RangeFunction::QuantileOverTime;
    match range.parameter {
        None if quantile => {
            return Err(ParseError::new(format!(
                "parameter required for operation {name}"
            )));
        }
        Some(_) if !quantile => {
            return Err(ParseError::new(format!(
                "parameter is not supported for operation {name}"
            )));
        }
        _ => {}
    }
    use RangeFunction::*;
    if range.grouping.is_some()
        && !matches!(
            range.function,
            AvgOverTime
                | MinOverTime
                | MaxOverTime
                | StddevOverTime
                | StdvarOverTime
                | QuantileOverTime
                | FirstOverTime
                | LastOverTime
        )
    {
        return Err(ParseError::new(format!(
            "grouping not allowed for {name} aggregation"
        )));
    }
    match (range.function, &range.over.unwrap) {
        (Rate | AbsentOverTime, _) => Ok(()),
        (CountOverTime | BytesOverTime | BytesRate, Some(_)) => Err(ParseError::new(format!(
            "invalid aggregation {name} with unwrap"
        ))),
        (CountOverTime | BytesOverTime | BytesRate, None) => Ok(()),
        (_, None) => Err(ParseError::new(format!(
            "invalid aggregation {name} without unwrap"
        ))),
        (_, Some(_)) => Ok(()),
    }
}

/// `| regexp "…"`: at least one group with a name, no name twice.
pub(super) fn regexp_stage(text: &str) -> Result<()> {
    let regex = re2::for_lines(text).map_err(|e| ParseError::new(e.to_string()))?;
    if regex.capture_names().flatten().next().is_none() {
        return Err(ParseError::new(
            "at least one named capture must be supplied",
        ));
    }
    Ok(())
}

/// `| pattern "…"`.
pub(super) fn pattern_stage(text: &str) -> Result<()> {
    pattern::Pattern::for_parser(text)
        .map(|_| ())
        .map_err(|reason| ParseError::new(format!("invalid pattern {text:?}: {reason}")))
}

/// Checks what is found only when the pipelines of a query are built.
pub fn pipeline(expr: &Expr) -> Result<()> {
    match expr {
        Expr::Log(log) => stages(log),
        Expr::Metric(metric) => each_log(metric, &mut stages),
    }
}

pub(super) fn stages(log: &LogExpr) -> Result<()> {
    for stage in &log.stages {
        stage_builds(stage).map_err(|reason| ParseError::in_stage(stage, reason))?;
    }
    Ok(())
}

/// Whether a stage can be built; the error is the reason.
fn stage_builds(stage: &Stage) -> std::result::Result<(), String> {
    match stage {
        Stage::Line(filter) => {
            for operand in &filter.operands {
                match (filter.op, operand) {
                    (LineOp::Contains | LineOp::NotContains, LineOperand::Ip(text)) => {
                        ip::IpPattern::parse(text).map_err(|e| e.to_string())?;
                    }
                    (_, LineOperand::Ip(_)) => {
                        return Err(format!(
                            "ip: invalid operation {}; use |= or !=",
                            filter.op.as_str()
                        ));
                    }
                    (LineOp::Regex | LineOp::NotRegex, LineOperand::Text(text)) => {
                        re2::for_lines(text).map_err(|e| e.to_string())?;
                    }
                    (LineOp::Pattern | LineOp::NotPattern, LineOperand::Text(text)) => {
                        pattern::LinePattern::parse(text).map_err(|e| e.to_string())?;
                    }
                    (LineOp::Contains | LineOp::NotContains, LineOperand::Text(_)) => {}
                }
            }
            Ok(())
        }
        Stage::Json(extractions) => {
            for extraction in extractions {
                json_path::JsonPath::parse(&extraction.path)
                    .map_err(|e| format!("cannot parse expression [{}]: {e}", extraction.path))?;
            }
            Ok(())
        }
        Stage::Logfmt(logfmt) => {
            for extraction in &logfmt.extractions {
                let valid = !extraction.path.is_empty()
                    && extraction
                        .path
                        .chars()
                        .all(|c| c > ' ' && !matches!(c, '=' | '"'));
                if !valid {
                    return Err(format!(
                        "cannot parse expression [{}]: expected a key",
                        extraction.path
                    ));
                }
            }
            Ok(())
        }
        Stage::Label(filter) => label_filter(filter),
        Stage::LineFormat(text) => template::Template::parse(name_of(stage), text)
            .map(|_| ())
            .map_err(|e| e.to_string()),
        Stage::LabelFormat(formats) => {
            for format in formats {
                if let LabelFormat::Template { template, .. } = format {
                    template::Template::parse(name_of(stage), template)
                        .map_err(|e| e.to_string())?;
                }
            }
            label_formats(formats)
        }
        Stage::Regexp(_)
        | Stage::Pattern(_)
        | Stage::Unpack
        | Stage::Decolorize
        | Stage::Drop(_)
        | Stage::Keep(_) => Ok(()),
    }
}

fn label_filter(filter: &LabelFilter) -> std::result::Result<(), String> {
    match filter {
        LabelFilter::Ip { pattern, .. } => ip::IpPattern::parse(pattern)
            .map(|_| ())
            .map_err(|e| e.to_string()),
        LabelFilter::And(left, right) | LabelFilter::Or(left, right) => {
            label_filter(left)?;
            label_filter(right)
        }
        LabelFilter::Text(_)
        | LabelFilter::Number { .. }
        | LabelFilter::Duration { .. }
        | LabelFilter::Bytes { .. } => Ok(()),
    }
}

/// What `label_format` may not assign.
pub(super) fn label_formats(formats: &[LabelFormat]) -> std::result::Result<(), String> {
    if formats.iter().any(|format| format.target() == "__error__") {
        return Err("__error__ cannot be formatted".to_owned());
    }
    match first_duplicate(formats.iter().map(LabelFormat::target)) {
        Some(name) => Err(format!(
            "multiple label name {name} not allowed in a single format operation"
        )),
        None => Ok(()),
    }
}
