//! Reads any bytes as one of the small records on disk, which the first byte chooses; what can be read has to
//! survive being written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::store::chunk::{ChunkMeta, compress_frame};
use watchpost::store::deletion::DeleteRequest;
use watchpost::store::index::FilterView;
use watchpost::store::patterns;
use watchpost::store::span::run::{TagHash, look_up};
use watchpost::store::streams::{decode_stream, encode_stream};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, record)) = bytes.split_first() else {
        return;
    };
    match kind % 5 {
        0 => chunk_meta(record),
        1 => stream(record),
        2 => delete_request(record),
        3 => pattern(record),
        _ => {
            let _ = look_up(record, TagHash::of_line("service:a\n"));
            if let Ok(filter) = FilterView::parse(record) {
                assert!(filter.density() <= 1.0 && (filter.has(77) || filter.density() < 1.0));
            }
        }
    }
});

fn chunk_meta(record: &[u8]) {
    let Ok(meta) = ChunkMeta::decode(7, record) else {
        return;
    };
    let minutes = || meta.minutes.iter(meta.min);
    assert!(minutes().is_sorted_by_key(|minute| minute.start));
    assert_eq!(ChunkMeta::decode(7, &meta.encode()).as_ref(), Ok(&meta));
}

fn stream(record: &[u8]) {
    let Ok((tenant, labels)) = decode_stream(record) else {
        return;
    };
    let again = decode_stream(&encode_stream(&tenant, &labels));
    assert_eq!(again, Ok((tenant, labels)));
}

fn delete_request(record: &[u8]) {
    let Ok(request) = DeleteRequest::decode(b"0123abcd", record) else {
        return;
    };
    let again = DeleteRequest::decode(b"0123abcd", &request.encode());
    assert_eq!(again, Ok(request));
}

fn pattern(record: &[u8]) {
    let _ = patterns::decode(record, |_| ());
    // Compression would keep the fuzzer out.
    let mut framed = vec![1];
    if compress_frame(record, &mut framed).is_ok() {
        let _ = patterns::decode(&framed, |found| {
            assert!(found.counts.is_sorted_by_key(|(slot, _)| *slot));
        });
    }
}
