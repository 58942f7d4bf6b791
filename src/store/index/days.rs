//! The tantivy index of one day of one signal: a document per chunk or block, with its
//! number and its words.
//!
//! An index says where words are not, so one that is damaged hides lines. Therefore every file of
//! it is verified when it is opened: tantivy's by the checksums in their footers, its list
//! `meta.json`, which has none, by the XXH3 in `CHECKED` beside it. While a commit is under way a
//! second line there says that the list may be another one by now.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memchr::memmem;
use parking_lot::Mutex;
use tantivy::directory::MmapDirectory;
use tantivy::indexer::NoMergePolicy;
use tantivy::schema::{
    Field, IndexRecordOption, NumericOptions, Schema, TextFieldIndexing, TextOptions,
};
use tantivy::tokenizer::{Token, TokenStream, Tokenizer};
use tantivy::{
    DocSet, Index, IndexReader, IndexSettings, ReloadPolicy, Searcher, TantivyDocument, Term,
};

use xxhash_rust::xxh3::xxh3_64;

use super::needle::{WordDemand, WordPlan};
use crate::store::error::StoreError;
use crate::store::files::replace;

/// Heap of a writer, bytes: the least that tantivy takes. Documents are a few KiB each.
pub const WRITER_HEAP: usize = 15_000_000;
/// tantivy's own list of what belongs to an index.
const META_FILE: &str = "meta.json";
/// XXH3-64 of that list as of our last commit, in hex. Older indices have none.
const CHECKED_FILE: &str = "CHECKED";
/// Second line of it.
const COMMITTING: &str = "committing\n";
/// Added to the name of an index that was set aside.
const ASIDE: &str = ".damaged";
/// Segments of a day are merged into one when there are so many.
const MERGE_AT: usize = 8;

/// A set of chunk numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NumberSet(Vec<u64>);

impl NumberSet {
    pub fn insert(&mut self, number: u32) {
        let at = number as usize / 64;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (number % 64);
    }

    pub fn contains(&self, number: u32) -> bool {
        self.0
            .get(number as usize / 64)
            .is_some_and(|bits| bits & (1 << (number % 64)) != 0)
    }

    fn union(&mut self, other: &Self) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a |= b;
        }
    }

    fn intersect(&mut self, other: &Self) {
        self.0.truncate(other.0.len());
        for (a, b) in self.0.iter_mut().zip(&other.0) {
            *a &= b;
        }
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// The numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.within(0..u32::MAX)
    }

    /// Those of a range, ascending.
    pub fn within(&self, range: Range<u32>) -> impl Iterator<Item = u32> {
        let words = range.start / 64..range.end.div_ceil(64).min(self.0.len() as u32);
        let numbers = words.flat_map(|word| {
            let mut bits = self.0[word as usize];
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| bits.trailing_zeros())?;
                bits &= bits - 1;
                Some(word * 64 + bit)
            })
        });
        numbers.filter(move |number| range.contains(number))
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|bits| *bits == 0)
    }
}

/// The index of a day. Opened when first asked; one writer at a time, closed after each commit.
pub struct DayIndex {
    dir: PathBuf,
    open: Mutex<Option<Opened>>,
}

#[derive(Clone)]
struct Opened {
    index: Index,
    reader: IndexReader,
    fields: Fields,
    /// Every chunk with a smaller number is indexed (I2).
    indexed_below: u32,
}

#[derive(Clone, Copy)]
struct Fields {
    number: Field,
    words: Field,
}

/// A view of an index that later commits do not change.
#[derive(Clone)]
pub struct IndexView {
    searcher: Searcher,
    fields: Fields,
    /// Every chunk with a smaller number is indexed.
    pub indexed_below: u32,
}

fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        .set_index_option(IndexRecordOption::Basic)
        .set_fieldnorms(false);
    let number = builder.add_u64_field("number", NumericOptions::default().set_fast());
    let words = builder.add_text_field(
        "words",
        TextOptions::default().set_indexing_options(indexing),
    );
    (builder.build(), Fields { number, words })
}

