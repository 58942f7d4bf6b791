//! What a directory is after a power cut: a model of what was done to it and what was synced,
//! from the log that `tests/torture/disk.c` writes below the process.
//!
//! The model knows less than a file system and trusts it less: a file's bytes are safe once the
//! file was synced, its name once the directory was. What was not synced may be there or not,
//! each page by itself; names that were not synced may be there up to some moment, since
//! journaling file systems keep their order, or not at all.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: u32 = 0x4b53_4944;
const HEADER: usize = 48;
/// A write is kept or lost in parts of this size.
const PAGE: u64 = 4096;

const O_CREAT: i64 = 0o100;
const O_TRUNC: i64 = 0o1000;
const FALLOC_FL_KEEP_SIZE: i64 = 1;

type Id = usize;
/// Number of a record: what was begun before a sync is safe after it.
type Position = u64;

#[derive(Clone)]
enum Change {
    Write(u64, Arc<[u8]>),
    Length(u64),
    AtLeast(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                let (from, to) = (*at as usize, *at as usize + data.len());
                if bytes.len() < to {
                    bytes.resize(to, 0);
                }
                bytes[from..to].copy_from_slice(data);
            }
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::AtLeast(length) => bytes.resize(bytes.len().max(*length as usize), 0),
        }
    }

    /// Its pages, each a write of its own.
    fn pages(&self) -> Vec<Self> {
        let Self::Write(at, data) = self else {
            return vec![self.clone()];
        };
        let mut pages = Vec::new();
        let mut from = 0;
        while from < data.len() {
            let place = at + from as u64;
            let page = (PAGE - place % PAGE) as usize;
            let to = data.len().min(from + page);
            pages.push(Self::Write(place, data[from..to].into()));
            from = to;
        }
        pages
    }
}

#[derive(Clone)]
enum Entry {
    Put(String, Id),
    Remove(String),
    /// Within a directory: both or nothing.
    Move(String, String, Id),
}

impl Entry {
    fn apply(&self, names: &mut BTreeMap<String, Id>) {
        match self {
            Self::Put(name, id) => drop(names.insert(name.clone(), *id)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Move(from, to, id) => {
                names.remove(from);
                names.insert(to.clone(), *id);
            }
        }
    }
}

enum Node {
    File {
        safe: Vec<u8>,
        now: Vec<u8>,
        changes: Vec<(Position, Change)>,
    },
    Directory {
        safe: BTreeMap<String, Id>,
        now: BTreeMap<String, Id>,
        changes: Vec<(Position, Entry)>,
    },
}

impl Node {
    fn directory() -> Self {
        Self::Directory {
            safe: BTreeMap::new(),
            now: BTreeMap::new(),
            changes: Vec::new(),
        }
    }
}

/// What a power cut leaves of names that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    Synced,
    All,
    /// All changes up to a moment, this part of 1000 of them.
    Until(u64),
}

/// What a power cut leaves of bytes that were not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bytes {
    Synced,
    All,
    /// Each page with this probability, of 1000.
    Some(u64),
}

/// A record of the log.
struct Record {
    kind: u32,
    number: i64,
    handle: i64,
    a: i64,
    b: i64,
    first: String,
    second: Vec<u8>,
}

/// A directory, as it is and as it is safe.
pub struct Disk {
    /// The directory, and where it lies.
    name: String,
    above: PathBuf,
    nodes: Vec<Node>,
    handles: HashMap<i64, Id>,
    syncs: HashMap<i64, (Id, Position)>,
    position: Position,
    /// Calls that were made to fail, or at which the process was killed: class and path.
    pub failed: Vec<String>,
    /// What the model cannot follow. It means nothing once there is something here.
    pub unclear: Vec<String>,
    /// Calls that count, of the latest process.
    pub calls: i64,
    /// Syncs that were seen, of all processes.
    pub synced: u64,
}

/// Of the directory above.
const TOP: Id = 0;

impl Disk {
    /// Everything that is in `root` counts as safe.
    pub fn of(root: &Path) -> Self {
        let above = root.parent().expect("a directory above").to_owned();
        let name = root.file_name().expect("a name");
        let mut disk = Self {
            name: name.to_string_lossy().into_owned(),
            above,
            nodes: vec![Node::directory()],
            handles: HashMap::new(),
            syncs: HashMap::new(),
            position: 0,
            failed: Vec::new(),
            unclear: Vec::new(),
            calls: 0,
            synced: 0,
        };
        if root.exists() {
            let id = disk.read(root);
            let entry = BTreeMap::from([(disk.name.clone(), id)]);
            disk.nodes[TOP] = Node::Directory {
                safe: entry.clone(),
                now: entry,
                changes: Vec::new(),
            };
        }
        disk
    }

