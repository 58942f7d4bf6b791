//! The loop of the thread: look up names, read what grew, hand it on, repeat.
//!
//! Names and handles are kept apart. A look at the names (a *sweep*) opens what is new and
//! notes which open files have lost their name; reading only ever uses open handles. So a
//! file renamed or deleted between two sweeps loses nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::batch::{Advance, BATCH_BYTES, Batch, Stream};
use super::discover::{Found, PatternError, Patterns};
use super::position::{FORGOTTEN, FileId, FilePosition, PositionKey, Positions};
use super::read::{Look, Reader};
use super::{FileSink, FilesMetrics, FilesOptions, FollowOptions, StartAt};
use crate::ingest::refusal::{Refusal, RefusalKind};
use crate::model::{Labels, LogBatch};
use crate::runtime::clock::Clock;

/// Between two looks without a hint, when the kernel gives none at all.
const POLL_WITHOUT_HINTS: Duration = Duration::from_millis(250);
/// First wait after a refusal; doubles up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// A sweep takes at most this share of the time: slow trees are looked at less often.
const SWEEP_SHARE: u32 = 20;
/// More files than this are not followed: each costs a handle.
const FILES_MAX: usize = 10_000;
/// Directories watched for hints; the rest is found by sweeps.
const WATCHES_MAX: usize = 1_000;
/// Names noted by the watcher until the next round.
const HINTS_MAX: usize = 1_000;
/// Looks at the names, at most, until two agree.
const SETTLE_LOOKS: usize = 5;
/// So often a file not found under its name ends a sweep; then it is passed over.
const MOVED_MAX: u32 = 10;
/// A file that can't be opened is tried again this often.
const REOPEN_AFTER: Duration = Duration::from_secs(5);
/// A file that looks like the copy made by copytruncate waits this long for the truncation.
const COPY_PATIENCE: Duration = Duration::from_secs(60);
/// Shorter beginnings say too little to call a file a copy.
const COPY_HEAD_MIN: u32 = 16;
/// Truncations remembered, to recognise the copies that belong to them.
const TRUNCATIONS_KEPT: usize = 1_000;
/// Positions of files gone for so long are dropped.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often to look for those.
const FORGET_EVERY: Duration = Duration::from_secs(3600);

/// A `[[files]]` table, ready for use.
pub struct Target {
    patterns: Patterns,
    labels: Labels,
    start: StartAt,
    /// Names the table in positions. Only labels count, so that paths can be added without
    /// reading everything again.
    key: u64,
}

