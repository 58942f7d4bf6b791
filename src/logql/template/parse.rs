//! Text of a template to its tree.
//!
//! T1. Nesting is bounded by [`MAX_NESTING`], so that walking the tree by recursion is safe.

use std::collections::BTreeMap;
use std::fmt;

use crate::logql::lexer::unquote;

/// Blocks and parentheses within each other.
const MAX_NESTING: usize = 64;

/// Every function a template may name; running one that is not there yet is refused later.
const FUNCTIONS: &[&str] = &[
    "and",
    "or",
    "not",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "len",
    "index",
    "slice",
    "print",
    "printf",
    "println",
    "html",
    "js",
    "urlquery",
    "call",
    "__line__",
    "__timestamp__",
    "lower",
    "upper",
    "title",
    "trunc",
    "substr",
    "contains",
    "hasPrefix",
    "hasSuffix",
    "indent",
    "nindent",
    "replace",
    "repeat",
    "trim",
    "trimAll",
    "trimSuffix",
    "trimPrefix",
    "b64enc",
    "b64dec",
    "default",
    "ToLower",
    "ToUpper",
    "Replace",
    "Trim",
    "TrimLeft",
    "TrimRight",
    "TrimPrefix",
    "TrimSuffix",
    "TrimSpace",
    "regexReplaceAll",
    "regexReplaceAllLiteral",
    "count",
    "int",
    "float64",
    "add",
    "sub",
    "mul",
    "div",
    "mod",
    "addf",
    "subf",
    "mulf",
    "divf",
    "max",
    "min",
    "maxf",
    "minf",
    "ceil",
    "floor",
    "round",
    "alignLeft",
    "alignRight",
    "fromJson",
    "urlencode",
    "urldecode",
    "bytes",
    "duration",
    "duration_seconds",
    "now",
    "date",
    "toDate",
    "toDateInZone",
    "unixEpoch",
    "unixEpochMillis",
    "unixEpochNanos",
    "unixToTime",
];

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    pub nodes: Vec<Node>,
    /// `{{define "name"}}` and `{{block "name" …}}`.
    pub defined: BTreeMap<String, Vec<Node>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    Text(String),
    Action(Pipe),
    If {
        condition: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        value: Pipe,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        over: Pipe,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Template {
        name: String,
        dot: Option<Pipe>,
    },
    Break,
    Continue,
}

/// `$x := first | second`
#[derive(Clone, Debug, PartialEq)]
pub struct Pipe {
    /// Variables that get the value; two of them only in `range`.
    pub variables: Vec<String>,
    /// `:=` rather than `=`.
    pub declares: bool,
    /// Each: what is called, then its arguments. Never empty.
    pub commands: Vec<Vec<Term>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    Dot,
    Nil,
    Bool(bool),
    Text(String),
    Int(i64),
    Float(f64),
    Function(&'static str),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    /// `(…).a.b`
    Parenthesis(Box<Pipe>, Vec<String>),
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template: {}: {}", self.line, self.reason)
    }
}

type Result<T> = std::result::Result<T, TemplateError>;

