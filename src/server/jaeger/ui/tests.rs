use std::net::SocketAddr;

use super::*;
use crate::server::spans::memory::{Answer, send, serve};

/// The places that a built UI's page has.
const INDEX: &str = r#"<html><head><base href="/" data-inject-target="BASE_URL" />
<script>
  function getJaegerUiConfig() {
    const DEFAULT_CONFIG = null;
    const JAEGER_CONFIG = DEFAULT_CONFIG;
    return JAEGER_CONFIG;
  }
  // JAEGER_CONFIG_JS
  // the line above may be replaced by a file
  const DEFAULT_STORAGE_CAPABILITIES = { "archiveStorage": false };
  const JAEGER_STORAGE_CAPABILITIES   =DEFAULT_STORAGE_CAPABILITIES;
  const JAEGER_BACKEND_CAPABILITIES = DEFAULT_BACKEND_CAPABILITIES;
  const JAEGER_VERSION = DEFAULT_VERSION;
</script></head><body>$1</body></html>
"#;

struct Folder {
    dir: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let folder = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        folder.write("secret.txt", "secret");
        folder.write("ui/index.html", INDEX);
        folder.write("ui/favicon.ico", "icon");
        folder.write("ui/package.json", "{}");
        folder.write("ui/static/main.8c2f1b3d.js", "script");
        folder.write("ui/static/media/logo.svg", "<svg/>");
        folder.write("ui/static/.hidden", "secret");
        let root = folder.dir.path();
        for (target, link) in [
            ("../../secret.txt", "ui/static/out.txt"),
            ("main.8c2f1b3d.js", "ui/static/in.js"),
            ("..", "ui/static/up"),
        ] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn options(&self) -> UiOptions {
        UiOptions {
            dir: Some(self.dir.path().join("ui")),
            ..UiOptions::default()
        }
    }
}

async fn start(options: UiOptions) -> (SocketAddr, Arc<Ui>) {
    let api = Router::new()
        .route(
            "/api/services",
            get(|uri: http::Uri| async move { uri.path().to_owned() }),
        )
        .route("/api/{*rest}", get(|| async { StatusCode::NOT_FOUND }));
    let ui = Arc::new(Ui::open(options));
    (serve(router(ui.clone(), api)).await, ui)
}

async fn ask(address: SocketAddr, path: &str) -> Answer {
    send(address, "GET", path, &[], "").await
}

