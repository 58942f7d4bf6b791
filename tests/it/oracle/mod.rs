//! What was sent, through every door that acknowledges, and what must be there after anything.
//!
//! Each line carries its stream's name and a number, from which its whole text follows, so
//! a line that comes back can be judged by itself. Lines of one stream are sent one push
//! after the other and never again, so their numbers grow in the order of their arrival. The
//! same holds of a service's traces.
//!
//! `doors` sends, `check` asks; who kills is in `crash.rs` and `torture`.

mod check;
mod doors;
mod grpc;
mod look;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::appliance::{Addresses, Appliance, locked, now};
use crate::senders::SentSpan;

pub use doors::{LogDoor, SpanDoor};
pub use look::Seen;

pub const DAY: i64 = 86_400_000_000_000;

/// With durability `flush`, an acknowledgement so short before a power cut promises nothing: the
/// journal is synced every 200 ms, and a busy machine may be late.
const FLUSH_PROMISE: Duration = Duration::from_secs(1);

/// What a check found wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Acknowledged and not there.
    Lost(String),
    /// There more than once, or before one that was sent earlier.
    OutOfOrder(String),
    /// Acknowledged and not there, though a later one is: not even where an end may be lost.
    Hole(String),
    /// There and never sent, or not as it was sent.
    NotSent(String),
    /// Found by scan and not by index, or the other way round.
    Index(String),
    /// The program does not start.
    Start(String),
}

/// What is known of something that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Not answered, or refused.
    Sent,
    Acknowledged(Instant),
    /// Acknowledged, and lost by a power cut that may do so.
    Given,
}

impl Fate {
    pub fn is_acknowledged(self) -> bool {
        matches!(self, Self::Acknowledged(_))
    }
}

/// What was sent to a stream or of a service so far, by number.
#[derive(Default)]
pub struct Ledger {
    pub fates: Vec<Fate>,
    /// So many were sent before the process was last started.
    pub old: usize,
    /// Time of the latest line.
    pub last_at: i64,
}

impl Ledger {
    /// Takes the next numbers.
    fn next(&mut self, count: usize) -> std::ops::Range<usize> {
        let first = self.fates.len();
        self.fates.resize(first + count, Fate::Sent);
        first..first + count
    }

    fn acknowledge(&mut self, numbers: std::ops::Range<usize>) {
        self.fates[numbers].fill(Fate::Acknowledged(Instant::now()));
    }

    pub fn acknowledged(&self) -> usize {
        self.fates.iter().filter(|f| f.is_acknowledged()).count()
    }
}

pub struct LogStream {
    pub name: String,
    pub door: LogDoor,
    /// Added to the clock: late lines go to a day of their own.
    shift: i64,
    pub ledger: Mutex<Ledger>,
}

/// A service whose traces are numbered.
pub struct Service {
    pub name: String,
    pub door: SpanDoor,
    number: u64,
    pub ledger: Mutex<Ledger>,
}

/// A power cut: what was acknowledged before it and how.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub at: Instant,
    /// The process ran with durability `flush`.
    pub flush: bool,
}

/// What all threads of a run share.
pub struct Run {
    pub id: u64,
    addresses: Addresses,
    pub streams: Vec<LogStream>,
    /// Lines of a followed file: acknowledged is what was written to it whole.
    pub file: LogStream,
    pub services: Vec<Service>,
    /// Traces that must be in the archive, with their spans.
    pub archived: Mutex<Vec<(u128, Vec<u64>)>>,
    stop: AtomicBool,
    /// Answers that no sender should get.
    complaints: Mutex<Vec<String>>,
    pub pushes: AtomicU64,
    /// Longest pause between two pushes of a sender, milliseconds.
    pace: u64,
}

