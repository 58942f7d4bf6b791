// The exporters of npm's OpenTelemetry SDK: OTLP as JSON, as protobuf and over gRPC, Jaeger's
// over UDP and HTTP, Zipkin's. All send the same three spans.

'use strict';

const { SpanKind, SpanStatusCode, ROOT_CONTEXT, trace: api } = require('@opentelemetry/api');
const { JaegerExporter } = require('@opentelemetry/exporter-jaeger');
const { OTLPTraceExporter: OtlpGrpc } = require('@opentelemetry/exporter-trace-otlp-grpc');
const { OTLPTraceExporter: OtlpJson } = require('@opentelemetry/exporter-trace-otlp-http');
const { OTLPTraceExporter: OtlpProto } = require('@opentelemetry/exporter-trace-otlp-proto');
const { ZipkinExporter } = require('@opentelemetry/exporter-zipkin');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { expectTrace, expectFound } = require('./jaeger.js');

const run = process.pid + '-' + Date.now();

/** A tag as an answer has it, from how Zipkin's exporter writes one: as text. */
const texts = (tags) => tags.map((tag) => tag.replace(/:[a-z0-9]+="?(.*?)"?$/s, ':string="$1"'));

/** What the exporters of one kind make of the spans. */
const KINDS = {
  otlp: {
    always: () => ['internal.span.format:string="otlp"', 'otel.scope.name:string="shop"', 'otel.scope.version:string="0.1"'],
    parts: 'parts:string="[\\"a\\",\\"b\\"]"', numbers: 'int64', as: (tags) => tags,
    failed: ['otel.status_code:string="ERROR"', 'error:bool=true', 'otel.status_description:string="no stock"'],
    field: ['key:string="cart:4711"'], links: true,
  },
  // The resource is repeated as tags of each span; numbers are doubles; lists are joined.
  jaeger: {
    always: (service, format) => [`internal.span.format:string="${format}"`, 'otel.library.name:string="shop"',
      'otel.library.version:string="0.1"', `service.name:string="${service}"`, 'service.version:string="1.2.3"'],
    parts: 'parts:string="a,b"', numbers: 'float64', as: (tags) => tags,
    failed: ['otel.status_code:string="ERROR"', 'error:bool=true', 'otel.status_description:string="no stock"'],
    field: ['key:string="cart:4711"'], links: true,
  },
  // No scope, no links, events without attributes; an error that is a text is a message.
  zipkin: {
    always: (service) => ['internal.span.format:string="zipkin"', `service.name:string="${service}"`,
      'service.version:string="1.2.3"'],
    parts: 'parts:string="a,b"', numbers: 'string', as: texts,
    failed: ['otel.status_code:string="ERROR"', 'error:bool=true', 'error.message:string="no stock"'],
    field: [], links: false,
  },
};

async function check(name, version, door, exporter, kind, format) {
  const service = `${door}-js-${run}`;
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({ 'service.name': service, 'service.version': '1.2.3' }),
    spanProcessors: [new BatchSpanProcessor(exporter)],
  });
  const tracer = provider.getTracer('shop', '0.1');
  const start = Date.now();
  const root = tracer.startSpan('GET /cart', {
    kind: SpanKind.SERVER, startTime: start,
    attributes: { 'http.status_code': 503, ratio: 0.25, retried: true, user: 'Zoë ☕', parts: ['a', 'b'], run },
  });
  root.addEvent('cache miss', { key: 'cart:4711' }, start + 2);
  root.setStatus({ code: SpanStatusCode.ERROR, message: 'no stock' });
  const before = tracer.startSpan('elsewhere', { startTime: start }, ROOT_CONTEXT);
  const child = tracer.startSpan('SELECT', {
    kind: SpanKind.CLIENT, startTime: start + 1, links: [{ context: before.spanContext() }],
  }, api.setSpan(ROOT_CONTEXT, root));
  child.end(start + 4);
  before.end(start + 1);
  root.end(start + 7);
  await provider.shutdown();

  const { always, parts, numbers, as, failed, field, links } = KINDS[kind];
  const { traceId, spanId } = root.spanContext();
  const elsewhere = before.spanContext();
  const none = { service, logs: [], warnings: null };
  const link = links ? [`FOLLOWS_FROM ${elsewhere.traceId} ${elsewhere.spanId}`] : [];
  await expectTrace(service, traceId, {
    [spanId]: {
      ...none, operation: 'GET /cart', time: [start * 1000, 7000], references: [],
      tags: [...always(service, format), ...as([`http.status_code:${numbers}=503`, 'ratio:float64=0.25', 'retried:bool=true']),
        'user:string="Zoë ☕"', parts, `run:string="${run}"`, 'span.kind:string="server"', ...failed],
      logs: [[(start + 2) * 1000, 'event:string="cache miss"', ...field]],
    },
    [child.spanContext().spanId]: {
      ...none, operation: 'SELECT', time: [(start + 1) * 1000, 3000],
      tags: [...always(service, format), 'span.kind:string="client"'],
      references: [`CHILD_OF ${traceId} ${spanId}`, ...link],
    },
  });
  await expectFound(service, service, ['GET /cart', 'SELECT', 'elsewhere'],
    { run, error: 'true', 'http.status_code': '503' }, traceId);
  console.log(`ok: ${name} ${version}${door.startsWith('jaeger') ? ' over ' + door.slice(7) : ''}: 3 spans`);
}

(async () => {
  const otlp = process.env.WATCHPOST_OTLP_HTTP + '/v1/traces';
  await check('@opentelemetry/exporter-trace-otlp-http', '0.203.0', 'otlp-json', new OtlpJson({ url: otlp }), 'otlp');
  await check('@opentelemetry/exporter-trace-otlp-proto', '0.203.0', 'otlp-proto',
    new OtlpProto({ url: otlp, compression: 'gzip' }), 'otlp');
  await check('@opentelemetry/exporter-trace-otlp-grpc', '0.203.0', 'otlp-grpc',
    new OtlpGrpc({ url: 'http://' + process.env.WATCHPOST_OTLP_GRPC }), 'otlp');
  const [host, port] = process.env.WATCHPOST_AGENT_BINARY.split(':');
  await check('@opentelemetry/exporter-jaeger', '2.0.1', 'jaeger-udp',
    new JaegerExporter({ host, port: Number(port) }), 'jaeger', 'proto');
  await check('@opentelemetry/exporter-jaeger', '2.0.1', 'jaeger-http',
    new JaegerExporter({ endpoint: process.env.WATCHPOST_COLLECTOR + '/api/traces' }), 'jaeger', 'jaeger');
  await check('@opentelemetry/exporter-zipkin', '2.0.1', 'zipkin',
    new ZipkinExporter({ url: process.env.WATCHPOST_ZIPKIN + '/api/v2/spans' }), 'zipkin');
})().catch((error) => { console.error(error.message || error); process.exit(1); });
