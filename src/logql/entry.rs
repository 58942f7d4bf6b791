//! One log entry on its way through a pipeline: its line and its labels in three classes.
//!
//! All text lives in the entry's input line, in the stream's labels, or in one arena that is
//! emptied for every entry; names are small numbers. So an entry that is dropped has
//! allocated nothing.
//!
//! E1. Of each name at most one value is visible: parsed before metadata before stream.
//! E2. A name's number never changes while an entry is in work.

use std::sync::Arc;

use hashbrown::HashMap;

use super::stage::push_sanitised;
use crate::model::labels::{Labels, LabelsBuilder};
use crate::model::log::Metadata;
use crate::model::time::Timestamp;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Names kept between entries; above this the table starts again.
const MAX_NAMES: usize = 20_000;
/// Rendered label sets kept for one stream.
const MAX_CACHED_SETS: usize = 10_000;
/// Keys of lines kept by position, and the longest that is kept.
const MAX_KEYS: usize = 64;
const MAX_KEY_BYTES: usize = 64;
/// Appended to a name that a stream label or metadata has already.
const CLASH_SUFFIX: &str = "_extracted";

/// The number of a label name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NameId(u32);

impl NameId {
    pub const ERROR: Self = Self(0);
    pub const ERROR_DETAILS: Self = Self(1);
    pub const PRESERVE_ERROR: Self = Self(2);
}

/// Label names by number. A pipeline knows some from the start; a runner adds what it meets.
#[derive(Clone, Debug)]
pub struct Names {
    ids: Map<Arc<str>, NameId>,
    names: Vec<Arc<str>>,
}

impl Default for Names {
    fn default() -> Self {
        let mut names = Self {
            ids: Map::default(),
            names: Vec::new(),
        };
        for known in ["__error__", "__error_details__", "__preserve_error__"] {
            names.id(known);
        }
        names
    }
}

impl Names {
    pub fn id(&mut self, name: &str) -> NameId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = NameId(self.names.len() as u32);
        let name: Arc<str> = name.into();
        self.ids.insert(name.clone(), id);
        self.names.push(name);
        id
    }

    pub fn name(&self, id: NameId) -> &Arc<str> {
        &self.names[id.0 as usize]
    }

    fn known(&self, name: &str) -> Option<NameId> {
        self.ids.get(name).copied()
    }

    fn truncate(&mut self, len: usize) {
        for name in self.names.drain(len..) {
            self.ids.remove(&name);
        }
    }
}

/// Where a label comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Stream,
    Metadata,
    Parsed,
}

/// A text, by where it lies.
#[derive(Clone, Copy, Debug)]
pub enum Text {
    /// In the line as it was stored.
    Input { start: u32, len: u32 },
    /// In the arena.
    Arena { start: u32, len: u32 },
    /// The value of the n-th stream label.
    Stream(u32),
}

impl Text {
    pub const EMPTY: Self = Self::Arena { start: 0, len: 0 };

    /// A part of this text.
    pub fn part(self, range: std::ops::Range<usize>) -> Self {
        let (skip, len) = (range.start as u32, range.len() as u32);
        match self {
            Self::Input { start, .. } => Self::Input {
                start: start + skip,
                len,
            },
            Self::Arena { start, .. } => Self::Arena {
                start: start + skip,
                len,
            },
            Self::Stream(_) => self,
        }
    }
}

/// A label that is not simply the stream's.
#[derive(Clone, Copy, Debug)]
struct Change {
    name: NameId,
    class: Class,
    /// `None`: the label is gone, whatever the stream says.
    value: Option<Text>,
}

/// Which labels parsers extract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extract {
    /// All: labels are part of the answer.
    All,
    /// These: nothing else is looked at later.
    Only(std::collections::BTreeSet<String>),
}

