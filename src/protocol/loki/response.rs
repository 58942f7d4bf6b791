//! Answers of the query endpoints, as Loki's JSON.
//!
//! Rendered straight into a buffer. Lines are bytes here: what is not UTF-8 becomes
//! U+FFFD, everything else comes out as it went in.
//!
//! R1. Every answer is valid JSON and ends with a newline.
//! R2. Sample values never have an exponent; times have at most three decimals.

pub mod explore;

use std::io::Write;

use crate::model::series::{Grid, Series};
use crate::model::{Labels, Timestamp};

/// What is told about the cost of a query. True figures; what Loki also lists and we don't
/// have is rendered as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stats {
    pub exec_seconds: f64,
    pub queue_seconds: f64,
    /// Lines whose text was looked at, and their bytes.
    pub lines: u64,
    pub bytes: u64,
    pub lines_matched: u64,
    pub entries_returned: u64,
    pub chunks_total: u64,
    pub chunks_candidate: u64,
    pub chunks_decoded: u64,
    pub compressed_bytes: u64,
    pub decompressed_bytes: u64,
    pub head_lines: u64,
    pub head_bytes: u64,
    pub streams: u64,
}

/// One line of a log answer.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    pub at: Timestamp,
    /// Not necessarily UTF-8.
    pub text: &'a [u8],
    /// Structured metadata and parsed labels, where the answer keeps them apart from the
    /// stream's labels.
    pub categories: Option<(&'a Labels, &'a Labels)>,
}

/// What stands around a result.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame<'a> {
    pub stats: Stats,
    pub warnings: &'a [String],
    /// Encoding flags of the request, echoed with `streams`.
    pub flags: &'a [String],
}

