//! What holds of the source as a whole: who may know whom, and that the map is true.

use std::path::{Path, PathBuf};

/// Which modules each module may use, besides itself. `app`, `cli` and the crate's root may
/// use everything.
const MAY_USE: [(&str, &[&str]); 12] = [
    ("backup", &[]),
    ("model", &[]),
    ("runtime", &[]),
    ("telemetry", &["runtime"]),
    ("protocol", &["model"]),
    ("logql", &["model"]),
    ("store", &["model", "runtime", "telemetry"]),
    ("ingest", &["model", "store", "runtime", "telemetry"]),
    (
        "query",
        &["model", "logql", "store", "runtime", "telemetry"],
    ),
    (
        "server",
        &[
            "model",
            "logql",
            "protocol",
            "ingest",
            "query",
            "runtime",
            "telemetry",
        ],
    ),
    (
        "source",
        &[
            "model",
            "logql",
            "protocol",
            "ingest",
            "query",
            "runtime",
            "telemetry",
        ],
    ),
    // The parts' options, and what they are made of.
    ("config", &["source", "telemetry", "logql"]),
];

/// A crate, and where it may be used.
const KEPT_IN: [(&str, &[&str]); 4] = [
    ("rocksdb", &["src/store/kv.rs", "src/store/kv/"]),
    ("tantivy", &["src/store/index/"]),
    ("axum", &["src/server/", "src/app/"]),
    ("tonic", &["src/server/", "src/app/"]),
];

/// No `async` there: they are called from any thread.
const SYNCHRONOUS: [&str; 4] = ["model", "protocol", "logql", "store"];

/// The facade's two waits: they only await a channel.
const ASYNC_ALLOWED: [&str; 1] = ["src/store/mod.rs"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file without comments and without its tests.
struct Source {
    path: String,
    lines: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    files.sort();
    let sources = files.into_iter().filter_map(|file| {
        let path = file
            .strip_prefix(root())
            .expect("below")
            .to_str()
            .expect("UTF-8")
            .to_owned();
        let text = std::fs::read_to_string(&file).expect("readable");
        if path.ends_with("/tests.rs") || path.contains("/tests/") {
            return None;
        }
        let mut lines = Vec::new();
        let mut rows = text.lines().enumerate();
        while let Some((number, line)) = rows.next() {
            if line.trim() == "#[cfg(test)]" {
                // Either all that follows, or a module elsewhere.
                let next = rows.next();
                if next.is_some_and(|(_, line)| line.ends_with('{')) {
                    break;
                }
                continue;
            }
            let code = line.split("//").next().unwrap_or("");
            if !code.trim().is_empty() {
                lines.push((number + 1, code.to_owned()));
            }
        }
        Some(Source { path, lines })
    });
    let sources: Vec<Source> = sources.collect();
    assert!(
        sources.iter().map(|s| s.lines.len()).sum::<usize>() > 10_000,
        "these are not all"
    );
    sources
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}

/// `store` of `src/store/kv.rs`, `cli` of `src/cli.rs`.
fn module(path: &str) -> &str {
    let rest = path.strip_prefix("src/").expect("below src");
    rest.split('/')
        .next()
        .expect("a name")
        .trim_end_matches(".rs")
}

/// Modules of ours that a line names by `crate::`, also in groups.
fn used(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        // `$crate::`, and paths of other crates that end so.
        if line[..at].ends_with(|c: char| c == '$' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let rest = &line[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => found.push(identifier(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            found.push(identifier(std::mem::take(&mut item).trim()))
                        }
                        _ => {}
                    }
                    if c != ',' || depth > 0 {
                        item.push(c);
                    }
                }
                found.push(identifier(item.trim()));
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn modules_use_only_what_they_may() {
    let mut wrong = Vec::new();
    for source in sources() {
        let ours = module(&source.path);
        let Some((_, may)) = MAY_USE.iter().find(|(name, _)| *name == ours) else {
            assert!(
                matches!(ours, "app" | "cli" | "lib" | "main"),
                "{ours} is in no table"
            );
            continue;
        };
        for (number, line) in &source.lines {
            for name in used(line) {
                let known = MAY_USE.iter().any(|(module, _)| *module == name)
                    || ["app", "cli"].contains(&&*name);
                if known && name != ours && !may.contains(&&*name) {
                    wrong.push(format!("{}:{number}: {ours} uses {name}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn uses_are_read_as_the_compiler_does() {
    assert_eq!(used("use crate::model::{Labels, Day};"), ["model"]);
    assert_eq!(
        used("use crate::{model, store::kv::Kv, query::{a, b}};"),
        ["model", "store", "query"]
    );
    assert_eq!(
        used("pub(crate) fn x(a: &crate::store::Store) -> crate::model::Day {"),
        ["store", "model"]
    );
    assert_eq!(used("$crate::x, my_crate::y"), [""; 0]);
}

#[test]
fn engines_and_frameworks_stay_in_their_modules() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, places) in KEPT_IN {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for (number, line) in &source.lines {
                let used = line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    line[at + name.len()..].starts_with("::")
                        && !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
                });
                if used {
                    wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_synchronous_stays_so() {
    let mut wrong = Vec::new();
    for source in sources() {
        if !SYNCHRONOUS.contains(&module(&source.path)) || ASYNC_ALLOWED.contains(&&*source.path) {
            continue;
        }
        for (number, line) in &source.lines {
            if line.contains("async ") || line.contains(".await") {
                wrong.push(format!("{}:{number}: {}", source.path, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn paths_that_the_documents_name_exist() {
    let tops = [
        "src/", "tests/", "docs/", "benches/", "fuzz/", "proto/", "systemd/",
    ];
    let mut wrong = Vec::new();
    for document in [
        "docs/architecture.md",
        "README.md",
        "docs/operating.md",
        "docs/compatibility.md",
    ] {
        let Ok(text) = std::fs::read_to_string(root().join(document)) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            // What stands between backticks.
            for name in line.split('`').skip(1).step_by(2) {
                let name = name.split([' ', ':']).next().unwrap_or("");
                let ours = tops.iter().any(|top| name.starts_with(top));
                let pattern = name.contains(['*', '<', '{', '…']);
                if ours && !pattern && !root().join(name).exists() {
                    wrong.push(format!("{document}:{}: {name}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
