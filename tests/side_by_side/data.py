"""The lines that both servers get: some written by hand, each odd in its own way, and random
ones. Times are nanoseconds after T0; no two streams have a line at the same instant, since
the order of those is left open."""

import random

SECOND = 10**9

JSON = [
    '{"level":"info","status":200,"dur":"1.5s","size":"1.5kB","n":7,"user":{"id":7,"name":"ann"}}',
    '{"level":"error","status":"503","dur":"250ms","size":"2 KiB","n":1.50,"app":"inner"}',
    '{"level":"warn","status":404,"n":1e3,"msg":"line\\nbreak \\u00fc \\/ <b> & \\"q\\"","ok":true}',
    '{"a":{"b":{"c":"deep"},"d":[1,{"k":"v"},"x"]},"none":null,"empty":"","obj":{},"list":[]}',
    '{"a-b c":"dashed","9x":"digit","é":"letter","":"nothing"," t ":"trimmed","_":"u"}',
    '{"n":1,"n":2,"dup":"first","dup":"second"}',
    '  {"n":3, "spaced" : "yes" }  trailing {"n":4}',
    '{"level":"info","n":5,"broken":',
    '{"level":"info","n":6,"cut":"abc',
    '{"level":"info" "n":8}',
    '[1,2,{"n":9}]',
    '"just text"',
    "12",
    "true",
    "null",
    "{}",
    "",
    "not json at all n=1",
    '{"n":"NaN","big":123456789012345678901234567890,"neg":-0.5,"exp":1e-7,"plus":"+5"}',
    '{"n":"Inf","dur":"-5s","size":"1GB","t":"1h2m3.5s"}',
    '{"n":"-inf","dur":"10","size":"10","status":"abc"}',
    '{"n":"0x10","dur":"1d","size":"1.5.5","status":""}',
    '{"n":"1_000","dur":"","size":"","status":null}',
    '{"n":"1e400","dur":"1ms1us1ns","size":"9EB","status":" 200"}',
    '{"emoji":"\\ud83d\\ude00","lone":"\\ud83d","ctrl":"\\u0001\\t","nul":"\\u0000"}',
    '{"nested":"{\\"x\\":\\"y\\"}","arr":[[1,2],[3]],"bad\\u0020key":"k"}',
    '{"ip":"10.0.0.7","ip6":"2001:db8::7","noip":"10.0.0.300"}',
    '{"app":"clash","env":"clash","service_name":"clash","detected_level":"clash","trace":"line"}',
    '{"__error__":"mine","__error_details__":"d","__name__":"n"}',
    '{"n":tru}',
    '{"n":01,"m":-,"o":+1}',
    "{'n':1}",
    '{"n":1,}',
    '{"a":1}{"b":2}',
    '{"a":"tab\there"}',
]

LOGFMT = [
    'level=info status=200 dur=1.5s size=1.5kB n=7 user.id=7 msg="two words"',
    'level=error status=503 dur=250ms size="2 KiB" n=1.50 app=inner',
    'level=warn n=1e3 msg="q\\"uo\\"te" path=/a/b?x=1',
    "n=1 n=2 dup=first dup=second",
    "bare words only",
    "empty= n=3 q=\"\" bare",
    "=x n=4",
    'n=5 a"b=c',
    'n=6 v=ab"cd e=f',
    'n=7 open="abc',
    "n=8 a=b=c d=e",
    "9x=digit a-b=dash a.b=dot é=letter",
    "  leading=1   spaced=2\ttabbed=3  ",
    'esc="a\\nb\\tc\\u00e9\\\\" raw=a\\nb',
    'bad="\\q" n=9',
    "dur=5m size=1MiB n=-3 status=abc",
    "app=clash env=clash trace=line service_name=x",
    "n=NaN dur=1h size=0",
    "ts=2026-01-01T00:00:00Z caller=main.go:10 level=debug",
    "",
    "a=1,b=2;c=3",
    'json={"a":1} n=10',
    "größe=10 n=11",
    "x='single quoted' n=12",
    "level=INFO lvl=warning severity=crit",
]