impl DayIndex {
    /// The index below `dir`, which need not exist yet.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            open: Mutex::new(None),
        }
    }

    /// What is committed, for searching; `None` when there is no index yet.
    pub fn view(&self) -> Result<Option<Arc<IndexView>>, StoreError> {
        let mut open = self.open.lock();
        if open.is_none() && !self.dir.join(META_FILE).exists() {
            return Ok(None);
        }
        let opened = self.opened(&mut open)?;
        Ok(Some(Arc::new(IndexView {
            searcher: opened.reader.searcher(),
            fields: opened.fields,
            indexed_below: opened.indexed_below,
        })))
    }

    /// Every chunk with a smaller number is indexed; 0 for an index that can't be read (I3).
    pub fn indexed_below(&self) -> u32 {
        match self.view() {
            Ok(Some(view)) => view.indexed_below,
            Ok(None) | Err(_) => 0,
        }
    }

    /// Adds documents `(number, words)`, a blank between words, and commits; afterwards every chunk below
    /// `indexed_below` is indexed. Those chunks must be flushed (I2).
    pub fn commit(
        &self,
        documents: &[(u32, String)],
        indexed_below: u32,
    ) -> Result<(), StoreError> {
        let mut open = self.open.lock();
        let opened = self.opened(&mut open)?;
        let failed = |e: tantivy::TantivyError| index_error(&self.dir, &e);
        let mut writer: tantivy::IndexWriter<TantivyDocument> = opened
            .index
            .writer_with_num_threads(1, WRITER_HEAP)
            .map_err(failed)?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        self.note_list(COMMITTING)?;
        for (number, words) in documents {
            let mut document = TantivyDocument::default();
            document.add_u64(opened.fields.number, u64::from(*number));
            document.add_text(opened.fields.words, words);
            writer.add_document(document).map_err(failed)?;
        }
        let mut commit = writer.prepare_commit().map_err(failed)?;
        commit.set_payload(&indexed_below.to_string());
        fail::fail_point!("index-commit");
        commit.commit().map_err(failed)?;
        fail::fail_point!("index-committed");
        let segments = opened.index.searchable_segment_ids().map_err(failed)?;
        if segments.len() >= MERGE_AT {
            writer.merge(&segments).wait().map_err(failed)?;
        }
        writer.wait_merging_threads().map_err(failed)?;
        opened.reader.reload().map_err(failed)?;
        opened.indexed_below = indexed_below;
        self.note_list("")
    }

    /// Notes the list of files as it is, and what is going on.
    fn note_list(&self, state: &str) -> Result<(), StoreError> {
        let list = self.dir.join(META_FILE);
        let bytes = std::fs::read(&list).map_err(|e| StoreError::io(&list, "read", e))?;
        let checked = self.dir.join(CHECKED_FILE);
        replace(
            &checked,
            format!("{:016x}\n{state}", xxh3_64(&bytes)).as_bytes(),
        )
        .map_err(|e| StoreError::io(&checked, "write", e))
    }

    /// Verifies every file; the error says which is damaged. `None`: there is no index.
    pub fn verify(&self) -> Result<Option<u32>, StoreError> {
        let mut open = self.open.lock();
        *open = None;
        if !self.dir.join(META_FILE).exists() {
            return Ok(None);
        }
        Ok(Some(self.opened(&mut open)?.indexed_below))
    }

    /// A search met what can't be: it is verified before it is used again.
    pub fn distrust(&self) {
        *self.open.lock() = None;
    }

    /// Renames a damaged index, in the place of one renamed before; a new one is made (I3).
    pub fn set_aside(&self) -> Result<(), StoreError> {
        let mut open = self.open.lock();
        *open = None;
        let aside = self.aside();
        remove_dir(&aside)?;
        std::fs::rename(&self.dir, &aside).map_err(|e| StoreError::io(&self.dir, "rename", e))
    }

    /// The same where there is one.
    pub fn set_aside_if_there(&self) -> Result<(), StoreError> {
        match self.dir.exists() {
            true => self.set_aside(),
            false => Ok(()),
        }
    }

    fn aside(&self) -> PathBuf {
        let mut name = self.dir.clone().into_os_string();
        name.push(ASIDE);
        name.into()
    }

    /// Removes the index, and what was set aside of it: its day is gone.
    pub fn drop_all(&self) -> Result<(), StoreError> {
        remove_dir(&self.aside())?;
        self.reset()
    }

    /// Removes the index; it will be rebuilt (I3).
    pub fn reset(&self) -> Result<(), StoreError> {
        let mut open = self.open.lock();
        *open = None;
        // First what makes it an index: a kill in the midst leaves none, not a broken one.
        match std::fs::remove_file(self.dir.join(META_FILE)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(StoreError::io(&self.dir, "remove", e))
            }
            _ => {
                fail::fail_point!("index-remove");
                remove_dir(&self.dir)
            }
        }
    }

    /// Compares tantivy's list of files with what was noted of it.
    fn check_list(&self) -> Result<(), StoreError> {
        let list = self.dir.join(META_FILE);
        let bytes = std::fs::read(&list).map_err(|e| StoreError::io(&list, "read", e))?;
        match std::fs::read(self.dir.join(CHECKED_FILE)) {
            Ok(noted) if noted.ends_with(COMMITTING.as_bytes()) => Ok(()),
            Ok(noted) if noted == format!("{:016x}\n", xxh3_64(&bytes)).as_bytes() => Ok(()),
            Ok(_) => Err(index_error(&self.dir, &"meta.json: checksum is wrong")),
            // Older than the note.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(StoreError::io(&self.dir, "read", e)),
        }
    }

    fn opened<'a>(&self, slot: &'a mut Option<Opened>) -> Result<&'a mut Opened, StoreError> {
        if slot.is_none() {
            let failed = |e: tantivy::TantivyError| index_error(&self.dir, &e);
            if !self.dir.join(META_FILE).exists() {
                // What a kill left of a removal.
                remove_dir(&self.dir)?;
            }
            std::fs::create_dir_all(&self.dir)
                .map_err(|e| StoreError::io(&self.dir, "create", e))?;
            let (schema, fields) = schema();
            let directory =
                MmapDirectory::open(&self.dir).map_err(|e| index_error(&self.dir, &e))?;
            let index = if Index::exists(&directory).map_err(|e| index_error(&self.dir, &e))? {
                self.check_list()?;
                let index = Index::open(directory).map_err(failed)?;
                let damaged = index.validate_checksum().map_err(failed)?;
                if let Some(file) = damaged.iter().min() {
                    let what = format!("{}: checksum is wrong", file.display());
                    return Err(index_error(&self.dir, &what));
                }
                index
            } else {
                Index::create(directory, schema, IndexSettings::default()).map_err(failed)?
            };
            index.tokenizers().register(TOKENIZER, Blanks::default());
            let payload = index.load_metas().map_err(failed)?.payload;
            let indexed_below = payload.and_then(|p| p.parse().ok()).unwrap_or(0);
            let reader = index
                .reader_builder()
                .reload_policy(ReloadPolicy::Manual)
                .try_into()
                .map_err(failed)?;
            *slot = Some(Opened {
                index,
                reader,
                fields,
                indexed_below,
            });
        }
        slot.as_mut()
            .ok_or_else(|| StoreError::Index("is not open".into()))
    }
}

