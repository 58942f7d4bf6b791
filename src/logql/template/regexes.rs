//! The regexes of a template: those in its text are compiled once, others when they are met.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use regex::bytes::Regex;

use super::budget::Budget;
use super::tree::{Template, TermKind};
use crate::logql::re2;

/// Regexes that a template's own text may hold compiled.
const MAX_LITERALS: usize = 32;
/// Regexes from labels kept for the lines that follow.
const MAX_KEPT: usize = 8;
/// What it costs to compile a regex that is not known yet, in steps.
const COMPILE_STEPS: u32 = 20_000;
/// Functions whose first argument is a regex.
const FUNCTIONS: [&str; 3] = ["regexReplaceAll", "regexReplaceAllLiteral", "count"];

type Compiled = Result<Arc<Regex>, String>;

#[derive(Debug, Default)]
pub struct Regexes {
    literals: HashMap<Vec<u8>, Compiled>,
    kept: Mutex<HashMap<Vec<u8>, Compiled>>,
}

fn compile(pattern: &[u8]) -> Compiled {
    let text = std::str::from_utf8(pattern).map_err(|_| {
        let shown = String::from_utf8_lossy(pattern);
        format!("error parsing regexp: invalid UTF-8: `{shown}`")
    })?;
    re2::for_templates(text)
        .map(Arc::new)
        .map_err(|e| e.to_string())
}

impl Regexes {
    /// Compiles those that stand in the template as text.
    pub fn of(template: &Template) -> Self {
        let mut literals = HashMap::new();
        template.each_command(&mut |command| {
            if let [function, pattern, ..] = command.terms.as_slice()
                && let TermKind::Function(function) = &function.kind
                && FUNCTIONS.contains(&function.name)
                && let TermKind::Text(pattern, _) = &pattern.kind
                && literals.len() < MAX_LITERALS
            {
                literals
                    .entry(pattern.clone())
                    .or_insert_with(|| compile(pattern));
            }
        });
        Self {
            literals,
            kept: Mutex::default(),
        }
    }

    pub fn get(&self, pattern: &[u8], budget: &mut Budget) -> Compiled {
        if let Some(compiled) = self.literals.get(pattern) {
            return compiled.clone();
        }
        if let Some(compiled) = self.kept.lock().get(pattern) {
            return compiled.clone();
        }
        budget.steps(COMPILE_STEPS)?;
        let compiled = compile(pattern);
        let mut kept = self.kept.lock();
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(pattern.to_vec(), compiled.clone());
        compiled
    }
}
