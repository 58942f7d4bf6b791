//! Tree to text: what `format_query` answers, and what error texts quote.
//!
//! `parse(print(q)) == q` for every query whose numbers survive their short form (byte sizes
//! are printed with two digits, `vector` with six decimals, as in Loki).

use std::fmt::{self, Write as _};

use super::ast::*;
use super::units;
use crate::model::labels::{Matcher, write_quoted};

/// Longest text that stays on one line, bytes.
const MAX_LINE: usize = 100;

/// Lays a query out for reading: on one line if it is short.
pub fn format(expr: &Expr) -> String {
    match expr {
        Expr::Log(log) => pretty_log(log, 0),
        Expr::Metric(metric) => pretty_metric(metric, 0),
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(log) => log.fmt(f),
            Self::Metric(metric) => metric.fmt(f),
        }
    }
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_quoted(f, self.0)
    }
}

fn write_matcher(out: &mut dyn fmt::Write, matcher: &Matcher) -> fmt::Result {
    write!(
        out,
        "{}{}{}",
        matcher.name,
        matcher.op.as_str(),
        Quoted(&matcher.value)
    )
}

fn write_selector(out: &mut dyn fmt::Write, matchers: &[Matcher]) -> fmt::Result {
    out.write_char('{')?;
    for (i, matcher) in matchers.iter().enumerate() {
        if i > 0 {
            out.write_str(", ")?;
        }
        write_matcher(out, matcher)?;
    }
    out.write_char('}')
}

impl fmt::Display for LogExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_selector(f, &self.matchers)?;
        for stage in &self.stages {
            write!(f, " {stage}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(filter) => filter.fmt(f),
            Self::Json(extractions) => {
                f.write_str("| json")?;
                write_extractions(f, extractions)
            }
            Self::Logfmt(logfmt) => {
                f.write_str("| logfmt")?;
                if logfmt.strict {
                    f.write_str(" --strict")?;
                }
                if logfmt.keep_empty {
                    f.write_str(" --keep-empty")?;
                }
                write_extractions(f, &logfmt.extractions)
            }
            Self::Regexp(text) => write!(f, "| regexp {}", Quoted(text)),
            Self::Pattern(text) => write!(f, "| pattern {}", Quoted(text)),
            Self::Unpack => f.write_str("| unpack"),
            Self::Label(filter) => write!(f, "| {filter}"),
            Self::LineFormat(template) => write!(f, "| line_format {}", Quoted(template)),
            Self::LabelFormat(formats) => {
                f.write_str("| label_format ")?;
                for (i, format) in formats.iter().enumerate() {
                    if i > 0 {
                        f.write_char(',')?;
                    }
                    match format {
                        LabelFormat::Rename { to, from } => write!(f, "{to}={from}")?,
                        LabelFormat::Template { to, template } => {
                            write!(f, "{to}={}", Quoted(template))?;
                        }
                    }
                }
                Ok(())
            }
            Self::Decolorize => f.write_str("| decolorize"),
            Self::Drop(picks) => {
                f.write_str("| drop ")?;
                write_picks(f, picks)
            }
            Self::Keep(picks) => {
                f.write_str("| keep ")?;
                write_picks(f, picks)
            }
        }
    }
}

fn write_extractions(f: &mut fmt::Formatter<'_>, extractions: &[Extraction]) -> fmt::Result {
    for (i, extraction) in extractions.iter().enumerate() {
        f.write_char(if i == 0 { ' ' } else { ',' })?;
        write!(f, "{}={}", extraction.name, Quoted(&extraction.path))?;
    }
    Ok(())
}

fn write_picks(f: &mut fmt::Formatter<'_>, picks: &[LabelPick]) -> fmt::Result {
    for (i, pick) in picks.iter().enumerate() {
        if i > 0 {
            f.write_char(',')?;
        }
        match pick {
            LabelPick::Name(name) => f.write_str(name)?,
            LabelPick::Matching(matcher) => write_matcher(f, matcher)?,
        }
    }
    Ok(())
}

impl fmt::Display for LineFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op.as_str())?;
        for (i, operand) in self.operands.iter().enumerate() {
            f.write_str(if i == 0 { " " } else { " or " })?;
            match operand {
                LineOperand::Text(text) => Quoted(text).fmt(f)?,
                LineOperand::Ip(pattern) => write!(f, "ip({})", Quoted(pattern))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for LabelFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(matcher) => write_matcher(f, matcher),
            Self::Number { name, op, value } => write!(f, "{name}{}{value}", op.as_str()),
            Self::Duration { name, op, value } => {
                write!(
                    f,
                    "{name}{}{}",
                    op.as_str(),
                    units::format_go_duration(*value)
                )
            }
            Self::Bytes { name, op, value } => {
                write!(
                    f,
                    "{name}{}{}",
                    op.as_str(),
                    units::format_byte_size(*value)
                )
            }
            Self::Ip {
                name,
                negated,
                pattern,
            } => {
                let op = if *negated { "!=" } else { "=" };
                write!(f, "{name}{op}ip({})", Quoted(pattern))
            }
            Self::And(left, right) => write!(f, "( {left} , {right} )"),
            Self::Or(left, right) => write!(f, "( {left} or {right} )"),
        }
    }
}