PLAIN = [
    '10.0.0.7 - alice [x] "GET /path/1 HTTP/1.1" 200 1234',
    '10.1.2.3 - bob [x] "POST /path/2 HTTP/1.1" 503 0',
    "192.168.1.20 - - [x] \"GET / HTTP/1.1\" 404 17",
    "\x1b[31merror\x1b[0m \x1b[1;32mdone\x1b[0m \x1b[38;5;200mx\x1b[K",
    "panic: boom\n\tat f(10.0.0.7)\n\tat g(503)",
    "ERROR connection refused",
    "error: größe überschritten ✓",
    "user timeout   double  blanks",
    "foo  baz",
    "foo bar baz",
    "a<b>&c \"q\" \\ backslash `tick`",
    "::1 and 2001:db8::7 and [fe80::1]:80",
    "1.2.3 is a version, 999.1.1.1 is nothing, 5.6.7.8. ends",
    " leading and trailing ",
    "",
    "x",
    "\t",
    "null\u2028separator\u0000zero",
    "key=value and {\"json\":1}",
    "took 15ms for 2KB (3.5%)",
    "💥 emoji \u200b zero width",
    "CRLF line\r",
    "UPPER lower MiXeD",
    "aaaa aaaa aaaa",
    "level=error in the middle",
]

PACKED = [
    '{"_entry":"the line n=1","app":"packed","kind":"k"}',
    '{"_entry":"{\\"n\\":2}","extra":"e","num":5}',
    '{"noentry":"x","app":"y"}',
    '{"_entry":7,"app":"y"}',
    "not packed",
    '{"_entry":"","a-b":"c"}',
    '{"_entry":"esc \\n \\u00e9","a":"b \\t"',
    "[1]",
]

NUMBERS = [
    "1", "5", "10", "20", "3", "9", "0.1", "0.2", "0.3", "1e3", "-4", "1e21", "1e-7", "NaN", "+Inf",
    "-Inf", "123456789.125", "9007199254740993", "0", "-0", "1e308", "1e308", "2.5", "2.5", "100",
]


