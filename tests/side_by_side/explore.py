"""What explorers and dashboards ask beside plain queries: templates, volumes, detected fields
and labels, statistics; and the log queries of a benchmark, fitted to data.py's lines.

Loki estimates volumes and statistics from chunks, so of those only groups and labels are
compared ("estimate" says so to compare.py)."""

import json
import os

HERE = os.path.dirname(os.path.abspath(__file__))
SECOND = 10**9

RANGED, INSTANT = "/loki/api/v1/query_range", "/loki/api/v1/query"

# Lines: needles, words, regexes, newest lines; parsers with a condition.
LINES = r'''
{service_name=~".+"} |= "tags"
{service_name=~".+"} |= "connection refused"
{service_name=~".+"} |= "no line has this"
{service_name=~".+"} |= "imeou"
{service_name=~".+"} |~ "(?i)error|exception"
{group="random", host="h1"}
{group="random"} |= "level" != "200"
{group="random"} | json | status >= 500
{group="random"} | json | status >= 500 | __error__=""
{group="random"} | logfmt | dur > 1s
{group="random"} | logfmt | dur > 1s | __error__=""
{group="random"} |= "level" | json | level="error" | line_format "{{.host}} {{.status}} {{.dur | ToUpper}}"
{group="random"} | logfmt | level=~"error|warn" | label_format took=`{{.dur}}/{{.n}}` | keep took, app
{group="random"} | json | logfmt | drop __error__, __error_details__ | detected_level="error"
'''

COUNTS = r'''
sum(count_over_time({service_name=~".+"}[24h]))
sum(count_over_time({service_name=~".+"} |= "imeou" [24h]))
sum(count_over_time({service_name=~".+"} |~ "(?i)error|exception" [24h]))
sum(count_over_time({group="random"} |= "level" != "200" [24h]))
sum(count_over_time({group="random"} | json | status >= 500 [24h]))
sum(count_over_time({group="random"} | json | status >= 500 | __error__="" [24h]))
sum(count_over_time({group="random"} | logfmt | dur > 1s | __error__="" [24h]))
sum by (app) (count_over_time({service_name=~".+"}[5m]))
sum by (level) (rate({group="random"} | logfmt | __error__="" [5m]))
quantile_over_time(0.99, {group="random"} | json | __error__="" | unwrap n | __error__="" [5m]) by (app)
topk(10, sum by (host) (bytes_over_time({group="random"}[1h])))
sum by (detected_level) (count_over_time({service_name=~".+"}[1m]))
'''

SELECTORS = [
    '{app="many"}', '{app=~".+"}', '{service_name=~".+"}', '{group="random"}', '{app="json", env="prod"}',
    '{app="nothing"}', "{}", "x", "", '{app="json"} |= "x"', '{app="json"} | json',
]

FIELDS = SELECTORS + [
    '{app="logfmt"}', '{app="meta"}', '{app="plain"}', '{app="packed"}', '{app="num"}', '{app="counter"}',
    '{group="random"} | logfmt', '{group="random"} |= "level"', '{group="random"} | json | status >= 400',
    'sum(count_over_time({app="json"}[1m]))',
]


def templates():
    """The stream and the templates of the fixture that Go itself answered."""
    with open(os.path.join(HERE, "../fixtures/go-templates.json"), encoding="utf-8") as file:
        fixture = json.load(file)
    return fixture, [case["template"] for case in fixture["cases"]]


def streams():
    fixture, _ = templates()
    return [({"app": "template"}, [(300 * SECOND + 123456789, fixture["line"], fixture["labels"])])]


def quoted(template):
    return json.dumps(template, ensure_ascii=False)