/// `resultType` "streams", in the order given.
pub fn streams<'a, S, L>(streams: S, frame: &Frame<'_>) -> Vec<u8>
where
    S: IntoIterator<Item = (&'a Labels, L)>,
    L: IntoIterator<Item = Line<'a>>,
{
    let mut out = Streams::begin(frame.warnings, frame.flags);
    for (labels, lines) in streams {
        out.stream(labels);
        for line in lines {
            out.line(line);
        }
    }
    out.end(&frame.stats, &[])
}

/// An answer of `resultType` "streams" as it is written, for who sends it piece by piece.
pub struct Streams {
    out: Vec<u8>,
    within: Within,
}

/// Where a [`Streams`] stands.
#[derive(Clone, Copy, PartialEq)]
enum Within {
    /// Before the first stream.
    Result,
    /// Before a stream's first line.
    Stream,
    Lines,
}

impl Streams {
    pub fn begin(warnings: &[String], flags: &[String]) -> Self {
        let mut out = begin("streams", warnings);
        if !flags.is_empty() {
            out.extend_from_slice(b"\"encodingFlags\":[");
            comma_separated(&mut out, flags, |out, flag| json_text(out, flag));
            out.extend_from_slice(b"],");
        }
        out.extend_from_slice(b"\"result\":[");
        Self {
            out,
            within: Within::Result,
        }
    }

    /// Ends the stream before, if any, and begins the next one.
    pub fn stream(&mut self, labels: &Labels) {
        self.end_stream();
        if self.within != Within::Result {
            self.out.push(b',');
        }
        self.within = Within::Stream;
        self.out.extend_from_slice(b"{\"stream\":");
        object(&mut self.out, labels);
        self.out.extend_from_slice(b",\"values\":[");
    }

    /// A line of the stream that was begun last.
    pub fn line(&mut self, of: Line<'_>) {
        if self.within == Within::Lines {
            self.out.push(b',');
        }
        self.within = Within::Lines;
        line(&mut self.out, of);
    }

    /// Bytes that wait to be taken.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// What was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The rest of the answer, with warnings that were not known at its beginning.
    pub fn end(mut self, stats: &Stats, late: &[String]) -> Vec<u8> {
        self.end_stream();
        self.out.extend_from_slice(b"],\"stats\":");
        stats.write(&mut self.out);
        self.out.push(b'}');
        if !late.is_empty() {
            self.out.push(b',');
            put_warnings(&mut self.out, late);
        }
        self.out.extend_from_slice(b"}\n");
        self.out
    }

    fn end_stream(&mut self) {
        if self.within != Within::Result {
            self.out.extend_from_slice(b"]}");
        }
    }
}

/// `resultType` "matrix": series without points are left out.
pub fn matrix(grid: &Grid, series: &[Series], frame: &Frame<'_>) -> Vec<u8> {
    let mut out = begin("matrix", frame.warnings);
    out.extend_from_slice(b"\"result\":[");
    let filled = series
        .iter()
        .filter(|s| s.points.iter().any(Option::is_some));
    comma_separated(&mut out, filled, |out, series| {
        out.extend_from_slice(b"{\"metric\":");
        object(out, &series.labels);
        out.extend_from_slice(b",\"values\":[");
        let points = series.points.iter().enumerate();
        let points = points.filter_map(|(i, value)| Some((grid.at(i), (*value)?)));
        comma_separated(out, points, |out, (at, value)| sample(out, at, value));
        out.extend_from_slice(b"]}");
    });
    end(out, frame)
}

/// `resultType` "vector": the first point of each series that has one.
pub fn vector(at: Timestamp, series: &[Series], frame: &Frame<'_>) -> Vec<u8> {
    let mut out = begin("vector", frame.warnings);
    out.extend_from_slice(b"\"result\":[");
    let filled = series
        .iter()
        .filter_map(|s| Some((&s.labels, (*s.points.first()?)?)));
    comma_separated(&mut out, filled, |out, (labels, value)| {
        out.extend_from_slice(b"{\"metric\":");
        object(out, labels);
        out.extend_from_slice(b",\"value\":");
        sample(out, at, value);
        out.push(b'}');
    });
    end(out, frame)
}

/// `resultType` "scalar".
pub fn scalar(at: Timestamp, value: f64, frame: &Frame<'_>) -> Vec<u8> {
    let mut out = begin("scalar", frame.warnings);
    out.extend_from_slice(b"\"result\":");
    sample(&mut out, at, value);
    finish(out, &frame.stats)
}

/// Label names or values. With none, Loki leaves `data` out.
pub fn strings<T: AsRef<str>>(values: &[T], warnings: &[String]) -> Vec<u8> {
    let mut out = b"{\"status\":\"success\"".to_vec();
    if !warnings.is_empty() {
        out.push(b',');
        put_warnings(&mut out, warnings);
    }
    if !values.is_empty() {
        out.extend_from_slice(b",\"data\":[");
        comma_separated(&mut out, values, |out, value| {
            json_text(out, value.as_ref())
        });
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    out
}

/// Label names or values as the legacy paths give them.
pub fn legacy_strings<T: AsRef<str>>(values: &[T]) -> Vec<u8> {
    let mut out = b"{".to_vec();
    if !values.is_empty() {
        out.extend_from_slice(b"\"values\":[");
        comma_separated(&mut out, values, |out, value| {
            json_text(out, value.as_ref())
        });
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    out
}

/// The label sets of streams.
pub fn series<'a>(series: impl IntoIterator<Item = &'a Labels>, warnings: &[String]) -> Vec<u8> {
    let mut out = b"{\"status\":\"success\",".to_vec();
    if !warnings.is_empty() {
        put_warnings(&mut out, warnings);
        out.push(b',');
    }
    out.extend_from_slice(b"\"data\":[");
    comma_separated(&mut out, series, object);
    out.extend_from_slice(b"]}\n");
    out
}

/// What the index knows of a selector: no wrapper around it.
pub fn index_stats(streams: u64, chunks: u64, bytes: u64, entries: u64) -> Vec<u8> {
    format!(
        "{{\"streams\":{streams},\"chunks\":{chunks},\"bytes\":{bytes},\"entries\":{entries}}}\n"
    )
    .into_bytes()
}

/// Labels and how many values each has. With none, Loki leaves the key out.
pub fn detected_labels<N: AsRef<str>>(labels: &[(N, usize)]) -> Vec<u8> {
    let mut out = b"{".to_vec();
    if !labels.is_empty() {
        out.extend_from_slice(b"\"detectedLabels\":[");
        comma_separated(&mut out, labels, |out, (name, cardinality)| {
            out.extend_from_slice(b"{\"label\":");
            json_text(out, name.as_ref());
            print(out, format_args!(",\"cardinality\":{cardinality}}}"));
        });
        out.push(b']');
    }
    out.extend_from_slice(b"}\n");
    out
}

/// A query in its canonical layout.
pub fn formatted_query(query: &str) -> Vec<u8> {
    let mut out = b"{\"status\":\"success\",\"data\":".to_vec();
    json_text(&mut out, query);
    out.extend_from_slice(b"}\n");
    out
}

/// A query that has no canonical layout, because it does not parse.
pub fn invalid_query(error: &str) -> Vec<u8> {
    let mut out = b"{\"status\":\"invalid-query\",\"error\":".to_vec();
    json_text(&mut out, error);
    out.extend_from_slice(b"}\n");
    out
}

/// Which build answers. Grafana switches features on by `version`.
pub fn build_info(version: &str, revision: &str) -> Vec<u8> {
    let mut out = b"{".to_vec();
    let fields = [
        ("version", version),
        ("revision", revision),
        ("branch", ""),
        ("buildUser", ""),
        ("buildDate", ""),
        ("goVersion", ""),
    ];
    comma_separated(&mut out, fields, |out, (name, value)| {
        json_text(out, name);
        out.push(b':');
        json_text(out, value);
    });
    out.extend_from_slice(b"}\n");
    out
}

fn begin(kind: &str, warnings: &[String]) -> Vec<u8> {
    let mut out = b"{\"status\":\"success\",".to_vec();
    if !warnings.is_empty() {
        put_warnings(&mut out, warnings);
        out.push(b',');
    }
    out.extend_from_slice(b"\"data\":{\"resultType\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",");
    out
}

fn put_warnings(out: &mut Vec<u8>, warnings: &[String]) {
    out.extend_from_slice(b"\"warnings\":[");
    comma_separated(out, warnings, |out, warning| json_text(out, warning));
    out.push(b']');
}

fn end(mut out: Vec<u8>, frame: &Frame<'_>) -> Vec<u8> {
    out.push(b']');
    finish(out, &frame.stats)
}

fn finish(mut out: Vec<u8>, stats: &Stats) -> Vec<u8> {
    out.extend_from_slice(b",\"stats\":");
    stats.write(&mut out);
    out.extend_from_slice(b"}}\n");
    out
}

pub(super) fn comma_separated<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write(out, item);
    }
}

pub(super) fn line(out: &mut Vec<u8>, line: Line<'_>) {
    out.extend_from_slice(b"[\"");
    integer(out, line.at);
    out.extend_from_slice(b"\",");
    json_bytes(out, line.text);
    if let Some((structured, parsed)) = line.categories {
        out.extend_from_slice(b",{");
        if !structured.is_empty() {
            out.extend_from_slice(b"\"structuredMetadata\":");
            object(out, structured);
        }
        if !parsed.is_empty() {
            if !structured.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(b"\"parsed\":");
            object(out, parsed);
        }
        out.push(b'}');
    }
    out.push(b']');
}

pub(super) fn object(out: &mut Vec<u8>, labels: &Labels) {
    out.push(b'{');
    comma_separated(out, labels.iter(), |out, (name, value)| {
        json_text(out, name);
        out.push(b':');
        json_text(out, value);
    });
    out.push(b'}');
}

fn sample(out: &mut Vec<u8>, at: Timestamp, value: f64) {
    out.push(b'[');
    seconds(out, at);
    out.extend_from_slice(b",\"");
    number(out, value);
    out.extend_from_slice(b"\"]");
}

/// Seconds with at most three decimals and no trailing zeros.
pub(super) fn seconds(out: &mut Vec<u8>, at: Timestamp) {
    let millis = at.div_euclid(1_000_000);
    if millis < 0 {
        out.push(b'-');
    }
    let millis = millis.unsigned_abs();
    print(out, format_args!("{}", millis / 1000));
    match millis % 1000 {
        0 => {}
        part if part % 100 == 0 => print(out, format_args!(".{}", part / 100)),
        part if part % 10 == 0 => print(out, format_args!(".{:02}", part / 10)),
        part => print(out, format_args!(".{part:03}")),
    }
}

/// Shortest text that reads back as the same number, never with an exponent.
fn number(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else if value.fract() == 0.0 && value.abs() < 9e15 && value != 0.0 {
        // Counts, mostly: integers print faster.
        integer(out, value as i64);
    } else {
        // Rust's `{}` never uses an exponent.
        print(out, format_args!("{value}"));
    }
}

pub(super) fn integer(out: &mut Vec<u8>, value: i64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut left = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(&digits[at..]);
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = out.write_fmt(text);
}

/// Writes bytes as a JSON string.
pub(super) fn json_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    if simdutf8::basic::from_utf8(bytes).is_ok() {
        escape(out, bytes);
    } else {
        for chunk in bytes.utf8_chunks() {
            escape(out, chunk.valid().as_bytes());
            if !chunk.invalid().is_empty() {
                out.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    out.push(b'"');
}

pub(super) fn json_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    escape(out, text.as_bytes());
    out.push(b'"');
}

/// Copies UTF-8, escaping what JSON demands: quotes, backslashes, control characters.
fn escape(out: &mut Vec<u8>, mut text: &[u8]) {
    while let Some(at) = first_special(text) {
        let (plain, rest) = text.split_at(at);
        out.extend_from_slice(plain);
        // `first_special` found it there.
        let Some((special, rest)) = rest.split_first() else {
            return;
        };
        match *special {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => print(out, format_args!("\\u{control:04x}")),
        }
        text = rest;
    }
    out.extend_from_slice(text);
}

/// Position of the first byte that needs an escape; eight bytes at a time.
fn first_special(text: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = text.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let zero = |x: u64| x.wrapping_sub(ONES) & !x & HIGH;
        // Borrows only disturb bytes above the first hit, and only that one is used.
        let hits = (word.wrapping_sub(ONES * 0x20) & !word & HIGH)
            | zero(word ^ (ONES * u64::from(b'"')))
            | zero(word ^ (ONES * u64::from(b'\\')));
        if hits != 0 {
            return Some(i * 8 + hits.trailing_zeros() as usize / 8);
        }
    }
    let at = rest
        .iter()
        .position(|b| matches!(b, 0..0x20 | b'"' | b'\\'))?;
    Some(words.len() * 8 + at)
}

impl Stats {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let per_second = |n: u64| {
            if self.exec_seconds > 0.0 {
                (n as f64 / self.exec_seconds) as u64
            } else {
                0
            }
        };
        let Self {
            exec_seconds,
            queue_seconds,
            lines,
            bytes,
            ..
        } = *self;
        print(
            out,
            format_args!(
                "{{\"summary\":{{\"bytesProcessedPerSecond\":{},\"linesProcessedPerSecond\":{},\
                 \"totalBytesProcessed\":{bytes},\"totalLinesProcessed\":{lines},\
                 \"execTime\":{exec_seconds},\"queueTime\":{queue_seconds},\"subqueries\":0,\
                 \"totalEntriesReturned\":{},\"splits\":0,\"shards\":0,\
                 \"totalPostFilterLines\":{},\"totalStructuredMetadataBytesProcessed\":0}},",
                per_second(bytes),
                per_second(lines),
                self.entries_returned,
                self.lines_matched,
            ),
        );
        // One process is querier and ingester: sealed chunks are told as the querier's,
        // open heads as the ingester's.
        out.extend_from_slice(b"\"querier\":{\"store\":");
        store(
            out,
            self.chunks_candidate,
            self.chunks_decoded,
            [
                0,
                0,
                self.decompressed_bytes,
                lines.saturating_sub(self.head_lines),
                self.compressed_bytes,
            ],
        );
        out.extend_from_slice(
            b"},\"ingester\":{\"totalReached\":0,\"totalChunksMatched\":0,\"totalBatches\":0,\
              \"totalLinesSent\":0,\"store\":",
        );
        store(out, 0, 0, [self.head_bytes, self.head_lines, 0, 0, 0]);
        out.extend_from_slice(b"},\"cache\":{");
        let caches = [
            "chunk",
            "index",
            "result",
            "statsResult",
            "volumeResult",
            "seriesResult",
            "labelResult",
            "instantMetricResult",
        ];
        comma_separated(out, caches, |out, name| {
            json_text(out, name);
            out.extend_from_slice(
                b":{\"entriesFound\":0,\"entriesRequested\":0,\"entriesStored\":0,\
                  \"bytesReceived\":0,\"bytesSent\":0,\"requests\":0,\"downloadTime\":0,\
                  \"queryLengthServed\":0}",
            );
        });
        print(
            out,
            format_args!(
                "}},\"index\":{{\"totalChunks\":{},\"postFilterChunks\":{},\"shardsDuration\":0,\
                 \"usedBloomFilters\":false,\"totalStreams\":{},\"chunkRefsLookupTime\":0,\
                 \"bloomFilterTime\":0}}}}",
                self.chunks_total, self.chunks_candidate, self.streams,
            ),
        );
    }
}

