//! Reads any bytes as what a segment of the journal holds: a record's prefix, the record, and
//! the store's own batch of lines, each also with the checksum or the compression valid.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use watchpost::store::encode_batch;
use watchpost::store::journal::record::{
    RECORD_PREFIX, decode_batch, decode_prefix, decode_record, encode_header,
};
use watchpost::store::journal::{Body, Record};
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|bytes: &[u8]| {
    if let Some((prefix, rest)) = bytes.split_first_chunk::<RECORD_PREFIX>()
        && let Some((len, checksum)) = decode_prefix(prefix)
        && let Some(record) = rest.get(..len)
        && let Some(record) = decode_record(Bytes::copy_from_slice(record), checksum)
    {
        written_again(&record);
    }
    if let Some(record) = decode_record(Bytes::copy_from_slice(bytes), xxh3_64(bytes)) {
        written_again(&record);
    }
    batch(bytes);
    if let Ok(packed) = snap::raw::Encoder::new().compress_vec(bytes) {
        batch(&packed);
    }
});

/// A record that was read is written as the same bytes.
fn written_again(record: &Record) {
    let header = &record.header;
    let body = Body {
        kind: header.kind,
        format: header.format,
        coding: header.coding,
        flags: header.flags,
        tenant: header.tenant.clone(),
        bytes: record.body.clone(),
    };
    let mut bytes = encode_header(header.seq, header.received_at, &body);
    bytes.extend_from_slice(&body.bytes);
    let Some((prefix, rest)) = bytes.split_first_chunk() else {
        panic!("a record without a prefix");
    };
    let Some((len, checksum)) = decode_prefix(prefix) else {
        panic!("a prefix that can't be read");
    };
    assert_eq!(len, rest.len());
    let again = decode_record(Bytes::copy_from_slice(rest), checksum);
    assert_eq!(again.as_ref(), Some(record));
}

/// Every line and metadata set of a batch is there, and it is written and read as the same.
fn batch(body: &[u8]) {
    let Ok((batch, cursors)) = decode_batch(body) else {
        return;
    };
    let Ok((again, again_cursors)) = decode_batch(&encode_batch(&batch, &cursors)) else {
        panic!("a batch that was written can't be read");
    };
    assert_eq!(cursors, again_cursors);
    assert_eq!(batch.streams.len(), again.streams.len());
    for (stream, same) in batch.streams.iter().zip(&again.streams) {
        assert_eq!((stream.id, &stream.labels), (same.id, &same.labels));
        assert_eq!(stream.entries.len(), same.entries.len());
        for (entry, other) in stream.entries.iter().zip(&same.entries) {
            assert_eq!(entry.at, other.at);
            assert_eq!(batch.line(entry), again.line(other));
            assert_eq!(batch.metadata(entry), again.metadata(other));
        }
    }
}