impl Target {
    pub fn new(options: &FilesOptions) -> Result<Self, PatternError> {
        let labels = Labels::from_pairs(
            options
                .labels
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        Ok(Self {
            patterns: Patterns::new(&options.paths, &options.exclude)?,
            key: xxh3_64(labels.to_string().as_bytes()),
            labels,
            start: options.start,
        })
    }
}

/// What the thread is given.
pub struct Parts<S> {
    pub targets: Vec<Target>,
    pub options: FollowOptions,
    pub sink: Arc<S>,
    pub clock: Clock,
    pub metrics: FilesMetrics,
    pub runtime: tokio::runtime::Handle,
    pub stop: Arc<AtomicBool>,
    pub wake: SyncSender<()>,
    pub woken: Receiver<()>,
}

impl<S: FileSink> Parts<S> {
    /// Follows files until it is told to stop.
    pub fn run(self) {
        raise_handle_limit();
        let hints = Arc::new(Mutex::new(Hints::default()));
        let watcher = watcher(hints.clone(), self.wake.clone());
        let known: Positions = {
            let mut known = Positions::default();
            known.extend(self.sink.positions());
            known
        };
        let old_tables: HashSet<u64> = known.iter().map(|p| p.target).collect();
        let now = Instant::now();
        Follow {
            first_start: self
                .targets
                .iter()
                .map(|t| !old_tables.contains(&t.key))
                .collect(),
            known,
            files: BTreeMap::new(),
            next_file: 0,
            streams: HashMap::new(),
            truncations: VecDeque::new(),
            copies: HashMap::new(),
            unreadable: HashMap::new(),
            watched: HashSet::new(),
            hints,
            watcher,
            buffer: vec![0; BATCH_BYTES.max(self.options.max_line_size + 1)],
            batch: Batch::default(),
            next_sweep: now,
            next_hinted_sweep: now,
            next_forget: now + FORGET_EVERY,
            swept_once: false,
            moved: 0,
            parts: self,
        }
        .run();
    }
}

/// Something that ends the loop.
struct Stopped;

/// What the kernel said since the last round.
#[derive(Default)]
struct Hints {
    /// Names that appeared, vanished or moved.
    names: Vec<PathBuf>,
    /// Hints were lost: look at everything.
    overflow: bool,
}

/// One open file.
struct Followed {
    target: usize,
    /// The name it had when first seen.
    path: PathBuf,
    reader: Reader,
    stream: Rc<Stream>,
    /// Since when no name of a table leads to it, and when it last grew.
    lost: Option<Instant>,
    grew: Instant,
    failed: bool,
}

/// A truncation that was noticed: a copy of what was there continues at `offset`.
struct Truncation {
    target: usize,
    path: PathBuf,
    was: FileId,
    offset: u64,
}

struct Follow<S> {
    parts: Parts<S>,
    /// Acknowledged positions, of followed files and of those that are gone.
    known: Positions,
    /// By order of opening, which is the order in which files of one stream are read (F4).
    files: BTreeMap<u64, Followed>,
    next_file: u64,
    streams: HashMap<(usize, PathBuf), Rc<Stream>>,
    truncations: VecDeque<Truncation>,
    copies: HashMap<PositionKey, Instant>,
    unreadable: HashMap<(usize, PathBuf), Instant>,
    first_start: Vec<bool>,
    watched: HashSet<PathBuf>,
    hints: Arc<Mutex<Hints>>,
    watcher: Option<RecommendedWatcher>,
    buffer: Vec<u8>,
    batch: Batch,
    next_sweep: Instant,
    next_hinted_sweep: Instant,
    next_forget: Instant,
    swept_once: bool,
    /// Sweeps in a row that ended because names were moving.
    moved: u32,
}

impl<S: FileSink> Follow<S> {
    fn run(&mut self) {
        loop {
            let round = Instant::now();
            if self.is_stopped() || self.round().is_err() {
                return;
            }
            let poll = match self.watcher {
                Some(_) => self.next_sweep,
                None => self.next_sweep.min(round + POLL_WITHOUT_HINTS),
            };
            let rest = poll.saturating_duration_since(Instant::now());
            match self.parts.woken.recv_timeout(rest) {
                Ok(()) => std::thread::sleep(self.parts.options.gather),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.parts.stop.load(Ordering::SeqCst)
    }

    /// Reads everything there is to read.
    fn round(&mut self) -> Result<(), Stopped> {
        loop {
            self.sweep_if_due();
            let more = self.pass()?;
            if !more {
                self.send()?;
                self.drop_lost();
                self.forget_gone()?;
                return Ok(());
            }
        }
    }

    /// Gives each file one turn; tells whether any has more.
    fn pass(&mut self) -> Result<bool, Stopped> {
        let mut any_more = false;
        let mut behind = HashSet::new();
        let ids: Vec<u64> = self.files.keys().copied().collect();
        for id in ids {
            if self.is_stopped() {
                return Err(Stopped);
            }
            let Some(file) = self.files.get(&id) else {
                continue;
            };
            let stream = file.stream.id;
            // An older file of the same stream has more: first that one (F4).
            if behind.contains(&stream) {
                any_more = true;
                continue;
            }
            if self.turn(id)? {
                behind.insert(stream);
                any_more = true;
            }
        }
        Ok(any_more)
    }

    /// One look at one file; tells whether it has more.
    fn turn(&mut self, id: u64) -> Result<bool, Stopped> {
        let Some(file) = self.files.get_mut(&id) else {
            return Ok(false);
        };
        let look = match file.reader.look(&mut self.buffer) {
            Ok(look) => {
                file.failed = false;
                look
            }
            Err(error) => {
                if !std::mem::replace(&mut file.failed, true) {
                    tracing::warn!(path = %file.path.display(), %error, "reading failed");
                }
                return Ok(false);
            }
        };
        match look {
            Look::Nothing => Ok(false),
            Look::Searching => Ok(true),
            Look::Lines { len, end, more } => {
                file.grew = Instant::now();
                if self.batch.is_full_for(len) {
                    // `buffer` keeps the lines meanwhile: sending never reads.
                    self.send()?;
                }
                let Some(file) = self.files.get_mut(&id) else {
                    return Ok(false);
                };
                let now = self.parts.clock.now();
                let max = self.parts.options.max_line_size;
                let skipped = self
                    .batch
                    .push_lines(&file.stream, &self.buffer[..len], now, max);
                file.reader.advance(end);
                let identity = file.reader.id;
                self.batch.advance(Advance {
                    file: id,
                    identity,
                    offset: end,
                });
                self.count_skipped(id, skipped);
                Ok(more)
            }
            Look::Skipped { end } => {
                file.grew = Instant::now();
                file.reader.advance(end);
                let identity = file.reader.id;
                self.batch.advance(Advance {
                    file: id,
                    identity,
                    offset: end,
                });
                self.count_skipped(id, 1);
                Ok(true)
            }
            Look::Truncated { was, offset } => {
                tracing::info!(path = %file.path.display(), offset, "file was truncated; reading from its beginning");
                self.parts.metrics.truncations.inc();
                let truncation = Truncation {
                    target: file.target,
                    path: file.path.clone(),
                    was,
                    offset,
                };
                let identity = file.reader.id;
                self.batch.advance(Advance {
                    file: id,
                    identity,
                    offset: 0,
                });
                self.remember(truncation);
                Ok(true)
            }
        }
    }

    fn remember(&mut self, truncation: Truncation) {
        if self.truncations.len() >= TRUNCATIONS_KEPT {
            self.truncations.pop_front();
        }
        self.truncations.push_back(truncation);
    }

    fn count_skipped(&self, id: u64, skipped: u64) {
        if skipped > 0 {
            self.parts.metrics.skipped_long.inc_by(skipped);
            if let Some(file) = self.files.get(&id) {
                tracing::warn!(path = %file.path.display(), skipped,
                    max_line_size = self.parts.options.max_line_size, "lines too long were skipped");
            }
        }
    }

    // ---- handing on

    /// Hands the batch to the sink and waits until it is taken.
    fn send(&mut self) -> Result<(), Stopped> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let (batch, advances) = std::mem::take(&mut self.batch).finish();
        let at = self.parts.clock.now();
        let position = |a: &Advance| {
            let file = self.files.get(&a.file)?;
            Some(FilePosition {
                target: self.parts.targets[file.target].key,
                identity: a.identity,
                path: file.path.clone(),
                offset: a.offset,
                at,
            })
        };
        let positions: Vec<FilePosition> = advances.iter().filter_map(position).collect();
        self.deliver(batch, positions)
    }

    fn deliver(&mut self, batch: LogBatch, positions: Vec<FilePosition>) -> Result<(), Stopped> {
        let (lines, bytes) = (batch.entry_count() as u64, batch.line_bytes());
        match self.offer(&batch, &positions)? {
            Ok(()) => {
                self.parts.metrics.lines.inc_by(lines);
                self.parts.metrics.bytes.inc_by(bytes);
            }
            Err(refusal) => {
                tracing::warn!(lines, reason = refusal.reason, "lines refused: {refusal}");
                self.parts.metrics.refused.inc_by(lines);
                // The lines are lost either way; the position keeps them from coming back.
                if let Err(refusal) = self.offer(&LogBatch::default(), &positions)? {
                    tracing::warn!(reason = refusal.reason, "positions refused: {refusal}");
                }
            }
        }
        self.known.extend(positions);
        Ok(())
    }

    /// Offers a batch until it is taken or refused for good. Names are looked up meanwhile,
    /// so that a file rotated now is opened before its name is gone.
    fn offer(
        &mut self,
        batch: &LogBatch,
        positions: &[FilePosition],
    ) -> Result<Result<(), Refusal>, Stopped> {
        let mut wait = RETRY_FIRST;
        loop {
            let sink = self.parts.sink.clone();
            let runtime = self.parts.runtime.clone();
            let mut answer = pin!(sink.append_lines(batch.clone(), positions.to_vec()));
            let answer = loop {
                let patience = Duration::from_millis(200);
                let timed = runtime
                    .block_on(async { tokio::time::timeout(patience, answer.as_mut()).await });
                match timed {
                    Ok(answer) => break answer,
                    Err(_) if self.is_stopped() => return Err(Stopped),
                    Err(_) => self.sweep_if_due(),
                }
            };
            let refusal = match answer {
                Ok(()) => return Ok(Ok(())),
                Err(refusal) => refusal,
            };
            match refusal.kind {
                RefusalKind::Invalid | RefusalKind::TooLarge => return Ok(Err(refusal)),
                RefusalKind::Limited | RefusalKind::Unavailable => {}
            }
            self.parts.metrics.retries.inc();
            if wait == RETRY_FIRST {
                tracing::warn!(reason = refusal.reason, "lines wait: {refusal}");
            }
            let until = Instant::now() + wait;
            while Instant::now() < until {
                if self.is_stopped() {
                    return Err(Stopped);
                }
                self.sweep_if_due();
                let rest = until.saturating_duration_since(Instant::now());
                std::thread::sleep(rest.min(Duration::from_millis(50)));
            }
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    // ---- names

    fn sweep_if_due(&mut self) {
        let hints = std::mem::take(&mut *self.hints.lock());
        let hinted = hints.overflow
            || hints.names.iter().any(|name| {
                self.parts.targets.iter().any(|t| t.patterns.matches(name))
                    || self.files.values().any(|f| f.path == *name)
            });
        let began = Instant::now();
        if began >= self.next_sweep || (hinted && began >= self.next_hinted_sweep) {
            self.sweep();
            let ended = Instant::now();
            let pause = (ended - began) * SWEEP_SHARE;
            self.next_hinted_sweep = ended + pause;
            self.next_sweep = ended + pause.max(self.parts.options.look_every);
        }
    }

    /// The names as they are. A rotation under way may hide a file from one look; so where
    /// there is something to open, two looks have to agree.
    fn settled_names(&self) -> (Names, BTreeSet<PathBuf>) {
        let open: HashSet<PositionKey> = self
            .files
            .values()
            .map(|f| key_of(&self.parts.targets, f))
            .collect();
        let (mut names, mut directories) = self.names();
        for _ in 0..SETTLE_LOOKS {
            if names.keys().all(|key| open.contains(key)) {
                break;
            }
            let before = names;
            (names, directories) = self.names();
            let same = |(key, name): (&PositionKey, &Name)| {
                before.get(key).is_some_and(|b| b.path == name.path)
            };
            if before.len() == names.len() && names.iter().all(same) {
                break;
            }
        }
        (names, directories)
    }

    fn names(&self) -> (Names, BTreeSet<PathBuf>) {
        let mut directories = BTreeSet::new();
        let mut names = Names::new();
        for (target, table) in self.parts.targets.iter().enumerate() {
            let mut found = Found::default();
            table.patterns.find(&mut found);
            directories.append(&mut found.directories);
            for path in found.files {
                let Ok(meta) = fs::metadata(&path) else {
                    continue;
                };
                let key = PositionKey {
                    target: table.key,
                    dev: meta.dev(),
                    ino: meta.ino(),
                };
                let modified = (meta.mtime(), meta.mtime_nsec());
                // Two names of one file (a link): the first in the order of names counts.
                names.entry(key).or_insert(Name {
                    target,
                    path,
                    modified,
                });
            }
        }
        (names, directories)
    }

    /// Looks up all names: opens what is new, notes what lost its name.
    fn sweep(&mut self) {
        let (named, directories) = self.settled_names();
        let now = Instant::now();
        let mut open = HashSet::new();
        for file in self.files.values_mut() {
            let key = key_of(&self.parts.targets, file);
            open.insert(key);
            if named.contains_key(&key) {
                file.lost = None;
            } else {
                file.lost.get_or_insert(now);
            }
        }
        if !self.swept_once {
            self.find_renamed(&named);
        }
        // Files that were read before first: what they were decides what a copy is.
        let mut order: Vec<_> = named
            .iter()
            .filter(|(key, _)| !open.contains(key))
            .collect();
        order.sort_by_key(|(key, name)| (self.known.get(key).is_none(), &name.path));
        let mut opened = Vec::new();
        for (key, name) in order {
            if self.open(name, *key, &mut opened) {
                self.moved = 0;
            } else if self.moved < MOVED_MAX {
                // Names are moving: what is opened now could overtake what was not found,
                // which may be older. So none of it counts; the next sweep opens it.
                self.moved += 1;
                for Opened { file, .. } in opened.drain(..) {
                    self.files.remove(&file);
                }
                self.hints.lock().overflow = true;
                let _ = self.parts.wake.try_send(()); // full: it is about to look anyway
                break;
            }
        }
        self.put_in_order(opened);
        self.unreadable.retain(|(target, path), _| {
            named
                .values()
                .any(|n| n.target == *target && n.path == *path)
        });
        self.copies.retain(|key, _| named.contains_key(key));
        self.streams
            .retain(|_, stream| Rc::strong_count(stream) > 1);
        self.watch(directories);
        if !self.swept_once {
            self.swept_once = true;
            self.first_start.iter_mut().for_each(|first| *first = false);
        }
        self.parts.metrics.followed.set(self.files.len() as i64);
        self.parts
            .metrics
            .unreadable
            .set(self.unreadable.len() as i64);
        let behind = |f: &Followed| {
            Some(
                f.reader
                    .metadata()
                    .ok()?
                    .len()
                    .saturating_sub(f.reader.offset) as i64,
            )
        };
        self.parts
            .metrics
            .behind_bytes
            .set(self.files.values().filter_map(behind).sum());
    }

    /// Files renamed to names that no table means while we were not running: what is behind
    /// their position would be lost. They are in the directory where they were.
    fn find_renamed(&mut self, named: &Names) {
        let mut wanted: HashMap<PathBuf, Vec<(usize, FilePosition)>> = HashMap::new();
        for position in self.known.iter() {
            let table = self
                .parts
                .targets
                .iter()
                .position(|t| t.key == position.target);
            let (Some(table), Some(parent)) = (table, position.path.parent()) else {
                continue;
            };
            if position.identity.fingerprint_len > 0 && !named.contains_key(&position.key()) {
                wanted
                    .entry(parent.into())
                    .or_default()
                    .push((table, position.clone()));
            }
        }
        let mut found = Vec::new();
        for (directory, positions) in wanted {
            let entries = fs::read_dir(&directory).into_iter().flatten();
            for entry in entries.filter_map(Result::ok) {
                let Ok(meta) = entry.metadata() else { continue };
                for (target, position) in &positions {
                    let id = position.identity;
                    let same = meta.is_file() && (id.dev, id.ino) == (meta.dev(), meta.ino());
                    if !same || meta.len() <= position.offset {
                        continue;
                    }
                    let Ok((mut reader, head)) = Reader::open(&entry.path()) else {
                        continue;
                    };
                    if id.matches_head(&head) {
                        reader.start_at(position.offset);
                        let modified = (meta.mtime(), meta.mtime_nsec());
                        found.push((modified, *target, position.path.clone(), reader));
                    }
                }
            }
        }
        found.sort_by_key(|(modified, ..)| *modified);
        for (_, target, path, reader) in found {
            self.follow(target, path, reader, Some(Instant::now()));
        }
    }

    /// Follows a file if it can be; false when the name leads to another file by now.
    fn open(&mut self, name: &Name, key: PositionKey, opened: &mut Vec<Opened>) -> bool {
        let place = (name.target, name.path.clone());
        if self
            .unreadable
            .get(&place)
            .is_some_and(|last| last.elapsed() < REOPEN_AFTER)
        {
            return true;
        }
        if self.files.len() >= FILES_MAX {
            self.cannot_open(
                place,
                &io::Error::other("too many files are followed already"),
            );
            return true;
        }
        let (mut reader, head) = match Reader::open(&place.1) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return false,
            Err(error) => {
                self.cannot_open(place, &error);
                return true;
            }
        };
        self.unreadable.remove(&place);
        let (target, path) = place;
        if (reader.id.dev, reader.id.ino) != (key.dev, key.ino) {
            return false;
        }
        match self.beginning(target, &path, key, &reader, &head) {
            Ok(Beginning::At {
                offset,
                path,
                is_new,
            }) => {
                reader.start_at(offset);
                let identity = reader.id;
                let age = match (is_new, path == name.path) {
                    (false, false) => Age::Renamed,
                    (false, true) => Age::Resumed,
                    (true, _) => Age::New,
                };
                let file = self.follow(target, path, reader, None);
                let moved = (is_new && offset > 0).then_some((identity, offset));
                opened.push(Opened {
                    age,
                    modified: name.modified,
                    file,
                    moved,
                });
            }
            Ok(Beginning::Later) => {}
            Err(error) => self.cannot_open((target, path), &error),
        }
        true
    }

    /// Numbers the files of one sweep by age: what is older is read first (F4).
    fn put_in_order(&mut self, mut opened: Vec<Opened>) {
        opened.sort_by_key(|o| (o.age, o.modified));
        for Opened { file, moved, .. } in opened {
            let Some(followed) = self.files.remove(&file) else {
                continue;
            };
            let file = self.next_file;
            self.next_file += 1;
            self.files.insert(file, followed);
            if let Some((identity, offset)) = moved {
                self.batch.advance(Advance {
                    file,
                    identity,
                    offset,
                });
            }
        }
    }

    fn cannot_open(&mut self, place: (usize, PathBuf), error: &io::Error) {
        let path = place.1.display().to_string();
        if self.unreadable.insert(place, Instant::now()).is_none() {
            tracing::warn!(path, %error, "file can't be followed; trying again");
        }
    }

    fn follow(
        &mut self,
        target: usize,
        path: PathBuf,
        reader: Reader,
        lost: Option<Instant>,
    ) -> u64 {
        let labels = &self.parts.targets[target].labels;
        let stream = self
            .streams
            .entry((target, path.clone()))
            .or_insert_with(|| Rc::new(Stream::new(labels, &path)))
            .clone();
        tracing::debug!(path = %path.display(), offset = reader.offset, "following");
        let id = self.next_file;
        self.next_file += 1;
        let grew = Instant::now();
        let file = Followed {
            target,
            path,
            reader,
            stream,
            lost,
            grew,
            failed: false,
        };
        self.files.insert(id, file);
        id
    }

    /// Where to begin with a file that is not followed yet, and under which name.
    fn beginning(
        &mut self,
        target: usize,
        path: &Path,
        key: PositionKey,
        reader: &Reader,
        head: &[u8],
    ) -> io::Result<Beginning> {
        let size = reader.metadata()?.len();
        let fits = |p: &FilePosition| {
            p.identity.fingerprint_len > 0 && p.identity.matches_head(head) && p.offset <= size
        };
        if let Some(known) = self.known.get(&key).cloned() {
            if fits(&known) {
                return Ok(Beginning::At {
                    offset: known.offset,
                    path: known.path,
                    is_new: false,
                });
            }
            // Truncated or replaced while nobody looked: a copy may hold the rest.
            if known.identity.fingerprint_len > 0 {
                self.remember(Truncation {
                    target,
                    path: known.path,
                    was: known.identity,
                    offset: known.offset,
                });
            }
        } else if let Some(known) = self.known_otherwise(key, path, &fits) {
            return Ok(Beginning::At {
                offset: known,
                path: path.into(),
                is_new: true,
            });
        } else if let Some(copy) = self.copy_of(target, path, key, reader, head)? {
            return Ok(copy);
        }
        let at_end = self.first_start[target] && self.parts.targets[target].start == StartAt::End;
        let offset = if at_end { reader.last_line_end()? } else { 0 };
        Ok(Beginning::At {
            offset,
            path: path.into(),
            is_new: true,
        })
    }

    /// The offset of this file if it is known under another key: its table's labels were
    /// changed, or its device has another number since the last boot.
    fn known_otherwise(
        &self,
        key: PositionKey,
        path: &Path,
        fits: &dyn Fn(&FilePosition) -> bool,
    ) -> Option<u64> {
        let is_same = |p: &&FilePosition| {
            let relabelled =
                p.identity.dev == key.dev && !self.parts.targets.iter().any(|t| t.key == p.target);
            let remounted = p.target == key.target && p.path == path;
            p.identity.ino == key.ino && (relabelled || remounted) && fits(p)
        };
        self.known.iter().filter(is_same).map(|p| p.offset).max()
    }

    /// Whether the file is the copy that copytruncate made of one we follow: same
    /// beginning, and a name that goes on where the other ends (`app.log.1`).
    fn copy_of(
        &mut self,
        target: usize,
        path: &Path,
        key: PositionKey,
        reader: &Reader,
        head: &[u8],
    ) -> io::Result<Option<Beginning>> {
        let size = reader.metadata()?.len();
        let is_copy = |original: &Path, id: &FileId| {
            id.fingerprint_len >= COPY_HEAD_MIN
                && extends_name(path, original)
                && id.matches_head(head)
        };
        let truncation = self
            .truncations
            .iter()
            .rev()
            .find(|t| t.target == target && t.offset <= size && is_copy(&t.path, &t.was));
        if let Some(t) = truncation {
            let (offset, path) = (t.offset, t.path.clone());
            self.copies.remove(&key);
            return Ok(Some(Beginning::At {
                offset,
                path,
                is_new: true,
            }));
        }
        let is_live = |f: &Followed| f.target == target && is_copy(&f.path, &f.reader.id);
        if !self.files.values().any(is_live) {
            return Ok(None);
        }
        let since = *self.copies.entry(key).or_insert_with(Instant::now);
        if since.elapsed() < COPY_PATIENCE {
            return Ok(Some(Beginning::Later));
        }
        // Just a copy: what is in it was read from the original.
        self.copies.remove(&key);
        let offset = reader.last_line_end()?;
        Ok(Some(Beginning::At {
            offset,
            path: path.into(),
            is_new: true,
        }))
    }

    /// Closes files that have no name, nothing more to read and have been quiet.
    fn drop_lost(&mut self) {
        let linger = self.parts.options.linger;
        self.files.retain(|_, file| {
            let Some(lost) = file.lost else { return true };
            let quiet = lost.elapsed().min(file.grew.elapsed()) >= linger;
            !quiet || file.reader.has_changed().unwrap_or(false)
        });
    }

    /// Removes the positions of files that are long gone.
    fn forget_gone(&mut self) -> Result<(), Stopped> {
        if Instant::now() < self.next_forget {
            return Ok(());
        }
        self.next_forget = Instant::now() + FORGET_EVERY;
        let before = self
            .parts
            .clock
            .now()
            .saturating_sub(i64::try_from(FORGET_AFTER.as_nanos()).unwrap_or(i64::MAX));
        let open: HashSet<PositionKey> = self
            .files
            .values()
            .map(|f| key_of(&self.parts.targets, f))
            .collect();
        let gone: Vec<FilePosition> = self
            .known
            .iter()
            .filter(|p| p.at < before && !open.contains(&p.key()) && !p.path.exists())
            .map(|p| FilePosition {
                offset: FORGOTTEN,
                ..p.clone()
            })
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        tracing::debug!(files = gone.len(), "forgetting files that are gone");
        self.deliver(LogBatch::default(), gone)
    }

    fn watch(&mut self, directories: BTreeSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        self.watched.retain(|directory| {
            let keep = directories.contains(directory);
            if !keep {
                // Fails when the directory is gone, and then there is nothing to do.
                let _ = watcher.unwatch(directory);
            }
            keep
        });
        for directory in directories {
            if self.watched.len() >= WATCHES_MAX {
                break;
            }
            if !self.watched.contains(&directory)
                && watcher
                    .watch(&directory, RecursiveMode::NonRecursive)
                    .is_ok()
            {
                self.watched.insert(directory);
            }
        }
    }
}

/// One of the names of a file.
struct Name {
    target: usize,
    path: PathBuf,
    /// When the file was last written to, seconds and nanoseconds.
    modified: (i64, i64),
}

/// A file opened in the sweep that goes on.
struct Opened {
    age: Age,
    modified: (i64, i64),
    file: u64,
    /// Where it begins, if nobody knows yet and it is not its first byte.
    moved: Option<(FileId, u64)>,
}

/// Of the files of one stream, the order of their lines.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    /// Read before, under a name it no longer has.
    Renamed,
    Resumed,
    New,
}

/// For each file of each table, one of its names.
type Names = HashMap<PositionKey, Name>;

enum Beginning {
    At {
        offset: u64,
        path: PathBuf,
        /// There is no position of it yet.
        is_new: bool,
    },
    /// Not yet clear; ask again at the next sweep.
    Later,
}

fn key_of(targets: &[Target], file: &Followed) -> PositionKey {
    let id = file.reader.id;
    PositionKey {
        target: targets[file.target].key,
        dev: id.dev,
        ino: id.ino,
    }
}

fn extends_name(path: &Path, original: &Path) -> bool {
    let (Some(name), Some(begin)) = (path.file_name(), original.file_name()) else {
        return false;
    };
    let (name, begin) = (name.as_encoded_bytes(), begin.as_encoded_bytes());
    path.parent() == original.parent() && name.len() > begin.len() && name.starts_with(begin)
}

/// Hints from the kernel; without them (no inotify, or its limits reached) we poll.
fn watcher(hints: Arc<Mutex<Hints>>, wake: SyncSender<()>) -> Option<RecommendedWatcher> {
    let handler = move |event: notify::Result<notify::Event>| {
        let mut noted = hints.lock();
        match event {
            // Our own opening and reading shows up as access.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => return,
            Ok(event) => {
                noted.overflow |= event.need_rescan();
                let data = matches!(
                    event.kind,
                    EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_))
                );
                if !data {
                    if noted.names.len() + event.paths.len() > HINTS_MAX {
                        noted.overflow = true;
                    } else {
                        noted.names.extend(event.paths);
                    }
                }
            }
            Err(_) => noted.overflow = true,
        }
        drop(noted);
        let _ = wake.try_send(()); // full: it is about to look anyway
    };
    match notify::recommended_watcher(handler) {
        Ok(watcher) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, "no hints from the kernel; polling followed files");
            None
        }
    }
}

/// Each followed file holds a handle, and the usual soft limit is 1024.
fn raise_handle_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(65_536).min(65_536);
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "could not raise the limit of open files");
        }
    }
}
