//! The protobuf encoder that tests push with. Written apart from the decoder, so that
//! one's mistake is not the other's.

/// One entry: time in seconds and nanoseconds, line, metadata.
#[derive(Clone, Debug)]
pub struct Entry {
    pub seconds: i64,
    pub nanos: i32,
    pub line: Vec<u8>,
    pub metadata: Vec<(String, Vec<u8>)>,
}

impl Entry {
    pub fn new(at: i64, line: &str) -> Self {
        Self {
            seconds: at.div_euclid(1_000_000_000),
            nanos: at.rem_euclid(1_000_000_000) as i32,
            line: line.into(),
            metadata: Vec::new(),
        }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }
}

pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub fn bytes(out: &mut Vec<u8>, number: u8, value: &[u8]) {
    out.push(number << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

pub fn request(streams: &[(String, Vec<Entry>)]) -> Vec<u8> {
    let mut request = Vec::new();
    for (labels, entries) in streams {
        let mut stream = Vec::new();
        bytes(&mut stream, 1, labels.as_bytes());
        for entry in entries {
            let mut time = Vec::new();
            time.push(1 << 3);
            varint(&mut time, entry.seconds as u64);
            time.push(2 << 3);
            varint(&mut time, entry.nanos as i64 as u64);
            let mut message = Vec::new();
            bytes(&mut message, 1, &time);
            bytes(&mut message, 2, &entry.line);
            for (name, value) in &entry.metadata {
                let mut pair = Vec::new();
                bytes(&mut pair, 1, name.as_bytes());
                bytes(&mut pair, 2, value);
                bytes(&mut message, 3, &pair);
            }
            bytes(&mut stream, 2, &message);
        }
        // The hash, which nobody reads.
        stream.push(3 << 3);
        varint(&mut stream, u64::MAX);
        bytes(&mut request, 1, &stream);
    }
    request
}

/// As clients send it.
pub fn snappy(streams: &[(String, Vec<Entry>)]) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(&request(streams))
        .expect("small enough")
}
