//! Random queries: every stage, every function, every operator.

use rand::RngExt;
use rand::rngs::StdRng;
use watchpost::model::series::Grid;
use watchpost::model::time::{DAY, HOUR, MINUTE, SECOND};

use super::data::{BASE, Data, Line, chance, pick};
use super::world::Question;

pub fn generate(random: &mut StdRng, data: &Data, stored: &[Line]) -> Question {
    let text = match random.random_range(0..100) {
        0..40 => log(random),
        _ => Metrics { random }.query(),
    };
    let burst = data.bursts[random.random_range(0..data.bursts.len())];
    let some_line = |random: &mut StdRng| stored[random.random_range(0..stored.len())].at;
    let bound = |random: &mut StdRng, usual: i64| match random.random_range(0..4) {
        // Exactly at a line: whether it belongs to the answer is a matter of one nanosecond.
        0 => some_line(random) + random.random_range(0..2),
        1 => burst + random.random_range(0..600) * SECOND,
        _ => usual,
    };
    let (mut start, mut end) = match random.random_range(0..4) {
        0 => (BASE, BASE + 4 * DAY),
        _ => (burst - MINUTE, burst + 11 * MINUTE),
    };
    start = bound(random, start);
    end = bound(random, end).max(start);
    let steps = [
        SECOND,
        7 * SECOND,
        15 * SECOND,
        30 * SECOND,
        MINUTE,
        5 * MINUTE,
        HOUR,
    ];
    let step = steps[random.random_range(0..steps.len())];
    let first = match random.random_range(0..3) {
        0 => bound(random, burst),
        _ => burst + random.random_range(-2..40) * 15 * SECOND,
    };
    let grid = match random.random_range(0..4) {
        0 => Grid::instant(first),
        _ => Grid {
            start: first,
            end: first + step * random.random_range(0..30) + random.random_range(0..SECOND),
            step,
        },
    };
    Question {
        text,
        range: (start, end),
        limit: *pick(random, &[&1usize, &2, &7, &30, &100, &1000, &5000]),
        backward: chance(random, 50),
        interval: match random.random_range(0..6) {
            0 => random.random_range(1..40) * SECOND,
            _ => 0,
        },
        categorize: chance(random, 40),
        grid,
    }
}

fn log(random: &mut StdRng) -> String {
    let selector = selector(random);
    let parser = usual_parser(random);
    let stages = stages(random, 0..5);
    format!("{selector}{parser}{stages}")
}

fn selector(random: &mut StdRng) -> String {
    pick(
        random,
        &[
            r#"{app="api"}"#,
            r#"{app="web"}"#,
            r#"{app=~"api|web"}"#,
            r#"{app=~".+"}"#,
            r#"{app=~".+"}"#,
            r#"{app=~".+"}"#,
            r#"{app=~".+"}"#,
            r#"{app=~".+"}"#,
            r#"{app=~".+"}"#,
            r#"{app=~".+"}"#,
            r#"{app=~".+", host!="h1"}"#,
            r#"{app=~"a.*|d.", env=""}"#,
            r#"{app!="db", host=~"h[12]", env!~"d.*"}"#,
            r#"{odd=~".*\"b|two words|ö.*"}"#,
            r#"{env="prod", env=~"p.+"}"#,
            r#"{app="nothing"}"#,
        ],
    )
    .to_owned()
}

const NAMES: [&str; 22] = [
    "level",
    "status",
    "status_extracted",
    "n",
    "dur",
    "size",
    "user_id",
    "user_name",
    "app",
    "app_extracted",
    "host",
    "env",
    "msg",
    "trace",
    "trace_extracted",
    "ip",
    "kind",
    "empty",
    "detected_level",
    "level_extracted",
    "new",
    "missing",
];

fn name(random: &mut StdRng) -> &'static str {
    pick(random, &NAMES)
}

