//! The parts that ingest and queries spend their time in, each by itself. `make bench`, or
//! `make bench BENCH=chunk` for those with that in their name. The whole is measured with
//! the shared load (docs/benchmarks.md).

use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use watchpost::logql::ast::Expr;
use watchpost::logql::pipeline::Pipeline;
use watchpost::model::trace::{Process, Span, SpanId, Tag, TagValue, TraceId};
use watchpost::model::{Labels, LogBatch, LogEntry, StreamEntries, StreamId};
use watchpost::protocol::loki::push::{Coding, DecodeLimits, PushFormat, decode_push};
use watchpost::store::chunk::{ChunkReader, LineBlock, encode};
use watchpost::store::index::Analyzer;
use watchpost::store::patterns;
use watchpost::store::span::{SpanBlock, SpanBlockBuilder, TagCensus};
use watchpost::store::{encode_batch, seal};

fn main() {
    divan::main();
}

/// A small generator, so that every run measures the same lines.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % below
    }
}

/// Lines as an access log, a service with logfmt and one with JSON write them.
fn lines(bytes: usize) -> LineBlock {
    let mut random = Random(7);
    let mut block = LineBlock::default();
    let mut at = 1_795_000_000_000_000_000;
    while block.text.len() < bytes {
        let id = u128::from(random.next(u64::MAX)) << 64 | u128::from(random.next(u64::MAX));
        let (ms, user) = (random.next(3000), random.next(5000));
        let status = [200, 200, 200, 304, 404, 500][random.next(6) as usize];
        let line = match random.next(3) {
            0 => format!(
                "10.0.{}.{} - - \"GET /api/v1/orders/{user} HTTP/1.1\" {status} {ms} \"-\" \"curl/8.5\"",
                random.next(4),
                random.next(250)
            ),
            1 => format!(
                "level=info msg=\"request handled\" path=/cart user={user} duration={ms}ms trace_id={id:032x}"
            ),
            _ => format!(
                "{{\"level\":\"warn\",\"status\":{status},\"duration_ms\":{ms},\"trace\":\"{id:032x}\",\"msg\":\"timeout awaiting upstream\"}}"
            ),
        };
        at += 1_000_000 + random.next(50_000_000) as i64;
        block.push(at, line.as_bytes(), None);
    }
    block
}

fn span(random: &mut Random, process: &Arc<Process>) -> Span {
    Span {
        trace_id: TraceId(u128::from(random.next(40))),
        span_id: SpanId(random.next(u64::MAX)),
        operation: ["GET /orders", "SELECT shop", "charge", "forward"][random.next(4) as usize]
            .into(),
        references: Vec::new(),
        flags: 1,
        start: 1_795_000_000_000_000_000 + random.next(1 << 40) as i64,
        duration: random.next(1 << 30),
        tags: vec![
            Tag::string("span.kind", "server"),
            Tag {
                key: "http.status_code".into(),
                value: TagValue::Int64(200),
            },
            Tag::string("http.url", format!("/orders/{}", random.next(100_000))),
            Tag::string("user.id", format!("u{}", random.next(5000))),
            Tag::bool("cache.hit", random.next(2) == 0),
        ],
        logs: Vec::new(),
        process: process.clone(),
        warnings: Vec::new(),
    }
}

const CHUNK: usize = 256 << 10;

#[divan::bench]
fn chunk_encode(bencher: Bencher<'_, '_>) {
    let block = lines(CHUNK);
    bencher
        .counter(BytesCount::new(block.text.len()))
        .bench(|| encode(divan::black_box(&block)).map(|chunk| chunk.len()));
}

#[divan::bench]
fn chunk_analyze(bencher: Bencher<'_, '_>) {
    let block = lines(CHUNK);
    bencher
        .counter(BytesCount::new(block.text.len()))
        .bench(|| seal::analyze(divan::black_box(&block)).0.len());
}

/// What patterns add to sealing a chunk.
#[divan::bench]
fn chunk_patterns(bencher: Bencher<'_, '_>) {
    let block = lines(CHUNK);
    let labels = Labels::from_pairs([("app", "shop"), ("host", "data-01")]);
    bencher
        .counter(BytesCount::new(block.text.len()))
        .bench(|| patterns::mine(&labels, divan::black_box(&block)).len());
}

#[divan::bench]
fn chunk_decode_text(bencher: Bencher<'_, '_>) {
    let block = lines(CHUNK);
    let bytes = encode(&block).unwrap_or_default();
    let mut text = Vec::new();
    bencher
        .counter(BytesCount::new(block.text.len()))
        .bench_local(|| {
            ChunkReader::new(divan::black_box(&bytes)).and_then(|chunk| chunk.text(&mut text))
        });
}

#[divan::bench]
fn chunk_decode_times(bencher: Bencher<'_, '_>) {
    let block = lines(CHUNK);
    let bytes = encode(&block).unwrap_or_default();
    let (mut scratch, mut at) = (Vec::new(), Vec::new());
    bencher
        .counter(ItemsCount::new(block.len()))
        .bench_local(|| {
            ChunkReader::new(divan::black_box(&bytes))
                .and_then(|chunk| chunk.times(&mut scratch, &mut at))
        });
}

