//! The language against the recorded cases.

use super::*;
use crate::logql::ast::Expr;

const CASES: &str = include_str!("../../tests/fixtures/logql-parse.json");

fn cases(kind: &str) -> Vec<serde_json::Value> {
    let all: serde_json::Value = serde_json::from_str(CASES).unwrap();
    let cases = all[kind].as_array().unwrap().clone();
    assert!(cases.len() > 50);
    cases
}

/// Reads and builds, as running a query does.
fn build(query: &str) -> Result<Expr, ParseError> {
    let expr = parse(query)?;
    check::pipeline(&expr)?;
    Ok(expr)
}

#[test]
fn every_accepted_case_is_read_built_and_formatted() {
    let mut wrong = Vec::new();
    for case in cases("accept") {
        let query = case["query"].as_str().unwrap();
        let expr = match build(query) {
            Ok(expr) => expr,
            Err(e) => {
                wrong.push(format!("{query}\n  {e}"));
                continue;
            }
        };
        let kind = match expr {
            Expr::Log(_) => "streams",
            Expr::Metric(_) => "matrix",
        };
        if let Some(expected) = case["result_type"].as_str()
            && kind != expected
        {
            wrong.push(format!("{query}\n  is {kind}"));
        }
        if let Some(expected) = case["formatted"].as_str() {
            let formatted = format(&expr);
            if formatted != expected {
                wrong.push(format!(
                    "{query}\n  expected {expected}\n  found    {formatted}"
                ));
            }
            // Sizes are printed rounded, so the text is compared and not the tree.
            match parse(&formatted) {
                Ok(again) => assert_eq!(format(&again), formatted),
                Err(e) => wrong.push(format!("{formatted}\n  {e}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_rejected_case_is_rejected_where_loki_rejects_it() {
    let mut wrong = Vec::new();
    for case in cases("reject") {
        let query = case["query"].as_str().unwrap();
        let found = match case["detected_at"].as_str().unwrap() {
            "parse" => parse(query).map(|_| ()),
            _ => parse(query).map_or_else(
                |e| panic!("{query} is refused too early: {e}"),
                |expr| check::pipeline(&expr),
            ),
        };
        let Err(error) = found else {
            wrong.push(format!("{query}\n  is accepted"));
            continue;
        };
        let position = case["error_position"].as_object().map(|p| {
            (
                p["line"].as_u64().unwrap() as u32,
                p["col"].as_u64().unwrap() as u32,
            )
        });
        if error.position != position {
            wrong.push(format!("{query}\n  expected {position:?}, found {error}"));
        }
        if case["detected_at"] != "parse" && !error.to_string().starts_with("parse error : stage '")
        {
            wrong.push(format!("{query}\n  {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
