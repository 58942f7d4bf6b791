//! Delete requests as Loki's compactor lists them.

use super::response::{comma_separated, json_text, seconds};
use crate::model::Timestamp;

/// One request, as the list shows it.
#[derive(Clone, Copy, Debug)]
pub struct ListedDelete<'a> {
    pub id: &'a str,
    pub start: Timestamp,
    pub end: Timestamp,
    pub query: &'a str,
    pub created_at: Timestamp,
    pub progress: Progress,
}

/// How far it has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Received,
    /// Percent, when a part is done.
    Partly(u8),
    Processed,
}

/// `GET /loki/api/v1/delete`.
pub fn list<'a>(requests: impl IntoIterator<Item = ListedDelete<'a>>) -> Vec<u8> {
    let mut out = b"[".to_vec();
    comma_separated(&mut out, requests, |out, request| {
        out.extend_from_slice(b"{\"request_id\":");
        json_text(out, request.id);
        out.extend_from_slice(b",\"start_time\":");
        seconds(out, request.start);
        out.extend_from_slice(b",\"end_time\":");
        seconds(out, request.end);
        out.extend_from_slice(b",\"query\":");
        json_text(out, request.query);
        out.extend_from_slice(b",\"status\":");
        match request.progress {
            Progress::Received => json_text(out, "received"),
            Progress::Processed => json_text(out, "processed"),
            Progress::Partly(percent) => json_text(out, &format!("{percent}% Complete")),
        }
        out.extend_from_slice(b",\"created_at\":");
        seconds(out, request.created_at);
        // Loki leaves it empty as well: who asks knows who they are.
        out.extend_from_slice(b",\"user_id\":\"\"}");
    });
    out.extend_from_slice(b"]\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_listed_with_times_in_seconds() {
        assert_eq!(list([]), b"[]\n");
        let request = |progress| ListedDelete {
            id: "0badcafe",
            start: 1_500_000_000,
            end: 60_000_000_000,
            query: "{a=\"b\"}",
            created_at: 61_000_000_000,
            progress,
        };
        let text = |progress| String::from_utf8(list([request(progress)])).expect("UTF-8");
        assert_eq!(
            text(Progress::Received),
            "[{\"request_id\":\"0badcafe\",\"start_time\":1.5,\"end_time\":60,\
             \"query\":\"{a=\\\"b\\\"}\",\"status\":\"received\",\"created_at\":61,\
             \"user_id\":\"\"}]\n"
        );
        assert!(text(Progress::Partly(50)).contains("\"status\":\"50% Complete\""));
        assert!(text(Progress::Processed).contains("\"status\":\"processed\""));
    }
}