/// The labels of the entry at hand, reused from entry to entry.
#[derive(Debug)]
pub struct LabelState {
    names: Names,
    /// Names known to the pipeline; their numbers hold for good.
    fixed_names: usize,
    /// By name: whether parsers extract it. `None`: all.
    wanted: Option<Vec<bool>>,
    wanted_count: usize,
    /// Keys of the lines before, by their position: the next line mostly has the same.
    keys: Vec<(Box<[u8]>, NameId)>,
    stream: Labels,
    stream_names: Vec<NameId>,
    /// By name: 1 + index of the stream label.
    stream_index: Vec<u32>,
    /// By name: epoch and index of its change.
    slots: Vec<(u32, u32)>,
    /// By name: the number of the name with [`CLASH_SUFFIX`].
    suffixed: Vec<Option<NameId>>,
    epoch: u32,
    changes: Vec<Change>,
    /// Wanted names that parsers have set in this entry.
    wanted_found: usize,
    arena: Vec<u8>,
    key: Vec<u8>,
    sets: Map<Box<[u8]>, Labels>,
}

impl LabelState {
    pub fn new(names: &Names, extract: &Extract) -> Self {
        let mut names = names.clone();
        let wanted = match extract {
            Extract::All => None,
            Extract::Only(set) => {
                let ids: Vec<NameId> = set.iter().map(|name| names.id(name)).collect();
                let mut wanted = vec![false; names.names.len()];
                for id in ids {
                    wanted[id.0 as usize] = true;
                }
                Some(wanted)
            }
        };
        Self {
            fixed_names: names.names.len(),
            names,
            wanted_count: match extract {
                Extract::All => usize::MAX,
                Extract::Only(set) => set.len(),
            },
            wanted,
            keys: Vec::new(),
            stream: Labels::empty(),
            stream_names: Vec::new(),
            stream_index: Vec::new(),
            slots: Vec::new(),
            suffixed: Vec::new(),
            epoch: 0,
            changes: Vec::new(),
            wanted_found: 0,
            arena: Vec::new(),
            key: Vec::new(),
            sets: Map::default(),
        }
    }

    /// Entries belong to this stream from now on.
    pub fn bind(&mut self, stream: &Labels) {
        for name in self.stream_names.drain(..) {
            self.stream_index[name.0 as usize] = 0;
        }
        if self.names.names.len() > MAX_NAMES {
            self.names.truncate(self.fixed_names);
            self.suffixed.clear();
            self.slots.clear();
            self.keys.clear();
        }
        self.sets.clear();
        self.changes.clear();
        self.stream = stream.clone();
        for (index, (name, _)) in stream.iter().enumerate() {
            let id = self.names.id(name);
            let at = id.0 as usize;
            if self.stream_index.len() <= at {
                self.stream_index.resize(at + 1, 0);
            }
            self.stream_index[at] = index as u32 + 1;
            self.stream_names.push(id);
        }
    }

