//! Runs a template over one entry, step by step as Go's `text/template` does.
//!
//! X1. A run ends: steps, bytes, depth and output are bounded (see [`super::budget`]), and what
//!     exceeds a bound is an error like any other.
//! X2. An error names the part of the template that was looked at last, as Go's errors do.

use std::fmt;

use super::budget::Budget;
use super::functions::compare::truth;
use super::functions::{Args, Context, Data, Function, Run, Type, methods};
use super::print::{self, MAX_TEXT};
use super::regexes::Regexes;
use super::tree::{Call, Command, Node, Pipe, Template, Term, TermKind};
use super::value::{IntType, Text, Value};

/// Blocks, pipelines and templates within each other; each costs stack.
const MAX_DEPTH: usize = 200;

/// A template that is ready to run, in any number of threads.
#[derive(Debug)]
pub struct Program {
    template: Template,
    regexes: Regexes,
}

impl Program {
    pub fn new(template: Template) -> Self {
        Self {
            regexes: Regexes::of(&template),
            template,
        }
    }

    /// The filled-in template, or why it cannot be filled in for this entry.
    pub fn run(&self, data: &dyn Data) -> Result<Vec<u8>> {
        let mut run = Execution {
            template: &self.template,
            context: Context {
                data,
                regexes: &self.regexes,
                budget: Budget::default(),
            },
            out: Vec::new(),
            variables: vec![("$", Value::Labels)],
            at: At::Start,
            name: self.template.name,
            depth: 0,
        };
        run.walk(&Value::Labels, &self.template.nodes)?;
        Ok(run.out)
    }
}

/// What was looked at last.
#[derive(Clone, Copy)]
enum At<'a> {
    Start,
    Term(&'a Term),
    Command(&'a Command),
    Pipe(&'a Pipe),
    Call(&'a Call),
}

impl At<'_> {
    fn place(&self) -> usize {
        match self {
            Self::Start => 0,
            Self::Term(term) => term.at,
            Self::Command(command) => command.at,
            Self::Pipe(pipe) => pipe.at,
            Self::Call(call) => call.at,
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => Ok(()),
            Self::Term(term) => term.fmt(f),
            Self::Command(command) => command.fmt(f),
            Self::Pipe(pipe) => pipe.fmt(f),
            Self::Call(call) => call.fmt(f),
        }
    }
}

/// How a row of nodes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Through,
    Break,
    Continue,
}

/// What is called, and with which terms.
#[derive(Clone, Copy)]
struct Target<'a> {
    name: &'a str,
    params: &'static [Type],
    rest: Option<Type>,
    /// Without the name of what is called.
    args: &'a [Term],
    /// Where an error of the call is.
    at: At<'a>,
}

struct Execution<'a> {
    template: &'a Template,
    context: Context<'a>,
    out: Vec<u8>,
    /// Innermost last.
    variables: Vec<(&'a str, Value<'a>)>,
    at: At<'a>,
    /// The template at hand.
    name: &'a str,
    depth: usize,
}

type Result<T> = std::result::Result<T, String>;

impl<'a> Execution<'a> {
    fn fail(&self, reason: impl fmt::Display) -> String {
        let place = self.at.place();
        let before = self.template.text.get(..place).unwrap_or("");
        let line = 1 + before.matches('\n').count();
        let column = match before.rfind('\n') {
            Some(newline) => place - newline - 1,
            None => place,
        };
        format!(
            "template: {}:{line}:{column}: executing {:?} at <{}>: {reason}",
            self.template.name, self.name, self.at
        )
    }

    fn step(&mut self) -> Result<()> {
        let spent = self.context.budget.steps(1);
        spent.map_err(|reason| self.fail(reason))
    }

