"""PyPI's OpenTelemetry exporters: the last Thrift one of Jaeger (compact, UDP), OTLP over HTTP and gRPC.

Sends two traces with each, reads them back by Jaeger's query API and compares everything but
what differs from run to run.
"""

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

from opentelemetry.exporter.jaeger.thrift import JaegerExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

QUERY = os.environ["WATCHPOST_JAEGER"]
RUN = f"{os.getpid()}-{time.time_ns()}"
# UDP gives no answer, so a trace is asked for until it is whole or this time is over.
PATIENCE_SECONDS = 10


def api(path, **parameters):
    url = QUERY + path + ("?" + urllib.parse.urlencode(parameters) if parameters else "")
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise SystemExit(f"GET {url}: {error.code} {error.read().decode()}") from error


def trace(trace_id, spans):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = api(f"/api/traces/{trace_id}")
        if found and len(found) == 1 and len(found[0]["spans"]) >= spans:
            return found[0]
        if time.monotonic() > deadline:
            raise SystemExit(f"trace {trace_id} of {spans} spans: {found}")
        time.sleep(0.05)


def fields(tags):
    return sorted((tag["key"], tag["type"], tag["value"]) for tag in tags)


def expect(client, what, got, expected):
    if got != expected:
        print(f"{client}: {what}\n  got      {got}\n  expected {expected}", file=sys.stderr)
        raise SystemExit(1)


def check(client, service, exporter, converted):
    """`converted` says how this exporter writes what the SDK was given."""
    resource = Resource.create({"service.name": service, "service.version": "1.2.3"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("shop", "0.1")

    start = time.time_ns() // 1_000_000 * 1_000_000
    attributes = {"http.status_code": 503, "ratio": 0.25, "retried": True, "user": "Zoë ☕",
                  "parts": ("a", "b"), "run": RUN}
    elsewhere = tracer.start_span("elsewhere", start_time=start)
    root = tracer.start_span("GET /cart", kind=SpanKind.SERVER, attributes=attributes, start_time=start)
    root.add_event("cache miss", {"key": "cart:4711"}, timestamp=start + 2_000_000)
    root.set_status(Status(StatusCode.ERROR, "no stock"))
    child = tracer.start_span("SELECT", kind=SpanKind.CLIENT, context=set_span_in_context(root),
                              links=[Link(elsewhere.get_span_context())], start_time=start + 1_000_000)
    child.end(end_time=start + 3_500_000)
    elsewhere.end(end_time=start + 1_000_000)
    root.end(end_time=start + 7_000_000)
    provider.shutdown()

    ids = {name: (f"{span.get_span_context().trace_id:032x}".removeprefix("0" * 16),
                  f"{span.get_span_context().span_id:016x}")
           for name, span in (("root", root), ("child", child), ("elsewhere", elsewhere))}
    trace_id, root_id = ids["root"]
    found = trace(trace_id, 2)
    spans = {span["spanID"]: span for span in found["spans"]}
    expect(client, "span ids", sorted(spans), sorted([root_id, ids["child"][1]]))
    got, got_child = spans[root_id], spans[ids["child"][1]]

    expect(client, "operations", (got["operationName"], got_child["operationName"]), ("GET /cart", "SELECT"))
    expect(client, "times", [(span["startTime"], span["duration"]) for span in (got, got_child)],
           [(start // 1000, 7000), (start // 1000 + 1000, 2500)])
    expect(client, "references of the root", got["references"], [])
    expect(client, "references of the child", got_child["references"],
           [{"refType": "CHILD_OF", "traceID": trace_id, "spanID": root_id},
            {"refType": "FOLLOWS_FROM", "traceID": ids["elsewhere"][0], "spanID": ids["elsewhere"][1]}])
    expect(client, "service", found["processes"][got["processID"]]["serviceName"], service)
    process = fields(found["processes"][got["processID"]]["tags"])
    expect(client, "process tags", process, sorted(converted["process"]))
    expect(client, "tags of the root", fields(got["tags"]), sorted(converted["root"]))
    expect(client, "tags of the child", fields(got_child["tags"]), sorted(converted["child"]))
    expect(client, "logs", [(log["timestamp"], fields(log["fields"])) for log in got["logs"]],
           [(start // 1000 + 2000, sorted(converted["log"]))])
    expect(client, "warnings", (found["warnings"], got["warnings"], got_child["warnings"]), (None, None, None))

    expect(client, "listed as a service", service in api("/api/services"), True)
    expect(client, "operations", sorted(api(f"/api/services/{service}/operations")), ["GET /cart", "SELECT", "elsewhere"])
    search = api("/api/traces", service=service, operation="GET /cart", minDuration="6ms", limit=20,
                 tags=json.dumps({"run": RUN}), start=start // 1000 - 1, end=start // 1000 + 60_000_000)
    expect(client, "found by operation, duration and tag", [one["traceID"] for one in search], [trace_id])
    print(f"ok: {client}: 3 spans")


SDK = [("telemetry.sdk.language", "string", "python"), ("telemetry.sdk.name", "string", "opentelemetry"),
       ("telemetry.sdk.version", "string", "1.21.0"), ("service.version", "string", "1.2.3")]
ROOT = [("http.status_code", "int64", 503), ("ratio", "float64", 0.25), ("retried", "bool", True),
        ("user", "string", "Zoë ☕"), ("run", "string", RUN), ("span.kind", "string", "server"),
        ("otel.status_code", "string", "ERROR"), ("otel.status_description", "string", "no stock"),
        ("error", "bool", True)]


def thrift():
    host, port = os.environ["WATCHPOST_AGENT_COMPACT"].split(":")
    service = f"thrift-py-{RUN}"
    # This exporter has no process tags: the resource goes to each span.
    common = SDK + [("internal.span.format", "string", "proto"), ("service.name", "string", service),
                    ("otel.library.name", "string", "shop"), ("otel.library.version", "string", "0.1"),
                    ("otel.scope.name", "string", "shop"), ("otel.scope.version", "string", "0.1")]
    check("opentelemetry-exporter-jaeger-thrift 1.21.0, UDP", service,
          JaegerExporter(agent_host_name=host, agent_port=int(port)), {
              "process": [],
              "root": ROOT + common + [("parts", "string", "('a', 'b')")],
              "child": common + [("span.kind", "string", "client")],
              "log": [("message", "string", "cache miss"), ("key", "string", "cart:4711")],
          })


def otlp(transport, exporter):
    common = [("internal.span.format", "string", "otlp"),
              ("otel.scope.name", "string", "shop"), ("otel.scope.version", "string", "0.1")]
    check(f"opentelemetry-exporter-otlp-proto-{transport} 1.21.0", f"otlp-{transport}-py-{RUN}", exporter, {
        "process": SDK,
        "root": ROOT + common + [("parts", "string", '["a","b"]')],
        "child": common + [("span.kind", "string", "client")],
        "log": [("event", "string", "cache miss"), ("key", "string", "cart:4711")],
    })


thrift()
otlp("http", HttpExporter(endpoint=os.environ["WATCHPOST_OTLP_HTTP"] + "/v1/traces", compression=Compression.Gzip))
otlp("grpc", GrpcExporter(endpoint=os.environ["WATCHPOST_OTLP_GRPC"], insecure=True))
