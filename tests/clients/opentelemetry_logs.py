"""PyPI's OpenTelemetry exporters of logs, over HTTP and gRPC, fed by Python's own logging.

Sends two lines with each and reads them back by LogQL; compares everything but what differs
from run to run.
"""

import json
import logging
import os
import sys
import time
import urllib.parse
import urllib.request

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

LOKI = os.environ["WATCHPOST_LOKI"]
RUN = f"{os.getpid()}-{time.time_ns()}"


def lines(service):
    query = urllib.parse.urlencode({"query": f'{{service_name="{service}"}}', "direction": "forward"})
    request = urllib.request.Request(f"{LOKI}/loki/api/v1/query_range?{query}",
                                     headers={"X-Loki-Response-Encoding-Flags": "categorize-labels"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)["data"]["result"]


def expect(client, what, got, expected):
    if got != expected:
        print(f"{client}: {what}\n  got      {got}\n  expected {expected}", file=sys.stderr)
        raise SystemExit(1)


def check(client, door, exporter):
    service = f"logs-py-{door}-{RUN}"
    provider = LoggerProvider(resource=Resource.create({"service.name": service, "service.version": "1.2.3"}))
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logger = logging.getLogger(service)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(LoggingHandler(logger_provider=provider))
    before = time.time_ns()
    with TracerProvider().get_tracer("shop").start_as_current_span("checkout"):
        context = trace.get_current_span().get_span_context()
        logger.error("no stock of %s ☕", "cups", extra={"order": 4711})
    logger.info("done")
    provider.shutdown()

    found = lines(service)
    expect(client, "streams", [stream["stream"] for stream in found], [{"service_name": service}])
    values = found[0]["values"]
    expect(client, "lines", [value[1] for value in values], ["no stock of cups ☕", "done"])
    expect(client, "times", all(before <= int(value[0]) <= time.time_ns() for value in values), True)
    first, second = (value[2]["structuredMetadata"] for value in values)
    ids = {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}", "flags": "1"}
    expected = {"detected_level": "error", "order": "4711", "severity_number": "17", "severity_text": "ERROR",
                "service_version": "1.2.3", "telemetry_sdk_language": "python", **ids}
    expect(client, "metadata of the first", {name: first.get(name) for name in expected}, expected)
    expected = {"detected_level": "info", "severity_number": "9", "severity_text": "INFO",
                "trace_id": None, "span_id": None, "order": None}
    expect(client, "metadata of the second", {name: second.get(name) for name in expected}, expected)
    print(f"ok: {client}: 2 log records")


check("opentelemetry-exporter-otlp-proto-http 1.21.0, logs, 4318", "4318",
      HttpExporter(endpoint=os.environ["WATCHPOST_OTLP_HTTP"] + "/v1/logs", compression=Compression.Gzip))
check("opentelemetry-exporter-otlp-proto-grpc 1.21.0, logs", "4317",
      GrpcExporter(endpoint=os.environ["WATCHPOST_OTLP_GRPC"], insecure=True))