    /// Forgets the entry before. Returns false when the name table is so full that the stream
    /// must be bound again.
    fn begin(&mut self) {
        self.changes.clear();
        self.arena.clear();
        self.wanted_found = 0;
        if self.names.names.len() > 2 * MAX_NAMES {
            let stream = self.stream.clone();
            self.bind(&stream);
        }
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // Wrapped around: old marks would look new.
            self.slots.clear();
            self.epoch = 1;
        }
    }

    fn change_of(&self, name: NameId) -> Option<&Change> {
        let (epoch, index) = *self.slots.get(name.0 as usize)?;
        if epoch != self.epoch {
            return None;
        }
        self.changes.get(index as usize)
    }

    fn stream_value(&self, name: NameId) -> Option<u32> {
        let index = *self.stream_index.get(name.0 as usize)?;
        index.checked_sub(1)
    }

    /// The visible value of a label.
    fn find(&self, name: NameId) -> Option<Text> {
        match self.change_of(name) {
            Some(change) => change.value,
            None => self.stream_value(name).map(Text::Stream),
        }
    }

    fn put(&mut self, name: NameId, class: Class, value: Option<Text>) {
        let change = Change { name, class, value };
        let at = name.0 as usize;
        if let Some((epoch, index)) = self.slots.get(at)
            && *epoch == self.epoch
        {
            self.changes[*index as usize] = change;
            return;
        }
        if self.slots.len() <= at {
            self.slots.resize(at + 1, (0, 0));
        }
        self.slots[at] = (self.epoch, self.changes.len() as u32);
        self.changes.push(change);
    }

    fn suffixed(&mut self, name: NameId) -> NameId {
        let at = name.0 as usize;
        if let Some(Some(id)) = self.suffixed.get(at) {
            return *id;
        }
        let text = format!("{}{CLASH_SUFFIX}", self.names.name(name));
        let id = self.names.id(&text);
        if self.suffixed.len() <= at {
            self.suffixed.resize(at + 1, None);
        }
        self.suffixed[at] = Some(id);
        id
    }

    /// Whether the name belongs to a stream label or to metadata.
    fn clashes(&self, name: NameId) -> bool {
        self.stream_value(name).is_some()
            || self
                .change_of(name)
                .is_some_and(|c| c.class == Class::Metadata && c.value.is_some())
    }

    fn is_wanted(&self, name: NameId) -> bool {
        match &self.wanted {
            None => true,
            Some(wanted) => wanted.get(name.0 as usize).copied().unwrap_or(false),
        }
    }

    fn bytes<'a>(&'a self, input: &'a [u8], text: Text) -> &'a [u8] {
        match text {
            Text::Input { start, len } => &input[start as usize..(start + len) as usize],
            Text::Arena { start, len } => &self.arena[start as usize..(start + len) as usize],
            Text::Stream(index) => self.stream.pairs()[index as usize].1.as_bytes(),
        }
    }

    fn build(&self, input: &[u8], wants: impl Fn(Class) -> bool) -> Labels {
        let mut builder = LabelsBuilder::default();
        if wants(Class::Stream) {
            for (index, (name, value)) in self.stream.pairs().iter().enumerate() {
                if self.change_of(self.stream_names[index]).is_none() {
                    builder.set(name.clone(), value.clone());
                }
            }
        }
        for change in &self.changes {
            if let Some(value) = change.value
                && wants(change.class)
            {
                let name = self.names.name(change.name).clone();
                match value {
                    Text::Stream(index) => {
                        builder.set(name, self.stream.pairs()[index as usize].1.clone());
                    }
                    _ => {
                        builder.set(name, &*String::from_utf8_lossy(self.bytes(input, value)));
                    }
                }
            }
        }
        builder.build()
    }
}

/// An entry in work: what stages read and write.
pub struct Entry<'a> {
    pub at: Timestamp,
    input: &'a [u8],
    line: Text,
    state: &'a mut LabelState,
}

impl<'a> Entry<'a> {
    /// Starts with the line as stored, the stream's labels and the metadata.
    pub fn begin(
        state: &'a mut LabelState,
        at: Timestamp,
        input: &'a [u8],
        metadata: Option<&Metadata>,
    ) -> Self {
        state.begin();
        let len = input.len() as u32;
        let mut entry = Self {
            at,
            input,
            line: Text::Input { start: 0, len },
            state,
        };
        if let Some(metadata) = metadata {
            for (name, value) in metadata.iter() {
                let mut id = entry.state.names.id(name);
                if entry.state.stream_value(id).is_some() {
                    id = entry.state.suffixed(id);
                }
                let value = entry.store(value.as_bytes());
                entry.state.put(id, Class::Metadata, Some(value));
            }
        }
        entry
    }

    pub fn line(&self) -> &[u8] {
        self.state.bytes(self.input, self.line)
    }

    pub fn line_text(&self) -> Text {
        self.line
    }

    pub fn set_line(&mut self, line: Text) {
        self.line = line;
    }

    pub fn bytes(&self, text: Text) -> &[u8] {
        self.state.bytes(self.input, text)
    }

    /// The value of a label, of any class.
    pub fn label(&self, name: NameId) -> Option<&[u8]> {
        self.state.find(name).map(|text| self.bytes(text))
    }

    /// [`Self::label`] for a name whose number is not known.
    pub fn label_named(&self, name: &str) -> Option<&[u8]> {
        self.label(self.state.names.known(name)?)
    }

