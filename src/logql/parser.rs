//! Tokens to tree, by recursive descent; operators by precedence climbing.
//!
//! P1. An error is reported at the first token that no query could have there.
//! P2. No input makes the parser recurse deeper than [`MAX_DEPTH`] levels (A1).
//! P3. The regexes of a query are bounded together: each alone may take megabytes and
//!     milliseconds to compile, and thousands fit into a query.

use std::collections::HashSet;

use super::ast::*;
use super::error::ParseError;
use super::lexer::{Kind, Lexer, Token, unquote};
use super::{check, label_regex, re2};
use crate::model::labels::{MatchOp, Matcher};

/// A query must be shorter than this, bytes.
pub const MAX_QUERY_BYTES: usize = 131_072;
/// States of all regexes of a query together, roughly.
const MAX_REGEX_STATES: usize = 400_000;
/// Stages of one pipeline: each of them runs on every line.
const MAX_STAGES: usize = 500;

type Result<T> = std::result::Result<T, ParseError>;

/// Reads and checks a query.
pub fn parse(text: &str) -> Result<Expr> {
    parse_weighed(text).map(|(expr, _)| expr)
}

/// Like [`parse`], and tells how many states its regexes have, roughly: who keeps a query
/// wants to know.
pub fn parse_weighed(text: &str) -> Result<(Expr, usize)> {
    let mut parser = Parser::new(text)?;
    let node = parser.expr(0, 0)?;
    parser.expect_end()?;
    let expr = match node.parsed {
        Parsed::Log(log) => Expr::Log(log),
        Parsed::Metric(metric) => Expr::Metric(metric),
    };
    check::expr(&expr)?;
    Ok((expr, parser.regexes))
}

/// Reads several selectors. Their regexes are bounded together (P3).
pub fn parse_selectors(texts: &[&str]) -> Result<Vec<Vec<Matcher>>> {
    let mut selectors = Vec::with_capacity(texts.len());
    let (mut regexes, mut bytes) = (0, 0);
    for text in texts {
        bytes += text.len();
        if bytes >= MAX_QUERY_BYTES {
            return Err(ParseError::new(format!(
                "selectors too long ({bytes} > {MAX_QUERY_BYTES})"
            )));
        }
        let mut parser = Parser::new(text)?;
        parser.regexes = regexes;
        let matchers = parser.selector_alone()?;
        check::selector(&matchers)?;
        regexes = parser.regexes;
        selectors.push(matchers);
    }
    Ok(selectors)
}

/// Reads a stream selector such as `{app="x"}`; a pipeline behind it is an error.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    let matchers = parse_selector_or_all(text)?;
    check::selector(&matchers)?;
    Ok(matchers)
}

/// Like [`parse_selector`], and takes selectors that match every stream, such as `{}`.
pub fn parse_selector_or_all(text: &str) -> Result<Vec<Matcher>> {
    Parser::new(text)?.selector_alone()
}

