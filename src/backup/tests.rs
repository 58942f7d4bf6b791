use super::*;

fn data(dir: &Path) {
    for (path, text) in [
        ("FORMAT", "1\n"),
        ("LOCK", ""),
        ("MANIFEST.copy", "x"),
        ("DAMAGED", "x"),
        ("db/000012.sst", "table"),
        ("db/000013.blob", "blob"),
        ("db/LOG", "chatter"),
        ("db/LOCK", ""),
        ("journal/1.wpj", "journal"),
        ("index/log-1/a.term", "terms"),
        ("index/log-1/meta.lock", ""),
    ] {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

fn restored(target: &dyn Target, name: Option<&str>) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new");
    restore(target, name, &to).unwrap();
    let mut files = Vec::new();
    collect(&to, &to, &mut files).unwrap();
    let read = |path: String| {
        let text = std::fs::read_to_string(to.join(&path)).unwrap();
        (path, text)
    };
    files.into_iter().map(read).collect()
}

/// What every target must do; the bucket's test calls it as well.
pub(super) fn check_target(target: &dyn Target) {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let first = create(dir.path(), target, "1", None).unwrap();
    assert_eq!((first.files, first.copied_files), (5, 5));
    let expected: BTreeMap<String, String> = [
        ("FORMAT", "1\n"),
        ("db/000012.sst", "table"),
        ("db/000013.blob", "blob"),
        ("journal/1.wpj", "journal"),
        ("index/log-1/a.term", "terms"),
    ]
    .map(|(path, text)| (path.to_owned(), text.to_owned()))
    .into();
    assert_eq!(restored(target, None), expected);

    // Only what is new is copied; a file of the same name with other content is another file.
    std::fs::remove_file(dir.path().join("db/000012.sst")).unwrap();
    std::fs::write(dir.path().join("db/000014.sst"), "merged").unwrap();
    std::fs::write(dir.path().join("journal/1.wpj"), "JOURNAL").unwrap();
    let second = create(dir.path(), target, "2", None).unwrap();
    assert_eq!(
        (second.files, second.copied_files, second.copied_bytes),
        (5, 2, 13)
    );
    assert_eq!(restored(target, Some("1")), expected);
    assert_eq!(restored(target, None)["journal/1.wpj"], "JOURNAL");
    assert_eq!(backups(target).unwrap(), ["1", "2"]);
    let mut told = Vec::new();
    let read = verify(target, None, &mut |what| told.push(what)).unwrap();
    assert_eq!((read, told.len()), (7, 0), "{told:?}");

    // Pruning takes what only the old one has.
    let third = create(dir.path(), target, "3", Some(2)).unwrap();
    assert_eq!((third.copied_files, third.removed), (0, 3));
    assert_eq!(backups(target).unwrap(), ["2", "3"]);
    assert_eq!(target.list("objects/").unwrap().len(), 5);
    assert_eq!(restored(target, Some("2"))["db/000014.sst"], "merged");
    assert!(restore(target, Some("1"), &dir.path().join("no")).is_err());
}

#[test]
fn a_directory_keeps_backups_that_share_their_files() {
    let dir = tempfile::tempdir().unwrap();
    check_target(&Directory::new(dir.path().join("backups")));
}

#[test]
fn damage_in_a_backup_is_found_and_is_not_restored() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let target = Directory::new(dir.path().join("target"));
    create(dir.path(), &target, "1", None).unwrap();
    let names: Vec<String> = target.list("objects/").unwrap().into_keys().collect();
    for name in names.iter().map(String::as_str).chain(["backups/1.json"]) {
        let path = dir.path().join("target").join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut told = Vec::new();
        verify(&target, None, &mut |what| told.push(what)).unwrap();
        assert!(!told.is_empty(), "{name}");
        let to = tempfile::tempdir().unwrap();
        assert!(restore(&target, None, to.path()).is_err(), "{name}");
        assert!(!to.path().join("FORMAT").exists());
        std::fs::write(&path, whole).unwrap();
    }
    let mut told = Vec::new();
    verify(&target, None, &mut |what| told.push(what)).unwrap();
    assert!(told.is_empty());
}

#[test]
fn a_directory_with_anything_in_it_is_not_restored_into() {
    let dir = tempfile::tempdir().unwrap();
    data(dir.path());
    let target = Directory::new(dir.path().join("target"));
    create(dir.path(), &target, "1", None).unwrap();
    let refused = restore(&target, None, dir.path());
    assert!(matches!(refused, Err(BackupError::NotEmpty(_))));
}

#[test]
fn a_list_that_leads_out_of_the_directory_is_refused() {
    for path in ["../x", "/etc/x", "db//x", "db/../../x", ""] {
        let manifest = Manifest {
            files: vec![Entry {
                path: path.into(),
                size: 1,
                hash: 2,
                changed: 3,
            }],
        };
        assert!(Manifest::decode(&manifest.encode()).is_err(), "{path}");
    }
}
