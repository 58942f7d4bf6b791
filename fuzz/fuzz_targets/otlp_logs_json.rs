//! Decodes any bytes as an export of logs as JSON; every line and set must be there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::protocol::loki::push::{Coding, DecodeLimits, PushFormat, decode_push};

fuzz_target!(|body: &[u8]| {
    let limits = DecodeLimits {
        max_text: 1 << 20,
        max_parts: 1 << 20,
    };
    let Ok(decoded) = decode_push(PushFormat::OtlpJson, Coding::Identity, body, &limits) else {
        return;
    };
    for entry in decoded.batch.streams.iter().flat_map(|s| &s.entries) {
        let _ = decoded.batch.line(entry);
        let _ = decoded.batch.metadata(entry);
    }
});