fn names(random: &mut StdRng, counts: std::ops::Range<usize>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for _ in 0..random.random_range(counts) {
        let name = name(random);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(", ")
}

fn stages(random: &mut StdRng, counts: std::ops::Range<usize>) -> String {
    let mut text = String::new();
    for _ in 0..random.random_range(counts) {
        text += " ";
        text += &stage(random);
    }
    text
}

/// Filters behind it then have something to look at.
fn usual_parser(random: &mut StdRng) -> &'static str {
    pick(
        random,
        &["", "", " | json", " | logfmt", " | json | logfmt"],
    )
}

fn compare(random: &mut StdRng) -> &'static str {
    pick(random, &["==", "!=", ">", ">=", "<", "<="])
}

fn stage(random: &mut StdRng) -> String {
    let r = random;
    match r.random_range(0..30) {
        0 | 1 => format!(
            "{} `{}`",
            pick(r, &["|=", "!=", "!="]),
            pick(r, &["error", "level", "10.0.0.7", "GET", "", "{", "größe", "\n", "200"])
        ),
        2 => r#"|= "error" or "GET" or "n=""#.to_owned(),
        3 => r#"!= "error" or "503""#.to_owned(),
        4 => format!(
            "{} `{}`",
            pick(r, &["|~", "!~"]),
            pick(
                r,
                &["err.r|GET", "(?i)ERROR", "^[{]", "\\d+\\.\\d+", "(?s)panic.*at g", "user$", "a*",
                  "status[\":= ]+[45]", "f.*g"]
            )
        ),
        5 => format!(
            "{} `{}`",
            pick(r, &["|>", "!>"]),
            pick(r, &["<_>GET <_>", "error <_>", "<_>user", "", "<_>level=<_>", "{<_>}", "10.<_> - <_>"])
        ),
        6 => format!(
            "{} ip(\"{}\")",
            pick(r, &["|=", "!="]),
            pick(r, &["10.0.0.0/8", "10.0.0.7", "10.0.0.1-10.1.0.0", "0.0.0.0/0"])
        ),
        7..12 => pick(r, &["| json", "| json", "| logfmt"]).to_owned(),
        12 => "| json id=\"user.id\", first=\"list[0]\", tags=\"user.tags\", app, deep=\"user.tags[1].k\""
            .to_owned(),
        13 => pick(
            r,
            &["| logfmt --strict", "| logfmt --keep-empty", "| logfmt --strict --keep-empty"],
        )
        .to_owned(),
        14 => "| logfmt lvl=\"level\", n, app, gone=\"nothing\"".to_owned(),
        15 => pick(
            r,
            &[
                "| regexp `(?P<ip>\\d+\\.\\d+\\.\\d+\\.\\d+).*\" (?P<status>\\d+)`",
                "| regexp `n[\"=:]+(?P<n>-?\\d+)(?P<rest>[.]\\d+)?`",
                "| regexp `(?P<app>[a-z]+)=`",
            ],
        )
        .to_owned(),
        16 => pick(
            r,
            &[
                "| pattern `<ip> - <user_name> [<_>] \"<method> <path> <_>\" <status> <size>`",
                "| pattern `<_>level=<level> <rest>`",
                "| pattern `<kind> <app>`",
            ],
        )
        .to_owned(),
        17 => "| unpack".to_owned(),
        18 => format!(
            "| line_format `{}`",
            pick(r, &["{{.level}} {{ .n }}", "{{__line__}} x", "{\"n\": \"{{.n}}\", \"app\":\"{{.app}}\"}", "fixed"])
        ),
        19 => pick(
            r,
            &[
                "| label_format new=level",
                "| label_format app=level, new=`{{.app}}-{{.n}}`",
                "| label_format new=`{{.app}}`, host=`{{.new}}`, status=n",
                "| label_format level=`{{.missing}}`",
                "| label_format n=n",
            ],
        )
        .to_owned(),
        20 => "| decolorize".to_owned(),
        21 => format!("| drop {}", picks(r)),
        22 => format!("| keep {}", picks(r)),
        23 => "| __error__=``".to_owned(),
        _ => format!("| {}", label_filter(r, 2)),
    }
}

