//! A chunk's text in columns: any text comes back, and any bytes, any sections in good frames among
//! them, are read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::store::chunk::columns::{SECTIONS, decode, encode, framed};

/// No text here is longer.
const LIMIT: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let (mut encoded, mut decoded) = (Vec::new(), Vec::new());
    assert!(encode(bytes, &mut encoded).is_ok());
    assert!(decode(&encoded, bytes.len(), &mut decoded).is_ok());
    assert!(decoded == bytes);
    let _ = decode(bytes, LIMIT, &mut decoded);
    if let Some(sections) = sections(bytes)
        && let Ok(text) = framed(sections.0, sections.1, b"")
        && decode(&text, LIMIT, &mut decoded).is_ok()
    {
        assert!(decoded.len() == sections.0);
    }
});

/// The text's length, then for each section its length and bytes.
fn sections(bytes: &[u8]) -> Option<(usize, [Vec<u8>; SECTIONS])> {
    let (total, mut rest) = bytes.split_first_chunk::<2>()?;
    let mut sections = [const { Vec::new() }; SECTIONS];
    for section in &mut sections {
        let (len, after) = rest.split_first()?;
        let (section_bytes, after) = after.split_at_checked(usize::from(*len))?;
        section.extend_from_slice(section_bytes);
        rest = after;
    }
    Some((usize::from(u16::from_le_bytes(*total)), sections))
}
