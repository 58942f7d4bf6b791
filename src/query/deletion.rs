//! What a delete request's text selects, in the language of queries.
//!
//! A line is selected when it comes through the request's pipeline, as a log query would have
//! it: `detected_level` and parsed labels count.

use super::Querier;
use super::scan::Leveler;
use crate::logql::ast::Expr;
use crate::logql::pipeline::Pipeline;
use crate::model::{Labels, Timestamp};
use crate::runtime::pool::Lane;
use crate::store::Store;
use crate::store::deletion::{LineTest, SelectLines, Selection};

pub use crate::store::deletion::{DeleteError, DeleteRequest, DeleteState};

/// States of the regexes of one request, roughly: a thousand requests may wait.
const MAX_REGEX_STATES: usize = 5_000;

/// The stages of a request, ready to run.
struct Stages {
    pipeline: Pipeline,
    /// Lines have `detected_level` when they are read.
    levels: bool,
}

/// Reads the text of a delete request: a selector, with or without stages.
pub fn read_selection(text: &str, discover_levels: bool) -> Result<Selection, String> {
    let (expr, states) = crate::logql::parse_weighed(text).map_err(|e| e.to_string())?;
    if states > MAX_REGEX_STATES {
        return Err("its regular expressions are too large to be kept".into());
    }
    crate::logql::check::pipeline(&expr).map_err(|e| e.to_string())?;
    let Expr::Log(log) = expr else {
        return Err("a delete request selects lines: it can't be a metric query".into());
    };
    let pipeline = Pipeline::compile(&log).map_err(|e| e.to_string())?;
    let takes_all = pipeline.is_only_filters() && pipeline.leading_filters().is_empty();
    let need = log.need();
    let stages = Stages {
        levels: discover_levels && !pipeline.is_only_filters(),
        pipeline,
    };
    Ok(Selection {
        matchers: log.matchers,
        lines: (!takes_all).then(|| Box::new(stages) as Box<dyn SelectLines>),
        need,
    })
}

impl SelectLines for Stages {
    fn bind<'a>(&'a self, labels: &'a Labels) -> LineTest<'a> {
        let filters = self.pipeline.leading_filters();
        if self.pipeline.is_only_filters() {
            return Box::new(move |_, line, _| filters.iter().all(|f| f.matches(line)));
        }
        let mut runner = self.pipeline.runner();
        runner.bind(labels);
        let mut leveler = Leveler::new();
        Box::new(move |at, line, stored| {
            if !filters.iter().all(|f| f.matches(line)) {
                return false;
            }
            let leveled;
            let metadata = if self.levels {
                leveled = leveler.level(labels, stored, line);
                Some(&leveled)
            } else {
                stored
            };
            runner.run_rest(at, line, metadata).is_some()
        })
    }
}

impl Querier {
    /// Has lines deleted; both times are inclusive.
    pub async fn delete(
        &self,
        tenant: &str,
        query: &str,
        start: Timestamp,
        end: Timestamp,
    ) -> Result<DeleteRequest, DeleteError> {
        let (tenant, query) = (tenant.to_owned(), query.to_owned());
        self.change(move |store| store.delete(&tenant, &query, start, end))
            .await
    }

    /// The tenant's delete requests, oldest first.
    pub fn delete_requests(&self, tenant: &str) -> Vec<DeleteRequest> {
        self.store.delete_requests(tenant)
    }

    /// Takes a delete request back.
    pub async fn cancel_delete(
        &self,
        tenant: &str,
        id: &str,
        force: bool,
    ) -> Result<(), DeleteError> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        self.change(move |store| store.cancel_delete(&tenant, &id, force))
            .await
    }

    /// Waits for a sync on a thread of the pool: seldom, and some milliseconds.
    async fn change<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, DeleteError> + Send + 'static,
    ) -> Result<T, DeleteError> {
        let store = self.store.clone();
        let done = self.pool.run(Lane::Second, move || work(&store)).await;
        let changed = done.map_err(|e| DeleteError::Unanswered(e.to_string()))?;
        self.forget_results();
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(query: &str, line: &str) -> bool {
        let selection = read_selection(query, true).expect(query);
        let labels = Labels::from_pairs([("app", "x")]);
        match &selection.lines {
            None => true,
            Some(lines) => lines.bind(&labels)(5, line.as_bytes(), None),
        }
    }

    #[test]
    fn a_selector_selects_every_line_and_stages_decide_line_by_line() {
        assert!(read_selection(r#"{app="x"}"#, true).is_ok_and(|s| s.lines.is_none()));
        assert!(read_selection(r#"{app="x"} |= """#, true).is_ok_and(|s| s.lines.is_none()));
        assert!(selects(r#"{app="x"} |= "pass""#, "my password"));
        assert!(!selects(r#"{app="x"} |= "pass" != "my""#, "my password"));
        let parsed = r#"{app="x"} | logfmt | user="bob""#;
        assert!(selects(parsed, "user=bob did"));
        assert!(!selects(parsed, "user=eve did"));
        assert!(selects(
            r#"{app="x"} | detected_level="error""#,
            "level=error x"
        ));
        assert!(!selects(
            r#"{app="x"} | detected_level="error""#,
            "level=info x"
        ));
    }

    #[test]
    fn what_selects_no_lines_is_refused() {
        let large = r#"{app="x"} |~ "\\pL{100}""#;
        let rate = "rate({app=\"x\"}[5m])";
        for query in ["", "{", rate, "{app=\"x\"} |~ \"(\"", large] {
            assert!(read_selection(query, true).is_err(), "{query}");
        }
    }
}