/// One MiB of lines of one stream.
fn batch() -> LogBatch {
    let block = lines(1 << 20);
    let labels = Labels::from_pairs([("app", "shop"), ("host", "data-01")]);
    let mut entries = Vec::new();
    for i in 0..block.len() {
        let len = block.line(i).len() as u32;
        entries.push(LogEntry {
            at: block.at[i],
            start: block.ends[i] - len,
            len,
            metadata: 0,
        });
    }
    let id = StreamId::of("", &labels);
    LogBatch {
        tenant: "".into(),
        text: Bytes::from(block.text),
        metadata: Vec::new(),
        streams: vec![StreamEntries {
            id,
            labels,
            entries,
        }],
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A push as promtail sends it.
fn push_body(batch: &LogBatch) -> Vec<u8> {
    let mut request = Vec::new();
    for stream in &batch.streams {
        let mut message = Vec::new();
        field(&mut message, 1, stream.labels.to_string().as_bytes());
        for entry in &stream.entries {
            let mut time = vec![1 << 3];
            varint(&mut time, (entry.at / 1_000_000_000) as u64);
            time.push(2 << 3);
            varint(&mut time, (entry.at % 1_000_000_000) as u64);
            let mut encoded = Vec::new();
            field(&mut encoded, 1, &time);
            field(&mut encoded, 2, batch.line(entry));
            field(&mut message, 2, &encoded);
        }
        field(&mut request, 1, &message);
    }
    snap::raw::Encoder::new()
        .compress_vec(&request)
        .unwrap_or_default()
}

#[divan::bench]
fn ingest_decode_push(bencher: Bencher<'_, '_>) {
    let batch = batch();
    let body = push_body(&batch);
    bencher
        .counter(ItemsCount::new(batch.entry_count()))
        .bench(|| {
            let limits = DecodeLimits::default();
            decode_push(
                PushFormat::ProtobufSnappy,
                Coding::Identity,
                divan::black_box(&body),
                &limits,
            )
            .map(|push| push.batch.entry_count())
        });
}

#[divan::bench]
fn ingest_own_record(bencher: Bencher<'_, '_>) {
    let batch = batch();
    bencher
        .counter(ItemsCount::new(batch.entry_count()))
        .bench(|| encode_batch(divan::black_box(&batch), &[]).len());
}

/// A pipeline over every line of a chunk.
fn run_pipeline(bencher: Bencher<'_, '_>, stages: &str) {
    let block = lines(CHUNK);
    let Ok(Expr::Log(log)) = watchpost::logql::parse(&format!("{{app=\"shop\"}} {stages}")) else {
        return;
    };
    let Ok(pipeline) = Pipeline::compile(&log) else {
        return;
    };
    let labels = Labels::from_pairs([("app", "shop")]);
    bencher
        .counter(ItemsCount::new(block.len()))
        .bench_local(|| {
            let mut runner = pipeline.runner();
            runner.bind(&labels);
            (0..block.len())
                .filter(|i| runner.run(block.at[*i], block.line(*i), None).is_some())
                .count()
        });
}

#[divan::bench]
fn logql_literal_line_by_line(bencher: Bencher<'_, '_>) {
    run_pipeline(bencher, "|= `imeou`");
}

#[divan::bench]
fn logql_json_filter(bencher: Bencher<'_, '_>) {
    run_pipeline(bencher, "|= `{` | json | status >= 500");
}

#[divan::bench]
fn logql_logfmt_filter(bencher: Bencher<'_, '_>) {
    run_pipeline(bencher, "|= `duration=` | logfmt | duration > 1s");
}

#[divan::bench]
fn logql_parse(bencher: Bencher<'_, '_>) {
    let query = "sum by (app) (rate({app=~\"a|b\"} |= `x` | json | status >= 500 [5m])) / 2 > 1";
    bencher.bench(|| watchpost::logql::parse(divan::black_box(query)).is_ok());
}

#[divan::bench]
fn spans_append_and_seal(bencher: Bencher<'_, '_>) {
    let mut random = Random(3);
    let process = Arc::new(Process {
        service: "shop".into(),
        tags: vec![Tag::string("host", "a")],
    });
    let spans: Vec<Span> = (0..1000).map(|_| span(&mut random, &process)).collect();
    let (mut analyzer, mut census) = (Analyzer::new(), TagCensus::new());
    bencher
        .counter(ItemsCount::new(spans.len()))
        .bench_local(|| {
            let mut builder = SpanBlockBuilder::new();
            spans.iter().for_each(|span| builder.append(span));
            builder.seal(&mut analyzer, &mut census).bytes.len()
        });
}

#[divan::bench]
fn spans_decode_block(bencher: Bencher<'_, '_>) {
    let mut random = Random(3);
    let process = Arc::new(Process {
        service: "shop".into(),
        tags: Vec::new(),
    });
    let mut builder = SpanBlockBuilder::new();
    (0..1000).for_each(|_| builder.append(&span(&mut random, &process)));
    let bytes = builder
        .seal(&mut Analyzer::new(), &mut TagCensus::new())
        .bytes;
    bencher
        .counter(ItemsCount::new(1000usize))
        .bench(|| SpanBlock::decode(divan::black_box(&bytes)).map(|block| block.len()));
}

/// What sealing computes of services beside the block.
#[divan::bench(args = ["summary", "links"])]
fn spans_of_services(bencher: Bencher<'_, '_>, what: &str) {
    let mut random = Random(3);
    let process = Arc::new(Process {
        service: "shop".into(),
        tags: Vec::new(),
    });
    let mut builder = SpanBlockBuilder::new();
    (0..1000).for_each(|_| builder.append(&span(&mut random, &process)));
    bencher
        .counter(ItemsCount::new(1000usize))
        .bench_local(|| match what {
            "summary" => builder.block().summary().len(),
            _ => builder.block().links().rows.len(),
        });
}
