//! Any text is a template or an error, and any template ends on any label: in bounded time,
//! with a line or an error. What stands before the first NUL is the template.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::logql::ast::Stage;
use watchpost::logql::pipeline::Extract;
use watchpost::logql::Pipeline;
use watchpost::model::labels::Labels;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (template, value) = text.split_once('\0').unwrap_or((text, "7"));
    let labels = Labels::from_pairs([
        ("a", value),
        ("j", r#"{"k":[1,"two",{"z":true},null]}"#),
        ("t", "Hello World"),
    ]);
    let stage = Stage::LineFormat(template.to_owned());
    let Ok(pipeline) = Pipeline::of_stages(&[stage], Extract::All) else {
        return;
    };
    let mut runner = pipeline.runner();
    runner.bind(&labels);
    let Some(mut outcome) = runner.run(1_700_000_000_123_456_789, value.as_bytes(), None) else {
        panic!("a template rejects no line");
    };
    let failed = outcome.labels().get("__error__").is_some();
    assert!(!failed || outcome.line() == value.as_bytes());
});
