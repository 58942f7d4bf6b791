//! Decodes any bytes as what a block says of services, and as calls between services; only a
//! panic is a finding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watchpost::store::links::record::{LinkRecord, minutes};
use watchpost::store::span::summary::{Cell, Tally, decode, decode_body, slots};

/// What cells add up to.
#[derive(Default)]
struct Sum(u64);

impl Tally for Sum {
    fn wants(&self, service: &str) -> bool {
        !service.starts_with('-')
    }

    fn cell(&mut self, cell: Cell<'_>) {
        let spans = cell.durations.iter().map(|(_, spans)| spans).sum::<u64>();
        assert_eq!(spans, cell.calls);
        self.0 = self.0.saturating_add(cell.calls);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = slots(bytes);
    let _ = decode(bytes, &mut Sum::default());
    // Compression would keep the fuzzer out.
    let _ = decode_body(0, bytes, &mut Sum::default());
    let _ = minutes(bytes);
    if let Ok(record) = LinkRecord::decode(bytes) {
        let again = LinkRecord::decode(&record.encode());
        assert_eq!(again.as_ref(), Ok(&record));
    }
});
