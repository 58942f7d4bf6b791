//! Backups in a bucket that speaks S3's protocol.
//!
//! Where it is and who asks comes from the environment, as every client of S3 takes it:
//! `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, `AWS_ENDPOINT_URL`, and what else
//! `object_store` reads. An object appears whole or not at all: S3 says so of a single request
//! and of a completed upload in parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::{Builder, Runtime};

use super::{BackupError, Target};

/// Bytes sent at a time. S3 takes at most 10,000 parts of an upload, each of 5 MiB at least but
/// for the last one: files of up to 156 GiB.
const PART: usize = 16 << 20;

/// A bucket, or what is below a prefix in it.
pub struct Bucket {
    store: Box<dyn ObjectStore>,
    prefix: Key,
    /// For messages.
    url: String,
    runtime: Runtime,
}

impl Bucket {
    /// `url`: `s3://<bucket>` or `s3://<bucket>/<prefix>`.
    pub fn open(url: &str) -> Result<Self, BackupError> {
        let wrong = |what: String| BackupError::Target(format!("{url}: {what}"));
        let rest = url.strip_prefix("s3://").unwrap_or_default();
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(wrong("is not s3://<bucket>/<prefix>".into()));
        }
        let prefix = Key::parse(prefix.trim_end_matches('/')).map_err(|e| wrong(e.to_string()))?;
        // An error says that another part of the process has installed one: that does.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let endpoint = std::env::var("AWS_ENDPOINT_URL_S3")
            .or_else(|_| std::env::var("AWS_ENDPOINT_URL"))
            .or_else(|_| std::env::var("AWS_ENDPOINT"))
            .unwrap_or_default();
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        if endpoint.starts_with("http://") {
            // Who names such an endpoint wants it.
            builder = builder.with_allow_http(true);
        }
        let store = builder.build().map_err(|e| wrong(describe(&e)))?;
        Self::of(Box::new(store), prefix, url)
    }

    fn of(store: Box<dyn ObjectStore>, prefix: Key, url: &str) -> Result<Self, BackupError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|e| BackupError::Target(format!("{url}: {e}")))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self {
            store,
            prefix,
            url,
            runtime,
        })
    }

    fn key(&self, name: &str) -> Key {
        name.split('/')
            .fold(self.prefix.clone(), |key, part| key.join(part))
    }

    fn error(&self, name: &str) -> impl FnOnce(Error) -> BackupError {
        let at = format!("{}/{name}", self.url);
        move |error| match error {
            Error::NotFound { .. } => BackupError::Missing(at),
            error => BackupError::Target(format!("{at}: {}", describe(&error))),
        }
    }

    /// Uploads in parts what does not fit one. What was uploaded of a failed one is let go of.
    async fn put_parts(&self, key: &Key, from: &Path, size: u64) -> Result<(), PutError> {
        let mut file = File::open(from)?;
        let mut left = size;
        if left <= PART as u64 {
            let part = read_part(&mut file, left)?;
            self.store.put(key, PutPayload::from(part)).await?;
            return Ok(());
        }
        let mut upload = self.store.put_multipart(key).await?;
        let sent = async {
            while left > 0 {
                let part = read_part(&mut file, left)?;
                left -= part.len() as u64;
                upload.put_part(PutPayload::from(part)).await?;
            }
            upload.complete().await?;
            Ok(())
        };
        let sent = sent.await;
        if sent.is_err() {
            // The first error is what is told.
            let _ = upload.abort().await;
        }
        sent
    }
}

/// Either side of a copy.
enum PutError {
    File(std::io::Error),
    Bucket(Error),
}

impl From<std::io::Error> for PutError {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl From<Error> for PutError {
    fn from(error: Error) -> Self {
        Self::Bucket(error)
    }
}

/// The next bytes of a file of which `left` are missing; an error when it is shorter.
fn read_part(file: &mut File, left: u64) -> std::io::Result<Bytes> {
    let mut part = vec![0; usize::try_from(left).unwrap_or(PART).min(PART)];
    file.read_exact(&mut part)?;
    Ok(part.into())
}

/// An error with what is behind it: the outermost says little.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

impl Target for Bucket {
    fn put(&self, name: &str, from: &Path, size: u64) -> Result<(), BackupError> {
        let key = self.key(name);
        let put = self.put_parts(&key, from, size);
        self.runtime.block_on(put).map_err(|error| match error {
            PutError::File(error) => BackupError::io(from, "read")(error),
            PutError::Bucket(error) => self.error(name)(error),
        })
    }

