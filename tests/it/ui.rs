//! A built Jaeger UI beside the query API, served by the real program.

use crate::appliance::{Setup, agent, request};

const INDEX: &str = "<base href=\"/\"><script>const JAEGER_CONFIG = DEFAULT_CONFIG;</script>\n\
                     <!-- long enough to be worth compressing -->";

#[test]
fn a_ui_and_the_api_are_served_below_the_base_path() {
    let mut appliance = Setup::default().prepare();
    let dir = appliance.dir().join("ui");
    std::fs::create_dir_all(dir.join("static")).expect("made");
    let page = format!("{INDEX}{}", " ".repeat(2_000));
    std::fs::write(dir.join("index.html"), page).expect("written");
    let script = "let a = 1;\n".repeat(20_000);
    std::fs::write(dir.join("static/app.js"), &script).expect("written");
    std::fs::write(
        appliance.dir().join("ui.json"),
        "{\"archiveEnabled\": true}",
    )
    .expect("written");
    appliance.change(|setup| {
        setup
            .set("jaeger.query.ui_dir", "\"ui\"")
            .set("jaeger.query.ui_config", "\"ui.json\"")
            .set("jaeger.query.base_path", "\"/jaeger\"")
    });
    appliance.start();
    appliance.expect_log("Jaeger UI: ui.json: ");
    let get = |path: &str| appliance.get("jaeger.query.http", path);
    for path in ["/jaeger/", "/jaeger/search?service=x", "/jaeger/trace/1"] {
        let answer = get(path);
        assert_eq!(answer.status, 200, "{path}");
        let html = answer.text();
        assert!(
            html.contains("JAEGER_CONFIG = {\"archiveEnabled\":true};"),
            "{html}"
        );
        assert!(html.contains("<base href=\"/jaeger/\""), "{html}");
    }
    assert_eq!(
        get("/jaeger/api/services").json()["data"],
        serde_json::json!([])
    );
    assert_eq!(get("/jaeger/api/services/a%2Fb/operations").status, 200);
    let unknown = get("/jaeger/api/unknown");
    assert_eq!(
        (unknown.status, &unknown.json()["errors"][0]["code"]),
        (404, &404.into())
    );
    assert_eq!(get("/").status, 404);
    assert_eq!(get("/jaeger/static/../../config.toml").status, 404);
    // Compressed on its way, the same bytes in the end.
    let plain = get("/jaeger/static/app.js");
    assert_eq!(plain.body, script.as_bytes());
    let url = appliance.url("jaeger.query.http", "/jaeger/static/app.js");
    let gzip = request(&agent(), "GET", &url, &[("Accept-Encoding", "gzip")], &[]);
    assert_eq!(gzip.expect("an answer").text(), script);

    // A broken configuration is told, and the page stays.
    std::fs::write(appliance.dir().join("ui.json"), "{").expect("written");
    assert!(get("/jaeger/").text().contains("archiveEnabled"));
    let ready = appliance.get("loki.listen", "/ready").text();
    assert!(ready.contains("degraded: Jaeger UI: ui.json: "), "{ready}");
}

#[test]
fn without_a_ui_the_root_says_what_is_here() {
    let appliance = Setup::default().start();
    let answer = appliance.get("jaeger.query.http", "/");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("ui_dir"), "{}", answer.text());
    assert_eq!(appliance.get("jaeger.query.http", "/search").status, 404);
}
