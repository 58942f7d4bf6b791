//! Damage on the disk: a flipped bit in any file costs what it hits, is found, and is repaired.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::appliance::{Appliance, Setup, now};

const DAY: i64 = 86_400_000_000_000;
/// Lines of a stream and day: of what does not compress, so that a chunk is a blob.
const LINES: usize = 300;
const SPANS: usize = 700;

/// A directory with everything in it: two days of lines and one of spans, sealed and not.
struct World {
    appliance: Appliance,
    base: tempfile::TempDir,
    /// Lines by day: 0 yesterday, 1 today, 2 today and not sealed.
    lines: BTreeMap<String, usize>,
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("created");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn files_below(dir: &Path, root: &Path, all: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .expect("a directory")
        .map(|e| e.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, root, all);
        } else {
            all.push(path.strip_prefix(root).expect("below").to_owned());
        }
    }
}

fn hex(random: &mut StdRng, len: usize) -> String {
    (0..len)
        .map(|_| char::from(b"0123456789abcdef"[random.random_range(0..16)]))
        .collect()
}

fn push_lines(
    appliance: &Appliance,
    random: &mut StdRng,
    day: usize,
    at: i64,
    lines: &mut BTreeMap<String, usize>,
) {
    for stream in ["a", "b"] {
        let values: Vec<Value> = (0..LINES)
            .map(|n| {
                let word = if n % 50 == 0 { "zebra" } else { "horse" };
                let line = format!("{day}{stream}{n} {word} {}", hex(random, 120));
                lines.insert(line.clone(), day);
                json!([(at + n as i64 * 1_000).to_string(), line])
            })
            .collect();
        // In several pushes: each is a record of the journal.
        for part in values.chunks(LINES / 3) {
            let body = json!({"streams": [{"stream": {"app": stream}, "values": part}]});
            assert_eq!(appliance.push(&body).status, 204);
        }
    }
}

