#!/usr/bin/env python3
"""Asks two servers the same and compares what they answer: Watchpost and a Loki, or two
versions of Watchpost.

    compare.py --ours http://127.0.0.1:3100 --theirs http://127.0.0.1:3101 [--random 300]

Both get the same lines (data.py) under a tenant of their own, so both should run with tenancy
on (Loki: `auth_enabled: true`); without it use empty servers. The lines are from the last two
hours: an older one a Loki would not find before it is flushed. Needs nothing but Python.

Compared are status, and of an answer everything but the statistics; numbers by value, to ten
digits, since sums of other orders differ in the last ones. The wording of errors and of
`__error_details__` is compared apart, and counted only. Differences that known.json explains
are counted apart, too; any other one makes the exit status 1.
"""

import argparse
import collections
import json
import os
import random
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import data
import explore
import queries
import questions

SECOND = 10**9
HERE = os.path.dirname(os.path.abspath(__file__))


class Server:
    def __init__(self, url, tenant):
        self.url, self.tenant = url.rstrip("/"), tenant

    def send(self, path, params=None, body=None, headers=None):
        url = self.url + path
        if params:
            url += "?" + urllib.parse.urlencode(params, doseq=True)
        request = urllib.request.Request(url, data=body, headers=headers or {})
        request.add_header("X-Scope-OrgID", self.tenant)
        try:
            with urllib.request.urlopen(request, timeout=90) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")

    def push(self, streams, t0):
        for labels, entries in streams:
            values = [
                [str(t0 + at), line] + ([metadata] if metadata else [])
                for at, line, metadata in entries
            ]
            body = json.dumps({"streams": [{"stream": labels, "values": values}]}).encode()
            headers = {"Content-Type": "application/json"}
            status, text = self.send("/loki/api/v1/push", body=body, headers=headers)
            if status != 204:
                sys.exit(f"{self.url}: push of {labels}: {status} {text}")


