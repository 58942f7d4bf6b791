//! Backups of the running program, and what is there after restoring them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::appliance::{Appliance, Setup, agent, locked, now, request};

/// Runs a command that must go well; what it printed.
#[track_caller]
fn run(appliance: &Appliance, arguments: &[&str]) -> String {
    let mut command = match arguments {
        // They need no configuration.
        ["backup", "verify" | "list", ..] => Command::new(env!("CARGO_BIN_EXE_watchpost")),
        _ => appliance.command(arguments),
    };
    if let ["backup", "verify" | "list", ..] = arguments {
        command.args(arguments);
    }
    let done = command.output().expect("runs");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{arguments:?}: {text}{error}");
    text
}

/// Files and bytes that a backup copied, from what it printed.
#[track_caller]
fn copied(text: &str) -> (u64, u64) {
    let (_, rest) = text.split_once("copied ").expect("copied");
    let mut numbers = rest
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|n| n.parse().ok());
    (
        numbers.next().expect("files"),
        numbers.next().expect("bytes"),
    )
}

/// Pushes lines until told to stop; keeps those that were acknowledged.
struct Pusher {
    acknowledged: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Pusher {
    fn start(appliance: &Appliance, number: Arc<AtomicU64>) -> Self {
        let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let url = appliance.url("loki.listen", "/loki/api/v1/push");
        let (kept, stopped) = (acknowledged.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let agent = agent();
            while !stopped.load(Ordering::Relaxed) {
                let n = number.fetch_add(1, Ordering::Relaxed);
                let line = format!("line {n:08} {}", "x".repeat(n as usize % 900));
                let body = json!({"streams": [{
                    "stream": {"app": format!("app{}", n % 3)},
                    "values": [[now().to_string(), line]],
                }]})
                .to_string();
                let headers = [("Content-Type", "application/json")];
                let sent = request(&agent, "POST", &url, &headers, body.as_bytes());
                if sent.is_ok_and(|answer| answer.status == 204) {
                    locked(&kept).push(line);
                }
            }
        });
        Self {
            acknowledged,
            stop,
            thread: Some(thread),
        }
    }

    fn acknowledged(&self) -> Vec<String> {
        locked(&self.acknowledged).clone()
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Lines of a data directory, by a program that runs on it.
fn lines_of(appliance: &mut Appliance) -> BTreeSet<String> {
    appliance.start();
    appliance.wait_recovered();
    let lines = appliance.lines("{app=~\".+\"}");
    let set: BTreeSet<String> = lines.iter().map(|(_, line)| line.clone()).collect();
    assert_eq!(set.len(), lines.len(), "a line is there twice");
    assert!(appliance.stop().success());
    set
}

fn restored_into(target: &Path, name: Option<&str>) -> Appliance {
    let appliance = Setup::default().prepare();
    let target = target.to_str().expect("UTF-8");
    let mut arguments = vec!["backup", "restore", "--target", target];
    if let Some(name) = name {
        arguments.extend(["--name", name]);
    }
    run(&appliance, &arguments);
    appliance
}

#[test]
fn what_was_acknowledged_before_a_backup_is_in_it_and_the_next_copies_little() {
    // The default address: the command asks who runs on the directory.
    let appliance = Setup::default().start();
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().join("backups");
    let target_text = target.to_str().expect("UTF-8").to_owned();
    let number = Arc::new(AtomicU64::new(0));
    let pusher = Pusher::start(&appliance, number.clone());
    let address = appliance
        .address("loki.listen")
        .expect("listening")
        .to_string();
    let listen = format!("loki.listen={address}");
    let create = [
        "backup",
        "create",
        "--target",
        &target_text,
        "--set",
        &listen,
    ];
    let wait_for = |lines: usize| {
        appliance.wait("pushes", || {
            (pusher.acknowledged().len() >= lines).then_some(())
        });
    };
    wait_for(300);
    appliance.flush();
    wait_for(600);
    let before_first = pusher.acknowledged();
    let first = run(&appliance, &create);
    wait_for(before_first.len() + 200);
    appliance.flush();
    wait_for(before_first.len() + 400);
    let before_second = pusher.acknowledged();
    run(&appliance, &create);
    drop(pusher);
    std::thread::sleep(Duration::from_millis(10));
    // Nothing came since but what the second one may have missed.
    run(&appliance, &create);
    let last = run(&appliance, &create);
    let (files, bytes) = copied(&last);
    let (first_files, first_bytes) = copied(&first);
    assert!(
        files < first_files && bytes < first_bytes / 2,
        "the last copied {files} files, {bytes} bytes; the first {first_files}, {first_bytes}"
    );
    // Nothing is left of the links.
    let links = std::fs::read_dir(appliance.data_dir().join("backup.tmp")).expect("made");
    assert_eq!(links.count(), 0);

    let verified = run(&appliance, &["backup", "verify", "--target", &target_text]);
    assert!(verified.contains("nothing is damaged"), "{verified}");
    let names = run(&appliance, &["backup", "list", "--target", &target_text]);
    let names: Vec<&str> = names.lines().collect();
    assert_eq!(names.len(), 4);
    for (name, expected) in [(names[0], &before_first), (names[1], &before_second)] {
        let mut restored = restored_into(&target, Some(name));
        let whole = run(&restored, &["verify"]);
        assert!(whole.contains("nothing is damaged"), "{whole}");
        let lines = lines_of(&mut restored);
        let missing: Vec<_> = expected.iter().filter(|l| !lines.contains(*l)).collect();
        assert!(missing.is_empty(), "{name} lacks {} lines", missing.len());
        // By the word index as well, which came along.
        restored.start();
        restored.wait_recovered();
        let found = restored.lines("{app=~\".+\"} |= \"line\"");
        assert_eq!(found.len(), lines.len());
        assert!(restored.stop().success());
    }
    let sent = number.load(Ordering::Relaxed);
    assert!(sent > 1_000, "only {sent} lines");
}

#[test]
fn a_directory_at_rest_is_backed_up_and_older_backups_go() {
    let mut appliance = Setup::default().start();
    let dir = tempfile::tempdir().expect("a directory");
    let target = dir.path().to_str().expect("UTF-8").to_owned();
    let push = |appliance: &Appliance, line: &str| {
        let body = json!({"streams": [{"stream": {"app": "a"},
            "values": [[now().to_string(), line]]}]});
        assert_eq!(appliance.push(&body).status, 204);
    };
    for n in 0..3 {
        push(&appliance, &format!("line {n}"));
        if n == 1 {
            appliance.flush();
        }
        assert!(appliance.stop().success());
        run(
            &appliance,
            &["backup", "create", "--target", &target, "--keep", "2"],
        );
        appliance.start();
    }
    assert!(appliance.stop().success());
    let names = run(&appliance, &["backup", "list", "--target", &target]);
    assert_eq!(names.lines().count(), 2);
    let verified = run(&appliance, &["backup", "verify", "--target", &target]);
    assert!(verified.contains("nothing is damaged"), "{verified}");
    let mut restored = restored_into(dir.path(), None);
    let expected: BTreeSet<String> = (0..3).map(|n| format!("line {n}")).collect();
    assert_eq!(lines_of(&mut restored), expected);

    let again = restored
        .command(&["backup", "restore", "--target", &target])
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(
        !again.status.success() && said.contains("is not empty"),
        "{said}"
    );
}
