//! Decodes any bytes as Zipkin's spans, JSON of both versions; only a panic is a finding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::protocol::{SpanFormat, decode_spans};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_spans(SpanFormat::ZipkinJsonV1, bytes);
    let _ = decode_spans(SpanFormat::ZipkinJsonV2, bytes);
});
