//! Which files a `[[files]]` table means: globs in, existing paths out.
//!
//! A pattern is walked component by component, so that only directories that can hold a
//! match are listed. `**` descends into directories, not through links to directories:
//! loops would never end.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};

/// `**` goes this deep at most; deeper trees are not logs.
const DEPTH_MAX: usize = 64;

/// Matches by a glob that end so are left out: they would be read as rubbish, and what is
/// in them was read before it was compressed. Named literally they are followed.
const COMPRESSED: [&str; 8] = ["gz", "bz2", "xz", "zst", "lz4", "zip", "Z", "br"];

/// A pattern that can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{pattern}`: {problem}")]
pub struct PatternError {
    pub pattern: String,
    pub problem: String,
}

/// The patterns of one `[[files]]` table.
#[derive(Debug)]
pub struct Patterns {
    include: Vec<Pattern>,
    exclude: Vec<GlobMatcher>,
}

#[derive(Debug)]
struct Pattern {
    /// As written, made absolute: a file of exactly this name is meant before the glob.
    literal: PathBuf,
    whole: GlobMatcher,
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Name(PathBuf),
    Glob(GlobMatcher),
    AnyDepth,
}

/// What one look at the disk found.
#[derive(Debug, Default)]
pub struct Found {
    /// Existing files, sorted.
    pub files: BTreeSet<PathBuf>,
    /// Directories where a new file could match; to be watched.
    pub directories: BTreeSet<PathBuf>,
}

impl Patterns {
    /// Compiles `paths` and `exclude`; relative ones count from the current directory.
    pub fn new(paths: &[String], exclude: &[String]) -> Result<Self, PatternError> {
        Ok(Self {
            include: paths
                .iter()
                .map(|p| Pattern::new(p))
                .collect::<Result<_, _>>()?,
            exclude: exclude
                .iter()
                .map(|p| glob(p, &absolute(p)?))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Looks at the disk. Directories that can't be listed are passed over: they may
    /// become readable, and the next look sees that.
    pub fn find(&self, found: &mut Found) {
        for pattern in &self.include {
            if pattern.literal.is_file() {
                if let Some(parent) = pattern.literal.parent() {
                    found.directories.insert(parent.to_path_buf());
                }
                if !self.is_excluded(&pattern.literal) {
                    found.files.insert(pattern.literal.clone());
                }
                continue;
            }
            self.walk(PathBuf::from("/"), &pattern.steps, 0, found);
        }
    }

    /// Whether a file of this name would be found.
    pub fn matches(&self, path: &Path) -> bool {
        let included = |p: &Pattern| {
            p.literal == path
                || (p.whole.is_match(path) && !is_compressed(path) && !p.literal.is_file())
        };
        self.include.iter().any(included) && !self.is_excluded(path)
    }

    fn is_excluded(&self, path: &Path) -> bool {
        self.exclude.iter().any(|glob| glob.is_match(path))
    }

    fn walk(&self, at: PathBuf, steps: &[Step], depth: usize, found: &mut Found) {
        match steps {
            [] => {}
            [Step::Name(name), rest @ ..] => {
                let next = at.join(name);
                if rest.is_empty() {
                    found.directories.insert(at);
                    self.take(next, found);
                } else if next.is_dir() {
                    self.walk(next, rest, depth, found);
                }
            }
            [Step::Glob(glob), rest @ ..] => {
                for name in names(&at) {
                    if !glob.is_match(&name) {
                        continue;
                    }
                    let next = at.join(&name);
                    if rest.is_empty() {
                        self.take(next, found);
                    } else if next.is_dir() {
                        self.walk(next, rest, depth, found);
                    }
                }
                found.directories.insert(at);
            }
            [Step::AnyDepth, rest @ ..] => {
                if rest.is_empty() {
                    for name in names(&at) {
                        self.take(at.join(name), found);
                    }
                } else {
                    self.walk(at.clone(), rest, depth, found);
                }
                if depth < DEPTH_MAX {
                    for name in names(&at) {
                        let next = at.join(name);
                        if std::fs::symlink_metadata(&next).is_ok_and(|m| m.is_dir()) {
                            self.walk(next, steps, depth + 1, found);
                        }
                    }
                }
                found.directories.insert(at);
            }
        }
    }

    fn take(&self, path: PathBuf, found: &mut Found) {
        if !is_compressed(&path) && !self.is_excluded(&path) && path.is_file() {
            found.files.insert(path);
        }
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Self, PatternError> {
        let error = |problem: &str| PatternError {
            pattern: text.into(),
            problem: problem.into(),
        };
        if text.is_empty() {
            return Err(error("an empty path; remove it"));
        }
        let literal = absolute(text)?;
        let mut steps = Vec::new();
        for component in literal.components() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => steps.push(Step::Name("..".into())),
                Component::Normal(name) if name == "**" => {
                    // `**/**` means the same and would walk twice.
                    if !matches!(steps.last(), Some(Step::AnyDepth)) {
                        steps.push(Step::AnyDepth);
                    }
                }
                Component::Normal(name) => steps.push(Step::new(text, name)?),
            }
        }
        if steps.is_empty() {
            return Err(error(
                "a directory; give the files in it, such as /var/log/*.log",
            ));
        }
        let whole = glob(text, &literal)?;
        Ok(Self {
            literal,
            whole,
            steps,
        })
    }
}

impl Step {
    fn new(pattern: &str, name: &OsStr) -> Result<Self, PatternError> {
        let text = name.to_string_lossy();
        if !text.contains(['*', '?', '[', '{', '\\']) {
            return Ok(Self::Name(name.into()));
        }
        if text.matches('{').count() != text.matches('}').count() {
            return Err(PatternError {
                pattern: pattern.into(),
                problem: "`{…}` can't contain a `/`; write one path for each alternative".into(),
            });
        }
        glob(pattern, Path::new(name)).map(Self::Glob)
    }
}

fn glob(pattern: &str, path: &Path) -> Result<GlobMatcher, PatternError> {
    GlobBuilder::new(&path.to_string_lossy())
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|e| PatternError {
            pattern: pattern.into(),
            problem: e.kind().to_string(),
        })
}

fn absolute(text: &str) -> Result<PathBuf, PatternError> {
    std::path::absolute(text).map_err(|e| PatternError {
        pattern: text.into(),
        problem: e.to_string(),
    })
}

fn names(directory: &Path) -> Vec<std::ffi::OsString> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect()
}