/// Reads the labels of a pushed stream, `{a="1", b="2"}`, in the order written.
///
/// By hand and without the lexer: it runs for every stream of every push.
pub fn parse_push_labels(text: &str) -> Result<Vec<(String, String)>> {
    let bytes = text.as_bytes();
    let mut pairs = Vec::new();
    let blanks = |at: usize| {
        at + bytes[at..]
            .iter()
            .take_while(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n'))
            .count()
    };
    let fail = |at: usize, message: String| {
        let before = &text.as_bytes()[..at.min(text.len())];
        let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
        let line_start = before
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |n| n + 1);
        let col = String::from_utf8_lossy(&before[line_start..])
            .chars()
            .count() as u32
            + 1;
        ParseError {
            position: Some((line, col)),
            message,
        }
    };
    let unexpected = |at: usize, expected: &str| {
        let found = match text.get(at..).and_then(|rest| rest.chars().next()) {
            None => "$end".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        fail(
            at,
            format!("syntax error: unexpected {found}, expecting {expected}"),
        )
    };
    let mut at = blanks(0);
    if bytes.get(at) != Some(&b'{') {
        return Err(unexpected(at, "{"));
    }
    at = blanks(at + 1);
    if bytes.get(at) == Some(&b'}') {
        at += 1;
    } else {
        loop {
            let start = at;
            while matches!(bytes.get(at), Some(b) if b.is_ascii_alphanumeric() || *b == b'_') {
                at += 1;
            }
            if start == at || bytes[start].is_ascii_digit() {
                return Err(unexpected(start, "a label name"));
            }
            let name = &text[start..at];
            at = blanks(at);
            if bytes.get(at) != Some(&b'=') {
                return Err(unexpected(at, "="));
            }
            at = blanks(at + 1);
            let value = match bytes.get(at) {
                Some(b'"') => {
                    let plain = bytes[at + 1..]
                        .iter()
                        .position(|b| matches!(b, b'"' | b'\\' | b'\n'));
                    match plain {
                        // The usual case: nothing to unescape.
                        Some(len) if bytes[at + 1 + len] == b'"' => {
                            let value = text[at + 1..at + 1 + len].to_owned();
                            at += len + 2;
                            value
                        }
                        _ => {
                            let (value, len) =
                                unquote(&text[at..]).map_err(|e| fail(at, e.to_owned()))?;
                            at += len;
                            value
                        }
                    }
                }
                Some(b'`') => {
                    let len = text[at + 1..]
                        .find('`')
                        .ok_or_else(|| fail(at, "literal not terminated".to_owned()))?;
                    let value = text[at + 1..at + 1 + len].replace('\r', "");
                    at += len + 2;
                    value
                }
                _ => return Err(unexpected(at, "STRING")),
            };
            pairs.push((name.to_owned(), value));
            at = blanks(at);
            match bytes.get(at) {
                Some(b',') => at = blanks(at + 1),
                Some(b'}') => {
                    at += 1;
                    break;
                }
                _ => return Err(unexpected(at, "} or ,")),
            }
        }
    }
    at = blanks(at);
    if at < bytes.len() {
        return Err(unexpected(at, "$end"));
    }
    Ok(pairs)
}

enum Parsed {
    Log(LogExpr),
    Metric(MetricExpr),
}

/// A part of the tree and how deep it is.
struct Node<T = Parsed> {
    parsed: T,
    depth: usize,
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token at hand.
    token: Token,
    /// Tokens taken so far.
    taken: usize,
    /// What the regexes so far weigh together (P3).
    regexes: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        if text.len() >= MAX_QUERY_BYTES {
            return Err(ParseError::new(format!(
                "input size too long ({} > {MAX_QUERY_BYTES})",
                text.len()
            )));
        }
        let mut lexer = Lexer::new(text);
        let token = lexer.next();
        let mut parser = Self {
            lexer,
            token,
            taken: 0,
            regexes: 0,
        };
        if text.is_empty() {
            parser.token.line = 0;
            parser.token.col = 0;
        }
        Ok(parser)
    }

    /// A text that is a selector and nothing else.
    fn selector_alone(&mut self) -> Result<Vec<Matcher>> {
        let node = self.expr(0, 0)?;
        self.expect_end()?;
        match node.parsed {
            Parsed::Log(log) if log.stages.is_empty() => Ok(log.matchers),
            _ => Err(ParseError::new("only label matchers are supported")),
        }
    }

    /// Counts a regex in, before anybody compiles it (P3).
    fn weigh(&mut self, regex: &str) -> Result<()> {
        self.regexes = self.regexes.saturating_add(re2::weight(regex));
        if self.regexes > MAX_REGEX_STATES {
            return Err(
                self.too_much("the regular expressions of the query are too large together")
            );
        }
        Ok(())
    }

    /// An error at the token at hand.
    fn too_much(&self, message: impl Into<String>) -> ParseError {
        ParseError {
            position: Some((self.token.line, self.token.col)),
            message: message.into(),
        }
    }

    fn matcher(
        &mut self,
        name: String,
        op: MatchOp,
        value: String,
        dot: re2::Dot,
    ) -> Result<Matcher> {
        if matches!(op, MatchOp::Regex | MatchOp::NotRegex) {
            self.weigh(&value)?;
        }
        re2::matcher(name, op, value, dot).map_err(|e| ParseError::new(e.to_string()))
    }

    // --- tokens ---

    fn take(&mut self) -> Token {
        self.taken += 1;
        let next = self.lexer.next();
        std::mem::replace(&mut self.token, next)
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(&self.token.kind, Kind::Symbol(s) if *s == symbol)
    }

    /// Takes the token if it is this symbol.
    fn eat(&mut self, symbol: &str) -> bool {
        let found = self.is(symbol);
        if found {
            self.take();
        }
        found
    }

    fn expect(&mut self, symbol: &str) -> Result<()> {
        if self.eat(symbol) {
            Ok(())
        } else {
            Err(self.unexpected(symbol))
        }
    }

    fn expect_end(&mut self) -> Result<()> {
        match self.token.kind {
            Kind::End => Ok(()),
            _ => Err(self.unexpected("")),
        }
    }

    /// The error for the token at hand; `expected` may be empty.
    fn unexpected(&self, expected: &str) -> ParseError {
        let message = match &self.token.kind {
            Kind::Broken(message) => message.clone(),
            kind if expected.is_empty() => {
                format!("syntax error: unexpected {}", kind.describe())
            }
            kind => format!(
                "syntax error: unexpected {}, expecting {expected}",
                kind.describe()
            ),
        };
        let position = (self.token.line, self.token.col);
        ParseError {
            position: (position != (0, 0)).then_some(position),
            message,
        }
    }

    fn text(&mut self) -> Result<String> {
        match &self.token.kind {
            Kind::Text(_) => match self.take().kind {
                Kind::Text(text) => Ok(text),
                _ => unreachable!("the kind was just looked at"),
            },
            _ => Err(self.unexpected("STRING")),
        }
    }

    fn name(&mut self) -> Result<String> {
        match &self.token.kind {
            Kind::Ident(_) => match self.take().kind {
                Kind::Ident(name) => Ok(name),
                _ => unreachable!("the kind was just looked at"),
            },
            _ => Err(self.unexpected("IDENTIFIER")),
        }
    }

    fn number(&mut self) -> Result<f64> {
        match self.token.kind {
            Kind::Number(value) => {
                self.take();
                Ok(value)
            }
            _ => Err(self.unexpected("NUMBER")),
        }
    }

    fn depth(&self, depth: usize) -> Result<usize> {
        if depth > MAX_DEPTH {
            return Err(ParseError {
                position: Some((self.token.line, self.token.col)),
                message: format!("the query is nested too deeply (more than {MAX_DEPTH} levels)"),
            });
        }
        Ok(depth)
    }

    // --- expressions ---

    /// Operands joined by operators that bind at least as tight as `tightness`.
    fn expr(&mut self, tightness: u8, level: usize) -> Result<Node> {
        self.depth(level)?;
        let mut left = self.operand(level)?;
        while let Some(op) = self.binary_op() {
            let precedence = op.precedence();
            if precedence < tightness {
                break;
            }
            self.take();
            let (returns_bool, matching) = self.modifier()?;
            let inner = if op.is_right_associative() {
                precedence
            } else {
                precedence + 1
            };
            let right = self.expr(inner, level + 1)?;
            let depth = self.depth(level + 1 + left.depth.max(right.depth))? - level;
            let metric = check::binary(
                op,
                left.parsed.leg(op, "left")?,
                right.parsed.leg(op, "right")?,
                returns_bool,
                matching,
            )?;
            left = Node {
                parsed: Parsed::Metric(metric),
                depth,
            };
        }
        Ok(left)
    }

    fn binary_op(&self) -> Option<BinaryOp> {
        let Kind::Symbol(symbol) = self.token.kind else {
            return None;
        };
        Some(match symbol {
            "or" => BinaryOp::Or,
            "and" => BinaryOp::And,
            "unless" => BinaryOp::Unless,
            "+" => BinaryOp::Add,
            "-" => BinaryOp::Sub,
            "*" => BinaryOp::Mul,
            "/" => BinaryOp::Div,
            "%" => BinaryOp::Mod,
            "^" => BinaryOp::Pow,
            _ => BinaryOp::Compare(compare(symbol)?),
        })
    }

    fn modifier(&mut self) -> Result<(bool, Matching)> {
        let returns_bool = self.eat("bool");
        let mut matching = Matching::default();
        let on = self.is("on");
        if !on && !self.is("ignoring") {
            return Ok((returns_bool, matching));
        }
        self.take();
        matching.on = on;
        matching.labels = self.names()?;
        let many = if self.is("group_left") {
            Side::Left
        } else if self.is("group_right") {
            Side::Right
        } else {
            return Ok((returns_bool, matching));
        };
        self.take();
        let include = if self.is("(") {
            self.names()?
        } else {
            Vec::new()
        };
        matching.group = Some(Group { many, include });
        Ok((returns_bool, matching))
    }

    /// `(a, b)`, maybe empty.
    fn names(&mut self) -> Result<Vec<String>> {
        self.expect("(")?;
        let mut names = Vec::new();
        if self.eat(")") {
            return Ok(names);
        }
        loop {
            names.push(self.name()?);
            if self.eat(")") {
                return Ok(names);
            }
            if !self.eat(",") {
                return Err(self.unexpected(", or )"));
            }
        }
    }

    fn operand(&mut self, level: usize) -> Result<Node> {
        let metric = |metric| Node {
            parsed: Parsed::Metric(metric),
            depth: 1,
        };
        match self.token.kind {
            Kind::Number(value) => {
                self.take();
                Ok(metric(MetricExpr::Number(value)))
            }
            Kind::Symbol("+") => {
                self.take();
                Ok(metric(MetricExpr::Number(self.number()?)))
            }
            Kind::Symbol("-") => {
                self.take();
                Ok(metric(MetricExpr::Number(-self.number()?)))
            }
            Kind::Symbol("(") => {
                self.take();
                let inner = self.expr(0, level + 1)?;
                self.expect(")")?;
                Ok(inner)
            }
            Kind::Symbol("{") => {
                let matchers = self.selector()?;
                let (stages, _) = self.stages(false)?;
                Ok(Node {
                    parsed: Parsed::Log(LogExpr { matchers, stages }),
                    depth: 1,
                })
            }
            Kind::Symbol("variants") => self.variants(level),
            Kind::Function("vector") => {
                self.take();
                self.expect("(")?;
                let value = self.number()?;
                self.expect(")")?;
                Ok(metric(MetricExpr::VectorOf(value)))
            }
            Kind::Function("label_replace") => self.label_replace(level),
            Kind::Function(name) => {
                if let Some(function) = VectorFunction::named(name) {
                    self.vector_aggregation(function, level)
                } else if let Some(function) = RangeFunction::named(name) {
                    self.range_aggregation(function, level)
                } else {
                    Err(self.unexpected(""))
                }
            }
            _ => Err(self.unexpected("")),
        }
    }

    /// An expression that must give samples.
    fn metric(&mut self, level: usize) -> Result<Node<MetricExpr>> {
        let node = self.expr(0, level)?;
        match node.parsed {
            Parsed::Metric(parsed) => Ok(Node {
                parsed,
                depth: node.depth,
            }),
            Parsed::Log(_) => Err(self.unexpected("")),
        }
    }

    fn grouping(&mut self) -> Result<Option<Grouping>> {
        let kind = if self.is("by") {
            GroupingKind::By
        } else if self.is("without") {
            GroupingKind::Without
        } else {
            return Ok(None);
        };
        self.take();
        let labels = self.names()?;
        Ok(Some(Grouping { kind, labels }))
    }

    fn vector_aggregation(&mut self, function: VectorFunction, level: usize) -> Result<Node> {
        self.take();
        let before = self.grouping()?;
        self.expect("(")?;
        let taken = self.taken;
        let mut inner = self.metric(level + 1)?;
        let mut parameter = None;
        if let MetricExpr::Number(value) = inner.parsed
            && self.taken == taken + 1
            && self.eat(",")
        {
            parameter = Some(value);
            inner = self.metric(level + 1)?;
        }
        self.expect(")")?;
        let grouping = match before {
            Some(grouping) => Some(grouping),
            None => self.grouping()?,
        };
        let depth = self.depth(level + inner.depth + 1)? - level;
        let metric = check::vector_aggregation(function, parameter, grouping, inner.parsed)?;
        Ok(Node {
            parsed: Parsed::Metric(MetricExpr::Vector(metric)),
            depth,
        })
    }

    fn range_aggregation(&mut self, function: RangeFunction, level: usize) -> Result<Node> {
        self.take();
        self.expect("(")?;
        let mut parameter = None;
        if let Kind::Number(value) = self.token.kind {
            self.take();
            self.expect(",")?;
            parameter = Some(value);
        }
        let over = self.log_range(level + 1)?;
        self.expect(")")?;
        let grouping = self.grouping()?;
        let range = RangeAggregation {
            function,
            parameter,
            over,
            grouping,
        };
        check::range_aggregation(&range)?;
        Ok(Node {
            parsed: Parsed::Metric(MetricExpr::Range(range)),
            depth: 1,
        })
    }

    fn label_replace(&mut self, level: usize) -> Result<Node> {
        self.take();
        self.expect("(")?;
        let inner = self.metric(level + 1)?;
        self.expect(",")?;
        let target = self.text()?;
        self.expect(",")?;
        let replacement = self.text()?;
        self.expect(",")?;
        let source = self.text()?;
        self.expect(",")?;
        let regex = self.text()?;
        self.expect(")")?;
        self.weigh(&regex)?;
        re2::anchored(&regex).map_err(|e| ParseError::new(e.to_string()))?;
        let depth = self.depth(level + inner.depth + 1)? - level;
        Ok(Node {
            parsed: Parsed::Metric(MetricExpr::LabelReplace(Box::new(LabelReplace {
                inner: inner.parsed,
                target,
                replacement,
                source,
                regex,
            }))),
            depth,
        })
    }

    fn variants(&mut self, level: usize) -> Result<Node> {
        self.take();
        self.expect("(")?;
        let mut variants = Vec::new();
        let mut deepest = 0;
        loop {
            let node = self.metric(level + 1)?;
            deepest = deepest.max(node.depth);
            variants.push(node.parsed);
            if self.eat(")") {
                break;
            }
            if !self.eat(",") {
                return Err(self.unexpected(", or )"));
            }
        }
        self.expect("of")?;
        self.expect("(")?;
        let over = self.log_range(level + 1)?;
        self.expect(")")?;
        let depth = self.depth(level + deepest + 1)? - level;
        Ok(Node {
            parsed: Parsed::Metric(MetricExpr::Variants(Box::new(Variants { variants, over }))),
            depth,
        })
    }

    // --- ranges ---

    fn log_range(&mut self, level: usize) -> Result<LogRange> {
        self.depth(level)?;
        if !self.eat("(") {
            let (log, unwrap, range) = self.ranged_selector()?;
            let (range, offset) = range.ok_or_else(|| self.unexpected("RANGE"))?;
            return Ok(LogRange {
                log,
                unwrap,
                range,
                offset,
            });
        }
        if self.is("(") {
            let inner = self.log_range(level + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let (log, unwrap, range) = self.ranged_selector()?;
        self.expect(")")?;
        let range = match range {
            Some(range) => Some(range),
            None => self.range()?,
        };
        let (range, offset) = range.ok_or_else(|| self.unexpected("RANGE"))?;
        Ok(LogRange {
            log,
            unwrap,
            range,
            offset,
        })
    }

    /// A selector, its stages, and the range on either side of them.
    #[allow(clippy::type_complexity)]
    fn ranged_selector(&mut self) -> Result<(LogExpr, Option<Unwrap>, Option<(i64, i64)>)> {
        let matchers = self.selector()?;
        let before = self.range()?;
        let (stages, unwrap) = self.stages(true)?;
        let range = match before {
            Some(range) => Some(range),
            None => self.range()?,
        };
        Ok((LogExpr { matchers, stages }, unwrap, range))
    }

    /// `[5m] offset 1h`
    fn range(&mut self) -> Result<Option<(i64, i64)>> {
        let Kind::Range(range) = self.token.kind else {
            return Ok(None);
        };
        self.take();
        if !self.eat("offset") {
            return Ok(Some((range, 0)));
        }
        match self.token.kind {
            Kind::Duration(offset) => {
                self.take();
                Ok(Some((range, offset)))
            }
            _ => Err(self.unexpected("DURATION")),
        }
    }

    // --- selectors and stages ---

    fn selector(&mut self) -> Result<Vec<Matcher>> {
        self.expect("{")?;
        let mut matchers = Vec::new();
        if self.eat("}") {
            return Ok(matchers);
        }
        loop {
            let name = self.name()?;
            let op = self
                .match_op()
                .ok_or_else(|| self.unexpected("=, =~, !~ or !="))?;
            self.take();
            let value = self.text()?;
            matchers.push(self.matcher(name, op, value, re2::Dot::MatchesNewline)?);
            if self.eat("}") {
                return Ok(matchers);
            }
            if !self.eat(",") {
                return Err(self.unexpected("} or ,"));
            }
        }
    }

    fn match_op(&self) -> Option<MatchOp> {
        let Kind::Symbol(symbol) = self.token.kind else {
            return None;
        };
        Some(match symbol {
            "=" => MatchOp::Equal,
            "!=" => MatchOp::NotEqual,
            "=~" => MatchOp::Regex,
            "!~" => MatchOp::NotRegex,
            _ => return None,
        })
    }

    /// Stages until something else comes; `unwrap` ends them where it is allowed.
    fn stages(&mut self, allow_unwrap: bool) -> Result<(Vec<Stage>, Option<Unwrap>)> {
        let mut stages = Vec::new();
        loop {
            if stages.len() > MAX_STAGES {
                return Err(self.too_much(format!("more than {MAX_STAGES} stages in a pipeline")));
            }
            if let Some(op) = self.line_op() {
                self.take();
                self.line_filter(op, &mut stages)?;
            } else if self.eat("|") {
                if allow_unwrap && self.is("unwrap") {
                    return Ok((stages, Some(self.unwrap()?)));
                }
                stages.push(self.stage()?);
            } else {
                return Ok((stages, None));
            }
        }
    }

    fn line_op(&self) -> Option<LineOp> {
        let Kind::Symbol(symbol) = self.token.kind else {
            return None;
        };
        Some(match symbol {
            "|=" => LineOp::Contains,
            "!=" => LineOp::NotContains,
            "|~" => LineOp::Regex,
            "!~" => LineOp::NotRegex,
            "|>" => LineOp::Pattern,
            "!>" => LineOp::NotPattern,
            _ => return None,
        })
    }

    fn line_filter(&mut self, op: LineOp, stages: &mut Vec<Stage>) -> Result<()> {
        let mut operands = Vec::new();
        loop {
            operands.push(match self.token.kind {
                Kind::Function("ip") => LineOperand::Ip(self.ip()?),
                Kind::Text(_) => {
                    let text = self.text()?;
                    if matches!(op, LineOp::Regex | LineOp::NotRegex) {
                        self.weigh(&text)?;
                    }
                    LineOperand::Text(text)
                }
                _ => return Err(self.unexpected("STRING or ip")),
            });
            if !self.eat("or") {
                break;
            }
        }
        if op.is_negative() {
            // A2: none of them may match, which is what one filter after the other says.
            for operand in operands {
                stages.push(Stage::Line(LineFilter {
                    op,
                    operands: vec![operand],
                }));
            }
        } else {
            stages.push(Stage::Line(LineFilter { op, operands }));
        }
        Ok(())
    }

    /// `ip("…")`, the function at hand.
    fn ip(&mut self) -> Result<String> {
        self.take();
        self.expect("(")?;
        let pattern = self.text()?;
        self.expect(")")?;
        Ok(pattern)
    }

    /// What follows a `|`.
    fn stage(&mut self) -> Result<Stage> {
        let symbol = match self.token.kind {
            Kind::Symbol(symbol) => symbol,
            Kind::Ident(_) => return self.label_filter(0).map(|n| Stage::Label(n.parsed)),
            _ => return Err(self.unexpected("")),
        };
        match symbol {
            "(" => return self.label_filter(0).map(|n| Stage::Label(n.parsed)),
            "json" | "logfmt" | "regexp" | "pattern" | "unpack" | "line_format"
            | "label_format" | "decolorize" | "drop" | "keep" => {}
            _ => return Err(self.unexpected("")),
        }
        self.take();
        match symbol {
            "json" => self.extractions().map(Stage::Json),
            "logfmt" => {
                let mut logfmt = Logfmt::default();
                loop {
                    if self.eat("--strict") {
                        logfmt.strict = true;
                    } else if self.eat("--keep-empty") {
                        logfmt.keep_empty = true;
                    } else {
                        break;
                    }
                }
                logfmt.extractions = self.extractions()?;
                Ok(Stage::Logfmt(logfmt))
            }
            "regexp" => {
                let text = self.text()?;
                self.weigh(&text)?;
                check::regexp_stage(&text)?;
                Ok(Stage::Regexp(text))
            }
            "pattern" => {
                let text = self.text()?;
                check::pattern_stage(&text)?;
                Ok(Stage::Pattern(text))
            }
            "unpack" => Ok(Stage::Unpack),
            "line_format" => self.text().map(Stage::LineFormat),
            "label_format" => self.label_formats().map(Stage::LabelFormat),
            "decolorize" => Ok(Stage::Decolorize),
            "drop" => self.label_picks().map(Stage::Drop),
            _ => self.label_picks().map(Stage::Keep),
        }
    }

    fn extractions(&mut self) -> Result<Vec<Extraction>> {
        let mut extractions = Vec::new();
        if !matches!(self.token.kind, Kind::Ident(_)) {
            return Ok(extractions);
        }
        loop {
            let name = self.name()?;
            let path = if self.eat("=") {
                self.text()?
            } else {
                name.clone()
            };
            extractions.push(Extraction { name, path });
            if !self.eat(",") {
                return Ok(extractions);
            }
        }
    }

    fn label_formats(&mut self) -> Result<Vec<LabelFormat>> {
        let mut formats = Vec::new();
        loop {
            let to = self.name()?;
            self.expect("=")?;
            formats.push(match self.token.kind {
                Kind::Ident(_) => LabelFormat::Rename {
                    to,
                    from: self.name()?,
                },
                Kind::Text(_) => LabelFormat::Template {
                    to,
                    template: self.text()?,
                },
                _ => return Err(self.unexpected("IDENTIFIER or STRING")),
            });
            if !self.eat(",") {
                return Ok(formats);
            }
        }
    }

    fn label_picks(&mut self) -> Result<Vec<LabelPick>> {
        let mut picks = Vec::new();
        loop {
            let name = self.name()?;
            picks.push(match self.match_op() {
                Some(op) => {
                    self.take();
                    let value = self.text()?;
                    LabelPick::Matching(self.matcher(name, op, value, re2::Dot::MatchesNewline)?)
                }
                None => LabelPick::Name(name),
            });
            if !self.eat(",") {
                return Ok(picks);
            }
        }
    }

    fn unwrap(&mut self) -> Result<Unwrap> {
        self.take();
        let conversion = match self.token.kind {
            Kind::Function("bytes") => Conversion::Bytes,
            Kind::Function("duration") => Conversion::Duration,
            Kind::Function("duration_seconds") => Conversion::DurationSeconds,
            _ => Conversion::Number,
        };
        let name = if conversion == Conversion::Number {
            self.name()?
        } else {
            self.take();
            self.expect("(")?;
            let name = self.name()?;
            self.expect(")")?;
            name
        };
        let mut filters = Vec::new();
        while self.eat("|") {
            if !matches!(self.token.kind, Kind::Ident(_) | Kind::Symbol("(")) {
                return Err(self.unexpected(""));
            }
            filters.push(self.label_filter(0)?.parsed);
        }
        Ok(Unwrap {
            name,
            conversion,
            filters,
        })
    }

    // --- label filters ---

    /// Conditions joined by `or`, the loosest.
    fn label_filter(&mut self, level: usize) -> Result<Node<LabelFilter>> {
        self.depth(level)?;
        let mut left = self.label_conjunction(level)?;
        while self.eat("or") {
            let right = self.label_conjunction(level)?;
            left = self.join(level, left, right, LabelFilter::Or)?;
        }
        Ok(left)
    }

    /// Conditions joined by `and`, a comma, or nothing at all.
    fn label_conjunction(&mut self, level: usize) -> Result<Node<LabelFilter>> {
        let mut left = self.label_condition(level)?;
        loop {
            let joined = self.eat("and") || self.eat(",");
            if !joined && !matches!(self.token.kind, Kind::Ident(_) | Kind::Symbol("(")) {
                return Ok(left);
            }
            let right = self.label_condition(level)?;
            left = self.join(level, left, right, LabelFilter::And)?;
        }
    }

    fn join(
        &self,
        level: usize,
        left: Node<LabelFilter>,
        right: Node<LabelFilter>,
        with: fn(Box<LabelFilter>, Box<LabelFilter>) -> LabelFilter,
    ) -> Result<Node<LabelFilter>> {
        let depth = self.depth(level + 1 + left.depth.max(right.depth))? - level;
        Ok(Node {
            parsed: with(Box::new(left.parsed), Box::new(right.parsed)),
            depth,
        })
    }

    fn label_condition(&mut self, level: usize) -> Result<Node<LabelFilter>> {
        if self.eat("(") {
            let inner = self.label_filter(level + 1)?;
            self.expect(")")?;
            return Ok(inner);
        }
        let name = self.name()?;
        let Kind::Symbol(symbol) = self.token.kind else {
            return Err(self.unexpected(""));
        };
        let match_op = self.match_op();
        let op = match symbol {
            "=" => Some(Compare::Equal),
            other => compare(other),
        };
        if match_op.is_none() && op.is_none() {
            return Err(self.unexpected(""));
        }
        self.take();
        let parsed = self.label_operand(name, match_op, op)?;
        Ok(Node { parsed, depth: 1 })
    }

    fn label_operand(
        &mut self,
        name: String,
        match_op: Option<MatchOp>,
        op: Option<Compare>,
    ) -> Result<LabelFilter> {
        if let Some(match_op) = match_op
            && matches!(self.token.kind, Kind::Text(_))
        {
            let value = self.text()?;
            let dot = label_regex::dot(&value);
            let matcher = self.matcher(name, match_op, value, dot)?;
            return Ok(LabelFilter::Text(matcher));
        }
        if matches!(match_op, Some(MatchOp::Equal | MatchOp::NotEqual))
            && self.token.kind == Kind::Function("ip")
        {
            let pattern = self.ip()?;
            let negated = match_op == Some(MatchOp::NotEqual);
            return Ok(LabelFilter::Ip {
                name,
                negated,
                pattern,
            });
        }
        let Some(op) = op else {
            return Err(self.unexpected("STRING"));
        };
        let filter = match self.token.kind {
            Kind::Number(value) => LabelFilter::Number { name, op, value },
            Kind::Duration(value) => LabelFilter::Duration { name, op, value },
            Kind::Bytes(value) => LabelFilter::Bytes { name, op, value },
            Kind::Symbol("+") => {
                self.take();
                let value = self.number()?;
                return Ok(LabelFilter::Number { name, op, value });
            }
            Kind::Symbol("-") => {
                self.take();
                let value = -self.number()?;
                return Ok(LabelFilter::Number { name, op, value });
            }
            _ => return Err(self.unexpected("")),
        };
        self.take();
        Ok(filter)
    }
}

impl Parsed {
    /// The side of a binary operation, which must give samples.
    fn leg(self, op: BinaryOp, side: &str) -> Result<MetricExpr> {
        match self {
            Self::Metric(metric) => Ok(metric),
            Self::Log(_) => Err(ParseError::new(format!(
                "unexpected type for {side} leg of binary operation ({}): a log query",
                op.as_str()
            ))),
        }
    }
}

fn compare(symbol: &str) -> Option<Compare> {
    Some(match symbol {
        "==" => Compare::Equal,
        "!=" => Compare::NotEqual,
        ">" => Compare::Greater,
        ">=" => Compare::GreaterEqual,
        "<" => Compare::Less,
        "<=" => Compare::LessEqual,
        _ => return None,
    })
}

/// Names that occur more than once, for those who must refuse them.
pub(super) fn first_duplicate<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = HashSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}