impl Template {
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser {
            text,
            at: 0,
            trims_next: false,
            variables: vec!["$".to_owned()],
            defined: BTreeMap::new(),
            loops: 0,
        };
        let (nodes, end) = parser.nodes(0, false)?;
        match end {
            BlockEnd::Text => Ok(Self {
                nodes,
                defined: parser.defined,
            }),
            BlockEnd::End => Err(parser.fail("unexpected {{end}}")),
            BlockEnd::Else(_) => Err(parser.fail("unexpected {{else}}")),
        }
    }

    /// The template as a row of texts and fields, if that is all it is; else the first
    /// construct that is more.
    pub fn plain(&self) -> std::result::Result<Vec<Part>, String> {
        self.nodes
            .iter()
            .map(|node| match node {
                Node::Text(text) => Ok(Part::Text(text.clone())),
                Node::Action(pipe) => {
                    if !pipe.variables.is_empty() {
                        return Err("variable".to_owned());
                    }
                    let terms = pipe.commands.iter().flatten();
                    for term in terms.clone() {
                        if let Term::Function(name) = term
                            && *name != "__line__"
                        {
                            return Err(format!("function `{name}`"));
                        }
                    }
                    match pipe.commands.as_slice() {
                        [command] => match command.as_slice() {
                            [Term::Field(names)] if names.len() == 1 => {
                                Ok(Part::Field(names[0].clone()))
                            }
                            [Term::Function("__line__")] => Ok(Part::Line),
                            [Term::Text(text)] => Ok(Part::Text(text.clone())),
                            _ => Err("expression".to_owned()),
                        },
                        _ => Err("pipeline".to_owned()),
                    }
                }
                Node::If { .. } => Err("action `if`".to_owned()),
                Node::With { .. } => Err("action `with`".to_owned()),
                Node::Range { .. } | Node::Break | Node::Continue => {
                    Err("action `range`".to_owned())
                }
                Node::Template { .. } => Err("action `template`".to_owned()),
            })
            .collect()
    }
}

/// A piece of a plain template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// `{{.name}}`
    Field(String),
    /// `{{__line__}}`
    Line,
}

enum BlockEnd {
    /// The text is over.
    Text,
    End,
    /// `{{else}}`, and what stands behind it.
    Else(ElseKind),
}

enum ElseKind {
    Plain,
    If,
    With,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    If,
    With,
    Range,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// The last action ended in `-}}`.
    trims_next: bool,
    variables: Vec<String>,
    defined: BTreeMap<String, Vec<Node>>,
    /// Enclosing `range` bodies.
    loops: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fail(&self, reason: impl Into<String>) -> TemplateError {
        let before = &self.text.as_bytes()[..self.at];
        TemplateError {
            line: before.iter().filter(|b| **b == b'\n').count() + 1,
            reason: reason.into(),
        }
    }

    /// Nodes up to the end of the text, an `{{end}}` or an `{{else …}}`. After `else if` and
    /// `else with`, the parser stands before the condition.
    fn nodes(&mut self, nesting: usize, inside: bool) -> Result<(Vec<Node>, BlockEnd)> {
        if nesting > MAX_NESTING {
            return Err(self.fail(format!(
                "nested too deeply (more than {MAX_NESTING} levels)"
            )));
        }
        let mut nodes = Vec::new();
        loop {
            let rest = self.rest();
            let open = rest.find("{{");
            let mut text = &rest[..open.unwrap_or(rest.len())];
            self.at += text.len();
            if self.trims_next {
                text = text.trim_start_matches(is_blank);
            }
            self.trims_next = false;
            let Some(_) = open else {
                push_text(&mut nodes, text);
                if inside {
                    return Err(self.fail("unexpected EOF"));
                }
                return Ok((nodes, BlockEnd::Text));
            };
            self.at += 2;
            if self.rest().starts_with('-') && self.rest()[1..].starts_with(is_blank) {
                text = text.trim_end_matches(is_blank);
                self.at += 1;
            }
            push_text(&mut nodes, text);
            if self.comment()? {
                continue;
            }
            self.blanks();
            let word = self.peek_word();
            match word {
                "end" => {
                    self.at += 3;
                    self.close()?;
                    return Ok((nodes, BlockEnd::End));
                }
                "else" => {
                    self.at += 4;
                    self.blanks();
                    let kind = match self.peek_word() {
                        "if" => ElseKind::If,
                        "with" => ElseKind::With,
                        _ => ElseKind::Plain,
                    };
                    match kind {
                        ElseKind::Plain => self.close()?,
                        ElseKind::If => self.at += 2,
                        ElseKind::With => self.at += 4,
                    }
                    return Ok((nodes, BlockEnd::Else(kind)));
                }
                "if" | "with" | "range" => {
                    self.at += word.len();
                    let block = match word {
                        "if" => Block::If,
                        "with" => Block::With,
                        _ => Block::Range,
                    };
                    nodes.push(self.block(block, nesting)?);
                }
                "define" | "block" => {
                    self.at += word.len();
                    if word == "define" && (nesting > 0 || inside) {
                        return Err(self.fail("unexpected {{define}} inside of another block"));
                    }
                    self.blanks();
                    let name = self.quoted_name()?;
                    let dot = if word == "block" {
                        Some(self.pipe(nesting, false)?)
                    } else {
                        None
                    };
                    self.close()?;
                    let outer = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
                    let outer_loops = std::mem::take(&mut self.loops);
                    let (body, end) = self.nodes(nesting + 1, true)?;
                    self.variables = outer;
                    self.loops = outer_loops;
                    if !matches!(end, BlockEnd::End) {
                        return Err(self.fail(format!("unexpected {{{{else}}}} in {word}")));
                    }
                    self.defined.insert(name.clone(), body);
                    if dot.is_some() {
                        nodes.push(Node::Template { name, dot });
                    }
                }
                "template" => {
                    self.at += word.len();
                    self.blanks();
                    let name = self.quoted_name()?;
                    self.blanks();
                    let dot = if self.at_close() {
                        None
                    } else {
                        Some(self.pipe(nesting, false)?)
                    };
                    self.close()?;
                    nodes.push(Node::Template { name, dot });
                }
                "break" | "continue" => {
                    self.at += word.len();
                    if self.loops == 0 {
                        return Err(self.fail(format!("{{{{{word}}}}} outside {{{{range}}}}")));
                    }
                    self.close()?;
                    nodes.push(match word {
                        "break" => Node::Break,
                        _ => Node::Continue,
                    });
                }
                _ => {
                    let pipe = self.pipe(nesting, false)?;
                    self.close()?;
                    nodes.push(Node::Action(pipe));
                }
            }
        }
    }

