//! A built Jaeger UI, served beside the API that it asks (port 16686).
//!
//! U1. Nothing outside of the folder is served, whatever path is asked for.
//! U2. What can't be read changes nothing: the last good page is served, and the problem told.

pub mod page;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path as UrlPath, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::{Bytes, BytesMut};
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::io::AsyncReadExt;

use page::Page;

/// What to serve, and below which path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UiOptions {
    /// Holds `index.html` and `static`; `None`: a page that says what is here instead.
    pub dir: Option<PathBuf>,
    /// JSON, or JavaScript if it is named `.js`.
    pub config: Option<PathBuf>,
    /// Of UI and API: "", or such as "/jaeger".
    pub base_path: String,
}

/// A folder with a UI, and its page as it was read last.
pub struct Ui {
    options: UiOptions,
    state: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    page: Option<Page>,
    problem: Option<String>,
}

/// Bytes of a file that are in memory at a time, for each answer under way.
const PIECE: usize = 64 << 10;

/// Names with a hash of the content in them never mean other content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Everything else is asked for again, and mostly answered by 304.
const ASK_AGAIN: &str = "no-cache";

impl Ui {
    /// Reads the page; a problem with it is told, and does not keep anybody from starting.
    pub fn open(options: UiOptions) -> Self {
        let ui = Self {
            options,
            state: Mutex::default(),
        };
        ui.page();
        ui
    }

    /// Reads the page again if it changed. Blocks.
    pub fn reload(&self) {
        self.page();
    }

    /// What is wrong with the UI's files now.
    pub fn problem(&self) -> Option<String> {
        self.state.lock().problem.clone()
    }

    /// The page as of now, or the last good one. Blocks.
    fn page(&self) -> Option<Page> {
        let dir = self.options.dir.as_ref()?;
        let mut state = self.state.lock();
        let config = self.options.config.as_deref();
        match Page::read(dir, config, &self.options.base_path, state.page.as_ref()) {
            Ok(page) => {
                if state.problem.take().is_some() || state.page.is_none() {
                    tracing::info!(dir = %dir.display(), "Jaeger UI read");
                }
                state.page = Some(page);
            }
            Err(error) => {
                let instead = match state.page {
                    Some(_) => "the last good page is served",
                    None => "no page is served",
                };
                let problem = format!("Jaeger UI: {error}; {instead}");
                if state.problem.as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                    state.problem = Some(problem);
                }
            }
        }
        state.page.clone()
    }
}

/// `api` and the UI together, below the base path.
pub fn router(ui: Arc<Ui>, api: Router) -> Router {
    let base = ui.options.base_path.clone();
    let (root, hosted) = match ui.options.dir {
        Some(_) => {
            let hosted = Router::new()
                .route("/static/{*path}", get(asset))
                .route("/favicon.ico", get(favicon))
                .fallback(get(index));
            (get(index).with_state(ui.clone()), hosted.with_state(ui))
        }
        None => {
            let hosted = Router::new().fallback(|| async { plain(StatusCode::NOT_FOUND, NO_UI) });
            (get(|| async { plain(StatusCode::OK, NO_UI) }), hosted)
        }
    };
    let all = api.merge(hosted).route("/", root.clone());
    if base.is_empty() {
        return all;
    }
    let hint = format!("everything is below {base}/ here (jaeger.query.base_path)\n");
    Router::new()
        .nest(&base, all)
        .route(&format!("{base}/"), root)
        .fallback(move || async move { plain(StatusCode::NOT_FOUND, hint) })
}

async fn index(State(ui): State<Arc<Ui>>, headers: HeaderMap) -> Response {
    let page = tokio::task::spawn_blocking(move || ui.page()).await;
    let Ok(Some(page)) = page else {
        let text = "the UI's page can't be read; the log and /ready say why\n";
        return plain(StatusCode::INTERNAL_SERVER_ERROR, text);
    };
    if is_known(&headers, &page.tag) {
        return unchanged(&page.tag, ASK_AGAIN);
    }
    let own = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, ASK_AGAIN),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (own, [(ETAG, page.tag)], page.html).into_response()
}