fn is_compressed(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|e| COMPRESSED.contains(&e))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Makes `files` in a fresh directory and tells which of them the patterns mean.
    #[track_caller]
    fn check(files: &[&str], paths: &[&str], exclude: &[&str], expected: &[&str]) {
        let dir = tempfile::tempdir().expect("temp dir");
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().expect("below dir")).expect("mkdir");
            fs::write(path, "").expect("write");
        }
        let rooted = |all: &[&str]| -> Vec<String> {
            all.iter()
                .map(|p| dir.path().join(p).to_string_lossy().into_owned())
                .collect()
        };
        let patterns = Patterns::new(&rooted(paths), &rooted(exclude)).expect("patterns");
        let mut found = Found::default();
        patterns.find(&mut found);
        let expected: BTreeSet<PathBuf> = expected.iter().map(|p| dir.path().join(p)).collect();
        assert_eq!(found.files, expected);
        let by_name = files
            .iter()
            .map(|p| dir.path().join(p))
            .filter(|p| patterns.matches(p));
        assert_eq!(
            by_name.collect::<BTreeSet<_>>(),
            expected,
            "find and matches agree"
        );
    }

    #[test]
    fn a_star_stays_in_its_directory() {
        check(&["a.log", "b.txt", "d/c.log"], &["*.log"], &[], &["a.log"]);
        check(
            &["a.log", "d/c.log", "d/e/f.log"],
            &["*/*.log"],
            &[],
            &["d/c.log"],
        );
    }

    #[test]
    fn two_stars_cross_directories() {
        let files = ["a.log", "d/c.log", "d/e/f.log", "d/e/f.txt"];
        check(
            &files,
            &["**/*.log"],
            &[],
            &["a.log", "d/c.log", "d/e/f.log"],
        );
        check(
            &files,
            &["d/**"],
            &[],
            &["d/c.log", "d/e/f.log", "d/e/f.txt"],
        );
        check(&files, &["**/e/*.log"], &[], &["d/e/f.log"]);
    }

    #[test]
    fn alternatives_ranges_and_single_characters_match() {
        let files = ["a1.log", "b2.log", "c3.log", "d.err"];
        check(&files, &["{a,b}?.log"], &[], &["a1.log", "b2.log"]);
        check(
            &files,
            &["[b-d]*.{log,err}"],
            &[],
            &["b2.log", "c3.log", "d.err"],
        );
    }

    #[test]
    fn excluded_and_compressed_files_are_left_out() {
        let files = ["a.log", "a.log.gz", "old/b.log"];
        check(&files, &["**/*"], &["old/**"], &["a.log"]);
        check(&files, &["a.log.gz"], &[], &["a.log.gz"]);
    }

    #[test]
    fn an_existing_file_is_taken_literally() {
        check(&["a[1].log", "a1.log"], &["a[1].log"], &[], &["a[1].log"]);
    }

    #[test]
    fn links_to_files_are_found_and_loops_of_directories_end() {
        let dir = tempfile::tempdir().expect("temp dir");
        fs::write(dir.path().join("real"), "").expect("write");
        std::os::unix::fs::symlink(dir.path().join("real"), dir.path().join("link.log"))
            .expect("link");
        std::os::unix::fs::symlink(dir.path(), dir.path().join("loop")).expect("link");
        let pattern = dir.path().join("**/*.log").to_string_lossy().into_owned();
        let mut found = Found::default();
        Patterns::new(&[pattern], &[])
            .expect("pattern")
            .find(&mut found);
        assert_eq!(found.files, BTreeSet::from([dir.path().join("link.log")]));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        for bad in ["/var/[a", "/var/{a/b,c}.log", "", "/"] {
            let error = Patterns::new(&[bad.into()], &[]).expect_err(bad);
            assert!(
                error.to_string().starts_with(&format!("`{bad}`: ")),
                "{error}"
            );
        }
    }
}