impl fmt::Display for MetricExpr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(range) => range.fmt(f),
            Self::Vector(vector) => {
                f.write_str(vector.function.as_str())?;
                if let Some(grouping) = &vector.grouping {
                    write!(f, " {grouping}")?;
                }
                f.write_char('(')?;
                if let Some(parameter) = vector.parameter {
                    write!(f, "{parameter},")?;
                }
                write!(f, "{})", vector.inner)
            }
            Self::Binary(binary) => {
                write!(f, "({} {} {})", binary.left, operator(binary), binary.right)
            }
            Self::Number(value) => f.write_str(&super::template::shortest(*value)),
            Self::VectorOf(value) => write!(f, "vector({value:.6})"),
            Self::LabelReplace(replace) => write!(
                f,
                "label_replace({},{},{},{},{})",
                replace.inner,
                Quoted(&replace.target),
                Quoted(&replace.replacement),
                Quoted(&replace.source),
                Quoted(&replace.regex)
            ),
            Self::Variants(variants) => {
                f.write_str("variants(")?;
                for (i, variant) in variants.variants.iter().enumerate() {
                    if i > 0 {
                        f.write_str(", ")?;
                    }
                    variant.fmt(f)?;
                }
                write!(f, ") of ({})", variants.over)
            }
        }
    }
}

/// Never in exponent notation, as Go's `FormatFloat(…, 'f', -1, 64)`.
fn number(value: f64) -> String {
    if value == f64::INFINITY {
        "+Inf".to_owned()
    } else if value == f64::NEG_INFINITY {
        "-Inf".to_owned()
    } else {
        value.to_string()
    }
}

/// The operator with `bool` and its matching. Without a group, `on (…)` is followed by the
/// blank that would stand before it.
fn operator(binary: &Binary) -> String {
    let mut text = binary.op.as_str().to_owned();
    if binary.returns_bool {
        text.push_str(" bool");
    }
    let matching = &binary.matching;
    if matching.on || !matching.labels.is_empty() || matching.group.is_some() {
        let kind = if matching.on { "on" } else { "ignoring" };
        let _ = write!(text, " {kind} ({}) ", matching.labels.join(","));
        if let Some(group) = &matching.group {
            text.push_str(match group.many {
                Side::Left => "group_left",
                Side::Right => "group_right",
            });
            if !group.include.is_empty() {
                let _ = write!(text, " ({})", group.include.join(","));
            } else if binary.right.begins_with_parenthesis() {
                // Else the parenthesis would be read as the list of labels.
                text.push_str(" ()");
            }
        }
    }
    text
}

impl MetricExpr {
    fn begins_with_parenthesis(&self) -> bool {
        matches!(self, Self::Binary(_))
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            GroupingKind::By => "by",
            GroupingKind::Without => "without",
        };
        write!(f, "{kind} ({})", self.labels.join(","))
    }
}

impl fmt::Display for RangeAggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.function.as_str())?;
        if let Some(parameter) = self.parameter {
            write!(f, "{},", number(parameter))?;
        }
        write!(f, "{})", self.over)?;
        if let Some(grouping) = &self.grouping {
            write!(f, " {grouping}")?;
        }
        Ok(())
    }
}

impl fmt::Display for LogRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log.fmt(f)?;
        if let Some(unwrap) = &self.unwrap {
            write!(f, " {unwrap}")?;
        }
        write!(f, "[{}]", units::format_prometheus_duration(self.range))?;
        if self.offset != 0 {
            write!(f, " offset {}", units::format_go_duration(self.offset))?;
        }
        Ok(())
    }
}

impl Unwrap {
    fn without_filters(&self) -> String {
        let name = &self.name;
        match self.conversion {
            Conversion::Number => format!("| unwrap {name}"),
            Conversion::Bytes => format!("| unwrap bytes({name})"),
            Conversion::Duration => format!("| unwrap duration({name})"),
            Conversion::DurationSeconds => format!("| unwrap duration_seconds({name})"),
        }
    }
}

impl fmt::Display for Unwrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_filters())?;
        for filter in &self.filters {
            write!(f, " | {filter}")?;
        }
        Ok(())
    }
}

// --- long queries, over several lines ---

fn indent(level: usize) -> String {
    "  ".repeat(level)
}

fn pretty_log(log: &LogExpr, level: usize) -> String {
    let line = log.to_string();
    if line.len() <= MAX_LINE {
        return indent(level) + &line;
    }
    let mut out = indent(level);
    let _ = write_selector(&mut out, &log.matchers);
    let mut follows_line_filter = false;
    for stage in &log.stages {
        let is_line_filter = matches!(stage, Stage::Line(_));
        if is_line_filter && follows_line_filter {
            out.push(' ');
        } else {
            out.push('\n');
            out.push_str(&indent(level + 1));
        }
        let _ = write!(out, "{stage}");
        follows_line_filter = is_line_filter;
    }
    out
}