def requests(t0, count, seed):
    """(name, path, parameters, headers) of everything that is asked."""
    at = lambda seconds: str(t0 + int(seconds * SECOND))
    whole = {"start": at(0), "end": at(900), "limit": "1000"}
    ranged, instant = "/loki/api/v1/query_range", "/loki/api/v1/query"
    flags = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}

    for query in queries.lines(queries.LOGS):
        yield query, ranged, {**whole, "query": query}, {}
        yield query + "  [forward]", ranged, {**whole, "query": query, "direction": "forward"}, {}
        yield query + "  [categorize]", ranged, {**whole, "query": query}, flags
    for query in queries.lines(queries.METRICS):
        yield query, ranged, {"start": at(0), "end": at(900), "step": "60", "query": query}, {}
        yield query + "  [instant]", instant, {"time": at(240), "query": query}, {}
    for query in queries.lines(queries.REFUSED):
        yield query, ranged, {**whole, "query": query}, {}
        yield query + "  [instant]", instant, {"time": at(240), "query": query}, {}
    for query in [q for part in (queries.LOGS, queries.METRICS, queries.REFUSED) for q in queries.lines(part)]:
        yield query + "  [format]", "/loki/api/v1/format_query", {"query": query}, {}

    # Times, steps, limits.
    logs, metric = '{app=~"json|order"}', 'sum(count_over_time({app=~"json|plain"}[1m]))'
    for extra in [
        {"limit": "1"}, {"limit": "3", "direction": "forward"}, {"limit": "0"}, {"limit": "-1"},
        {"limit": "5000"}, {"limit": "5001"}, {"limit": "x"}, {"limit": "1.0"}, {"limit": ""},
        {"direction": "FORWARD"}, {"direction": "up"}, {"direction": ""},
        {"interval": "30"}, {"interval": "30s", "direction": "forward"}, {"interval": "-1"},
        {"interval": "0.5"}, {"interval": "x"},
        {"start": at(190), "end": at(200)}, {"start": at(200), "end": at(210), "direction": "forward"},
        {"start": at(200), "end": at(200)}, {"start": at(201), "end": at(200)},
        {"start": str(t0 // SECOND), "end": str(t0 // SECOND + 300)},
        {"start": f"{t0 / SECOND:.3f}", "end": f"{t0 / SECOND + 300.5:.3f}"},
        {"start": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(t0 // SECOND))},
        {"start": "yesterday"}, {"end": "x"}, {"since": "3h"}, {"since": "x"}, {"step": "x"}, {"step": "0"},
        {"step": "0.05"}, {"start": "1", "end": "2"}, {"start": "0"}, {"query": ""},
    ]:
        params = {**whole, "query": logs, **extra}
        yield f"{logs}  {sorted(extra)} {list(extra.values())[:1]}", ranged, params, {}
    for extra in [
        {"step": "60"}, {"step": "7"}, {"step": "1m30s"}, {"step": "0.5", "end": at(60)}, {"step": "500ms", "end": at(60)},
        {"step": "1.5s"}, {"step": "0"}, {"step": "-5"}, {"step": "x"}, {"step": ""}, {"step": "1h"},
        {"step": "33", "start": at(17.3), "end": at(321.9)}, {"step": "60", "start": at(20), "end": at(70)},
        {"step": "60", "start": at(60), "end": at(60)}, {"step": "0.3", "start": at(59.95), "end": at(61.05)},
        {"step": "17", "start": at(0.5), "end": at(800.25)}, {"step": "3600", "start": at(0), "end": at(900)},
        {"step": "0.07"}, {"step": "100000"}, {"limit": "1"}, {"limit": "6000"}, {"direction": "forward"}, {},
        {"since": "2h", "start": "", "end": ""},
    ]:
        params = {"start": at(0), "end": at(900), "query": metric, **extra}
        yield f"{metric}  {extra if 'start' not in extra else sorted(extra)}", ranged, params, {}
        constant = {**params, "query": "vector(3)"}
        yield f"vector(3)  {extra if 'start' not in extra else sorted(extra)}", ranged, constant, {}
    for moment in [at(240), at(240.5), at(60), at(59.999999999), str(t0 // SECOND + 240), f"{t0 / SECOND + 240.25:.3f}",
                   "4000000000", "0", "1", "", "x", "1e9"]:
        yield f"{metric}  time {len(moment)} {moment[:2]}", instant, {"query": metric, "time": moment}, {}
        yield f"vector(1)+vector(1)  time {len(moment)} {moment[:2]}", instant, {"query": "vector(1)+vector(1)", "time": moment}, {}
    for query in ['{app="json"}', '{app="json"} | json']:
        for limit in ["10", "6000"]:
            yield f"{query}  instant {limit}", instant, {"query": query, "time": at(240), "limit": limit}, {}
    for name, value in [("service_name", ""), ("app", ""), ("i", '{app="many"}'), ("missing", ""), ("text", ""),
                        ("app", '{env="prod"}'), ("app", '{app="json"} |= "x"'), ("app", "{}"), ("app", '{app=""}')]:
        params = {"start": at(0), "end": at(900), **({"query": value} if value else {})}
        yield f"values of {name} {value}", f"/loki/api/v1/label/{name}/values", params, {}
    for value in ["", '{app="many"}', '{app="nothing"}', '{app="json"} | json', "x"]:
        params = {"start": at(0), "end": at(900), **({"query": value} if value else {})}
        yield f"labels {value}", "/loki/api/v1/labels", params, {}
    for selectors in [['{app="many"}'], ['{app="many"}', '{app="json"}'], [], ["{}"], ['{app="nothing"}'], ["x"],
                      ['{app="json"} |= "x"'], ['{app=~".*"}']]:
        params = {"start": at(0), "end": at(900), "match[]": selectors}
        yield f"series {selectors}", "/loki/api/v1/series", params, {}

    yield from explore.requests(at, queries.lines)

    chance = random.Random(seed)
    made = questions.Questions(chance)
    for number in range(count):
        if number % 2:
            query = made.log()
            params = {**whole, "query": query, "limit": chance.choice(["1", "5", "50", "1000"]),
                      "direction": chance.choice(["forward", "backward"])}
            yield query, ranged, params, chance.choice([{}, flags])
        else:
            query = made.metric()
            step = chance.choice(["15", "60", "7", "300"])
            start, end = chance.choice([(0, 900), (60, 700), (133.7, 420.1)])
            yield query, ranged, {"start": at(start), "end": at(end), "step": step, "query": query}, {}
            yield query + "  [instant]", instant, {"time": at(chance.choice([240, 660, 333.3])), "query": query}, {}


def without_estimates(value):
    """An answer of volumes or statistics: which groups and labels it has, not how much."""
    if isinstance(value, dict) and "streams" in value:
        return sorted(value)
    result = value.get("data", {}).get("result") if isinstance(value, dict) else None
    if isinstance(result, list):
        for series in result:
            series.pop("value", None)
            series.pop("values", None)
        result.sort(key=json.dumps)
    return value


def sorted_fields(value):
    """Detected fields and labels: in no order, cardinalities as estimated as they are."""
    if isinstance(value, dict):
        for name, key in [("fields", "label"), ("detectedLabels", "label")]:
            if isinstance(value.get(name), list):
                value[name].sort(key=lambda item: item.get(key, ""))
        if isinstance(value.get("values"), list):
            value["values"].sort()
    return value


def parsed(body, path):
    """What counts of an answer; `None`: it is no JSON."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    if isinstance(value, dict) and isinstance(value.get("data"), dict):
        value["data"].pop("stats", None)
        if value["data"].get("resultType") == "scalar":
            value["data"]["result"][0] = None  # Loki prints a time of its own there
    if path.endswith("/series"):
        value["data"].sort(key=lambda labels: json.dumps(labels, sort_keys=True))
    if path.startswith("/api/prom/") and isinstance(value, dict):
        value.pop("stats", None)
        if isinstance(value.get("values"), list):
            value["values"].sort()
    if "/index/" in path:
        return without_estimates(value)
    if "/detected_" in path:
        return sorted_fields(value)
    return value


def without_details(value):
    """Answers with all `__error_details__` alike, groups that only they told apart as one."""
    if not (isinstance(value, dict) and isinstance(value.get("data"), dict)):
        return value
    result = value["data"].get("result")
    if value["data"].get("resultType") != "streams" or "__error_details__" not in json.dumps(result):
        return value
    groups = collections.defaultdict(list)
    for stream in result:
        labels = {k: "?" if k == "__error_details__" else v for k, v in stream["stream"].items()}
        for entry in stream["values"]:
            if len(entry) > 2 and "__error_details__" in entry[2].get("parsed", {}):
                entry[2]["parsed"]["__error_details__"] = "?"
            groups[json.dumps(labels, sort_keys=True)].append(entry)
    return {key: sorted(entries, key=json.dumps) for key, entries in groups.items()}


def difference(ours, theirs, place=""):
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            if key not in ours:
                return f"{place}/{key}: missing; theirs {short(theirs[key])}"
            if key not in theirs:
                return f"{place}/{key}: not in theirs; ours {short(ours[key])}"
            if found := difference(ours[key], theirs[key], f"{place}/{key}"):
                return found
        return None
    if isinstance(ours, list) and isinstance(theirs, list):
        for number, (a, b) in enumerate(zip(ours, theirs)):
            if found := difference(a, b, f"{place}/{number}"):
                return found
        if len(ours) != len(theirs):
            longer, whose = (ours, "ours") if len(ours) > len(theirs) else (theirs, "theirs")
            more = longer[min(len(ours), len(theirs))]
            return f"{place}: {len(ours)} and {len(theirs)} elements, more in {whose}: {short(more)}"
        return None
    if ours == theirs or close(ours, theirs, place):
        return None
    return f"{place}: ours {short(ours)}, theirs {short(theirs)}"


NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


def close(ours, theirs, place):
    texts = isinstance(ours, str) and isinstance(theirs, str)
    if not (texts and re.search(r"/values?(/\d+)?/1$", place)):
        return False
    if not (NUMBER.fullmatch(ours) and NUMBER.fullmatch(theirs)):
        return False
    a, b = float(ours), float(theirs)
    return abs(a - b) <= 1e-10 * max(abs(a), abs(b), 1e-6)


def short(value):
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) < 300 else text[:300] + "…"


def compare(path, ours, theirs):
    """(kind, what differs); kind is "same", "text", "details" or "differs"."""
    (our_status, our_body), (their_status, their_body) = ours, theirs
    if our_status != their_status:
        return "differs", f"status {our_status} and {their_status}\n    ours   {our_body[:300]}\n    theirs {their_body[:300]}"
    ours, theirs = parsed(our_body, path), parsed(their_body, path)
    if ours is None or theirs is None or our_status != 200:
        if our_body.strip() == their_body.strip():
            return "same", None
        return "text", f"ours   {our_body.strip()}\n    theirs {their_body.strip()}"
    found = difference(ours, theirs)
    if not found:
        return "same", None
    inner = difference(without_details(ours), without_details(theirs))
    return ("differs", inner) if inner else ("details", found)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--ours", required=True, metavar="URL")
    arguments.add_argument("--theirs", required=True, metavar="URL")
    arguments.add_argument("--random", type=int, default=200, metavar="N", help="random queries beside those by hand")
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--tenant", default=f"side-by-side-{int(time.time())}")
    arguments.add_argument("--t0", type=int, help="seconds; ask again what was pushed before, with its --tenant")
    arguments.add_argument("--only", help="queries that contain this")
    arguments.add_argument("--show", default="differs", help="kinds to show, by commas: differs,text,details,known")
    args = arguments.parse_args()
    servers = [Server(args.ours, args.tenant), Server(args.theirs, args.tenant)]
    # A full minute, so that steps mean the same in every run.
    t0 = args.t0 or (int(time.time()) - 75 * 60) // 60 * 60
    print(f"tenant {args.tenant}, t0 {t0}, seed {args.seed}")
    t0 *= SECOND
    if not args.t0:
        for server in servers:
            server.push(data.by_hand() + explore.streams() + data.random_streams(args.seed), t0)
    with open(os.path.join(HERE, "known.json"), encoding="utf-8") as file:
        known = json.load(file)
    counts = collections.Counter()
    explained = collections.Counter()
    for name, path, params, headers in requests(t0, args.random, args.seed):
        if args.only and args.only not in name:
            continue
        ours, theirs = (server.send(path, params, headers=headers) for server in servers)
        kind, what = compare(path, ours, theirs)
        if kind == "differs":
            reason = next((k["why"] for k in known if re.search(k["query"], name, re.S)), None)
            if reason:
                kind = "known"
                explained[reason] += 1
        counts[kind] += 1
        if kind in args.show.split(","):
            print(f"\n{kind}: {name}\n    {what}", flush=True)
    print(f"\n{sum(counts.values())} requests: {dict(counts)}")
    for reason, number in explained.most_common():
        print(f"  {number:4} {reason}")
    sys.exit(1 if counts["differs"] else 0)


if __name__ == "__main__":
    main()