fn picks(random: &mut StdRng) -> String {
    let mut picks: Vec<String> = Vec::new();
    for _ in 0..random.random_range(1..4) {
        let name = name(random);
        picks.push(match random.random_range(0..4) {
            0 => format!("{name}=\"{}\"", pick(random, &["info", "200", "api", ""])),
            1 => format!("{name}=~`{}`", pick(random, &["i.*", "[0-9]+", ".*"])),
            _ => name.to_owned(),
        });
    }
    if chance(random, 10) {
        picks.push("__error__".into());
        picks.push("__error_details__".into());
    }
    picks.join(", ")
}

fn label_filter(random: &mut StdRng, depth: u32) -> String {
    let r = random;
    if depth > 0 && chance(r, 25) {
        let left = label_filter(r, depth - 1);
        let right = label_filter(r, depth - 1);
        return match r.random_range(0..4) {
            0 => format!("{left} and {right}"),
            1 => format!("{left}, {right}"),
            2 => format!("({left} or {right})"),
            _ => format!("{left} or {right}"),
        };
    }
    match r.random_range(0..8) {
        0 | 1 => format!(
            "{} {} \"{}\"",
            name(r),
            pick(r, &["=", "!="]),
            pick(r, &["info", "error", "200", "api", ""])
        ),
        2 => format!(
            "{} {} `{}`",
            name(r),
            pick(r, &["=~", "!~"]),
            pick(r, &["info|warn", "[0-9]+", ".*r.*", ".+", ""])
        ),
        3 => format!(
            "{} {} {}",
            pick(r, &["n", "status", "level", "user_id", "size"]),
            compare(r),
            pick(r, &["10", "200", "-1", "2.25", "1e2"])
        ),
        4 => format!(
            "dur {} {}",
            compare(r),
            pick(r, &["500ms", "1s", "1m", "1.5s", "1h0m0.5s"])
        ),
        5 => format!(
            "size {} {}",
            compare(r),
            pick(r, &["1kB", "1KiB", "2KB", "512B", "1MB"])
        ),
        6 => format!(
            "ip {} ip(\"{}\")",
            pick(r, &["=", "!="]),
            pick(r, &["10.0.0.0/8", "10.1.0.0-10.2.0.0"])
        ),
        _ => format!("n {} {}", compare(r), r.random_range(0..40)),
    }
}

/// Whether sums and means of other orders give the same bits: only then may values be
/// compared with each other.
#[derive(Clone, Copy, PartialEq)]
enum Bits {
    Exact,
    Any,
}

struct Metrics<'r> {
    random: &'r mut StdRng,
}