    fn block(&mut self, block: Block, nesting: usize) -> Result<Node> {
        let scope = self.variables.len();
        let pipe = self.pipe(nesting, block == Block::Range)?;
        self.close()?;
        self.loops += usize::from(block == Block::Range);
        let (then, end) = self.nodes(nesting + 1, true)?;
        self.loops -= usize::from(block == Block::Range);
        let otherwise = match end {
            BlockEnd::Text => return Err(self.fail("unexpected EOF")),
            BlockEnd::End => Vec::new(),
            BlockEnd::Else(ElseKind::If) if block == Block::If => {
                vec![self.chained(Block::If, nesting)?]
            }
            BlockEnd::Else(ElseKind::With) if block == Block::With => {
                vec![self.chained(Block::With, nesting)?]
            }
            BlockEnd::Else(ElseKind::Plain) => {
                let (nodes, end) = self.nodes(nesting + 1, true)?;
                if !matches!(end, BlockEnd::End) {
                    return Err(self.fail("expected end; found {{else}}"));
                }
                nodes
            }
            BlockEnd::Else(_) => return Err(self.fail("unexpected {{else}} with another action")),
        };
        self.variables.truncate(scope);
        Ok(match block {
            Block::If => Node::If {
                condition: pipe,
                then,
                otherwise,
            },
            Block::With => Node::With {
                value: pipe,
                then,
                otherwise,
            },
            Block::Range => Node::Range {
                over: pipe,
                body: then,
                otherwise,
            },
        })
    }

    /// `{{else if …}}`: a block of its own that shares the `{{end}}`.
    fn chained(&mut self, block: Block, nesting: usize) -> Result<Node> {
        if nesting + 1 > MAX_NESTING {
            return Err(self.fail(format!(
                "nested too deeply (more than {MAX_NESTING} levels)"
            )));
        }
        self.block(block, nesting + 1)
    }

