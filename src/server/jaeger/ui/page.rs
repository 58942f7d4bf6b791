//! The UI's page: `index.html` with what jaeger-query fills in.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::LazyLock;

use bytes::Bytes;
use regex::{NoExpand, Regex};

use crate::server::jaeger::admin::Version;

/// Larger files are no page and no configuration.
const MAX_FILE: u64 = 4 << 20;

/// A page, ready to be sent.
#[derive(Clone, Debug)]
pub struct Page {
    pub html: Bytes,
    /// For `ETag`.
    pub tag: String,
    /// What the files were when they were read.
    stamps: Stamps,
}

type Stamps = [Option<(u64, u64, i64, i64)>; 2];

impl Page {
    /// Reads page and configuration; `last` is given back while nothing changed.
    pub fn read(
        dir: &Path,
        config: Option<&Path>,
        base_path: &str,
        last: Option<&Self>,
    ) -> Result<Self, String> {
        let index = dir.join("index.html");
        let stamps = [Some(stamp(&index)?), config.map(stamp).transpose()?];
        if let Some(last) = last.filter(|last| last.stamps == stamps) {
            return Ok(last.clone());
        }
        let mut html = text(&index)?;
        if let Some(config) = config {
            html = with_config(&html, config, &text(config)?)
                .map_err(|error| format!("{}: {error}", config.display()))?;
        }
        let html = filled_in(&html, base_path);
        let tag = format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(html.as_bytes()));
        Ok(Self {
            html: html.into(),
            tag,
            stamps,
        })
    }
}

fn stamp(path: &Path) -> Result<(u64, u64, i64, i64), String> {
    let meta = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

fn text(path: &Path) -> Result<String, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| told(&error))?;
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    match read.map_err(|error| told(&error))? as u64 > MAX_FILE {
        true => Err(told(&format!("is larger than {MAX_FILE} bytes"))),
        false => Ok(text),
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a constant")
}

static CONFIG: LazyLock<Regex> = LazyLock::new(|| pattern("JAEGER_CONFIG *= *DEFAULT_CONFIG;"));
static CONFIG_JS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?m)^[ \t]*// *JAEGER_CONFIG_JS.*\n.*"));
static VERSION: LazyLock<Regex> = LazyLock::new(|| pattern("JAEGER_VERSION *= *DEFAULT_VERSION;"));
static STORAGE: LazyLock<Regex> =
    LazyLock::new(|| pattern("JAEGER_STORAGE_CAPABILITIES *= *DEFAULT_STORAGE_CAPABILITIES;"));
static BACKEND: LazyLock<Regex> =
    LazyLock::new(|| pattern("JAEGER_BACKEND_CAPABILITIES *= *DEFAULT_BACKEND_CAPABILITIES;"));
static UI_CONFIG: LazyLock<Regex> = LazyLock::new(|| pattern(r"function\s+UIConfig\s*\(\s*\)"));

fn with_config(html: &str, path: &Path, text: &str) -> Result<String, String> {
    if path.extension().is_some_and(|extension| extension == "js") {
        if !UI_CONFIG.is_match(text) {
            return Err("does not define `function UIConfig()`".into());
        }
        if !CONFIG_JS.is_match(html) {
            return Err("the page has no place for JavaScript; use JSON".into());
        }
        return Ok(CONFIG_JS.replace(html, NoExpand(text)).into_owned());
    }
    let config: serde_json::Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if !config.is_object() {
        return Err("is no JSON object".into());
    }
    if !CONFIG.is_match(html) {
        return Err("the page has no place for a configuration".into());
    }
    let filled = format!("JAEGER_CONFIG = {};", in_script(&config));
    Ok(CONFIG.replace(html, NoExpand(&filled)).into_owned())
}

/// All but the configuration.
fn filled_in(html: &str, base_path: &str) -> String {
    let version = serde_json::to_value(Version::of_this_build()).unwrap_or_default();
    let mut storage = serde_json::json!({ "archiveStorage": true, "metricsStorage": true });
    let mut html = html.to_owned();
    let mut fill = |pattern: &Regex, name: &str, value: &serde_json::Value| {
        let filled = format!("{name} = {};", in_script(value));
        html = pattern.replace(&html, NoExpand(&filled)).into_owned();
    };
    fill(&VERSION, "JAEGER_VERSION", &version);
    fill(&STORAGE, "JAEGER_STORAGE_CAPABILITIES", &storage);
    storage["searchWithoutServiceName"] = false.into();
    storage["aiAssistant"] = false.into();
    fill(&BACKEND, "JAEGER_BACKEND_CAPABILITIES", &storage);
    html.replace("<base href=\"/\"", &format!("<base href=\"{base_path}/\""))
}

/// JSON that can stand in a script of a page: no `</script>` ends it.
fn in_script(value: &serde_json::Value) -> String {
    value
        .to_string()
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}