impl Metrics<'_> {
    fn query(&mut self) -> String {
        if chance(self.random, 4) {
            return pick(
                self.random,
                &["vector(1.5)", "1 + 2 * 3 ^ 2", "7 % 0", "2 > 1", "-3.5"],
            )
            .to_owned();
        }
        if chance(self.random, 5) {
            let inner = self.metric(1, Bits::Exact);
            let sort = pick(self.random, &["sort", "sort_desc"]);
            return format!("{sort}({inner})");
        }
        self.metric(3, Bits::Any)
    }

    fn metric(&mut self, depth: u32, bits: Bits) -> String {
        if depth == 0 {
            return self.range(bits);
        }
        match self.random.random_range(0..20) {
            0..8 => self.range(bits),
            8..13 => self.vector(depth, bits),
            13..15 => self.with_number(depth, bits),
            15..18 => self.vectors(depth, bits),
            18 => {
                let inner = self.metric(depth - 1, bits);
                let source = name(self.random);
                let to = pick(self.random, &["new", "app", "host"]);
                let rest = pick(
                    self.random,
                    &[
                        ("$1-x", "(.)(.*)"),
                        ("${first}", "(?P<first>[a-z]+).*"),
                        ("", ".*"),
                        ("fixed", "none"),
                        ("$1", "h(.)"),
                    ]
                    .each_ref(),
                );
                let (replacement, regex) = *rest;
                format!(
                    "label_replace({inner}, \"{to}\", \"{replacement}\", \"{source}\", \"{regex}\")"
                )
            }
            _ => {
                let left = self.metric(depth - 1, bits);
                format!("({left} or vector(0))")
            }
        }
    }

    fn grouping(&mut self) -> String {
        match self.random.random_range(0..5) {
            0 => String::new(),
            1 => format!(" without ({})", names(self.random, 0..3)),
            2 if chance(self.random, 20) => {
                format!(" by (__error__, {})", names(self.random, 1..2))
            }
            _ => format!(" by ({})", names(self.random, 1..3)),
        }
    }

    fn pipeline(&mut self) -> String {
        let parser = usual_parser(self.random);
        let mut text = selector(self.random) + parser + &stages(self.random, 0..3);
        if chance(self.random, 70) {
            text += " | __error__=``";
        }
        text
    }

    fn window(&mut self) -> String {
        let range = pick(
            self.random,
            &[
                "1s", "10s", "15s", "1m", "1m", "2m30s", "2m30s", "10m", "10m", "1h", "1d",
            ],
        );
        let offset = match self.random.random_range(0..8) {
            0 => format!(
                " offset {}",
                pick(self.random, &["15s", "1m", "-1m", "1h", "-15s", "500ms"])
            ),
            _ => String::new(),
        };
        format!("[{range}]{offset}")
    }

    fn range(&mut self, bits: Bits) -> String {
        let window = |me: &mut Self| me.window();
        match self.random.random_range(0..10) {
            0..4 => {
                let function = match bits {
                    Bits::Exact => pick(self.random, &["count_over_time", "bytes_over_time"]),
                    Bits::Any => pick(
                        self.random,
                        &["count_over_time", "rate", "bytes_over_time", "bytes_rate"],
                    ),
                };
                let pipeline = self.pipeline();
                format!("{function}({pipeline} {})", window(self))
            }
            4 => {
                let pipeline = self.pipeline();
                format!("absent_over_time({pipeline} {})", window(self))
            }
            _ => self.unwrapped(bits),
        }
    }

    fn unwrapped(&mut self, bits: Bits) -> String {
        let parser = pick(
            self.random,
            &[
                "| json",
                "| logfmt",
                "| logfmt | json | drop __error__, __error_details__",
                "",
            ],
        );
        let (selector, stages) = (selector(self.random), stages(self.random, 0..2));
        let unwrap = match bits {
            Bits::Exact => pick(self.random, &["n", "n", "bytes(size)"]),
            Bits::Any => pick(
                self.random,
                &[
                    "n",
                    "n",
                    "status",
                    "bytes(size)",
                    "duration(dur)",
                    "duration_seconds(dur)",
                    "missing",
                ],
            ),
        };
        let mut filters = String::new();
        if chance(self.random, 70) {
            filters += " | __error__=``";
        }
        if chance(self.random, 20) {
            filters += &format!(" | {}", label_filter(self.random, 1));
        }
        let function = match bits {
            Bits::Exact => pick(self.random, &["sum", "min", "max", "first", "last"]),
            Bits::Any => pick(
                self.random,
                &[
                    "sum",
                    "avg",
                    "min",
                    "max",
                    "stddev",
                    "stdvar",
                    "quantile",
                    "first",
                    "last",
                    "rate",
                    "rate_counter",
                ],
            ),
        };
        let function = match function {
            "rate" | "rate_counter" => function.to_owned(),
            other => format!("{other}_over_time"),
        };
        let rank = match function.as_str() {
            "quantile_over_time" => pick(
                self.random,
                &["0.5, ", "0.99, ", "0, ", "1, ", "0.33, ", "2, "],
            ),
            _ => "",
        };
        let grouped = matches!(
            function.as_str(),
            "avg_over_time"
                | "min_over_time"
                | "max_over_time"
                | "stddev_over_time"
                | "stdvar_over_time"
                | "quantile_over_time"
                | "first_over_time"
                | "last_over_time"
        );
        let grouping = match grouped && chance(self.random, 50) {
            true => self.grouping(),
            false => String::new(),
        };
        let window = self.window();
        format!(
            "{function}({rank}{selector} {parser}{stages} | unwrap {unwrap}{filters} {window}){grouping}"
        )
    }

    fn vector(&mut self, depth: u32, bits: Bits) -> String {
        let exact = ["sum", "min", "max", "count", "topk", "bottomk"];
        let any = [
            "sum", "sum", "avg", "min", "max", "count", "stddev", "stdvar", "topk", "bottomk",
        ];
        let function = match bits {
            Bits::Exact => pick(self.random, &exact),
            Bits::Any => pick(self.random, &any),
        };
        let ranked = matches!(function, "topk" | "bottomk");
        let inner = self.metric(depth - 1, if ranked { Bits::Exact } else { bits });
        let k = match ranked {
            true => format!("{}, ", self.random.random_range(1..5)),
            false => String::new(),
        };
        let grouping = self.grouping();
        match chance(self.random, 50) {
            true => format!("{function}{grouping} ({k}{inner})"),
            false => format!("{function}({k}{inner}){grouping}"),
        }
    }

    fn with_number(&mut self, depth: u32, bits: Bits) -> String {
        let number = pick(self.random, &["2", "3", "0", "10", "-1", "2.5"]);
        let (op, inner_bits) = match (bits, self.random.random_range(0..3)) {
            (Bits::Exact, 0) => (pick(self.random, &["+", "-", "*"]), Bits::Exact),
            (Bits::Any, 0 | 1) => (pick(self.random, &["+", "-", "*", "/", "^"]), Bits::Any),
            _ => (
                pick(
                    self.random,
                    &[
                        "==", "!=", ">", ">=", "<", "<=", "> bool", "== bool", "<= bool", "%",
                    ],
                ),
                Bits::Exact,
            ),
        };
        let inner = self.metric(depth - 1, inner_bits);
        match chance(self.random, 70) {
            true => format!("({inner} {op} {number})"),
            false => format!("({number} {op} {inner})"),
        }
    }

    fn vectors(&mut self, depth: u32, bits: Bits) -> String {
        let (op, inner_bits) = match (bits, self.random.random_range(0..3)) {
            (_, 0) => (pick(self.random, &["and", "or", "unless"]), bits),
            (Bits::Any, 1) => (pick(self.random, &["+", "-", "*", "/"]), Bits::Any),
            (Bits::Exact, 1) => (pick(self.random, &["+", "-", "*"]), Bits::Exact),
            _ => (
                pick(
                    self.random,
                    &["==", "!=", ">", "<", ">= bool", "!= bool", "%"],
                ),
                Bits::Exact,
            ),
        };
        let is_set = matches!(op, "and" | "or" | "unless");
        // Mostly sides that can match: sums by the same labels.
        let (left, right, labels) = match chance(self.random, 80) {
            true => {
                let by = pick(
                    self.random,
                    &["app", "host", "app, host", "level", "app, status"],
                );
                let few = by.split(", ").next().expect("a name");
                let right_by = if chance(self.random, 50) { by } else { few };
                let left = self.metric(depth - 1, inner_bits);
                let right = self.metric(depth - 1, inner_bits);
                (
                    format!("sum by ({by}) ({left})"),
                    format!("max by ({right_by}) ({right})"),
                    right_by.to_owned(),
                )
            }
            false => {
                let left = self.metric(depth - 1, inner_bits);
                (
                    left,
                    self.metric(depth - 1, inner_bits),
                    names(self.random, 0..3),
                )
            }
        };
        let mut matching = match self.random.random_range(0..3) {
            0 => String::new(),
            1 => format!(" on ({labels})"),
            _ => format!(" ignoring ({})", names(self.random, 0..3)),
        };
        if !matching.is_empty() && !is_set && chance(self.random, 50) {
            let side = pick(self.random, &["group_left", "group_right"]);
            matching += &format!(" {side} ({})", names(self.random, 0..2));
        }
        format!("({left} {op}{matching} {right})")
    }
}
