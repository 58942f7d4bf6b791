// @opentelemetry/exporter-logs-otlp-http: log records by OTLP as JSON, found again by LogQL.

'use strict';

const { ROOT_CONTEXT, TraceFlags, trace } = require('@opentelemetry/api');
const { SeverityNumber } = require('@opentelemetry/api-logs');
const { OTLPLogExporter } = require('@opentelemetry/exporter-logs-otlp-http');
const { resourceFromAttributes } = require('@opentelemetry/resources');
const { BatchLogRecordProcessor, LoggerProvider } = require('@opentelemetry/sdk-logs');
const assert = require('node:assert');

const run = process.pid + '-' + Date.now();

async function check(door, url, compression) {
  const service = `logs-js-${door}-${run}`;
  const exporter = new OTLPLogExporter({ url, compression });
  const provider = new LoggerProvider({
    resource: resourceFromAttributes({ 'service.name': service, 'service.version': '1.2.3' }),
    processors: [new BatchLogRecordProcessor(exporter)],
  });
  const logger = provider.getLogger('shop', '0.1');
  const start = Date.now();
  const span = { traceId: '0102030405060708090a0b0c0d0e0f10', spanId: '0102030405060708', traceFlags: TraceFlags.SAMPLED };
  logger.emit({
    timestamp: start, observedTimestamp: start + 1, severityNumber: SeverityNumber.ERROR, severityText: 'ERROR',
    body: 'no stock ☕', attributes: { 'http.status_code': 503, retried: true, parts: ['a', 'b'], nested: { deep: 'x' } },
    context: trace.setSpanContext(ROOT_CONTEXT, span),
  });
  logger.emit({ timestamp: start + 2, observedTimestamp: start + 3, body: { b: 1.5, a: ['x'] } });
  await provider.shutdown();

  const query = new URLSearchParams({ query: `{service_name="${service}"}`, direction: 'forward' });
  const answer = await fetch(process.env.WATCHPOST_LOKI + '/loki/api/v1/query_range?' + query,
    { headers: { 'X-Loki-Response-Encoding-Flags': 'categorize-labels' } });
  const { data } = await answer.json();
  const common = { scope_name: 'shop', scope_version: '0.1', service_version: '1.2.3' };
  assert.deepStrictEqual(data.result, [{
    stream: { service_name: service },
    values: [
      [`${start}000000`, 'no stock ☕', { structuredMetadata: {
        ...common, detected_level: 'error', flags: '1', http_status_code: '503', nested_deep: 'x',
        observed_timestamp: `${start + 1}000000`, parts: '["a","b"]', retried: 'true', severity_number: '17',
        severity_text: 'ERROR', span_id: span.spanId, trace_id: span.traceId } }],
      [`${start + 2}000000`, '{"a":["x"],"b":1.5}', { structuredMetadata: {
        ...common, detected_level: 'unknown', observed_timestamp: `${start + 3}000000` } }],
    ],
  }]);
  console.log(`ok: @opentelemetry/exporter-logs-otlp-http 0.203.0, ${door}: 2 log records`);
}

(async () => {
  await check('4318', process.env.WATCHPOST_OTLP_HTTP + '/v1/logs', 'none');
  await check('3100', process.env.WATCHPOST_LOKI + '/otlp/v1/logs', 'gzip');
})().catch((error) => { console.error(error); process.exit(1); });
