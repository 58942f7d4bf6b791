//! A delete request as it is kept in `meta`.

use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{Day, TimeRange, Timestamp};
use crate::store::codec::{Reader, Writer};

/// One request to delete lines.
///
/// On disk, under `delete/<id>`: version u8 = 1 | tenant, query (texts) | start, end, created
/// zigzag | before varint | state u8 (0 received, 1 processed) | days done, of all, next day
/// (zigzag) | lines erased | processed at zigzag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// Eight hexadecimal digits.
    pub id: Arc<str>,
    pub tenant: Arc<str>,
    /// As it was asked for.
    pub query: Arc<str>,
    /// Both inclusive, nanoseconds.
    pub start: Timestamp,
    pub end: Timestamp,
    pub created_at: Timestamp,
    /// Lines of journal records below this number existed when the request came (E1).
    pub before: u64,
    pub state: DeleteState,
    /// Lines that left the disk for it.
    pub erased: u64,
}

/// How far a request has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteState {
    /// Answers leave its lines out. `done` of `days` days are erased, those before `next`.
    Received { done: u32, days: u32, next: Day },
    /// Its lines are gone from the disk.
    Processed { at: Timestamp },
}

impl DeleteState {
    pub const NEW: Self = Self::Received {
        done: 0,
        days: 0,
        next: Day(i32::MIN),
    };
}

impl DeleteRequest {
    /// An id for the `attempt`-th try.
    pub fn make_id(tenant: &str, query: &str, created_at: Timestamp, attempt: u32) -> Arc<str> {
        let text = format!("{tenant}\0{query}\0{created_at}\0{attempt}");
        format!("{:08x}", xxh3_64(text.as_bytes()) as u32).into()
    }

    pub fn range(&self) -> TimeRange {
        TimeRange::inclusive(self.start, self.end)
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.raw(&[1]);
        w.text(self.tenant.as_bytes());
        w.text(self.query.as_bytes());
        w.zigzag(self.start);
        w.zigzag(self.end);
        w.zigzag(self.created_at);
        w.varint(self.before);
        let (state, done, days, next, at) = match self.state {
            DeleteState::Received { done, days, next } => (0, done, days, next, 0),
            DeleteState::Processed { at } => (1, 0, 0, Day(0), at),
        };
        w.raw(&[state]);
        w.varint(u64::from(done));
        w.varint(u64::from(days));
        w.zigzag(i64::from(next.0));
        w.varint(self.erased);
        w.zigzag(at);
        w.finish()
    }

    pub fn decode(id: &[u8], bytes: &[u8]) -> Result<Self, String> {
        let mut r = Reader::new(bytes);
        let version = r.u8()?;
        if version != 1 {
            return Err(format!("delete request version {version}, expected 1"));
        }
        let narrow = |n: u64| u32::try_from(n).map_err(|_| "number out of range".to_owned());
        let id = std::str::from_utf8(id)
            .map_err(|_| "id is not UTF-8")?
            .into();
        let tenant = r.str()?.into();
        let query = r.str()?.into();
        let (start, end, created_at) = (r.zigzag()?, r.zigzag()?, r.zigzag()?);
        let before = r.varint()?;
        let state = r.u8()?;
        let (done, days) = (narrow(r.varint()?)?, narrow(r.varint()?)?);
        let next = i32::try_from(r.zigzag()?).map_err(|_| "day out of range")?;
        let erased = r.varint()?;
        let at = r.zigzag()?;
        Ok(Self {
            id,
            tenant,
            query,
            start,
            end,
            created_at,
            before,
            state: match state {
                0 => DeleteState::Received {
                    done,
                    days,
                    next: Day(next),
                },
                1 => DeleteState::Processed { at },
                other => return Err(format!("delete request in state {other}")),
            },
            erased,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_and_a_cut_one_is_an_error() {
        let request = DeleteRequest {
            id: "0badcafe".into(),
            tenant: "team a".into(),
            query: "{app=\"x\"} |= \"p\u{e4}ss\nword\"".into(),
            start: -5,
            end: 1_795_356_060_000_000_001,
            created_at: 1_795_356_061_000_000_000,
            before: 77,
            state: DeleteState::Received {
                done: 3,
                days: 9,
                next: Day(20_000),
            },
            erased: 12,
        };
        let processed = DeleteRequest {
            state: DeleteState::Processed { at: 7 },
            ..request.clone()
        };
        for request in [request, processed] {
            let bytes = request.encode();
            assert_eq!(
                DeleteRequest::decode(b"0badcafe", &bytes),
                Ok(request.clone())
            );
            for len in 0..bytes.len() {
                assert!(DeleteRequest::decode(b"0badcafe", &bytes[..len]).is_err());
            }
        }
    }

    #[test]
    fn ids_are_eight_digits_and_differ_by_attempt() {
        let id = |attempt| DeleteRequest::make_id("", "{a=\"b\"}", 5, attempt);
        assert_eq!(id(0).len(), 8);
        assert_ne!(id(0), id(1));
    }
}