    pub fn label_text(&self, name: NameId) -> Option<Text> {
        self.state.find(name)
    }

    pub fn name(&self, id: NameId) -> &Arc<str> {
        self.state.names.name(id)
    }

    /// Copies bytes into the arena.
    pub fn store(&mut self, bytes: &[u8]) -> Text {
        let start = self.state.arena.len() as u32;
        self.state.arena.extend_from_slice(bytes);
        Text::Arena {
            start,
            len: bytes.len() as u32,
        }
    }

    /// The arena, to append to: what is appended is then `Text::Arena` from the length before.
    pub fn arena(&mut self) -> &mut Vec<u8> {
        &mut self.state.arena
    }

    /// What was appended to the arena since it had this length.
    pub fn since(&self, start: usize) -> Text {
        Text::Arena {
            start: start as u32,
            len: (self.state.arena.len() - start) as u32,
        }
    }

    /// Appends a text to the arena, wherever it lies.
    pub fn append(&mut self, text: Text) {
        match text {
            Text::Arena { start, len } => self
                .state
                .arena
                .extend_from_within(start as usize..(start + len) as usize),
            Text::Input { start, len } => self
                .state
                .arena
                .extend_from_slice(&self.input[start as usize..(start + len) as usize]),
            Text::Stream(index) => self
                .state
                .arena
                .extend_from_slice(self.state.stream.pairs()[index as usize].1.as_bytes()),
        }
    }

    /// Calls `work` with the current line and the entry. The line cannot change meanwhile; if
    /// it lies in the arena it is copied first, since `work` may append there.
    pub fn with_line<R>(&mut self, work: impl FnOnce(&mut Self, &[u8], Text) -> R) -> R {
        match self.line {
            Text::Input { start, len } => {
                let input = self.input;
                work(
                    self,
                    &input[start as usize..(start + len) as usize],
                    self.line,
                )
            }
            other => {
                let copy = self.bytes(other).to_vec();
                work(self, &copy, other)
            }
        }
    }

    /// Sets a parsed label, whatever had the name before.
    pub fn set(&mut self, name: NameId, value: Text) {
        self.state.put(name, Class::Parsed, Some(value));
    }

    /// Removes a label of any class.
    pub fn remove(&mut self, name: NameId) {
        if self.state.find(name).is_some() {
            let class = self
                .state
                .change_of(name)
                .map_or(Class::Stream, |c| c.class);
            self.state.put(name, class, None);
        }
    }

    /// Whether an extraction under this name would be looked at by anyone and is the first.
    /// Gives the name under which to set it.
    pub fn extraction(&mut self, name: &str) -> Option<NameId> {
        let id = self.state.names.id(name);
        self.extraction_of(id)
    }

    /// [`Self::extraction`] for the key at some position of the line, which is no part of a
    /// longer name. `None` also for a key that makes no name.
    pub fn extraction_of_key(&mut self, position: usize, key: &[u8]) -> Option<NameId> {
        if let Some((known, id)) = self.state.keys.get(position)
            && **known == *key
        {
            return self.extraction_of(*id);
        }
        let mut name = String::new();
        if !push_sanitised(&mut name, key) {
            return None;
        }
        let id = self.state.names.id(&name);
        if key.len() <= MAX_KEY_BYTES {
            let known = (key.into(), id);
            let keys = &mut self.state.keys;
            if position < keys.len() {
                keys[position] = known;
            } else if position == keys.len() && position < MAX_KEYS {
                keys.push(known);
            }
        }
        self.extraction_of(id)
    }

    /// [`Self::extraction`] for a name whose number is known.
    pub fn extraction_of(&mut self, mut id: NameId) -> Option<NameId> {
        if self.state.clashes(id) {
            id = self.state.suffixed(id);
        }
        if !self.state.is_wanted(id) {
            return None;
        }
        let taken = self
            .state
            .change_of(id)
            .is_some_and(|c| c.class == Class::Parsed && c.value.is_some());
        (!taken).then_some(id)
    }