/// The senders of a run.
pub struct Senders {
    pub run: Arc<Run>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// What one thread does until the run ends, with a seed of its own.
type Sender = Box<dyn FnOnce(&Run, u64) + Send>;

/// How a run sends.
#[derive(Clone, Copy)]
pub struct Load {
    /// Longest pause between two pushes of a sender, milliseconds.
    pub pace: u64,
    /// Whether somebody flushes at times.
    pub flushes: bool,
}

/// Adds what a run needs to the configuration: a followed file.
pub fn prepare(appliance: &mut Appliance) {
    let logs = appliance.dir().join("logs");
    std::fs::create_dir(&logs).expect("a directory");
    let glob = logs.join("*.log");
    appliance.change(|setup| {
        setup.table(&format!(
            "[[files]]\npaths = [{glob:?}]\nlabels = {{ job = \"crash\", stream = \"file\" }}\n"
        ))
    });
    // What dying in the middle of something says, here and at the next start.
    let dying = [
        "panic",
        "RUST_BACKTRACE",
        "fatal: ",
        "shutting down",
        "cut a torn record",
    ];
    for expected in dying {
        appliance.expect_log(expected);
    }
}

impl Senders {
    /// Starts to send through all doors of the appliance, whenever it runs.
    pub fn start(appliance: &Appliance, load: Load, seed: u64) -> Self {
        let stream = |name: &str, door, shift| LogStream {
            name: name.to_owned(),
            door,
            shift,
            ledger: Mutex::default(),
        };
        let services = SpanDoor::ALL.iter().zip(0..);
        let run = Arc::new(Run {
            id: seed,
            addresses: appliance.addresses(),
            streams: vec![
                stream("pa", LogDoor::LokiProtobuf, 0),
                stream("pb", LogDoor::LokiProtobuf, -DAY),
                stream("pc", LogDoor::LokiProtobuf, 0),
                stream("ja", LogDoor::LokiJson, 0),
                stream("jb", LogDoor::LokiJson, -DAY),
                stream("zip", LogDoor::LokiJsonGzip, 0),
                stream("oa", LogDoor::LokiOtlp, 0),
                stream("ob", LogDoor::OtlpHttp, 0),
                stream("oc", LogDoor::OtlpGrpc, 0),
            ],
            file: stream("file", LogDoor::File, 0),
            services: services
                .map(|(door, number)| Service {
                    name: format!("crash-{number}"),
                    door: *door,
                    number,
                    ledger: Mutex::default(),
                })
                .collect(),
            archived: Mutex::default(),
            stop: AtomicBool::new(false),
            complaints: Mutex::default(),
            pushes: AtomicU64::new(0),
            pace: load.pace,
        });
        let mut random = StdRng::seed_from_u64(seed);
        let mut threads = Vec::new();
        let mut spawn = |work: Sender| {
            let (run, seed) = (run.clone(), random.random());
            threads.push(std::thread::spawn(move || work(&run, seed)));
        };
        for mine in [&[0, 1][..], &[2], &[3, 4], &[5], &[6], &[7], &[8]] {
            spawn(Box::new(move |run, seed| run.push_lines(mine, seed)));
        }
        for number in 0..run.services.len() {
            spawn(Box::new(move |run, seed| {
                run.export_spans(&run.services[number], seed);
            }));
        }
        let followed = appliance.dir().join("logs/followed.log");
        spawn(Box::new(move |run, seed| run.write_file(&followed, seed)));
        spawn(Box::new(|run, seed| run.archive(seed)));
        if load.flushes {
            spawn(Box::new(|run, seed| run.flush_at_times(seed)));
        }
        Self { run, threads }
    }

    /// Ends all senders; complains when one was told something that it should not be.
    pub fn stop(self) -> Arc<Run> {
        self.run.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a sender");
        }
        let complaints = std::mem::take(&mut *locked(&self.run.complaints));
        assert!(complaints.is_empty(), "senders were told: {complaints:?}");
        self.run
    }
}

impl Run {
    fn address(&self, key: &str) -> Option<std::net::SocketAddr> {
        locked(&self.addresses).get(key).copied()
    }

    fn going_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn complain(&self, text: String) {
        locked(&self.complaints).push(text);
    }

    /// The process is gone: what was sent until now is old.
    pub fn mark(&self) {
        for ledger in self.ledgers() {
            let mut ledger = locked(ledger);
            ledger.old = ledger.fates.len();
        }
    }

    /// All ledgers but the followed file's.
    fn ledgers(&self) -> impl Iterator<Item = &Mutex<Ledger>> {
        let streams = self.streams.iter().map(|s| &s.ledger);
        streams.chain(self.services.iter().map(|s| &s.ledger))
    }