fn pretty_range(over: &LogRange, level: usize) -> String {
    let mut out = pretty_log(&over.log, level);
    if let Some(unwrap) = &over.unwrap {
        let margin = indent(level + 1);
        let _ = write!(out, "\n{margin}{}", unwrap.without_filters());
        for filter in &unwrap.filters {
            let _ = write!(out, "\n{margin}| {filter}");
        }
    }
    let _ = write!(out, " [{}]", units::format_prometheus_duration(over.range));
    if over.offset > 0 && over.offset % 1_000_000 == 0 {
        let _ = write!(
            out,
            " offset {}",
            units::format_prometheus_duration(over.offset)
        );
    } else if over.offset != 0 {
        let _ = write!(out, " offset {}", units::format_go_duration(over.offset));
    }
    out
}

fn pretty_grouping(grouping: &Grouping) -> String {
    let kind = match grouping.kind {
        GroupingKind::By => "by",
        GroupingKind::Without => "without",
    };
    format!(" {kind} ({})", grouping.labels.join(", "))
}

/// `name(` with one argument per line, and `)`.
fn pretty_call(head: &str, arguments: &[String], level: usize) -> String {
    format!(
        "{}{head}(\n{}\n{})",
        indent(level),
        arguments.join(",\n"),
        indent(level)
    )
}

fn pretty_metric(metric: &MetricExpr, level: usize) -> String {
    if let MetricExpr::Variants(variants) = metric {
        let inner: Vec<String> = variants
            .variants
            .iter()
            .map(|variant| pretty_metric(variant, level + 1))
            .collect();
        return format!(
            "{} of (\n{}\n{})",
            pretty_call("variants", &inner, level),
            pretty_range(&variants.over, level + 1),
            indent(level)
        );
    }
    let line = metric.to_string();
    if line.len() <= MAX_LINE {
        return indent(level) + &line;
    }
    match metric {
        MetricExpr::Range(range) => {
            let mut arguments = Vec::new();
            if let Some(parameter) = range.parameter {
                arguments.push(indent(level + 1) + &number(parameter));
            }
            arguments.push(pretty_range(&range.over, level + 1));
            let mut out = pretty_call(range.function.as_str(), &arguments, level);
            if let Some(grouping) = &range.grouping {
                out.push_str(&pretty_grouping(grouping));
            }
            out
        }
        MetricExpr::Vector(vector) => {
            let mut head = vector.function.as_str().to_owned();
            if let Some(grouping) = &vector.grouping {
                head.push_str(&pretty_grouping(grouping));
            }
            let mut arguments = Vec::new();
            if let Some(parameter) = vector.parameter {
                arguments.push(format!("{}{parameter}", indent(level + 1)));
            }
            arguments.push(pretty_metric(&vector.inner, level + 1));
            pretty_call(&head, &arguments, level)
        }
        MetricExpr::LabelReplace(replace) => {
            let mut arguments = vec![pretty_metric(&replace.inner, level + 1)];
            for text in [
                &replace.target,
                &replace.replacement,
                &replace.source,
                &replace.regex,
            ] {
                arguments.push(format!("{}{}", indent(level + 1), Quoted(text)));
            }
            pretty_call("label_replace", &arguments, level)
        }
        MetricExpr::Binary(binary) => format!(
            "{}\n{}{}\n{}",
            pretty_side(binary, Side::Left, level),
            indent(level),
            operator(binary).trim_end(),
            pretty_side(binary, Side::Right, level),
        ),
        MetricExpr::Number(_) | MetricExpr::VectorOf(_) | MetricExpr::Variants(_) => {
            indent(level) + &line
        }
    }
}

/// One side of an operation, in parentheses where the tree would otherwise be read back as
/// another one.
fn pretty_side(binary: &Binary, side: Side, level: usize) -> String {
    let inner = match side {
        Side::Left => &binary.left,
        Side::Right => &binary.right,
    };
    let MetricExpr::Binary(nested) = inner else {
        return pretty_metric(inner, level + 1);
    };
    if inner.to_string().len() <= MAX_LINE {
        // Short ones carry their own parentheses.
        return pretty_metric(inner, level + 1);
    }
    let (outer, inner_op) = (binary.op.precedence(), nested.op.precedence());
    let groups_itself = match side {
        Side::Left => inner_op > outer || (inner_op == outer && !binary.op.is_right_associative()),
        Side::Right => inner_op > outer || (inner_op == outer && binary.op.is_right_associative()),
    };
    if groups_itself {
        return pretty_metric(inner, level + 1);
    }
    format!(
        "{}(\n{}\n{})",
        indent(level + 1),
        pretty_metric(inner, level + 2),
        indent(level + 1)
    )
}
