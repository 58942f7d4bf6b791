//! Decodes any bytes as what a Jaeger writes to its storage, and gives what was read back as
//! OTLP: no span may get lost on the way.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use watchpost::protocol::otlp::{decode_json, decode_stored, encode, render};
use watchpost::protocol::wire::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
use watchpost::protocol::{SpanFormat, decode_spans};

fuzz_target!(|bytes: &[u8]| {
    for format in [SpanFormat::StorageWrites, SpanFormat::StorageOtlp] {
        let Ok(batch) = decode_spans(format, bytes) else {
            continue;
        };
        let resource_spans = encode::resource_spans(&batch.spans);
        let texts: Vec<String> = resource_spans.iter().map(render::resource_spans).collect();
        let json = format!("{{\"resourceSpans\":[{}]}}", texts.join(","));
        let message = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
        let by_proto = decode_stored(&message).expect("what was written");
        let by_json = decode_json(json.as_bytes()).expect("what was written");
        // OTLP has no place for spans without ids.
        let count = batch.spans.len();
        assert_eq!(by_proto.batch.spans.len() + by_proto.rejected, count);
        assert_eq!(by_json.batch.spans.len() + by_json.rejected, count);
    }
});
