//! Both JSON pushes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::protocol::loki::push::{Coding, DecodeLimits, PushFormat, decode_push};

fuzz_target!(|body: &[u8]| {
    let limits = DecodeLimits {
        max_text: 1 << 20,
        max_parts: 1 << 20,
    };
    for format in [PushFormat::JsonV1, PushFormat::JsonLegacy] {
        let Ok(decoded) = decode_push(format, Coding::Identity, body, &limits) else {
            continue;
        };
        for entry in decoded.batch.streams.iter().flat_map(|s| &s.entries) {
            let _ = decoded.batch.line(entry);
            let _ = decoded.batch.metadata(entry);
        }
    }
});
