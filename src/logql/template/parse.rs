//! Text of a template to its tree.
//!
//! T1. Nesting is bounded by [`MAX_NESTING`], so that walking the tree by recursion is safe.

use std::collections::BTreeMap;

use super::functions;
use super::number;
use super::tree::{Call, Command, Node, Number, Pipe, Template, TemplateError, Term, TermKind};
use crate::logql::lexer::{unquote, unquote_bytes};

/// Blocks and parentheses within each other.
const MAX_NESTING: usize = 64;

type Result<T> = std::result::Result<T, TemplateError>;

impl Template {
    /// Reads a template that errors and `{{template}}` call `name`.
    pub fn parse(name: &'static str, text: &str) -> Result<Self> {
        let mut parser = Parser {
            name,
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
                name,
                text: text.to_owned(),
                nodes,
                defined: parser.defined,
            }),
            BlockEnd::End => Err(parser.fail("unexpected {{end}}")),
            BlockEnd::Else(_) => Err(parser.fail("unexpected {{else}}")),
        }
    }
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
    name: &'static str,
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
            name: self.name,
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
                self.at += 2;
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
                    let at = self.at;
                    let name = self.quoted_name(word)?;
                    let dot = if word == "block" {
                        Some(self.pipe(nesting, "block clause")?)
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
                        return Err(self.fail(format!("unexpected {{{{else}}}} in {word} clause")));
                    }
                    self.define(&name, body)?;
                    if dot.is_some() {
                        nodes.push(Node::Template(Call { at, name, dot }));
                    }
                }
                "template" => {
                    self.at += word.len();
                    self.blanks();
                    let at = self.at;
                    let name = self.quoted_name(word)?;
                    self.blanks();
                    let dot = if self.at_close() {
                        None
                    } else {
                        Some(self.pipe(nesting, "template clause")?)
                    };
                    self.close()?;
                    nodes.push(Node::Template(Call { at, name, dot }));
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
                    let pipe = self.pipe(nesting, "command")?;
                    self.close()?;
                    nodes.push(Node::Action(pipe));
                }
            }
        }
    }

    fn block(&mut self, block: Block, nesting: usize) -> Result<Node> {
        let scope = self.variables.len();
        let context = match block {
            Block::If => "if",
            Block::With => "with",
            Block::Range => "range",
        };
        let pipe = self.pipe(nesting, context)?;
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

    /// A later definition of a name takes the place of an empty one only.
    fn define(&mut self, name: &str, body: Vec<Node>) -> Result<()> {
        match self.defined.get(name) {
            Some(earlier) if !is_empty(earlier) => {
                if is_empty(&body) {
                    return Ok(());
                }
                Err(self.fail(format!(
                    "template: multiple definition of template {name:?}"
                )))
            }
            _ => {
                self.defined.insert(name.to_owned(), body);
                Ok(())
            }
        }
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
        if !inner.starts_with("/*") {
            return Ok(false);
        }
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
        &rest[..word_len(rest)]
    }

    fn quoted_name(&mut self, clause: &str) -> Result<String> {
        match self.literal_text()? {
            Some(name) => Ok(String::from_utf8_lossy(&name).into_owned()),
            None => Err(self.fail(format!("expected the quoted name in {clause} clause"))),
        }
    }

    /// A string in quotes or backquotes, if one comes next.
    fn literal_text(&mut self) -> Result<Option<Vec<u8>>> {
        let rest = self.rest();
        if rest.starts_with('"') {
            let (text, len) =
                unquote_bytes(rest).map_err(|_| self.fail("unterminated quoted string"))?;
            self.at += len;
            return Ok(Some(text));
        }
        if let Some(inner) = rest.strip_prefix('`') {
            let len = inner
                .find('`')
                .ok_or_else(|| self.fail("unterminated raw quoted string"))?;
            self.at += len + 2;
            return Ok(Some(inner.as_bytes()[..len].to_vec()));
        }
        Ok(None)
    }

    /// `context` is what the pipeline belongs to, as errors call it.
    fn pipe(&mut self, nesting: usize, context: &str) -> Result<Pipe> {
        if nesting > MAX_NESTING {
            return Err(self.fail(format!(
                "nested too deeply (more than {MAX_NESTING} levels)"
            )));
        }
        self.blanks();
        let at = self.at;
        let (variables, declares) = self.assignment(context)?;
        // Known from here on, as in Go; one that has no value yet is an error when it runs.
        self.variables.extend(variables.iter().cloned());
        let mut commands: Vec<Command> = Vec::new();
        loop {
            self.blanks();
            if self.at_close() || self.rest().starts_with(')') {
                break;
            }
            let command = self.command(nesting)?;
            let not_callable = matches!(
                command.terms.first().map(|term| &term.kind),
                Some(
                    TermKind::Dot
                        | TermKind::Nil
                        | TermKind::Bool(_)
                        | TermKind::Text(..)
                        | TermKind::Number(_)
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
        if commands.is_empty() {
            return Err(self.fail(format!("missing value for {context}")));
        }
        Ok(Pipe {
            at,
            variables,
            declares,
            commands,
        })
    }

    /// `$x :=`, `$x =`, and in `range` also `$i, $x :=`.
    fn assignment(&mut self, context: &str) -> Result<(Vec<String>, bool)> {
        let start = self.at;
        let mut names = Vec::new();
        while let Some(inner) = self.rest().strip_prefix('$') {
            let len = word_len(inner);
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
            if rest.starts_with(',') {
                if context != "range" || names.len() > 1 {
                    return Err(self.fail(format!("too many declarations in {context}")));
                }
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

    fn command(&mut self, nesting: usize) -> Result<Command> {
        self.blanks();
        let at = self.at;
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
            terms.push(self.operand(nesting)?);
            // Operands stand apart.
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
        if terms.is_empty() {
            return Err(self.fail("empty command"));
        }
        Ok(Command { at, terms })
    }

    /// A term, and the fields of it that follow.
    fn operand(&mut self, nesting: usize) -> Result<Term> {
        let term = self.term(nesting)?;
        let at = self.at;
        let fields = self.fields()?;
        if fields.is_empty() {
            return Ok(term);
        }
        let kind = match term.kind {
            TermKind::Field(mut names) => {
                names.extend(fields);
                TermKind::Field(names)
            }
            TermKind::Variable(name, _) => TermKind::Variable(name, fields),
            TermKind::Dot
            | TermKind::Nil
            | TermKind::Bool(_)
            | TermKind::Text(..)
            | TermKind::Number(_) => {
                return Err(self.fail(format!("unexpected . after term {:?}", term.to_string())));
            }
            _ => TermKind::Chain(Box::new(term), fields),
        };
        Ok(Term { at, kind })
    }

    fn term(&mut self, nesting: usize) -> Result<Term> {
        let at = self.at;
        let rest = self.rest();
        let first = rest.chars().next().unwrap_or(' ');
        let kind = match first {
            '"' | '`' => {
                let Some(text) = self.literal_text()? else {
                    return Err(self.fail("expected a string"));
                };
                TermKind::Text(text, rest[..self.at - at].to_owned())
            }
            '(' => {
                self.at += 1;
                let inner = self.pipe(nesting + 1, "parenthesized pipeline")?;
                self.blanks();
                if !self.rest().starts_with(')') {
                    return Err(self.fail("unclosed left paren"));
                }
                self.at += 1;
                return Ok(Term {
                    at: inner.at,
                    kind: TermKind::Parenthesis(Box::new(inner)),
                });
            }
            '.' if !rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let len = word_len(&rest[1..]);
                self.at += len + 1;
                match len {
                    0 => TermKind::Dot,
                    _ => TermKind::Field(vec![rest[1..=len].to_owned()]),
                }
            }
            '$' => {
                let len = word_len(&rest[1..]);
                let name = rest[..=len].to_owned();
                if !self.variables.contains(&name) {
                    return Err(self.fail(format!("undefined variable {name:?}")));
                }
                self.at += len + 1;
                TermKind::Variable(name, Vec::new())
            }
            '\'' => self.character()?,
            '0'..='9' | '+' | '-' | '.' => {
                let (len, number) = number::scan(rest);
                let number = number.map_err(|reason| self.fail(reason))?;
                self.at += len;
                TermKind::Number(number)
            }
            _ => {
                let word = self.peek_word();
                let kind = match word {
                    "" => return Err(self.fail(format!("unexpected {first:?} in command"))),
                    "true" => TermKind::Bool(true),
                    "false" => TermKind::Bool(false),
                    "nil" => TermKind::Nil,
                    "if" | "else" | "end" | "with" | "range" | "define" | "block" | "template"
                    | "break" | "continue" => {
                        return Err(self.fail(format!("unexpected <{word}> in operand")));
                    }
                    _ => match functions::find(word) {
                        Some(function) => TermKind::Function(function),
                        None => {
                            return Err(self.fail(format!("function {word:?} not defined")));
                        }
                    },
                };
                self.at += word.len();
                kind
            }
        };
        Ok(Term { at, kind })
    }

    /// `.a.b`, maybe nothing.
    fn fields(&mut self) -> Result<Vec<String>> {
        let mut fields = Vec::new();
        while let Some(inner) = self.rest().strip_prefix('.') {
            let len = word_len(inner);
            if len == 0 {
                return Err(self.fail("unexpected <.> in operand"));
            }
            fields.push(inner[..len].to_owned());
            self.at += len + 1;
        }
        Ok(fields)
    }

    /// `'x'`, a number in Go.
    fn character(&mut self) -> Result<TermKind> {
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
        let value = u32::from(c);
        Ok(TermKind::Number(Number {
            text: rest[..=end].to_owned(),
            int: Some(i64::from(value)),
            float: f64::from(value),
            is_float: false,
        }))
    }
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Bytes of the name that `text` begins with.
fn word_len(text: &str) -> usize {
    text.find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len())
}

/// Whether a template would write nothing but blanks.
fn is_empty(nodes: &[Node]) -> bool {
    nodes
        .iter()
        .all(|node| matches!(node, Node::Text(text) if text.trim().is_empty()))
}

fn push_text(nodes: &mut Vec<Node>, text: &str) {
    if !text.is_empty() {
        nodes.push(Node::Text(text.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logql::template::Part;

    fn parse(text: &str) -> Result<Template> {
        Template::parse("line", text)
    }

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
            "{{ .a | nil }}",
            "{{ }}",
            "{{ .a b }}",
            "{{ \"x }}",
            "{{ (.a }}",
            "{{ .a) }}",
            "{{ break }}",
            "{{ range 3 }}{{ break 1 }}{{ end }}",
            "{{ range 3 }}{{ else }}{{ break }}{{ end }}",
            "{{/* open }}",
            "{{ /* c */ }}",
            "{{ 1x }}",
            "{{ 08 }}",
            "{{ .a..b }}",
            "{{ .a. }}",
            "{{ \"x\".y }}",
            "{{ 'ab' }}",
            "{{ | .a }}",
            "{{ if }}x{{ end }}",
            "{{ if .a }}{{ else }}{{ else }}{{ end }}",
            "{{ with .a }}{{ else if .b }}{{ end }}",
            "{{ range .a }}{{ else with .b }}{{ end }}",
            "{{ range $a, $b, $c := .x }}{{ end }}",
            "{{ $x, $y := 1 }}",
            "{{ with $x := 5 }}{{ end }}{{ $x }}",
            "{{ define \"x\" }}a{{ end }}{{ define \"x\" }}b{{ end }}",
            "{{ define \"x\" }}{{ else }}{{ end }}",
            "{{ if true }}{{ define \"x\" }}{{ end }}{{ end }}",
            "{{ template x }}",
            "{{ block \"x\" }}{{ end }}",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let deep = "{{ if .a }}".repeat(5000);
        assert!(parse(&deep).is_err());
        let deep = format!("{{{{ {} .a {} }}}}", "(".repeat(9999), ")".repeat(9999));
        assert!(parse(&deep).is_err());
        let error = parse("a\n{{ foo }}").unwrap_err().to_string();
        assert_eq!(error, "template: line:2: function \"foo\" not defined");
    }

    /// A constant with an argument was refused when it was read. Go finds that only when it
    /// runs, so such a query answers, with its errors in `__error__`.
    #[test]
    fn what_go_finds_only_at_run_time_is_read() {
        for good in [
            "{{ \"a\" .b }}",
            "{{ nil }}",
            "{{ $y = 1 }}",
            "{{ $x := $x }}",
            "{{ template \"gone\" }}",
            "{{ lower }}",
            "{{ .a | }}",
            "{{ now.Year }}",
            "{{ define \"x\" }} {{ end }}{{ define \"x\" }}b{{ end }}",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn markers_trim_the_text_beside_them() {
        let template = parse("a \n {{- .b -}} \n c {{ .d }} e{{- /* note */ -}} f").unwrap();
        let parts = template.plain().unwrap();
        let text = |t: &str| Part::Text(t.into());
        let field = |t: &str| Part::Field(t.to_owned());
        assert_eq!(
            parts,
            [
                text("a"),
                field("b"),
                text("c "),
                field("d"),
                text(" e"),
                text("f")
            ]
        );
    }

    #[test]
    fn only_texts_fields_and_the_line_are_plain() {
        assert!(
            parse("{{.a}}{{__line__}}{{`x`}}")
                .unwrap()
                .plain()
                .is_some()
        );
        for more in [
            "{{.a | lower}}",
            "{{if .a}}{{end}}",
            "{{.a.b}}",
            "{{$x := .a}}",
        ] {
            assert!(parse(more).unwrap().plain().is_none(), "{more}");
        }
    }

    #[test]
    fn fields_are_those_that_may_be_looked_at() {
        let fields = |text: &str| {
            let template = parse(text).unwrap();
            template.fields().map(|f| f.join(" "))
        };
        assert_eq!(
            fields("{{.a}}{{if eq .b (lower .c)}}{{$.d}}{{else}}{{(.e).f}}{{end}}").unwrap(),
            "a b c d e"
        );
        assert_eq!(fields("{{range .}}{{end}}"), None);
        assert_eq!(fields("{{template \"x\" $}}"), None);
    }
}
