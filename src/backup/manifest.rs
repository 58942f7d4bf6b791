//! What a backup consists of: a line of JSON, then the XXH3-128 of that line in hex.
//!
//! `{"version":1,"files":[{"path":…,"size":…,"xxh3":…,"changed":…},…]}`

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

const VERSION: u32 = 1;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the data directory.
    pub path: String,
    pub size: u64,
    /// XXH3-128 of the content.
    pub hash: u128,
    /// When it was changed, nanoseconds since the epoch.
    pub changed: u64,
}

/// The list of a backup's files, in the order in which they are restored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    pub files: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u32,
    files: Vec<WrittenEntry>,
}

#[derive(Serialize, Deserialize)]
struct WrittenEntry {
    path: String,
    size: u64,
    xxh3: String,
    changed: u64,
}

impl Manifest {
    pub fn encode(&self) -> Vec<u8> {
        let files = self.files.iter().map(|file| WrittenEntry {
            path: file.path.clone(),
            size: file.size,
            xxh3: format!("{:032x}", file.hash),
            changed: file.changed,
        });
        let written = Written {
            version: VERSION,
            files: files.collect(),
        };
        // Neither writing to memory nor numbers and texts can fail.
        let mut out = serde_json::to_vec(&written).unwrap_or_default();
        let hash = xxh3_128(&out);
        out.extend_from_slice(format!("\n{hash:032x}\n").as_bytes());
        out
    }

    /// The reverse of [`Manifest::encode`]; verifies the checksum, and that no path leads
    /// out of the directory.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
        let (line, hash) = text.split_once('\n').ok_or("is cut short")?;
        if hash != format!("{:032x}\n", xxh3_128(line.as_bytes())) {
            return Err("the checksum of its list is wrong".into());
        }
        let written: Written = serde_json::from_str(line).map_err(|e| e.to_string())?;
        if written.version != VERSION {
            return Err(format!("version {}, expected {VERSION}", written.version));
        }
        let mut files = Vec::with_capacity(written.files.len());
        for file in written.files {
            let inside = |part: &str| !part.is_empty() && part != "." && part != "..";
            if !file.path.split('/').all(inside) {
                return Err(format!("{:?} is no path of a data directory", file.path));
            }
            files.push(Entry {
                hash: u128::from_str_radix(&file.xxh3, 16).map_err(|e| e.to_string())?,
                path: file.path,
                size: file.size,
                changed: file.changed,
            });
        }
        Ok(Self { files })
    }
}
