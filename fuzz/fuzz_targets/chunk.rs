//! Reads any bytes as a chunk: as they are, with a checksum that fits, and with frames that
//! hold what the fuzzer wrote, since it would never get through zstd on its own.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::store::chunk::format::compress_frame;
use watchpost::store::chunk::{ChunkReader, encode};
use xxhash_rust::xxh3::xxh3_64;

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    read(&with_checksum(bytes.to_vec()));
    if let Some(chunk) = framed(bytes) {
        read(&chunk);
    }
});

/// Reads every column, and what can be read has to survive being written again.
fn read(bytes: &[u8]) {
    let Ok(chunk) = ChunkReader::new(bytes) else {
        return;
    };
    let mut scratch = Vec::new();
    let _ = chunk.text(&mut Vec::new());
    let _ = chunk.times(&mut scratch, &mut Vec::new());
    let _ = chunk.ends(&mut scratch, &mut Vec::new());
    let _ = chunk.metadata(&mut scratch);
    let Ok(lines) = chunk.lines() else {
        return;
    };
    let Ok(again) = encode(&lines) else {
        panic!("lines that were read can't be written");
    };
    let again = ChunkReader::new(&again).and_then(|chunk| chunk.lines());
    let Ok(again) = again else {
        panic!("lines that were written can't be read");
    };
    assert_eq!(
        (lines.at, lines.text, lines.ends),
        (again.at, again.text, again.ends)
    );
}

fn with_checksum(mut chunk: Vec<u8>) -> Vec<u8> {
    chunk.extend_from_slice(&xxh3_64(&chunk).to_le_bytes());
    chunk
}

/// Lines, then for each of times, lengths and metadata its length and bytes; the rest is text.
fn framed(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let (lines, rest) = bytes.split_first()?;
    bytes = rest;
    let mut contents = Vec::new();
    for _ in 0..3 {
        let (len, rest) = bytes.split_first()?;
        let (content, rest) = rest.split_at_checked(usize::from(*len))?;
        contents.push(content);
        bytes = rest;
    }
    contents.push(bytes);
    let mut frames = Vec::new();
    // The version whose text is a frame as well.
    let mut chunk = vec![1];
    chunk.extend_from_slice(&u32::from(*lines).to_le_bytes());
    chunk.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    for content in contents {
        let size = compress_frame(content, &mut frames).ok()?;
        chunk.extend_from_slice(&(size as u32).to_le_bytes());
    }
    chunk.extend_from_slice(&frames);
    Some(with_checksum(chunk))
}