#[tokio::test]
async fn files_are_served_and_every_other_path_is_the_page() {
    let folder = Folder::new();
    let (address, _) = start(folder.options()).await;
    let script = ask(address, "/static/main.8c2f1b3d.js").await;
    assert_eq!((script.status, script.text()), (200, "script"));
    assert_eq!(
        script.header("content-type"),
        "text/javascript; charset=utf-8"
    );
    assert_eq!(script.header("cache-control"), FOR_EVER);
    assert_eq!(script.header("content-length"), "6");
    let logo = ask(address, "/static/media/logo.svg").await;
    assert_eq!(logo.header("content-type"), "image/svg+xml");
    assert_eq!(logo.header("cache-control"), ASK_AGAIN);
    assert_eq!(ask(address, "/favicon.ico").await.text(), "icon");
    for path in [
        "/",
        "/search?service=a",
        "/trace/abc",
        "/dependencies",
        "/package.json",
        "/a..b",
    ] {
        let page = ask(address, path).await;
        assert_eq!(page.status, 200, "{path}");
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
        assert!(page.text().contains("getJaegerUiConfig"), "{path}");
    }
    assert_eq!(ask(address, "/api/services").await.text(), "/api/services");
    assert_eq!(ask(address, "/api/unknown").await.status, 404);
    assert_eq!(send(address, "POST", "/search", &[], "").await.status, 405);
    assert_eq!(
        send(address, "HEAD", "/static/media/logo.svg", &[], "")
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let folder = Folder::new();
    let (address, _) = start(folder.options()).await;
    assert_eq!(ask(address, "/static/in.js").await.text(), "script");
    for path in [
        "/static/out.txt",
        "/static/../../secret.txt",
        "/static/..%2f..%2fsecret.txt",
        "/static/%2e%2e/%2e%2e/secret.txt",
        "/static/..%5c..%5csecret.txt",
        "/static//etc/passwd",
        "/static/%2fetc/passwd",
        "/static/main.8c2f1b3d.js/",
        "/static/main.8c2f1b3d.js%00",
        "/static/.hidden",
        "/static/media",
        "/static/absent.js",
        "/static/up/../../secret.txt",
    ] {
        let answer = ask(address, path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.text(), "not found\n", "{path}");
    }
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let folder = Folder::new();
    let (address, _) = start(folder.options()).await;
    for path in ["/", "/static/main.8c2f1b3d.js"] {
        let tag = ask(address, path).await.header("etag").to_owned();
        let again = send(address, "GET", path, &[("if-none-match", &tag)], "").await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        let other = send(address, "GET", path, &[("if-none-match", "\"x\"")], "").await;
        assert_eq!(other.status, 200);
    }
}

#[tokio::test]
async fn the_page_is_filled_in_below_a_base_path() {
    let folder = Folder::new();
    folder.write("ui.json", r#"{"menu": [{"label": "</script>$1 a&b"}]}"#);
    let options = UiOptions {
        config: Some(folder.dir.path().join("ui.json")),
        base_path: "/jaeger".into(),
        ..folder.options()
    };
    let (address, _) = start(options).await;
    for path in ["/jaeger", "/jaeger/", "/jaeger/search"] {
        let page = ask(address, path).await;
        assert_eq!(page.status, 200, "{path}");
        let html = page.text();
        let version = format!(
            r#"JAEGER_VERSION = {{"buildDate":"","gitCommit":"","gitVersion":"watchpost-{}"}};"#,
            env!("CARGO_PKG_VERSION")
        );
        for part in [
            r#"<base href="/jaeger/" data"#,
            r#"JAEGER_CONFIG = {"menu":[{"label":"\u003c/script\u003e$1 a\u0026b"}]};"#,
            r#"JAEGER_STORAGE_CAPABILITIES = {"archiveStorage":true,"metricsStorage":true};"#,
            r#"JAEGER_BACKEND_CAPABILITIES = {"aiAssistant":false,"archiveStorage":true,"#,
            &version,
            "// the line above",
            "<body>$1</body>",
        ] {
            assert!(html.contains(part), "{part} in {html}");
        }
    }
    assert_eq!(
        ask(address, "/jaeger/static/main.8c2f1b3d.js").await.text(),
        "script"
    );
    // Handlers see paths as without a base path.
    assert_eq!(
        ask(address, "/jaeger/api/services").await.text(),
        "/api/services"
    );
    for path in ["/", "/api/services", "/static/main.8c2f1b3d.js", "/jaegerx"] {
        let outside = ask(address, path).await;
        assert_eq!(outside.status, 404, "{path}");
        assert!(outside.text().contains("below /jaeger/"), "{path}");
    }
}

#[tokio::test]
async fn a_script_takes_its_place_and_the_line_behind() {
    let folder = Folder::new();
    let script = "function UIConfig() { return { a: \"$0\" }; }";
    folder.write("ui.js", script);
    let options = UiOptions {
        config: Some(folder.dir.path().join("ui.js")),
        ..folder.options()
    };
    let (address, _) = start(options).await;
    let page = ask(address, "/").await;
    let html = page.text();
    assert!(html.contains(&format!("  }}\n{script}\n  const")), "{html}");
    assert!(html.contains("JAEGER_CONFIG = DEFAULT_CONFIG;"), "{html}");
}

#[tokio::test]
async fn changes_are_seen_and_a_broken_one_keeps_the_last_good_page() {
    let folder = Folder::new();
    folder.write("ui.json", r#"{"n": 1}"#);
    let options = UiOptions {
        config: Some(folder.dir.path().join("ui.json")),
        ..folder.options()
    };
    let (address, ui) = start(options).await;
    assert!(ask(address, "/").await.text().contains(r#"{"n":1}"#));
    folder.write("ui.json", r#"{"n": 22}"#);
    assert!(ask(address, "/").await.text().contains(r#"{"n":22}"#));
    assert_eq!(ui.problem(), None);
    folder.write("ui.json", "[1]");
    assert!(ask(address, "/").await.text().contains(r#"{"n":22}"#));
    let problem = ui.problem().unwrap();
    assert!(
        problem.contains("is no JSON object; the last good page is served"),
        "{problem}"
    );
    std::fs::remove_file(folder.dir.path().join("ui/index.html")).unwrap();
    assert_eq!(ask(address, "/").await.status, 200);
    folder.write("ui/index.html", &INDEX.replace("<body>", "<body>new"));
    folder.write("ui.json", r#"{"n": 333}"#);
    let page = ask(address, "/").await;
    assert!(page.text().contains(r#"{"n":333}"#) && page.text().contains("<body>new"));
    assert_eq!(ui.problem(), None);
}

#[tokio::test]
async fn without_a_folder_the_root_says_what_is_here() {
    let (address, ui) = start(UiOptions::default()).await;
    let page = ask(address, "/").await;
    assert_eq!(
        (page.status, page.header("content-type")),
        (200, "text/plain; charset=utf-8")
    );
    assert!(page.text().contains("ui_dir = "));
    assert_eq!(ask(address, "/search").await.status, 404);
    assert_eq!(ask(address, "/api/services").await.status, 200);
    assert_eq!(ui.problem(), None);
    let gone = UiOptions {
        dir: Some("/nonexistent".into()),
        ..UiOptions::default()
    };
    let (address, ui) = start(gone).await;
    assert_eq!(ask(address, "/").await.status, 500);
    assert!(
        ui.problem()
            .unwrap()
            .contains("/nonexistent/index.html: No such file")
    );
}

#[test]
fn hashed_names_are_known_by_their_look() {
    for name in [
        "main.8c2f1b3d.js",
        "index-BVx3k_2d.js",
        "a.0123456789abcdef.chunk.css",
    ] {
        assert!(is_hashed(name), "{name}");
    }
    for name in [
        "main.js",
        "jaeger-logo.svg",
        "react-production.min.js",
        "12345678.js",
    ] {
        assert!(!is_hashed(name), "{name}");
    }
}