fn remove_dir(dir: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io(dir, "remove", e)),
        _ => Ok(()),
    }
}

fn index_error(dir: &Path, error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Index(format!("{}: {error}", dir.display()))
}

impl IndexView {
    /// Numbers of the chunks that meet `plan`; `None` when the plan rules out nothing.
    pub fn search(
        &self,
        plan: &WordPlan,
        overflow: &str,
        folds: &str,
    ) -> Result<Option<NumberSet>, StoreError> {
        Ok(match plan {
            WordPlan::Anything => None,
            WordPlan::Word { demand, folded } => {
                let mut found = self.demand(demand)?;
                // No word is empty.
                if !overflow.is_empty() {
                    found.union(&self.demand(&WordDemand::Exact(overflow.to_owned()))?);
                }
                if *folded {
                    found.union(&self.demand(&WordDemand::Exact(folds.to_owned()))?);
                }
                Some(found)
            }
            WordPlan::All(plans) => {
                let mut all: Option<NumberSet> = None;
                for plan in plans {
                    if all.as_ref().is_some_and(NumberSet::is_empty) {
                        break;
                    }
                    match (self.search(plan, overflow, folds)?, &mut all) {
                        (None, _) => {}
                        (Some(found), None) => all = Some(found),
                        (Some(found), Some(all)) => all.intersect(&found),
                    }
                }
                all
            }
            WordPlan::Any(plans) => {
                let mut any = NumberSet::default();
                for plan in plans {
                    match self.search(plan, overflow, folds)? {
                        None => return Ok(None),
                        Some(found) => any.union(&found),
                    }
                }
                Some(any)
            }
        })
    }