async fn asset(
    State(ui): State<Arc<Ui>>,
    UrlPath(path): UrlPath<String>,
    request: Request,
) -> Response {
    let names: Vec<&str> = std::iter::once("static").chain(path.split('/')).collect();
    file(&ui, &names, request.headers()).await
}

async fn favicon(State(ui): State<Arc<Ui>>, headers: HeaderMap) -> Response {
    file(&ui, &["favicon.ico"], &headers).await
}

const NO_UI: &str = "\
Watchpost answers Jaeger's query API here, below api/: Grafana's Jaeger data source takes this
address.

There is no UI yet. Put a built Jaeger UI (index.html and static/, as the assets of a jaeger-ui
release hold them) into a directory and set

    [jaeger.query]
    ui_dir = \"/usr/share/jaeger-ui\"
";

/// A file of the folder, by the names of its path.
async fn file(ui: &Ui, names: &[&str], headers: &HeaderMap) -> Response {
    let absent = || plain(StatusCode::NOT_FOUND, "not found\n");
    let Some(dir) = &ui.options.dir else {
        return absent();
    };
    let plain_names = names.iter().all(|name| is_plain(name));
    let Some((file_name, true)) = names.last().map(|name| (*name, plain_names)) else {
        return absent();
    };
    let Some(path) = inside(dir, names).await else {
        return absent();
    };
    let Ok(file) = tokio::fs::File::open(&path).await else {
        return absent();
    };
    let Ok(meta) = file.metadata().await else {
        return absent();
    };
    if !meta.is_file() {
        return absent();
    }
    let modified = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    let tag = format!(
        "W/\"{:x}-{:x}\"",
        meta.len(),
        modified.unwrap_or_default().as_nanos()
    );
    let caching = if is_hashed(file_name) {
        FOR_EVER
    } else {
        ASK_AGAIN
    };
    if is_known(headers, &tag) {
        return unchanged(&tag, caching);
    }
    let own = [
        (CONTENT_TYPE, content_type(file_name)),
        (CACHE_CONTROL, caching),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    // Not more than the length that was told: the file may grow meanwhile.
    let length = [(CONTENT_LENGTH, meta.len())];
    let pieces = futures::stream::try_unfold(file.take(meta.len()), |mut file| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let read = file.read_buf(&mut piece).await?;
        Ok::<_, std::io::Error>((read > 0).then(|| (Bytes::from(piece), file)))
    });
    (own, [(ETAG, tag)], length, Body::from_stream(pieces)).into_response()
}

/// Whether a name can only mean something inside its directory.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// The real path, if links do not lead out of the folder (U1).
async fn inside(dir: &Path, names: &[&str]) -> Option<PathBuf> {
    let dir = tokio::fs::canonicalize(dir).await.ok()?;
    let mut path = dir.clone();
    path.extend(names);
    let path = tokio::fs::canonicalize(path).await.ok()?;
    path.starts_with(&dir).then_some(path)
}

fn is_known(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = headers.get_all(IF_NONE_MATCH).iter();
    known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|list| list.split(','))
        .any(|known| known.trim() == "*" || opaque(known) == opaque(tag))
}

fn unchanged(tag: &str, caching: &'static str) -> Response {
    let headers = [(ETAG, tag), (CACHE_CONTROL, caching)];
    (StatusCode::NOT_MODIFIED, headers).into_response()
}

/// `main.8c2f1b3d.js`, `index-BVx3k_2d.js`: bundlers put a hash of the content into the name.
fn is_hashed(name: &str) -> bool {
    name.split(['.', '-']).skip(1).any(|part| {
        let long = part.len() >= 8 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let upper = part.bytes().any(|b| b.is_ascii_uppercase());
        let lower = part.bytes().any(|b| b.is_ascii_lowercase());
        long && (part.bytes().any(|b| b.is_ascii_digit()) || (upper && lower))
    })
}

fn content_type(name: &str) -> &'static str {
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    match extension {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "wasm" => "application/wasm",
        _ => "application/octet-stream",
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response {
    let text = text.into();
    (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests;
