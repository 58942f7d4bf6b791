//! A protobuf push: first as an attacker would send it, then with the snappy layer valid,
//! so that the protobuf reader sees more than its first byte.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::protocol::loki::push::{Coding, DecodeLimits, PushFormat, decode_push};

fuzz_target!(|body: &[u8]| {
    let limits = DecodeLimits {
        max_text: 1 << 20,
        max_parts: 1 << 20,
    };
    for coding in [Coding::Identity, Coding::Gzip, Coding::Deflate] {
        let _ = decode_push(PushFormat::ProtobufSnappy, coding, body, &limits);
    }
    let Ok(packed) = snap::raw::Encoder::new().compress_vec(body) else {
        return;
    };
    let Ok(decoded) = decode_push(
        PushFormat::ProtobufSnappy,
        Coding::Identity,
        &packed,
        &limits,
    ) else {
        return;
    };
    // Every line and metadata set must be there.
    for entry in decoded.batch.streams.iter().flat_map(|s| &s.entries) {
        let _ = decoded.batch.line(entry);
        let _ = decoded.batch.metadata(entry);
    }
});