def requests(at, lines):
    """(name, path, parameters, headers), as compare.py wants them."""
    whole = {"start": at(0), "end": at(900), "limit": "1000"}
    span = {"start": at(0), "end": at(900)}
    for query in lines(LINES):
        for direction in ["backward", "forward"]:
            for limit in ["100", "1000"]:
                yield f"{query}  [{direction} {limit}]", RANGED, {**whole, "query": query, "direction": direction, "limit": limit}, {}
    for query in lines(COUNTS):
        yield query, RANGED, {**span, "step": "300", "query": query}, {}
        yield query + "  [instant]", INSTANT, {"time": at(900), "query": query}, {}
    for number, template in enumerate(templates()[1]):
        query = '{app="template"} | line_format ' + quoted(template)
        yield query, RANGED, {**whole, "query": query}, {}
        if number % 4 == 0:
            query = '{app="template"} | label_format x=' + quoted(template)
            yield query, RANGED, {**whole, "query": query}, {}
        if number % 8 == 0:
            yield query + "  [format]", "/loki/api/v1/format_query", {"query": query}, {}

    volume, volumes = "/loki/api/v1/index/volume", "/loki/api/v1/index/volume_range"
    for selector in SELECTORS:
        params = {**span, "query": selector}
        yield f"estimate volume {selector}", volume, params, {}
        yield f"estimate volume_range {selector}", volumes, {**params, "step": "300"}, {}
        yield f"estimate stats {selector}", "/loki/api/v1/index/stats", params, {}
        yield f"detected_labels {selector}", "/loki/api/v1/detected_labels", params, {}
    for extra in [
        {"targetLabels": "app"}, {"targetLabels": "app,host"}, {"targetLabels": "missing"}, {"targetLabels": ""},
        {"aggregateBy": "labels"}, {"aggregateBy": "series"}, {"aggregateBy": "x"},
        {"aggregateBy": "labels", "targetLabels": "host"}, {"aggregateBy": "labels", "targetLabels": "host,app"},
        {"limit": "1"}, {"limit": "0"}, {"limit": "-1"}, {"limit": "x"}, {"start": "x"}, {"step": "x"}, {"step": "0"},
        {"start": at(900), "end": at(0)}, {"start": at(2000), "end": at(3000)},
    ]:
        for path in [volume, volumes]:
            params = {**span, "query": '{group="random"}', **extra}
            yield f"estimate {path[16:]} {sorted(extra.items())[0]} {len(extra)}", path, params, {}
    yield "estimate volume without a query", volume, span, {}

    for selector in FIELDS:
        params = {**span, "query": selector}
        yield f"detected_fields {selector}", "/loki/api/v1/detected_fields", params, {}
        for field in ["level", "status", "n", "missing"]:
            yield f"detected_field {field} {selector}", f"/loki/api/v1/detected_field/{field}/values", params, {}
    for extra in [
        {"line_limit": "1"}, {"line_limit": "0"}, {"line_limit": "-1"}, {"line_limit": "x"}, {"limit": "1"}, {"limit": "0"},
        {"limit": "x"}, {"field_limit": "2"}, {"step": "x"}, {"start": "x"}, {"start": at(900), "end": at(0)},
    ]:
        params = {**span, "query": '{app="json"}', **extra}
        yield f"detected_fields {extra if 'start' not in extra else sorted(extra)}", "/loki/api/v1/detected_fields", params, {}
    yield "patterns", "/loki/api/v1/patterns", {**span, "query": '{group="random"}'}, {}
    yield "buildinfo", "/loki/api/v1/status/buildinfo", {}, {}
    yield "drilldown-limits", "/loki/api/v1/drilldown-limits", {}, {}
    yield "rules", "/loki/api/v1/rules", {}, {}
    yield "prometheus rules", "/prometheus/api/v1/rules", {}, {}
    yield "prometheus alerts", "/prometheus/api/v1/alerts", {}, {}
    yield "delete list", "/loki/api/v1/delete", {}, {}
    yield "no such path", "/loki/api/v1/nothing", {}, {}
    for selector in ['{app="json"}', '{app="many"}', "x"]:
        yield f"old query {selector}", "/api/prom/query", {**whole, "query": selector}, {}
        yield f"old query regexp {selector}", "/api/prom/query", {**whole, "query": selector, "regexp": "level"}, {}
    yield "old labels", "/api/prom/label", span, {}
    yield "old values", "/api/prom/label/app/values", span, {}
    yield "label", "/loki/api/v1/label", span, {}
