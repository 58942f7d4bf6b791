// npm @opentelemetry/exporter-trace-otlp-http: OTLP as JSON.

'use strict';

const { SpanKind, SpanStatusCode, ROOT_CONTEXT, trace: api } = require('@opentelemetry/api');
const { OTLPTraceExporter } = require('@opentelemetry/exporter-trace-otlp-http');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BasicTracerProvider, BatchSpanProcessor } = require('@opentelemetry/sdk-trace-base');
const { expectTrace, expectFound } = require('./jaeger.js');

const run = process.pid + '-' + Date.now();
const service = `otlp-js-${run}`;

(async () => {
  const exporter = new OTLPTraceExporter({ url: process.env.WATCHPOST_OTLP_HTTP + '/v1/traces' });
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

  const always = ['internal.span.format:string="otlp"', 'otel.scope.name:string="shop"', 'otel.scope.version:string="0.1"'];
  const { traceId, spanId } = root.spanContext();
  const elsewhere = before.spanContext();
  const none = { service, logs: [], warnings: null };
  await expectTrace(service, traceId, {
    [spanId]: {
      ...none, operation: 'GET /cart', time: [start * 1000, 7000], references: [],
      tags: [...always, 'http.status_code:int64=503', 'ratio:float64=0.25', 'retried:bool=true', 'user:string="Zoë ☕"',
        'parts:string="[\\"a\\",\\"b\\"]"', `run:string="${run}"`, 'span.kind:string="server"',
        'otel.status_code:string="ERROR"', 'error:bool=true', 'otel.status_description:string="no stock"'],
      logs: [[(start + 2) * 1000, 'event:string="cache miss"', 'key:string="cart:4711"']],
    },
    [child.spanContext().spanId]: {
      ...none, operation: 'SELECT', time: [(start + 1) * 1000, 3000],
      tags: [...always, 'span.kind:string="client"'],
      references: [`CHILD_OF ${traceId} ${spanId}`, `FOLLOWS_FROM ${elsewhere.traceId} ${elsewhere.spanId}`],
    },
  });
  await expectFound(service, service, ['GET /cart', 'SELECT', 'elsewhere'], { run, error: 'true' }, traceId);
  console.log('ok: @opentelemetry/exporter-trace-otlp-http 0.203.0: 3 spans');
})().catch((error) => { console.error(error.message || error); process.exit(1); });
