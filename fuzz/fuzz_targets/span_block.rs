//! Decodes any bytes as a block of spans, with and without its frame, and searches what came
//! out; only a panic is a finding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::model::search::SpanMatcher;
use watchpost::model::trace::{TraceId, TraceQuery};
use watchpost::store::span::SpanBlock;

fuzz_target!(|bytes: &[u8]| {
    let _ = SpanBlock::decode(bytes);
    // The checksum would keep the fuzzer out.
    if let Ok(block) = SpanBlock::decode_body(bytes) {
        let tags = vec![("error".to_owned(), "tr.e".to_owned())];
        let everything = TraceQuery {
            tags,
            start_min: i64::MIN,
            start_max: i64::MAX,
            ..TraceQuery::default()
        };
        for n in block
            .search(&SpanMatcher::new(&everything))
            .into_iter()
            .take(16)
        {
            block.span(n);
        }
        block.spans_of(TraceId(1)).take(16).for_each(drop);
    }
});