    fn deeper(&mut self) -> Result<()> {
        if self.depth >= MAX_DEPTH {
            return Err(self.fail(format!("exceeded maximum template depth ({MAX_DEPTH})")));
        }
        self.depth += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.out.len() + bytes.len() > MAX_TEXT {
            return Err(self.fail(format!("output is longer than {MAX_TEXT} bytes")));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn walk(&mut self, dot: &Value<'a>, nodes: &'a [Node]) -> Result<Flow> {
        self.deeper()?;
        for node in nodes {
            self.step()?;
            let flow = match node {
                Node::Text(text) => {
                    self.write(text.as_bytes())?;
                    Flow::Through
                }
                Node::Action(pipe) => {
                    let value = self.pipe(dot, pipe)?;
                    if pipe.variables.is_empty() {
                        self.print(&value)?;
                    }
                    Flow::Through
                }
                Node::If {
                    condition,
                    then,
                    otherwise,
                } => {
                    let scope = self.variables.len();
                    let holds = truth(&self.pipe(dot, condition)?);
                    let flow = self.walk(dot, if holds { then } else { otherwise })?;
                    self.variables.truncate(scope);
                    flow
                }
                Node::With {
                    value,
                    then,
                    otherwise,
                } => {
                    let scope = self.variables.len();
                    let value = self.pipe(dot, value)?;
                    let flow = if truth(&value) {
                        self.walk(&value, then)?
                    } else {
                        self.walk(dot, otherwise)?
                    };
                    self.variables.truncate(scope);
                    flow
                }
                Node::Range {
                    over,
                    body,
                    otherwise,
                } => {
                    let scope = self.variables.len();
                    let flow = self.range(dot, over, body, otherwise)?;
                    self.variables.truncate(scope);
                    flow
                }
                Node::Template(call) => {
                    self.template(dot, call)?;
                    Flow::Through
                }
                Node::Break => Flow::Break,
                Node::Continue => Flow::Continue,
            };
            if flow != Flow::Through {
                self.depth -= 1;
                return Ok(flow);
            }
        }
        self.depth -= 1;
        Ok(Flow::Through)
    }

    fn print(&mut self, value: &Value<'a>) -> Result<()> {
        match value {
            Value::Missing | Value::Null => self.write(b"<no value>"),
            Value::Text(text) => self.write(text),
            value => {
                let data = self.context.data;
                let printed = print::sprint(std::slice::from_ref(value), &|| data.labels());
                match printed {
                    Ok(text) => self.write(&text),
                    Err(print::TooLong) => {
                        Err(self.fail(format!("output is longer than {MAX_TEXT} bytes")))
                    }
                }
            }
        }
    }

    fn range(
        &mut self,
        dot: &Value<'a>,
        over: &'a Pipe,
        body: &'a [Node],
        otherwise: &'a [Node],
    ) -> Result<Flow> {
        let items = self.pipe(dot, over)?;
        let mut turns = 0;
        match &items {
            Value::Missing | Value::Null => {}
            Value::List(list) => {
                for (i, item) in list.iter().enumerate() {
                    turns += 1;
                    let index = Value::int(i as i64);
                    if self.turn(over, index, item.clone(), body)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for (name, item) in map.iter() {
                    turns += 1;
                    let name = Value::Text(Text::Shared(name.clone()));
                    if self.turn(over, name, item.clone(), body)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Labels => {
                for (name, value) in self.context.data.labels() {
                    turns += 1;
                    let (name, value) = (Value::text(name), Value::text(value));
                    if self.turn(over, name, value, body)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Int(count, kind) => {
                if over.variables.len() > 1 {
                    let count = self.shown(&items);
                    return Err(self.fail(format!(
                        "can't use {count} to iterate over more than one variable"
                    )));
                }
                for i in 0..*count {
                    turns += 1;
                    let item = Value::Int(i, *kind);
                    if self.turn(over, Value::Missing, item, body)? == Flow::Break {
                        break;
                    }
                }
            }
            Value::Bool(_) | Value::Float(_) | Value::Text(_) | Value::Time(_) => {
                let shown = self.shown(&items);
                return Err(self.fail(format!("range can't iterate over {shown}")));
            }
        }
        if turns == 0 {
            return self.walk(dot, otherwise);
        }
        Ok(Flow::Through)
    }

    /// One turn of a loop.
    fn turn(
        &mut self,
        over: &'a Pipe,
        index: Value<'a>,
        item: Value<'a>,
        body: &'a [Node],
    ) -> Result<Flow> {
        self.step()?;
        // Of two variables the first is the index; one alone is the item.
        let names = over.variables.as_slice();
        let values = match names {
            [_, _] => vec![index, item.clone()],
            [_] => vec![item.clone()],
            _ => Vec::new(),
        };
        let declared = self.variables.len().saturating_sub(names.len());
        for (i, (name, value)) in names.iter().zip(values).enumerate() {
            match self.variables.get_mut(declared + i) {
                Some(variable) if over.declares => variable.1 = value,
                _ => self.assign(name, value)?,
            }
        }
        let scope = self.variables.len();
        let flow = self.walk(&item, body)?;
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn shown(&self, value: &Value<'a>) -> String {
        let data = self.context.data;
        match print::sprint(std::slice::from_ref(value), &|| data.labels()) {
            Ok(text) => String::from_utf8_lossy(&text).into_owned(),
            Err(print::TooLong) => value.type_name().to_owned(),
        }
    }

    /// `{{template "name" dot}}`: sees nothing of the variables here.
    fn template(&mut self, dot: &Value<'a>, call: &'a Call) -> Result<()> {
        self.at = At::Call(call);
        let template = self.template;
        let nodes = match template.defined.get_key_value(&call.name) {
            Some((name, nodes)) => Some((name.as_str(), nodes)),
            None if call.name == template.name => Some((template.name, &template.nodes)),
            None => None,
        };
        let Some((name, nodes)) = nodes else {
            return Err(self.fail(format!("template {:?} not defined", call.name)));
        };
        self.deeper()?;
        let dot = match &call.dot {
            Some(pipe) => self.pipe(dot, pipe)?,
            None => Value::Missing,
        };
        let outer = std::mem::replace(&mut self.variables, vec![("$", dot.clone())]);
        let outer_name = std::mem::replace(&mut self.name, name);
        self.walk(&dot, nodes)?;
        self.variables = outer;
        self.name = outer_name;
        self.depth -= 1;
        Ok(())
    }

    fn pipe(&mut self, dot: &Value<'a>, pipe: &'a Pipe) -> Result<Value<'a>> {
        self.deeper()?;
        self.at = At::Pipe(pipe);
        let mut value = None;
        for command in &pipe.commands {
            let result = self.command(dot, command, value.take())?;
            value = Some(match result {
                Value::Null => Value::Missing,
                other => other,
            });
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipe.variables {
            if pipe.declares {
                self.variables.push((name, value.clone()));
            } else {
                self.assign(name, value.clone())?;
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    fn assign(&mut self, name: &str, value: Value<'a>) -> Result<()> {
        match self.variables.iter_mut().rev().find(|(n, _)| *n == name) {
            Some(variable) => {
                variable.1 = value;
                Ok(())
            }
            None => Err(self.fail(format!("undefined variable: {name}"))),
        }
    }

    fn variable(&self, name: &str) -> Result<Value<'a>> {
        match self.variables.iter().rev().find(|(n, _)| *n == name) {
            Some((_, value)) => Ok(value.clone()),
            None => Err(self.fail(format!("undefined variable: {name}"))),
        }
    }

    /// `last` is the value of the command before, if there is one.
    fn command(
        &mut self,
        dot: &Value<'a>,
        command: &'a Command,
        last: Option<Value<'a>>,
    ) -> Result<Value<'a>> {
        self.step()?;
        let Some((first, args)) = command.terms.split_first() else {
            return Err(self.fail("empty command"));
        };
        match &first.kind {
            TermKind::Function(function) => {
                self.at = At::Term(first);
                self.function(dot, function, args, At::Command(command), last)
            }
            TermKind::Field(names) => {
                self.at = At::Term(first);
                self.fields(dot, dot.clone(), names, (first, args), last)
            }
            TermKind::Variable(name, names) => {
                self.at = At::Term(first);
                let value = self.variable(name)?;
                if names.is_empty() {
                    self.stands_alone(first, args, &last)?;
                    return Ok(value);
                }
                self.fields(dot, value, names, (first, args), last)
            }
            TermKind::Chain(of, names) => {
                self.at = At::Term(first);
                let value = self.operand(dot, of)?;
                self.fields(dot, value, names, (first, args), last)
            }
            TermKind::Parenthesis(pipe) => {
                self.stands_alone(first, args, &last)?;
                self.pipe(dot, pipe)
            }
            TermKind::Nil => {
                self.at = At::Term(first);
                self.stands_alone(first, args, &last)?;
                Err(self.fail("nil is not a command"))
            }
            TermKind::Dot | TermKind::Bool(_) | TermKind::Text(..) | TermKind::Number(_) => {
                self.at = At::Term(first);
                self.stands_alone(first, args, &last)?;
                self.operand(dot, first)
            }
        }
    }

    /// What is no function takes no arguments.
    fn stands_alone(&self, first: &Term, args: &[Term], last: &Option<Value<'a>>) -> Result<()> {
        if args.is_empty() && last.is_none() {
            return Ok(());
        }
        Err(self.fail(format!("can't give argument to non-function {first}")))
    }

    /// `value.a.b`, where the last name may be that of a method with arguments.
    fn fields(
        &mut self,
        dot: &Value<'a>,
        mut value: Value<'a>,
        names: &'a [String],
        (term, args): (&'a Term, &'a [Term]),
        last: Option<Value<'a>>,
    ) -> Result<Value<'a>> {
        let Some((end, inner)) = names.split_last() else {
            return Ok(value);
        };
        for name in inner {
            value = self.field(dot, &value, name, (term, &[]), None)?;
        }
        self.field(dot, &value, end, (term, args), last)
    }

    fn field(
        &mut self,
        dot: &Value<'a>,
        value: &Value<'a>,
        name: &'a str,
        (term, args): (&'a Term, &'a [Term]),
        last: Option<Value<'a>>,
    ) -> Result<Value<'a>> {
        if let Some(method) = methods::find(value, name) {
            let target = Target {
                name,
                params: method.params,
                rest: None,
                args,
                at: At::Term(term),
            };
            let given = self.arguments(dot, target, last)?;
            return (method.run)(value, &given).map_err(|e| self.failed_call(target, e));
        }
        let found = match value {
            Value::Missing => return Ok(Value::Missing),
            Value::Null => {
                return Err(self.fail(format!("nil pointer evaluating interface {{}}.{name}")));
            }
            Value::Labels => {
                let label = self.context.data.label(name);
                Value::Text(Text::Borrowed(label.unwrap_or(b"")))
            }
            Value::Map(map) => map.get(name.as_bytes()).cloned().unwrap_or(Value::Null),
            other => {
                let kind = other.type_name();
                return Err(self.fail(format!("can't evaluate field {name} in type {kind}")));
            }
        };
        if !args.is_empty() || last.is_some() {
            return Err(self.fail(format!("{name} is not a method but has arguments")));
        }
        Ok(found)
    }

    fn failed_call(&mut self, target: Target<'a>, reason: String) -> String {
        self.at = target.at;
        self.fail(format!("error calling {}: {reason}", target.name))
    }

    fn function(
        &mut self,
        dot: &Value<'a>,
        function: &'static Function,
        args: &'a [Term],
        at: At<'a>,
        last: Option<Value<'a>>,
    ) -> Result<Value<'a>> {
        let target = Target {
            name: function.name,
            params: function.params,
            rest: function.rest,
            args,
            at,
        };
        let run = match function.run {
            Run::Call(run) => run,
            Run::And => return self.first_that(dot, target, last, false),
            Run::Or => return self.first_that(dot, target, last, true),
        };
        let given = self.arguments(dot, target, last)?;
        let read = given.0.iter().map(|value| match value {
            Value::Text(text) => text.len(),
            _ => 0,
        });
        let read = read.sum();
        let spent = self.context.budget.bytes(read);
        let result = spent.and_then(|()| run(&mut self.context, &given));
        let value = result.map_err(|e| self.failed_call(target, e))?;
        if let Value::Text(Text::Shared(made)) = &value {
            let spent = self.context.budget.bytes(made.len());
            spent.map_err(|e| self.failed_call(target, e))?;
        }
        Ok(value)
    }

    /// `and` and `or`: the first argument whose truth is `wanted`, else the last one.
    fn first_that(
        &mut self,
        dot: &Value<'a>,
        target: Target<'a>,
        last: Option<Value<'a>>,
        wanted: bool,
    ) -> Result<Value<'a>> {
        self.check_count(target, last.is_some())?;
        let mut value = Value::Missing;
        for arg in target.args {
            value = self.argument(dot, Type::Any, arg)?;
            if truth(&value) == wanted {
                return Ok(value);
            }
        }
        Ok(last.unwrap_or(value))
    }

    fn check_count(&self, target: Target<'a>, has_last: bool) -> Result<()> {
        let Target {
            name, params, args, ..
        } = target;
        let given = args.len() + usize::from(has_last);
        match target.rest {
            Some(_) if given < params.len() => Err(self.fail(format!(
                "wrong number of args for {name}: want at least {} got {}",
                params.len(),
                args.len()
            ))),
            None if given != params.len() => Err(self.fail(format!(
                "wrong number of args for {name}: want {} got {given}",
                params.len()
            ))),
            _ => Ok(()),
        }
    }

    fn arguments(
        &mut self,
        dot: &Value<'a>,
        target: Target<'a>,
        last: Option<Value<'a>>,
    ) -> Result<Args<'a>> {
        self.check_count(target, last.is_some())?;
        let kind = |i: usize| {
            let rest = target.rest.unwrap_or(Type::Any);
            target.params.get(i).copied().unwrap_or(rest)
        };
        let mut values = Vec::with_capacity(target.args.len() + 1);
        for (i, arg) in target.args.iter().enumerate() {
            values.push(self.argument(dot, kind(i), arg)?);
        }
        if let Some(last) = last {
            values.push(self.checked(last, kind(values.len()))?);
        }
        Ok(Args(values))
    }

    /// The value of a term where a type is wanted: literals must be of it.
    fn argument(&mut self, dot: &Value<'a>, kind: Type, term: &'a Term) -> Result<Value<'a>> {
        self.step()?;
        self.at = At::Term(term);
        let expected = |what: &str| format!("expected {what}; found {term}");
        match (&term.kind, kind) {
            (TermKind::Nil, Type::Any) => Ok(Value::Missing),
            (TermKind::Nil, kind) => {
                Err(self.fail(format!("cannot assign nil to {}", kind.name())))
            }
            (TermKind::Bool(_) | TermKind::Text(..) | TermKind::Number(_), kind) => {
                match (kind, &term.kind) {
                    (Type::Any, _) | (Type::Text, TermKind::Text(..)) => self.operand(dot, term),
                    (Type::Int, TermKind::Number(number)) if number.int.is_some() => {
                        Ok(Value::int(number.int.unwrap_or(0)))
                    }
                    (Type::Int64 | Type::Duration, TermKind::Number(number))
                        if number.int.is_some() =>
                    {
                        let int_type = match kind {
                            Type::Duration => IntType::Duration,
                            _ => IntType::Int64,
                        };
                        Ok(Value::Int(number.int.unwrap_or(0), int_type))
                    }
                    (Type::Float, TermKind::Number(number)) => Ok(Value::Float(number.float)),
                    (Type::Text, _) => Err(self.fail(expected("string"))),
                    (Type::Int | Type::Int64 | Type::Duration, _) => {
                        Err(self.fail(expected("integer")))
                    }
                    (Type::Float, _) => Err(self.fail(expected("float"))),
                    (Type::Time, _) => Err(self.fail(format!(
                        "can't handle {term} for arg of type {}",
                        kind.name()
                    ))),
                }
            }
            _ => {
                let value = self.operand(dot, term)?;
                self.checked(value, kind)
            }
        }
    }

    fn checked(&self, value: Value<'a>, kind: Type) -> Result<Value<'a>> {
        if kind.takes(&value) {
            return Ok(value);
        }
        let wanted = kind.name();
        Err(match value {
            Value::Missing => self.fail(format!("invalid value; expected {wanted}")),
            other => self.fail(format!(
                "wrong type for value; expected {wanted}; got {}",
                other.type_name()
            )),
        })
    }

    /// The value of a term by itself.
    fn operand(&mut self, dot: &Value<'a>, term: &'a Term) -> Result<Value<'a>> {
        match &term.kind {
            TermKind::Dot => Ok(dot.clone()),
            TermKind::Nil => Ok(Value::Missing),
            TermKind::Bool(flag) => Ok(Value::Bool(*flag)),
            TermKind::Text(text, _) => Ok(Value::Text(Text::Borrowed(text))),
            TermKind::Number(number) => match number.int {
                Some(int) if !number.is_float => Ok(Value::int(int)),
                _ => Ok(Value::Float(number.float)),
            },
            TermKind::Function(function) => {
                self.at = At::Term(term);
                self.function(dot, function, &[], At::Term(term), None)
            }
            TermKind::Field(names) => {
                self.at = At::Term(term);
                self.fields(dot, dot.clone(), names, (term, &[]), None)
            }
            TermKind::Variable(name, names) => {
                self.at = At::Term(term);
                let value = self.variable(name)?;
                self.fields(dot, value, names, (term, &[]), None)
            }
            TermKind::Parenthesis(pipe) => self.pipe(dot, pipe),
            TermKind::Chain(of, names) => {
                self.at = At::Term(term);
                let value = self.operand(dot, of)?;
                self.fields(dot, value, names, (term, &[]), None)
            }
        }
    }
}