    /// Sets what an expression found; it may replace an earlier value.
    pub fn extract_expression(&mut self, id: NameId, value: Text) {
        let target = if self.state.clashes(id) {
            self.state.suffixed(id)
        } else {
            id
        };
        let value = self.clean(value);
        self.state.put(target, Class::Parsed, Some(value));
    }

    /// Sets what an expression may find to "", unless the name is that of a stream label or of
    /// metadata: those stay what they are, and nothing is set beside them.
    pub fn extract_missing(&mut self, id: NameId) {
        if !self.state.clashes(id) {
            self.state.put(id, Class::Parsed, Some(Text::EMPTY));
        }
    }

    /// Sets a label that [`Self::extraction`] approved. Returns true when no further label is
    /// wanted.
    pub fn extract(&mut self, id: NameId, value: Text) -> bool {
        let value = self.clean(value);
        self.state.put(id, Class::Parsed, Some(value));
        self.state.wanted_found += 1;
        self.state.wanted_found >= self.state.wanted_count
    }

    /// Replaces invalid UTF-8, and U+FFFD that stands for such, by blanks.
    fn clean(&mut self, value: Text) -> Text {
        const REPLACED: char = char::REPLACEMENT_CHARACTER;
        let bytes = self.bytes(value);
        if bytes.is_ascii()
            || simdutf8::basic::from_utf8(bytes).is_ok_and(|text| !text.contains(REPLACED))
        {
            return value;
        }
        let mut cleaned = Vec::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            cleaned.extend_from_slice(chunk.valid().replace(REPLACED, " ").as_bytes());
            cleaned.extend(chunk.invalid().iter().map(|_| b' '));
        }
        self.store(&cleaned)
    }

    pub fn has_error(&self) -> bool {
        self.label(NameId::ERROR).is_some_and(|e| !e.is_empty())
    }

    /// Marks the entry; `details` may be empty.
    pub fn set_error(&mut self, kind: &str, details: &str) {
        let kind = self.store(kind.as_bytes());
        self.set(NameId::ERROR, kind);
        if !details.is_empty() {
            let details = self.store(details.as_bytes());
            self.set(NameId::ERROR_DETAILS, details);
        }
    }

    /// The visible labels' names.
    pub fn visible(&self) -> impl Iterator<Item = NameId> + '_ {
        let stream = self
            .state
            .stream_names
            .iter()
            .copied()
            .filter(|name| self.state.change_of(*name).is_none());
        let changed = self.state.changes.iter().filter(|c| c.value.is_some());
        stream.chain(changed.map(|c| c.name))
    }

    /// Whether nothing differs from the stream's own labels.
    pub fn is_unchanged(&self) -> bool {
        self.state.changes.is_empty()
    }

    /// Bytes that tell label sets of one stream apart, as long as the stream is bound.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        for change in &self.state.changes {
            out.extend_from_slice(&change.name.0.to_le_bytes());
            match change.value {
                None => out.extend_from_slice(&u32::MAX.to_le_bytes()),
                Some(value) => {
                    let bytes = self.bytes(value);
                    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
                    out.extend_from_slice(bytes);
                }
            }
        }
    }

    /// The final labels, all classes in one set.
    pub fn labels(&mut self) -> Labels {
        if self.is_unchanged() {
            return self.state.stream.clone();
        }
        let mut key = std::mem::take(&mut self.state.key);
        key.clear();
        self.write_key(&mut key);
        let labels = match self.state.sets.get(key.as_slice()) {
            Some(labels) => labels.clone(),
            None => {
                let labels = self.state.build(self.input, |_| true);
                if self.state.sets.len() >= MAX_CACHED_SETS {
                    self.state.sets.clear();
                }
                self.state
                    .sets
                    .insert(key.clone().into_boxed_slice(), labels.clone());
                labels
            }
        };
        self.state.key = key;
        labels
    }

    /// The final labels of one class.
    pub fn labels_of(&self, class: Class) -> Labels {
        if class == Class::Stream && self.is_unchanged() {
            return self.state.stream.clone();
        }
        self.state.build(self.input, |c| c == class)
    }
}