    /// Lines and traces that were sent, and those of them that were acknowledged; what the
    /// archive must hold.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for stream in self.streams.iter().chain([&self.file]) {
            let ledger = locked(&stream.ledger);
            counts.sent_lines += ledger.fates.len();
            counts.lines += ledger.acknowledged();
            counts.given += ledger.fates.iter().filter(|f| **f == Fate::Given).count();
        }
        for service in &self.services {
            let ledger = locked(&service.ledger);
            counts.sent_traces += ledger.fates.len();
            counts.traces += ledger.acknowledged();
            counts.given += ledger.fates.iter().filter(|f| **f == Fate::Given).count();
        }
        counts.archived = locked(&self.archived).len();
        counts.pushes = self.pushes.load(Ordering::Relaxed);
        counts
    }

    /// Doors through which something was acknowledged.
    pub fn doors(&self) -> Vec<String> {
        let mut doors: Vec<String> = Vec::new();
        for stream in self.streams.iter().chain([&self.file]) {
            if locked(&stream.ledger).acknowledged() > 0 {
                doors.push(format!("{:?}", stream.door));
            }
        }
        for service in &self.services {
            if locked(&service.ledger).acknowledged() > 0 {
                doors.push(format!("{:?}", service.door));
            }
        }
        if !locked(&self.archived).is_empty() {
            doors.push("Archive".into());
        }
        doors.dedup();
        doors
    }
}

/// Figures of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub sent_lines: usize,
    pub lines: usize,
    pub sent_traces: usize,
    pub traces: usize,
    pub archived: usize,
    /// Acknowledged with durability `flush` and lost within its promise.
    pub given: usize,
    pub pushes: u64,
}

/// The text of a line: what finds it by its number, a word that no other line has, and
/// something to compress.
fn line(run: u64, stream: &str, number: usize) -> String {
    let mut random = StdRng::seed_from_u64(run ^ number as u64 ^ (stream.len() as u64) << 40);
    let words = [
        "GET",
        "POST",
        "connection",
        "refused",
        "déjà",
        "took",
        "upstream",
        "42ms",
    ];
    let mut text = format!("{} {};", needle(run, stream, number), word(stream, number));
    for _ in 0..random.random_range(0..30) {
        text.push(' ');
        text.push_str(words[random.random_range(0..words.len())]);
    }
    text
}

fn needle(run: u64, stream: &str, number: usize) -> String {
    format!("seq={run:x}-{stream}-{number};")
}

/// A word of letters alone, unlike a number found by the index of words.
fn word(stream: &str, number: usize) -> String {
    let letters = stream
        .bytes()
        .filter(u8::is_ascii_lowercase)
        .map(char::from);
    let mut word: String = letters.collect();
    let mut rest = number;
    for _ in 0..5 {
        word.push(char::from(b'a' + (rest % 26) as u8));
        rest /= 26;
    }
    word
}

/// Number of a line, if it is one of the stream's and just as it was sent.
fn number_of(run: u64, stream: &str, text: &str) -> Option<usize> {
    let rest = text.strip_prefix(&format!("seq={run:x}-{stream}-"))?;
    let number = rest.split_once(';')?.0.parse().ok()?;
    (line(run, stream, number) == text).then_some(number)
}

fn trace_id(run: u64, service: u64, number: usize) -> u128 {
    u128::from(run) << 64 | u128::from(service) << 48 | number as u128
}

fn spans_of(run: u64, service: &Service, number: usize, start: i64) -> Vec<SentSpan> {
    let span = |n: u64| (number as u64) << 8 | n;
    // What is written span by span is acknowledged span by span.
    let spans = match service.door {
        SpanDoor::StorageV1 => 1,
        _ => 1 + number as u64 % 4,
    };
    (0..spans)
        .map(|n| SentSpan {
            trace: trace_id(run, service.number, number),
            span: span(n + 1),
            parent: if n == 0 { 0 } else { span(1) },
            name: format!("op-{}", number % 5),
            start: start + n as i64 * 1000,
            seq: number.to_string(),
        })
        .collect()
}

/// The seed of a test: `SEED`, or the clock.
pub fn seed() -> u64 {
    let given = std::env::var("SEED")
        .ok()
        .map(|s| s.parse().expect("SEED is a number"));
    given.unwrap_or_else(|| now() as u64 % 1_000_000_000)
}