    /// Numbers of the chunks with a word as demanded.
    fn demand(&self, demand: &WordDemand) -> Result<NumberSet, StoreError> {
        let failed = |e: &dyn std::fmt::Display| StoreError::Index(e.to_string());
        let mut numbers = NumberSet::default();
        for segment in self.searcher.segment_readers() {
            let column = segment
                .fast_fields()
                .u64("number")
                .map_err(|e| failed(&e))?
                .first_or_default_col(0);
            let words = segment
                .inverted_index(self.fields.words)
                .map_err(|e| failed(&e))?;
            let mut collect = |term: &tantivy::postings::TermInfo| -> Result<(), StoreError> {
                let mut postings = words
                    .read_postings_from_terminfo(term, IndexRecordOption::Basic)
                    .map_err(|e| failed(&e))?;
                let mut doc = postings.doc();
                while doc != tantivy::TERMINATED {
                    numbers.insert(column.get_val(doc) as u32);
                    doc = postings.advance();
                }
                Ok(())
            };
            if let WordDemand::Exact(word) = demand {
                let term = Term::from_field_text(self.fields.words, word);
                if let Some(info) = words.get_term_info(&term).map_err(|e| failed(&e))? {
                    collect(&info)?;
                }
                continue;
            }
            let range = words.terms().range();
            let range = match demand {
                WordDemand::Prefix(prefix) => {
                    let range = range.ge(prefix.as_bytes());
                    match after_prefix(prefix.as_bytes()) {
                        Some(end) => range.lt(end),
                        None => range,
                    }
                }
                WordDemand::Range(first, last) => range.ge(first.as_bytes()).le(last.as_bytes()),
                _ => range,
            };
            let mut terms = range.into_stream().map_err(|e| failed(&e))?;
            let infix = match demand {
                WordDemand::Infix(text) => Some(memmem::Finder::new(text.as_bytes())),
                _ => None,
            };
            while terms.advance() {
                let hit = match (demand, &infix) {
                    (WordDemand::Suffix(text), _) => terms.key().ends_with(text.as_bytes()),
                    (_, Some(finder)) => finder.find(terms.key()).is_some(),
                    _ => true,
                };
                if hit {
                    collect(terms.value())?;
                }
            }
        }
        Ok(numbers)
    }

    /// Number of segments, for `inspect`.
    pub fn segments(&self) -> usize {
        self.searcher.segment_readers().len()
    }

    /// Number of documents, for `inspect`.
    pub fn documents(&self) -> u64 {
        self.searcher.num_docs()
    }
}

/// Reads words with a blank between them. Under tantivy's own name of what a text field is read
/// by, so that indices from when words were handed over one by one are written on.
#[derive(Clone, Default)]
struct Blanks(Token);

const TOKENIZER: &str = "default";

struct Words<'a> {
    rest: &'a str,
    token: &'a mut Token,
}

impl Tokenizer for Blanks {
    type TokenStream<'a> = Words<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> Words<'a> {
        self.0.reset();
        Words {
            rest: text,
            token: &mut self.0,
        }
    }
}