    /// Skips `{{/* … */}}`.
    fn comment(&mut self) -> Result<bool> {
        let inner = self.rest();
        let inner = inner.trim_start_matches(is_blank);
        let skipped = self.rest().len() - inner.len();
        // Blanks before a comment are allowed only after a trim marker; being kinder costs
        // nothing, since `/` begins no expression.
        if !inner.starts_with("/*") {
            return Ok(false);
        }
        self.at += skipped;
        let Some(end) = inner.find("*/") else {
            return Err(self.fail("unclosed comment"));
        };
        self.at += end + 2;
        let rest = self.rest();
        if rest.starts_with("}}") {
            self.at += 2;
        } else if rest.starts_with(is_blank) && rest[1..].starts_with("-}}") {
            self.at += 4;
            self.trims_next = true;
        } else {
            return Err(self.fail("comment ends before closing delimiter"));
        }
        Ok(true)
    }

    fn blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches(is_blank).len();
    }

    fn at_close(&self) -> bool {
        self.rest().starts_with("}}") || self.rest().starts_with("-}}")
    }

    /// Takes `}}`, or ` -}}` which trims the text behind it.
    fn close(&mut self) -> Result<()> {
        self.blanks();
        let rest = self.rest();
        let after_blank = self.text[..self.at].ends_with(is_blank);
        if rest.starts_with("}}") {
            self.at += 2;
            Ok(())
        } else if after_blank && rest.starts_with("-}}") {
            self.at += 3;
            self.trims_next = true;
            Ok(())
        } else if rest.is_empty() {
            Err(self.fail("unclosed action"))
        } else {
            let c = rest.chars().next().unwrap_or(' ');
            Err(self.fail(format!("unexpected {c:?} in action")))
        }
    }

    fn peek_word(&self) -> &'a str {
        let rest = self.rest();
        let len = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        &rest[..len]
    }

    fn quoted_name(&mut self) -> Result<String> {
        match self.literal_text()? {
            Some(name) => Ok(name),
            None => Err(self.fail("expected the quoted name of a template")),
        }
    }

    /// A string in quotes or backquotes, if one comes next.
    fn literal_text(&mut self) -> Result<Option<String>> {
        let rest = self.rest();
        if rest.starts_with('"') {
            let (text, len) = unquote(rest).map_err(|_| self.fail("unterminated quoted string"))?;
            self.at += len;
            return Ok(Some(text));
        }
        if let Some(inner) = rest.strip_prefix('`') {
            let len = inner
                .find('`')
                .ok_or_else(|| self.fail("unterminated raw quoted string"))?;
            self.at += len + 2;
            return Ok(Some(inner[..len].to_owned()));
        }
        Ok(None)
    }

    fn pipe(&mut self, nesting: usize, in_range: bool) -> Result<Pipe> {
        if nesting > MAX_NESTING {
            return Err(self.fail(format!(
                "nested too deeply (more than {MAX_NESTING} levels)"
            )));
        }
        self.blanks();
        let (variables, declares) = self.assignment(in_range)?;
        let mut commands: Vec<Vec<Term>> = Vec::new();
        loop {
            let command = self.command(nesting)?;
            let not_callable = matches!(
                command.first(),
                Some(
                    Term::Dot
                        | Term::Nil
                        | Term::Bool(_)
                        | Term::Text(_)
                        | Term::Int(_)
                        | Term::Float(_)
                )
            );
            if !commands.is_empty() && not_callable {
                return Err(self.fail(format!(
                    "non executable command in pipeline stage {}",
                    commands.len() + 1
                )));
            }
            commands.push(command);
            self.blanks();
            if !self.rest().starts_with('|') {
                break;
            }
            self.at += 1;
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        } else if let Some(unknown) = variables.iter().find(|v| !self.variables.contains(v)) {
            return Err(self.fail(format!("undefined variable {unknown:?}")));
        }
        Ok(Pipe {
            variables,
            declares,
            commands,
        })
    }

    /// `$x :=`, `$x =`, and in `range` also `$i, $x :=`.
    fn assignment(&mut self, in_range: bool) -> Result<(Vec<String>, bool)> {
        let start = self.at;
        let mut names = Vec::new();
        while let Some(inner) = self.rest().strip_prefix('$') {
            let len = inner
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(inner.len());
            names.push(format!("${}", &inner[..len]));
            self.at += len + 1;
            self.blanks();
            let rest = self.rest();
            if rest.starts_with(":=") {
                self.at += 2;
                return Ok((names, true));
            }
            if rest.starts_with('=') {
                self.at += 1;
                return Ok((names, false));
            }
            if in_range && names.len() == 1 && rest.starts_with(',') {
                self.at += 1;
                self.blanks();
                continue;
            }
            break;
        }
        // No assignment after all.
        self.at = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self, nesting: usize) -> Result<Vec<Term>> {
        let mut terms = Vec::new();
        loop {
            self.blanks();
            let rest = self.rest();
            if rest.is_empty() {
                return Err(self.fail("unclosed action"));
            }
            if self.at_close() || rest.starts_with(['|', ')']) {
                break;
            }
            terms.push(self.term(nesting)?);
            // Terms stand apart.
            let rest = self.rest();
            if !(rest.is_empty()
                || rest.starts_with(is_blank)
                || rest.starts_with("}}")
                || rest.starts_with(['|', ')']))
            {
                let c = rest.chars().next().unwrap_or(' ');
                return Err(self.fail(format!("unexpected {c:?} in operand")));
            }
        }
        match terms.as_slice() {
            [] => Err(self.fail("missing value for command")),
            [Term::Nil] => Err(self.fail("nil is not a command")),
            [
                Term::Text(_) | Term::Int(_) | Term::Float(_) | Term::Bool(_),
                _,
                ..,
            ] => Err(self.fail("can't give argument to non-function")),
            _ => Ok(terms),
        }
    }

    fn term(&mut self, nesting: usize) -> Result<Term> {
        if let Some(text) = self.literal_text()? {
            return Ok(Term::Text(text));
        }
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or(' ');
        match first {
            '(' => {
                self.at += 1;
                let inner = self.pipe(nesting + 1, false)?;
                self.blanks();
                if !self.rest().starts_with(')') {
                    return Err(self.fail("unclosed left paren"));
                }
                self.at += 1;
                let fields = self.fields()?;
                Ok(Term::Parenthesis(Box::new(inner), fields))
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let fields = self.fields()?;
                if fields.is_empty() {
                    self.at += 1;
                    return Ok(Term::Dot);
                }
                Ok(Term::Field(fields))
            }
            '$' => {
                let len = rest[1..]
                    .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                    .unwrap_or(rest.len() - 1);
                let name = rest[..=len].to_owned();
                if !self.variables.contains(&name) {
                    return Err(self.fail(format!("undefined variable {name:?}")));
                }
                self.at += len + 1;
                let fields = self.fields()?;
                Ok(Term::Variable(name, fields))
            }
            '\'' => self.character(),
            '0'..='9' | '+' | '-' | '.' => self.number(),
            _ => {
                let word = self.peek_word();
                let term = match word {
                    "" => return Err(self.fail(format!("unexpected {first:?} in command"))),
                    "true" => Term::Bool(true),
                    "false" => Term::Bool(false),
                    "nil" => Term::Nil,
                    _ => match FUNCTIONS.iter().find(|name| **name == word) {
                        Some(name) => Term::Function(name),
                        None => {
                            return Err(self.fail(format!("function {word:?} not defined")));
                        }
                    },
                };
                self.at += word.len();
                Ok(term)
            }
        }
    }

    /// `.a.b`, maybe nothing.
    fn fields(&mut self) -> Result<Vec<String>> {
        let mut fields = Vec::new();
        while let Some(inner) = self.rest().strip_prefix('.') {
            let len = inner
                .find(|c: char| !(c.is_alphanumeric() || c == '_'))
                .unwrap_or(inner.len());
            if len == 0 {
                if !fields.is_empty() {
                    return Err(self.fail("unexpected . after field"));
                }
                break;
            }
            fields.push(inner[..len].to_owned());
            self.at += len + 1;
        }
        Ok(fields)
    }

    /// `'x'`, a number in Go.
    fn character(&mut self) -> Result<Term> {
        let rest = self.rest();
        let end = rest[1..]
            .char_indices()
            .scan(false, |escaped, (at, c)| {
                let ends = c == '\'' && !*escaped;
                *escaped = c == '\\' && !*escaped;
                Some((at, ends))
            })
            .find(|(_, ends)| *ends)
            .map(|(at, _)| at + 1)
            .ok_or_else(|| self.fail("unterminated character constant"))?;
        let inner = &rest[1..end];
        let text = match inner {
            "\\'" => "'".to_owned(),
            "\"" => "\"".to_owned(),
            _ => {
                unquote(&format!("\"{inner}\""))
                    .map_err(|_| self.fail("malformed character constant"))?
                    .0
            }
        };
        let mut chars = text.chars();
        let (Some(c), None) = (chars.next(), chars.next()) else {
            return Err(self.fail("malformed character constant"));
        };
        self.at += end + 1;
        Ok(Term::Int(i64::from(u32::from(c))))
    }

    fn number(&mut self) -> Result<Term> {
        let rest = self.rest();
        let sign = usize::from(rest.starts_with(['+', '-']));
        let mut len = sign;
        let mut previous = ' ';
        for c in rest[sign..].chars() {
            let is_part = c.is_ascii_alphanumeric()
                || matches!(c, '.' | '_')
                || (matches!(c, '+' | '-') && matches!(previous, 'e' | 'E' | 'p' | 'P'));
            if !is_part {
                break;
            }
            previous = c;
            len += c.len_utf8();
        }
        let text = &rest[..len];
        let bad = || self.fail(format!("bad number syntax: {text:?}"));
        let digits = text[sign..].replace('_', "");
        let negative = text.starts_with('-');
        let radix = match digits.get(..2).map(str::to_ascii_lowercase).as_deref() {
            Some("0x") => 16,
            Some("0o") => 8,
            Some("0b") => 2,
            _ => 10,
        };
        let term = if radix != 10 {
            let value = i64::from_str_radix(&digits[2..], radix).map_err(|_| bad())?;
            Term::Int(if negative { -value } else { value })
        } else if let Ok(value) = digits.parse::<i64>() {
            Term::Int(if negative { -value } else { value })
        } else if digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            let value: f64 = digits.parse().map_err(|_| bad())?;
            Term::Float(if negative { -value } else { value })
        } else {
            return Err(bad());
        };
        self.at += len;
        Ok(term)
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn push_text(nodes: &mut Vec<Node>, text: &str) {
    if !text.is_empty() {
        nodes.push(Node::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_refuses_is_refused() {
        for bad in [
            "{{.svc",
            "{{ if .svc }}x",
            "{{ env \"PATH\" }}",
            "{{ end }}",
            "{{ else }}",
            "{{ $x }}",
            "{{ .a | 5 }}",
            "{{ }}",
            "{{ .a b }}",
            "{{ \"x }}",
            "{{ (.a }}",
            "{{ break }}",
            "{{/* open }}",
            "{{ 1x }}",
            "{{ .a..b }}",
            "{{ if .a }}{{ else }}{{ else }}{{ end }}",
            "{{ \"a\" .b }}",
        ] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
        let deep = "{{ if .a }}".repeat(5000);
        assert!(Template::parse(&deep).is_err());
        assert!(
            Template::parse(&format!(
                "{{{{ {} .a {} }}}}",
                "(".repeat(9999),
                ")".repeat(9999)
            ))
            .is_err()
        );
    }

    #[test]
    fn markers_trim_the_text_beside_them() {
        let template = Template::parse("a \n {{- .b -}} \n c {{ .d }} e").unwrap();
        let parts = template.plain().unwrap();
        let text = |t: &str| Part::Text(t.to_owned());
        let field = |t: &str| Part::Field(t.to_owned());
        assert_eq!(
            parts,
            [text("a"), field("b"), text("c "), field("d"), text(" e")]
        );
    }

    #[test]
    fn more_than_fields_is_named() {
        let plain = |text: &str| Template::parse(text).unwrap().plain().unwrap_err();
        assert_eq!(plain("{{ .a | lower }}"), "function `lower`");
        assert_eq!(plain("{{ if .a }}x{{ end }}"), "action `if`");
    }
}