fn push_spans(appliance: &Appliance, random: &mut StdRng, count: usize) {
    for _ in 0..count.div_ceil(100) {
        let spans: Vec<Value> = (0..100)
            .map(|_| {
                let start = now();
                json!({
                    "traceId": hex(random, 32), "spanId": hex(random, 16),
                    "name": "op", "kind": 2,
                    "startTimeUnixNano": start.to_string(),
                    "endTimeUnixNano": (start + 1_000_000).to_string(),
                    "attributes": [{"key": "id", "value": {"stringValue": hex(random, 100)}}],
                })
            })
            .collect();
        let body = json!({"resourceSpans": [{
            "resource": {"attributes": [
                {"key": "service.name", "value": {"stringValue": "shop"}}]},
            "scopeSpans": [{"spans": spans}],
        }]});
        let headers = [("Content-Type", "application/json")];
        let body = body.to_string();
        let answer = appliance.post("otlp.http", "/v1/traces", &headers, body.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

fn world(random: &mut StdRng) -> World {
    let mut appliance = Setup::default().start();
    let mut lines = BTreeMap::new();
    let now = now();
    let today = now - now.rem_euclid(DAY);
    push_lines(&appliance, random, 0, today - DAY / 2, &mut lines);
    push_lines(&appliance, random, 1, today + 1, &mut lines);
    push_spans(&appliance, random, SPANS);
    appliance.flush();
    push_lines(&appliance, random, 2, today + 1_000_000_000, &mut lines);
    assert!(appliance.stop().success());
    let base = tempfile::tempdir().expect("a directory");
    copy_dir(&appliance.data_dir(), base.path());
    World {
        appliance,
        base,
        lines,
    }
}

impl World {
    fn reset(&self) {
        let data = self.appliance.data_dir();
        std::fs::remove_dir_all(&data).expect("removed");
        copy_dir(self.base.path(), &data);
    }

    /// Runs a command on the directory: whether it ended with 0, and what it printed.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let done = self.appliance.command(arguments).output().expect("runs");
        let text = String::from_utf8_lossy(&done.stdout).into_owned()
            + &String::from_utf8_lossy(&done.stderr);
        let code = done.status.code();
        assert!(
            matches!(code, Some(0 | 1)),
            "{arguments:?} {code:?}: {text}"
        );
        (code == Some(0), text)
    }

    /// Lines that the running program gives for a query.
    #[track_caller]
    fn served(&self, query: &str) -> BTreeSet<String> {
        let lines = self.appliance.lines(query);
        let set: BTreeSet<String> = lines.iter().map(|(_, line)| line.clone()).collect();
        assert_eq!(set.len(), lines.len(), "lines are there twice");
        for line in &set {
            assert!(self.lines.contains_key(line), "nobody sent {line}");
        }
        set
    }

    fn spans(&self) -> usize {
        let path = "/export?signal=traces&query=%7Bservice%3D%22shop%22%7D";
        let answer = self.appliance.get("loki.listen", path);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.text().lines().count()
    }

    fn zebras(&self) -> usize {
        self.lines.keys().filter(|l| l.contains("zebra")).count()
    }
}

/// What tells that something is wrong.
fn is_told(appliance: &Appliance) -> bool {
    let ready = appliance.get("loki.listen", "/ready");
    assert_eq!(ready.status, 200);
    let counted = |name: &str| appliance.metric(name, &[]) > 0.0;
    // A torn end of the journal is counted and no more.
    ready.text().contains("degraded:") || counted("damage_found") || counted("journal_damaged")
}

/// What kind of file it is, for those of which one flip is enough.
fn kind(file: &Path) -> String {
    let name = file.to_string_lossy().into_owned();
    let extension = file.extension().map(|e| e.to_string_lossy().into_owned());
    match extension {
        Some(extension) => extension,
        None => name
            .trim_end_matches(|c: char| c.is_ascii_digit())
            .to_owned(),
    }
}

#[test]
fn a_flipped_bit_in_any_file_costs_what_it_hits_is_told_and_can_be_repaired() {
    let mut random = StdRng::seed_from_u64(5);
    let mut world = world(&mut random);
    world.appliance.expect_log("");
    let slow = std::env::var_os("SLOW").is_some();
    let mut files = Vec::new();
    files_below(world.base.path(), world.base.path(), &mut files);
    let mut repaired = BTreeSet::new();
    let (mut flips, mut noticed, mut costly) = (0, 0, 0);
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let size = std::fs::metadata(world.base.path().join(&file))
            .expect("there")
            .len();
        if size == 0 || name.ends_with("LOCK") || name.contains("/LOG") {
            continue;
        }
        let large = ["sst", "blob", "wpj"].contains(&&*kind(&file));
        let times = if slow { 8 } else { 1 + 2 * usize::from(large) };
        for _ in 0..times {
            world.reset();
            let at = random.random_range(0..size);
            let path = world.appliance.data_dir().join(&file);
            let mut bytes = std::fs::read(&path).expect("read");
            bytes[at as usize] ^= 1 << random.random_range(0..8);
            std::fs::write(&path, bytes).expect("written");
            flips += 1;
            let what = format!("{name} byte {at}");

            let (whole, said) = world.run(&["verify"]);
            noticed += usize::from(!whole);
            if name == "FORMAT" {
                assert!(!whole, "{what}");
                assert!(world.appliance.try_start().is_err(), "{what}");
                world.appliance.kill();
                continue;
            }
            if let Err(why) = world.appliance.try_start() {
                panic!("{what}: no start: {why}\n{said}");
            }
            world.appliance.wait_recovered();
            let served = world.served("{app=~\".+\"}");
            let missing: BTreeSet<usize> = world
                .lines
                .iter()
                .filter(|(line, _)| !served.contains(*line))
                .map(|(_, day)| *day)
                .collect();
            let spans = world.spans();
            if !missing.is_empty() || spans < SPANS {
                costly += 1;
                assert!(
                    !whole,
                    "{what}: {missing:?} {spans} lost, not found by verify: {said}"
                );
                assert!(is_told(&world.appliance), "{what}: nothing is told");
            }
            assert!(
                missing.len() <= 1,
                "{what} cost several days: {missing:?}\n{said}"
            );
            assert!(
                missing.is_empty() || spans == SPANS,
                "{what} cost lines and spans"
            );
            if missing.is_empty() {
                // Through the word index, whatever became of it.
                let found = world.served("{app=~\".+\"} |= \"zebra\"");
                assert_eq!(found.len(), world.zebras(), "{what}: an index hides lines");
            }
            let body = json!({"streams": [{"stream": {"app": "new"},
                "values": [[now().to_string(), "hello"]]}]});
            assert_eq!(world.appliance.push(&body).status, 204, "{what}");
            world.appliance.flush();
            assert_eq!(world.appliance.lines("{app=\"new\"}").len(), 1, "{what}");
            assert!(world.appliance.stop().success(), "{what}");

            if whole || !repaired.insert(kind(&file)) {
                continue;
            }
            let (mended, did) = world.run(&["repair"]);
            assert!(mended, "{what}: {did}");
            let (whole, said) = world.run(&["verify"]);
            assert!(whole, "{what}: after the repair: {said}\n{did}");
            world.appliance.start();
            world.appliance.wait_recovered();
            let ready = world.appliance.get("loki.listen", "/ready").text();
            assert!(!ready.contains("damaged"), "{what}: {ready}");
            let after = world.served("{app=~\"a|b\"}");
            assert!(
                after.is_superset(&served),
                "{what}: repairing lost lines: {did}"
            );
            assert!(
                world.spans() >= spans,
                "{what}: repairing lost spans: {did}"
            );
            assert!(world.appliance.stop().success());
        }
    }
    println!("{flips} flips, {noticed} found by verify, {costly} cost something");
    assert!(noticed > 10 && costly > 3, "the flips hit nothing");
}

#[test]
fn verify_finds_nothing_in_a_whole_directory_and_export_gives_all_of_it() {
    let mut random = StdRng::seed_from_u64(6);
    let world = world(&mut random);
    let (whole, said) = world.run(&["verify"]);
    assert!(whole, "{said}");
    assert!(said.contains("nothing is damaged"), "{said}");

    let done = world
        .appliance
        .command(&["export", "--query", "{app=~\".+\"}"])
        .output()
        .expect("runs");
    assert!(done.status.success());
    let lines: BTreeSet<String> = String::from_utf8(done.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| {
            let value: Value = serde_json::from_str(line).expect("JSON");
            assert!(value["labels"]["app"].is_string() && value["timestamp"].is_string());
            value["line"].as_str().expect("a line").to_owned()
        })
        .collect();
    assert_eq!(lines.len(), world.lines.len());
    assert!(lines.iter().all(|line| world.lines.contains_key(line)));

    let arguments = [
        "export",
        "--signal",
        "traces",
        "--query",
        "{service=\"shop\"}",
    ];
    let done = world.appliance.command(&arguments).output().expect("runs");
    let text = String::from_utf8(done.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), SPANS);
    let (_, said) = world.run(&["repair"]);
    assert!(said.contains("whole; nothing was lost"), "{said}");
}