    fn put_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let bytes = Bytes::copy_from_slice(bytes);
        let key = self.key(name);
        let put = self.store.put(&key, PutPayload::from(bytes));
        self.runtime.block_on(put).map_err(self.error(name))?;
        Ok(())
    }

    fn get(
        &self,
        name: &str,
        take: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Result<(), BackupError> {
        self.runtime.block_on(async {
            let got = self.store.get(&self.key(name)).await;
            let mut pieces = got.map_err(self.error(name))?.into_stream();
            while let Some(piece) = pieces.try_next().await.map_err(self.error(name))? {
                take(&piece).map_err(BackupError::io(Path::new(name), "copy"))?;
            }
            Ok(())
        })
    }

    fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, BackupError> {
        let below = self.key(prefix.trim_end_matches('/'));
        self.runtime.block_on(async {
            let mut found = BTreeMap::new();
            let mut objects = self.store.list(Some(&below));
            while let Some(object) = objects.try_next().await.map_err(self.error(prefix))? {
                let Some(parts) = object.location.prefix_match(&self.prefix) else {
                    continue;
                };
                let parts: Vec<_> = parts.map(|p| p.as_ref().to_owned()).collect();
                found.insert(parts.join("/"), object.size);
            }
            Ok(found)
        })
    }

    fn delete(&self, name: &str) -> Result<(), BackupError> {
        let key = self.key(name);
        match self.runtime.block_on(self.store.delete(&key)) {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(name)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn bucket(prefix: &str) -> Bucket {
        let store = Box::new(InMemory::new());
        Bucket::of(store, Key::from(prefix), "s3://b/").expect("a bucket")
    }

    fn read(bucket: &Bucket, name: &str) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        bucket.get(name, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    #[test]
    fn what_is_put_is_listed_got_and_deleted() {
        for prefix in ["", "one/two"] {
            let bucket = bucket(prefix);
            bucket.put_bytes("backups/a.json", b"{}").expect("put");
            bucket.put_bytes("objects/ab/abcd-3", b"abc").expect("put");
            let all = bucket.list("objects/").expect("list");
            assert_eq!(all, BTreeMap::from([("objects/ab/abcd-3".to_owned(), 3)]));
            let read = read(&bucket, "objects/ab/abcd-3").expect("get");
            assert_eq!(read, b"abc");
            bucket.delete("objects/ab/abcd-3").expect("delete");
            bucket.delete("objects/ab/abcd-3").expect("delete again");
            assert!(bucket.list("objects/").expect("list").is_empty());
        }
    }

    #[test]
    fn a_file_of_several_parts_comes_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..2 * PART as u64 + 5)
            .map(|i| ((i * i) >> 7) as u8)
            .collect();
        std::fs::write(&path, &bytes).expect("written");
        let bucket = bucket("p");
        let size = bytes.len() as u64;
        bucket.put("objects/f", &path, size).expect("put");
        assert!(read(&bucket, "objects/f").expect("get") == bytes);
        // A file that has become shorter meanwhile is not stored.
        let error = bucket
            .put("objects/g", &path, size + 1)
            .expect_err("too short");
        assert!(matches!(error, BackupError::Io { .. }), "{error}");
        assert!(read(&bucket, "objects/g").is_err());
    }

    #[test]
    fn what_is_not_there_is_missing_and_wrong_names_are_told() {
        let error = read(&bucket("p"), "objects/f").expect_err("missing");
        assert!(matches!(error, BackupError::Missing(_)), "{error}");
        for url in ["s3://", "s3:///x", "s3://b/x//y"] {
            let error = Bucket::open(url).err().expect("refused").to_string();
            assert!(error.starts_with(url), "{error}");
        }
    }
}
