//! Any text is a query or an error, and a query that is printed reads back as the same text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::logql;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let _ = logql::parse_push_labels(text);
    let Ok(expr) = logql::parse(text) else {
        return;
    };
    let printed = logql::format(&expr);
    // Folded numbers such as NaN, and `drop a` before `!= ip("…")`, have no text of their own.
    if let Ok(again) = logql::parse(&printed) {
        assert_eq!(logql::format(&again), printed, "{text}");
    }
    if logql::check::pipeline(&expr).is_ok()
        && let logql::ast::Expr::Log(log) = &expr
        && let Ok(pipeline) = logql::Pipeline::compile(log)
    {
        let mut runner = pipeline.runner();
        runner.bind(&Default::default());
        let _ = runner
            .run(0, data, None)
            .map(|mut outcome| outcome.labels());
    }
});
