//! What a template text is once it was read, and how its parts are written in error texts.
//!
//! Every part that can fail knows its place in the text, so that errors name it as Go does:
//! `line:1:3: executing "line" at <index .a 5>: …`.

use std::collections::BTreeMap;
use std::fmt;

use super::functions::Function;

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// By which errors and `{{template}}` know it.
    pub name: &'static str,
    pub text: String,
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
    Template(Call),
    Break,
    Continue,
}

/// `{{template "name" dot}}`
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub at: usize,
    pub name: String,
    pub dot: Option<Pipe>,
}

/// `$x := first | second`
#[derive(Clone, Debug, PartialEq)]
pub struct Pipe {
    pub at: usize,
    /// Variables that get the value; two of them only in `range`.
    pub variables: Vec<String>,
    /// `:=` rather than `=`.
    pub declares: bool,
    /// Never empty.
    pub commands: Vec<Command>,
}

/// What is called, then its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    pub at: usize,
    /// Never empty.
    pub terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    pub at: usize,
    pub kind: TermKind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TermKind {
    Dot,
    Nil,
    Bool(bool),
    /// The bytes, and the literal as written.
    Text(Vec<u8>, String),
    Number(Number),
    Function(&'static Function),
    /// `.a.b`
    Field(Vec<String>),
    /// `$x.a.b`
    Variable(String, Vec<String>),
    Parenthesis(Box<Pipe>),
    /// `(…).a.b` and `now.Year`
    Chain(Box<Term>, Vec<String>),
}

/// A number takes the type of where it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    pub text: String,
    /// Its value as an integer, if it is one.
    pub int: Option<i64>,
    pub float: f64,
    /// Where any type will do it is a float: it is written as one.
    pub is_float: bool,
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateError {
    pub name: &'static str,
    pub line: usize,
    pub reason: String,
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "template: {}:{}: {}", self.name, self.line, self.reason)
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            TermKind::Dot => f.write_str("."),
            TermKind::Nil => f.write_str("nil"),
            TermKind::Bool(value) => write!(f, "{value}"),
            TermKind::Text(_, written) => f.write_str(written),
            TermKind::Number(number) => f.write_str(&number.text),
            TermKind::Function(function) => f.write_str(function.name),
            TermKind::Field(fields) => write_fields(f, fields),
            TermKind::Variable(name, fields) => {
                f.write_str(name)?;
                write_fields(f, fields)
            }
            TermKind::Parenthesis(pipe) => write!(f, "{pipe}"),
            TermKind::Chain(of, fields) => {
                if matches!(of.kind, TermKind::Parenthesis(_)) {
                    write!(f, "({of})")?;
                } else {
                    write!(f, "{of}")?;
                }
                write_fields(f, fields)
            }
        }
    }
}

fn write_fields(f: &mut fmt::Formatter<'_>, fields: &[String]) -> fmt::Result {
    fields.iter().try_for_each(|field| write!(f, ".{field}"))
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            if matches!(term.kind, TermKind::Parenthesis(_)) {
                write!(f, "({term})")?;
            } else {
                write!(f, "{term}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.variables.is_empty() {
            let sign = if self.declares { ":=" } else { "=" };
            write!(f, "{} {sign} ", self.variables.join(", "))?;
        }
        for (i, command) in self.commands.iter().enumerate() {
            let bar = if i > 0 { " | " } else { "" };
            write!(f, "{bar}{command}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{{template ")?;
        crate::model::labels::write_quoted(f, &self.name)?;
        if let Some(dot) = &self.dot {
            write!(f, " {dot}")?;
        }
        f.write_str("}}")
    }
}

/// A piece of a plain template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(Vec<u8>),
    /// `{{.name}}`
    Field(String),
    /// `{{__line__}}`
    Line,
}

impl Template {
    /// The template as a row of texts, fields and the line, if that is all it is.
    pub fn plain(&self) -> Option<Vec<Part>> {
        let part = |node: &Node| match node {
            Node::Text(text) => Some(Part::Text(text.clone().into_bytes())),
            Node::Action(pipe) if pipe.variables.is_empty() => match pipe.commands.as_slice() {
                [command] => match command.terms.as_slice() {
                    [term] => match &term.kind {
                        TermKind::Field(names) if names.len() == 1 => {
                            Some(Part::Field(names[0].clone()))
                        }
                        TermKind::Function(function) if function.name == "__line__" => {
                            Some(Part::Line)
                        }
                        TermKind::Text(text, _) => Some(Part::Text(text.clone())),
                        _ => None,
                    },
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        self.nodes.iter().map(part).collect()
    }

    /// The labels that it may look at; `None`: any, because it takes them as a whole.
    pub fn fields(&self) -> Option<Vec<&str>> {
        let mut fields = Vec::new();
        let mut whole = false;
        self.each_term(&mut |term| match &term.kind {
            TermKind::Field(names) => fields.extend(names.first().map(String::as_str)),
            TermKind::Variable(name, names) if name == "$" => match names.first() {
                Some(field) => fields.push(field),
                None => whole = true,
            },
            TermKind::Dot => whole = true,
            _ => {}
        });
        (!whole).then_some(fields)
    }

    /// Calls `visit` for each term, those within others included.
    pub fn each_term<'t>(&'t self, visit: &mut dyn FnMut(&'t Term)) {
        self.each_command(&mut |command| {
            for mut term in &command.terms {
                visit(term);
                while let TermKind::Chain(of, _) = &term.kind {
                    term = of;
                    visit(term);
                }
            }
        });
    }

    /// Calls `visit` for each command, those in parentheses included.
    pub fn each_command<'t>(&'t self, visit: &mut dyn FnMut(&'t Command)) {
        each_command(&self.nodes, visit);
        for nodes in self.defined.values() {
            each_command(nodes, visit);
        }
    }
}

fn each_command<'t>(nodes: &'t [Node], visit: &mut dyn FnMut(&'t Command)) {
    for node in nodes {
        match node {
            Node::Text(_) | Node::Break | Node::Continue => {}
            Node::Action(pipe) => each_command_of_pipe(pipe, visit),
            Node::If {
                condition: pipe,
                then,
                otherwise,
            }
            | Node::With {
                value: pipe,
                then,
                otherwise,
            }
            | Node::Range {
                over: pipe,
                body: then,
                otherwise,
            } => {
                each_command_of_pipe(pipe, visit);
                each_command(then, visit);
                each_command(otherwise, visit);
            }
            Node::Template(call) => {
                if let Some(dot) = &call.dot {
                    each_command_of_pipe(dot, visit);
                }
            }
        }
    }
}

fn each_command_of_pipe<'t>(pipe: &'t Pipe, visit: &mut dyn FnMut(&'t Command)) {
    for command in &pipe.commands {
        visit(command);
        for mut term in &command.terms {
            while let TermKind::Chain(of, _) = &term.kind {
                term = of;
            }
            if let TermKind::Parenthesis(pipe) = &term.kind {
                each_command_of_pipe(pipe, visit);
            }
        }
    }
}