    fn read(&mut self, path: &Path) -> Id {
        let node = if path.is_dir() {
            let mut names = BTreeMap::new();
            for entry in std::fs::read_dir(path).expect("a directory") {
                let entry = entry.expect("an entry");
                let id = self.read(&entry.path());
                names.insert(entry.file_name().to_string_lossy().into_owned(), id);
            }
            Node::Directory {
                safe: names.clone(),
                now: names,
                changes: Vec::new(),
            }
        } else {
            let bytes = std::fs::read(path).expect("a file");
            Node::File {
                safe: bytes.clone(),
                now: bytes,
                changes: Vec::new(),
            }
        };
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Takes what the log has; a last record that is torn was not done, as far as anybody knows.
    pub fn take(&mut self, log: &[u8]) {
        let mut rest = log;
        while let Some((record, after)) = decode(rest) {
            rest = after;
            self.position += 1;
            self.apply(record);
        }
    }

    fn apply(&mut self, record: Record) {
        self.calls = self.calls.max(record.number);
        let path = record.first.clone();
        match record.kind {
            1 => self.open(&path, record.handle, record.a),
            2 => self.change(
                record.handle,
                Change::Write(record.a as u64, record.second.into()),
            ),
            3 => self.change(record.handle, Change::Length(record.a as u64)),
            4 if record.a & FALLOC_FL_KEEP_SIZE != 0 => {}
            4 => self.change(record.handle, Change::AtLeast(record.b as u64)),
            5 => {
                if let Some(id) = self.handles.get(&record.handle) {
                    self.syncs.insert(record.a, (*id, self.position));
                }
            }
            6 => {
                if let Some((id, until)) = self.syncs.remove(&record.a) {
                    self.synced += 1;
                    self.sync(id, until);
                }
            }
            7 => self.rename(&path, &String::from_utf8_lossy(&record.second)),
            8 => self.entry(&path, |name, _| Some(Entry::Remove(name))),
            9 => {
                self.nodes.push(Node::directory());
                let id = self.nodes.len() - 1;
                self.entry(&path, |name, _| Some(Entry::Put(name, id)));
            }
            10 => {
                let linked = self.find(&path);
                let to = String::from_utf8_lossy(&record.second).into_owned();
                self.entry(&to, |name, _| linked.map(|id| Entry::Put(name, id)));
            }
            11 => self.failed.push(path),
            12 => self.unclear.push(path),
            13 => {
                self.handles.clear();
                self.syncs.clear();
                self.calls = 0;
            }
            kind => self.unclear.push(format!("record of kind {kind}")),
        }
    }

    fn open(&mut self, path: &str, handle: i64, flags: i64) {
        let id = match self.find(path) {
            Some(id) => {
                self.handles.insert(handle, id);
                if flags & O_TRUNC != 0 {
                    self.change(handle, Change::Length(0));
                }
                return;
            }
            None if flags & O_CREAT != 0 => {
                self.nodes.push(Node::File {
                    safe: Vec::new(),
                    now: Vec::new(),
                    changes: Vec::new(),
                });
                self.nodes.len() - 1
            }
            None => {
                return self
                    .unclear
                    .push(format!("opened {path}, which is not there"));
            }
        };
        self.entry(path, |name, _| Some(Entry::Put(name, id)));
        self.handles.insert(handle, id);
    }

    fn change(&mut self, handle: i64, change: Change) {
        let node = self.handles.get(&handle).map(|id| &mut self.nodes[*id]);
        let Some(Node::File { now, changes, .. }) = node else {
            return self.unclear.push(format!("a write to handle {handle}"));
        };
        change.apply(now);
        changes.push((self.position, change));
    }

    fn rename(&mut self, from: &str, to: &str) {
        let Some(id) = self.find(from) else {
            return self
                .unclear
                .push(format!("renamed {from}, which is not there"));
        };
        let (old, new) = (split(from), split(to));
        if old.0 == new.0 {
            self.entry(from, |name, _| {
                Some(Entry::Move(name, new.1.to_owned(), id))
            });
        } else {
            self.entry(to, |name, _| Some(Entry::Put(name, id)));
            self.entry(from, |name, _| Some(Entry::Remove(name)));
        }
    }

    /// Changes the directory of `path`.
    fn entry(&mut self, path: &str, entry: impl FnOnce(String, Id) -> Option<Entry>) {
        let (directory, name) = split(path);
        let parent = self.find(directory);
        let change = parent.and_then(|id| entry(name.to_owned(), id));
        let node = parent.map(|id| &mut self.nodes[id]);
        match (node, change) {
            (Some(Node::Directory { now, changes, .. }), Some(entry)) => {
                entry.apply(now);
                changes.push((self.position, entry));
            }
            _ => self.unclear.push(format!("nowhere to put {path}")),
        }
    }

    fn find(&self, path: &str) -> Option<Id> {
        let below = Path::new(path).strip_prefix(&self.above).ok()?;
        let mut id = TOP;
        for part in below {
            let Node::Directory { now, .. } = &self.nodes[id] else {
                return None;
            };
            id = *now.get(part.to_string_lossy().as_ref())?;
        }
        Some(id)
    }

    /// What was done before `until` is safe.
    fn sync(&mut self, id: Id, until: Position) {
        match &mut self.nodes[id] {
            Node::File { safe, changes, .. } => {
                for (_, change) in changes.extract_if(.., |(at, _)| *at < until) {
                    change.apply(safe);
                }
            }
            Node::Directory { safe, changes, .. } => {
                for (_, entry) in changes.extract_if(.., |(at, _)| *at < until) {
                    entry.apply(safe);
                }
            }
        }
    }

    /// Puts the directory as a power cut leaves it in its place; then everything in it is safe.
    /// `chance` is true with a probability of 1000.
    pub fn cut(&mut self, names: Names, bytes: Bytes, chance: &mut dyn FnMut(u64) -> bool) {
        let root = self.above.join(&self.name);
        if root.exists() {
            std::fs::remove_dir_all(&root).expect("the directory can be removed");
        }
        let pending = |node: &Node| match node {
            Node::Directory { changes, .. } => changes.iter().map(|(at, _)| *at).collect(),
            Node::File { .. } => Vec::new(),
        };
        let mut unsafe_names: Vec<Position> = self.nodes.iter().flat_map(pending).collect();
        unsafe_names.sort_unstable();
        let until = match names {
            Names::Synced => 0,
            Names::All => Position::MAX,
            Names::Until(part) => {
                let kept = unsafe_names.len() as u64 * part / 1000;
                unsafe_names
                    .get(kept as usize)
                    .copied()
                    .unwrap_or(Position::MAX)
            }
        };
        if let Some(id) = self.left_of(TOP, until).get(&self.name) {
            self.write(*id, &root, until, bytes, chance);
        }
        self.begin_anew();
    }

    /// Counts everything that is there as safe.
    pub fn begin_anew(&mut self) {
        let next = Self::of(&self.above.join(&self.name));
        self.nodes = next.nodes;
        self.handles.clear();
        self.syncs.clear();
    }

    /// Names of a directory after the cut.
    fn left_of(&self, id: Id, until: Position) -> BTreeMap<String, Id> {
        let Node::Directory { safe, changes, .. } = &self.nodes[id] else {
            return BTreeMap::new();
        };
        let mut names = safe.clone();
        for (_, entry) in changes.iter().filter(|(at, _)| *at < until) {
            entry.apply(&mut names);
        }
        names
    }

    fn write(
        &self,
        id: Id,
        path: &Path,
        until: Position,
        bytes: Bytes,
        chance: &mut dyn FnMut(u64) -> bool,
    ) {
        let Node::File { safe, changes, .. } = &self.nodes[id] else {
            std::fs::create_dir(path).expect("a directory");
            for (name, id) in self.left_of(id, until) {
                self.write(id, &path.join(name), until, bytes, chance);
            }
            return;
        };
        let mut left = safe.clone();
        for page in changes.iter().flat_map(|(_, change)| change.pages()) {
            let kept = match bytes {
                Bytes::Synced => false,
                Bytes::All => true,
                Bytes::Some(part) => chance(part),
            };
            if kept {
                page.apply(&mut left);
            }
        }
        std::fs::write(path, left).expect("a file");
    }

    /// Where the model is not what is on the disk: something was done that it did not see.
    pub fn differences(&self) -> Vec<String> {
        let mut found = Vec::new();
        if let Some(id) = self.find(&self.above.join(&self.name).to_string_lossy()) {
            self.compare(id, &self.above.join(&self.name), &mut found);
        }
        found
    }

    fn compare(&self, id: Id, path: &Path, found: &mut Vec<String>) {
        match &self.nodes[id] {
            Node::File { now, .. } => match std::fs::read(path) {
                Ok(bytes) if bytes == *now => {}
                Ok(bytes) => {
                    let (there, here) = (bytes.len(), now.len());
                    found.push(format!("{}: {there} bytes, not {here}", path.display()));
                }
                Err(error) => found.push(format!("{}: {error}", path.display())),
            },
            Node::Directory { now, .. } => {
                let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
                for entry in entries {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    if !now.contains_key(&name) {
                        found.push(format!("{}: not known", entry.path().display()));
                    }
                }
                for (name, id) in now {
                    self.compare(*id, &path.join(name), found);
                }
            }
        }
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn decode(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let header = bytes.get(..HEADER)?;
    let short = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four"));
    let long = |at: usize| i64::from_le_bytes(header[at..at + 8].try_into().expect("eight"));
    assert_eq!(short(0), MAGIC, "the log can be read");
    let (first, second) = (short(40) as usize, short(44) as usize);
    let texts = bytes.get(HEADER..HEADER + first + second)?;
    let record = Record {
        kind: short(4),
        number: long(8),
        handle: long(16),
        a: long(24),
        b: long(32),
        first: String::from_utf8_lossy(&texts[..first]).into_owned(),
        second: texts[first..].to_vec(),
    };
    Some((record, &bytes[HEADER + first + second..]))
}