#[test]
fn a_running_server_is_asked_for_exports_and_verified_beside() {
    let appliance = Setup::default().start();
    let mut lines = BTreeMap::new();
    let mut random = StdRng::seed_from_u64(7);
    push_lines(
        &appliance,
        &mut random,
        1,
        now() - 1_000_000_000,
        &mut lines,
    );
    push_spans(&appliance, &mut random, 100);
    let address = appliance.url("loki.listen", "");
    let export = |arguments: &[&str]| {
        let mut all = vec!["export", "--addr", &address];
        all.extend(arguments);
        let done = appliance.command(&all).output().expect("runs");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        String::from_utf8(done.stdout).expect("UTF-8")
    };
    for _ in 0..2 {
        let all = export(&["--query", "{app=~\".+\"}"]);
        assert_eq!(all.lines().count(), lines.len());
        let some = export(&["--query", "{app=\"a\"} |= \"zebra\""]);
        assert_eq!(some.lines().count(), LINES / 50);
        let past = export(&["--query", "{app=\"a\"}", "--to", "2020-01-01T00:00:00Z"]);
        assert_eq!(past, "");
        let spans = export(&["--signal", "traces", "--query", "{operation=\"op\"}"]);
        assert_eq!(spans.lines().count(), 100);
        let none = export(&["--signal", "traces", "--query", "{service=\"other\"}"]);
        assert_eq!(none, "");
        let done = appliance.command(&["verify"]).output().expect("runs");
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stdout)
        );
        // The second time sealed.
        appliance.flush();
    }
    // What was exported can be sent again, and is known.
    let spans = export(&["--signal", "traces", "--query", "{}"]);
    let line = spans.lines().next().expect("a span");
    let headers = [("Content-Type", "application/json")];
    let answer = appliance.post("otlp.http", "/v1/traces", &headers, line.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let bad = appliance
        .command(&["export", "--addr", &address, "--query", "{"])
        .output()
        .expect("runs");
    assert!(!bad.status.success() && bad.stdout.is_empty());
}