fn store(out: &mut Vec<u8>, referenced: u64, downloaded: u64, chunk: [u64; 5]) {
    let [
        head_bytes,
        head_lines,
        decompressed_bytes,
        decompressed_lines,
        compressed,
    ] = chunk;
    print(
        out,
        format_args!(
            "{{\"totalChunksRef\":{referenced},\"totalChunksDownloaded\":{downloaded},\
             \"chunksDownloadTime\":0,\"queryReferencedStructuredMetadata\":false,\
             \"chunk\":{{\"headChunkBytes\":{head_bytes},\"headChunkLines\":{head_lines},\
             \"decompressedBytes\":{decompressed_bytes},\
             \"decompressedLines\":{decompressed_lines},\"compressedBytes\":{compressed},\
             \"totalDuplicates\":0,\"postFilterLines\":0,\"headChunkStructuredMetadataBytes\":0,\
             \"decompressedStructuredMetadataBytes\":0}},\"chunkRefsFetchTime\":0,\
             \"congestionControlLatency\":0,\"pipelineWrapperFilteredLines\":0}}"
        ),
    );
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied())
    }

    /// The answer without its stats, which must be there.
    #[track_caller]
    fn read(answer: &[u8]) -> Value {
        assert_eq!(answer.last(), Some(&b'\n'));
        let mut value: Value = serde_json::from_slice(answer).expect("valid JSON");
        let stats = value["data"]
            .as_object_mut()
            .and_then(|d| d.remove("stats"));
        assert!(stats.is_some_and(|s| s["summary"]["execTime"].is_number()));
        value
    }

    fn entry(at: i64, text: &[u8]) -> Line<'_> {
        Line {
            at,
            text,
            categories: None,
        }
    }

    #[test]
    fn streams_hold_times_as_strings_and_lines_as_they_are() {
        let (a, b) = (labels(&[("a", "1")]), labels(&[("b", "")]));
        let answer = streams(
            [
                (
                    &a,
                    vec![
                        entry(1_795_356_060_000_000_001, b"x\"\\\n\x01\xff\xc3"),
                        entry(-1, b""),
                    ],
                ),
                (&b, vec![entry(0, "é".as_bytes())]),
            ],
            &Frame::default(),
        );
        assert_eq!(
            read(&answer),
            json!({"status":"success","data":{"resultType":"streams","result":[
                {"stream":{"a":"1"},"values":[
                    ["1795356060000000001","x\"\\\n\u{1}\u{fffd}\u{fffd}"],["-1",""]]},
                {"stream":{"b":""},"values":[["0","é"]]},
            ]}})
        );
        let none = streams::<[(&Labels, Vec<Line<'_>>); 0], _>([], &Frame::default());
        assert_eq!(
            read(&none),
            json!({"status":"success","data":{"resultType":"streams","result":[]}})
        );
    }

    #[test]
    fn categories_are_left_out_where_they_are_empty() {
        let (stream, s, p, none) = (
            labels(&[("a", "1")]),
            labels(&[("s", "1")]),
            labels(&[("p", "2")]),
            labels(&[]),
        );
        let categories = [(&s, &p), (&s, &none), (&none, &p), (&none, &none)];
        let lines = categories.map(|c| Line {
            at: 1,
            text: b"x",
            categories: Some(c),
        });
        let flags = ["categorize-labels".to_owned()];
        let frame = Frame {
            flags: &flags,
            ..Frame::default()
        };
        assert_eq!(
            read(&streams([(&stream, lines)], &frame)),
            json!({"status":"success","data":{
            "resultType":"streams","encodingFlags":["categorize-labels"],"result":[
            {"stream":{"a":"1"},"values":[
                ["1","x",{"structuredMetadata":{"s":"1"},"parsed":{"p":"2"}}],
                ["1","x",{"structuredMetadata":{"s":"1"}}],
                ["1","x",{"parsed":{"p":"2"}}],
                ["1","x",{}],
            ]}]}})
        );
    }

    #[test]
    fn a_matrix_has_no_gaps_written_and_no_empty_series() {
        let grid = Grid {
            start: 60_000_000_000,
            end: 61_000_000_000,
            step: 500_000_000,
        };
        let all = [
            Series {
                labels: labels(&[("a", "1")]),
                points: vec![Some(1.0), None, Some(0.5)],
            },
            Series {
                labels: labels(&[("a", "2")]),
                points: vec![None, None, None],
            },
            Series {
                labels: labels(&[]),
                points: vec![None, Some(f64::NAN), None],
            },
        ];
        let warnings = ["cut".to_owned()];
        let answer = matrix(
            &grid,
            &all,
            &Frame {
                warnings: &warnings,
                ..Frame::default()
            },
        );
        assert_eq!(
            read(&answer),
            json!({"status":"success","warnings":["cut"],"data":{"resultType":"matrix","result":[
                {"metric":{"a":"1"},"values":[[60,"1"],[61,"0.5"]]},
                {"metric":{},"values":[[60.5,"NaN"]]},
            ]}})
        );
    }

    #[test]
    fn a_vector_has_one_value_a_series_and_a_scalar_no_labels() {
        let all = [
            Series {
                labels: labels(&[("a", "1")]),
                points: vec![Some(2.0)],
            },
            Series {
                labels: labels(&[("a", "2")]),
                points: vec![None],
            },
        ];
        let at = 4_000_000_000_000_000_000;
        assert_eq!(
            read(&vector(at, &all, &Frame::default())),
            json!({"status":"success","data":{"resultType":"vector","result":[
                {"metric":{"a":"1"},"value":[4_000_000_000_u64,"2"]}]}})
        );
        assert_eq!(
            read(&scalar(at, 2.5, &Frame::default())),
            json!({"status":"success","data":{"resultType":"scalar","result":[
                4_000_000_000_u64,"2.5"]}})
        );
    }

    #[test]
    fn numbers_have_no_exponent_and_times_three_decimals_at_most() {
        let shown = |value: f64| {
            let mut out = Vec::new();
            number(&mut out, value);
            String::from_utf8(out).expect("ASCII")
        };
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1e21, "1000000000000000000000"),
            (1e-7, "0.0000001"),
            (0.1 + 0.2, "0.30000000000000004"),
            (-12.0, "-12"),
            (9007199254740993.0, "9007199254740992"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(shown(value), text);
        }
        let time = |at: i64| {
            let mut out = Vec::new();
            seconds(&mut out, at);
            String::from_utf8(out).expect("ASCII")
        };
        for (at, text) in [
            (1_795_356_060_000_000_000, "1795356060"),
            (1_795_356_060_500_000_000, "1795356060.5"),
            (1_795_356_060_050_999_999, "1795356060.05"),
            (1_795_356_060_005_000_000, "1795356060.005"),
            (-1_500_000_000, "-1.5"),
            (0, "0"),
        ] {
            assert_eq!(time(at), text);
        }
    }

    #[test]
    fn label_lists_without_members_have_no_data() {
        assert_eq!(strings::<&str>(&[], &[]), b"{\"status\":\"success\"}\n");
        assert_eq!(
            strings(&["a", "b\""], &[]),
            b"{\"status\":\"success\",\"data\":[\"a\",\"b\\\"\"]}\n"
        );
        assert_eq!(series([], &[]), b"{\"status\":\"success\",\"data\":[]}\n");
        assert_eq!(detected_labels::<&str>(&[]), b"{}\n");
        assert_eq!(
            detected_labels(&[("a", 2)]),
            b"{\"detectedLabels\":[{\"label\":\"a\",\"cardinality\":2}]}\n"
        );
        let set = labels(&[("a", "1"), ("b", "2")]);
        assert_eq!(
            series([&set], &[]),
            b"{\"status\":\"success\",\"data\":[{\"a\":\"1\",\"b\":\"2\"}]}\n"
        );
        assert_eq!(
            index_stats(1, 2, 3, 4),
            b"{\"streams\":1,\"chunks\":2,\"bytes\":3,\"entries\":4}\n"
        );
    }

    #[test]
    fn stats_tell_what_a_query_cost() {
        let stats = Stats {
            exec_seconds: 0.5,
            lines: 10,
            bytes: 1000,
            head_lines: 4,
            chunks_total: 9,
            chunks_candidate: 3,
            chunks_decoded: 2,
            ..Stats::default()
        };
        let answer = scalar(
            0,
            0.0,
            &Frame {
                stats,
                ..Frame::default()
            },
        );
        let value: Value = serde_json::from_slice(&answer).expect("valid JSON");
        let stats = &value["data"]["stats"];
        assert_eq!(stats["summary"]["bytesProcessedPerSecond"], 2000);
        assert_eq!(stats["summary"]["totalLinesProcessed"], 10);
        assert_eq!(stats["querier"]["store"]["chunk"]["decompressedLines"], 6);
        assert_eq!(stats["ingester"]["store"]["chunk"]["headChunkLines"], 4);
        assert_eq!(stats["index"]["totalChunks"], 9);
        assert_eq!(stats["cache"]["labelResult"]["requests"], 0);
    }

    proptest! {
        #[test]
        fn any_bytes_become_the_json_string_of_their_lossy_text(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..0x60_u8], 0..60),
        ) {
            let mut out = Vec::new();
            json_bytes(&mut out, &bytes);
            let read: String = serde_json::from_slice(&out).expect("valid JSON");
            prop_assert_eq!(read, String::from_utf8_lossy(&bytes));
        }
    }
}
