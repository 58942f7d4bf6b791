// Reading back what a client sent: Jaeger's query API, and a comparison that names the place.

'use strict';

const assert = require('assert');

const QUERY = process.env.WATCHPOST_JAEGER;
/** UDP gives no answer, so a trace is asked for until it is whole or this time is over. */
const PATIENCE_MS = 10000;

async function api(path) {
  const answer = await fetch(QUERY + path, { signal: AbortSignal.timeout(5000) });
  if (answer.status === 404) return null;
  assert.strictEqual(answer.status, 200, `GET ${path}: ${answer.status} ${await answer.clone().text()}`);
  return (await answer.json()).data;
}

async function trace(traceId, spans) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = await api(`/api/traces/${traceId}`);
    if (found && found.length === 1 && found[0].spans.length >= spans) return found[0];
    if (Date.now() > deadline) throw new Error(`trace ${traceId} of ${spans} spans: ${JSON.stringify(found)}`);
    await new Promise((next) => setTimeout(next, 50));
  }
}

const fields = (tags) => tags.map((tag) => `${tag.key}:${tag.type}=${JSON.stringify(tag.value)}`);

/** All that a span holds, but its own ids. */
function readable(span, processes) {
  return {
    service: processes[span.processID].serviceName,
    operation: span.operationName,
    time: [span.startTime, span.duration],
    references: span.references.map((r) => `${r.refType} ${r.traceID} ${r.spanID}`),
    tags: fields(span.tags).sort(),
    logs: span.logs.map((log) => [log.timestamp, ...fields(log.fields).sort()]),
    warnings: span.warnings,
  };
}

/**
 * Compares spans by id; `expected` maps a span id to what `readable` must give. With 'time' among
 * `free` the client took the times: neither those of spans nor of logs are compared.
 */
async function expectTrace(client, traceId, expected, free = []) {
  const found = await trace(traceId, Object.keys(expected).length);
  const got = {};
  for (const span of found.spans) {
    got[span.spanID] = readable(span, found.processes);
    if (free.includes('time')) {
      delete got[span.spanID].time;
      got[span.spanID].logs = got[span.spanID].logs.map((log) => log.slice(1));
    }
  }
  for (const span of Object.values(expected)) span.tags.sort();
  assert.deepStrictEqual(got, expected, client);
  return found;
}

/** The service is listed, and a search by one tag finds the trace. */
async function expectFound(client, service, operations, tags, traceId) {
  assert((await api('/api/services')).includes(service), `${client}: ${service} is not among the services`);
  const named = await api(`/api/services/${encodeURIComponent(service)}/operations`);
  assert.deepStrictEqual(named.sort(), operations.sort(), client);
  const query = new URLSearchParams({ service, tags: JSON.stringify(tags), lookback: 'custom', limit: '20' });
  query.set('start', String((Date.now() - 3600000) * 1000));
  query.set('end', String((Date.now() + 60000) * 1000));
  const found = await api(`/api/traces?${query}`);
  assert.deepStrictEqual(found.map((t) => t.traceID), [traceId], `${client}: search by ${JSON.stringify(tags)}`);
}

module.exports = { expectTrace, expectFound };