def by_hand():
    """Streams with lines; a stream is (labels, [(offset, line, metadata)])."""
    streams = []

    def stream(labels, lines, begin, step, metadata=lambda number: {}):
        entries = [
            (begin + number * step, line, metadata(number)) for number, line in enumerate(lines)
        ]
        streams.append((labels, entries))

    stream({"app": "json", "env": "prod"}, JSON, 60 * SECOND + 1, 10 * SECOND)
    stream({"app": "logfmt", "env": "prod"}, LOGFMT, 60 * SECOND + 2, 10 * SECOND)
    stream({"app": "plain", "env": "dev"}, PLAIN, 60 * SECOND + 3, 10 * SECOND)
    stream({"app": "packed"}, PACKED, 60 * SECOND + 4, 10 * SECOND)
    stream(
        {"app": "meta", "env": "dev"},
        JSON[:8] + LOGFMT[:8] + PLAIN[:8],
        60 * SECOND + 5,
        10 * SECOND,
        lambda number: [
            {"trace": f"t{number % 3}", "status": "999"},
            {"app": "meta-app", "odd name": "x", "n": "41"},
            {},
            {"level": "critical", "user": "ünï", "trace": "t9"},
        ][number % 4],
    )
    stream({"app": "num", "kind": "counter"}, [f"v={v}" for v in NUMBERS], 60 * SECOND, 15 * SECOND)
    counter = [0, 5, 10, 20, 3, 9, 9, 30, 1, 2, 4, 8, 16, 32]
    stream({"app": "counter"}, [f"c={v}" for v in counter], 60 * SECOND + 6, 10 * SECOND)
    for number in range(10):
        labels = {"app": "many", "i": str(number), "half": str(number % 2)}
        lines = [f"i={number} k={k}" for k in range(1 + number // 2)]
        stream(labels, lines, 120 * SECOND + 10 + number, 20 * SECOND)
    stream({"app": "odd", "text": "a\"b\\c\nd é 💥"}, ["odd one", "odd two"], 70 * SECOND + 7, SECOND)
    stream({"app": "odd", "text": "<&>", "number": "1.5"}, ["odd three"], 75 * SECOND + 8, SECOND)
    stream({"app": "level", "level": "warn"}, ["error here", "level=debug"], 80 * SECOND + 9, SECOND)
    # Several lines of one instant, an exact repetition, and out of order.
    streams.append(
        (
            {"app": "order"},
            [
                (200 * SECOND, "first", {}),
                (200 * SECOND, "second", {}),
                (200 * SECOND, "first", {}),
                (200 * SECOND, "third", {"m": "1"}),
                (200 * SECOND, "third", {"m": "2"}),
                (190 * SECOND, "earlier", {}),
                (210 * SECOND, "later", {}),
                (195 * SECOND, "between", {}),
            ],
        )
    )
    return streams


def random_streams(seed, count=400):
    chance = random.Random(seed)
    streams = []
    for number, (app, host) in enumerate(
        [("api", "h1"), ("api", "h2"), ("web", "h1"), ("web", "h3"), ("db", "h2")]
    ):
        labels = {"group": "random", "app": app, "host": host}
        if number % 2:
            labels["env"] = "prod"
        entries = []
        for _ in range(count // 5):
            # The last digits tell streams apart.
            at = 60 * SECOND + chance.randrange(600_000) * 10**6 + number + 20
            entries.append((at, _line(chance), _metadata(chance)))
        entries.sort(key=lambda entry: entry[0])
        times = set()
        streams.append((labels, [e for e in entries if not (e[0] in times or times.add(e[0]))]))
    return streams


def _metadata(chance):
    metadata = {}
    if chance.random() < 0.4:
        metadata["trace"] = chance.choice(["t1", "t2"])
    if chance.random() < 0.15:
        metadata["status"] = chance.choice(["200", "503"])
    if chance.random() < 0.08:
        metadata["app"] = chance.choice(["meta", "api"])
    return metadata


_DURATIONS = ["500ms", "1.5s", "2s", "1m", "250ms", "1h0m0.5s", "fast"]
_SIZES = ["1kB", "2 KiB", "1MiB", "512", "1.5kB", "3B", "big"]


def _number(chance):
    if chance.random() < 0.2:
        return chance.choice(["0.5", "-3", "1e2", "2.25", "-0.5", "1024.5"])
    return str(chance.randrange(40))


def _line(chance):
    kind = chance.random()
    fields = [
        ("level", chance.choice(["info", "error", "warn"])),
        ("status", chance.choice(["200", "404", "503", "abc"])),
        ("dur", chance.choice(_DURATIONS)),
        ("size", chance.choice(_SIZES)),
        ("n", _number(chance)),
        ("app", chance.choice(["line", "api"])),
        ("trace", chance.choice(["t1", "t9"])),
        ("ip", chance.choice(["10.0.0.7", "::1", "no"])),
        ("msg", chance.choice(["two words", 'q"q', ""])),
    ]
    fields = chance.sample(fields, chance.randrange(1, 8))
    if kind < 0.4:
        members = []
        for name, value in fields:
            plain = name == "n" or value in ("200", "404")
            quoted = value if plain else '"' + value.replace('"', '\\"') + '"'
            members.append(f'"{name}":{quoted}')
        if chance.random() < 0.3:
            members.append('"user":{"id":7,"tags":["a",{"k":1}]}')
        text = "{" + ",".join(members) + "}"
        return text[: chance.randrange(len(text))] if chance.random() < 0.05 else text
    if kind < 0.75:
        pairs = []
        for name, value in fields:
            simple = value and " " not in value and '"' not in value
            quoted = value if simple else '"' + value.replace('"', '\\"') + '"'
            pairs.append(f"{name}={quoted}")
        if chance.random() < 0.1:
            pairs.append(chance.choice(["bare", "empty=", "a=b=c", "=x", 'k=v"w', "user.id=7"]))
        return " ".join(pairs)
    if kind < 0.85:
        ip = chance.choice(["10.0.0.7", "10.1.2.3", "192.168.1.20"])
        status = chance.choice(["200", "404", "503"])
        return f'{ip} - alice [x] "GET /path/{chance.randrange(20)} HTTP/1.1" {status} {chance.randrange(5000)}'
    words = ["error", "connection", "refused", "user", "timeout", "10.0.0.7", "größe", "GET"]
    return " ".join(chance.choice(words) for _ in range(chance.randrange(0, 6)))