impl TokenStream for Words<'_> {
    fn advance(&mut self) -> bool {
        let rest = self.rest.trim_start_matches(' ');
        if rest.is_empty() {
            return false;
        }
        let (word, rest) =
            rest.split_at(memchr::memchr(b' ', rest.as_bytes()).unwrap_or(rest.len()));
        self.rest = rest;
        self.token.text.clear();
        self.token.text.push_str(word);
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// The first key after all keys that begin with `prefix`.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::analyze::{FOLDS_TERM, OVERFLOW_TERM};
    use super::*;

    fn word(demand: WordDemand) -> WordPlan {
        WordPlan::Word {
            demand,
            folded: false,
        }
    }

    #[test]
    fn words_lead_to_the_chunks_that_have_them_across_commits_and_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let index = DayIndex::new(dir.path().join("log-20260101"));
        assert!(index.view().unwrap().is_none());
        for round in 0..20u32 {
            let documents = vec![
                (
                    round * 2,
                    format!("common timeout word{}", (b'a' + round as u8) as char),
                ),
                (
                    round * 2 + 1,
                    if round == 3 {
                        OVERFLOW_TERM.to_owned()
                    } else {
                        "other".to_owned()
                    },
                ),
            ];
            index.commit(&documents, round * 2 + 2).unwrap();
        }
        for index in [index, DayIndex::new(dir.path().join("log-20260101"))] {
            let view = index.view().unwrap().unwrap();
            assert_eq!(view.indexed_below, 40);
            assert!(view.segments() < MERGE_AT);
            let find = |plan: &WordPlan| {
                let found = view
                    .search(plan, OVERFLOW_TERM, FOLDS_TERM)
                    .unwrap()
                    .unwrap();
                (0..60).filter(|n| found.contains(*n)).collect::<Vec<_>>()
            };
            // Chunk 7 is a candidate for every word.
            assert_eq!(find(&word(WordDemand::Exact("worde".into()))), [7, 8]);
            assert_eq!(find(&word(WordDemand::Infix("imeou".into()))).len(), 21);
            assert_eq!(find(&word(WordDemand::Prefix("wordc".into()))), [4, 7]);
            assert_eq!(find(&word(WordDemand::Suffix("rdc".into()))), [4, 7]);
            assert_eq!(find(&word(WordDemand::Exact("nope".into()))), [7]);
            let range = |first: &str, last: &str| WordDemand::Range(first.into(), last.into());
            assert_eq!(find(&word(range("wordb", "wordd"))), [2, 4, 6, 7]);
            assert_eq!(find(&word(range("worde0", "worde1"))), [7]);
            let both = WordPlan::All(vec![
                word(WordDemand::Prefix("common".into())),
                WordPlan::Any(vec![
                    word(WordDemand::Exact("worda".into())),
                    word(WordDemand::Exact("wordt".into())),
                ]),
            ]);
            assert_eq!(find(&both), [0, 7, 38]);
            assert!(view.search(&WordPlan::Anything, "", "").unwrap().is_none());
        }
    }

    #[test]
    fn a_commit_that_was_cut_off_is_no_damage_and_a_changed_list_is() {
        let dir = tempfile::tempdir().unwrap();
        let index = DayIndex::new(dir.path().join("log-20260101"));
        let file = |name: &str| dir.path().join("log-20260101").join(name);
        index.commit(&[(0, "one".into())], 1).unwrap();
        let list = std::fs::read(file(META_FILE)).unwrap();
        // What is there before tantivy commits, and right behind it.
        index.note_list(COMMITTING).unwrap();
        let committing = std::fs::read(file(CHECKED_FILE)).unwrap();
        index.commit(&[(1, "two".into())], 2).unwrap();
        let done = std::fs::read(file(CHECKED_FILE)).unwrap();
        std::fs::write(file(CHECKED_FILE), &committing).unwrap();
        let opened = DayIndex::new(dir.path().join("log-20260101"));
        assert_eq!(opened.view().unwrap().unwrap().indexed_below, 2);
        // It goes on from there.
        opened.commit(&[(2, "three".into())], 3).unwrap();
        assert_ne!(std::fs::read(file(CHECKED_FILE)).unwrap(), committing);
        assert_eq!(opened.verify().unwrap(), Some(3));
        // The list of before with what was noted behind it.
        std::fs::write(file(CHECKED_FILE), &done).unwrap();
        std::fs::write(file(META_FILE), &list).unwrap();
        let error = DayIndex::new(dir.path().join("log-20260101")).view().err();
        assert!(error.unwrap().to_string().contains("checksum is wrong"));
    }
}
