// npm jaeger-client, over UDP (Thrift binary), over HTTP, and its remote sampler.

'use strict';

const assert = require('assert');
const jaeger = require('jaeger-client');
const { Reference } = require('opentracing');
const { expectTrace, expectFound } = require('./jaeger.js');

const [agentHost, agentPort] = process.env.WATCHPOST_AGENT_BINARY.split(':');
const [samplingHost, samplingPort] = process.env.WATCHPOST_SAMPLING.split(':');
const logger = { info() {}, error(text) { console.error(`jaeger-client: ${text}`); } };
const run = process.pid + '-' + Date.now();

async function trace(transport, reporter) {
  const service = `jaeger-client-${transport}-${run}`;
  const tracer = jaeger.initTracer(
    { serviceName: service, sampler: { type: 'const', param: 1 }, reporter },
    { logger, traceId128bit: transport === 'http', tags: { version: '1.2.3' } });

  const start = Date.now();
  const root = tracer.startSpan('GET /cart', { startTime: start });
  root.setTag('http.status_code', 503).setTag('error', true).setTag('user', 'Zoë ☕').setTag('run', run);
  root.log({ event: 'cache miss', key: 'cart:4711', size: 12.5 }, start + 2);
  const child = tracer.startSpan('SELECT', { childOf: root.context(), startTime: start + 1 });
  child.finish(start + 4);
  const after = tracer.startSpan('mail', {
    references: [new Reference('follows_from', root.context())], startTime: start + 5 });
  after.finish(start + 6);
  root.finish(start + 7);
  // The client leaves out leading zeros.
  const ids = [root, child, after].map((span) => span.context().spanIdStr.padStart(16, '0'));
  const traceId = root.context().traceIdStr.padStart(transport === 'http' ? 32 : 16, '0');
  await new Promise((done) => tracer.close(done));

  // The client writes every number as a double.
  const format = `internal.span.format:string="${transport === 'http' ? 'jaeger' : 'proto'}"`;
  const none = () => ({ service, tags: [format], logs: [], warnings: null });
  const expected = {
    [ids[0]]: {
      ...none(), operation: 'GET /cart', time: [start * 1000, 7000], references: [],
      tags: [format, 'sampler.type:string="const"', 'sampler.param:bool=true', 'http.status_code:float64=503',
        'error:bool=true', 'user:string="Zoë ☕"', `run:string="${run}"`],
      logs: [[(start + 2) * 1000, 'event:string="cache miss"', 'key:string="cart:4711"', 'size:float64=12.5']],
    },
    [ids[1]]: {
      ...none(), operation: 'SELECT', time: [(start + 1) * 1000, 3000],
      references: [`CHILD_OF ${traceId} ${ids[0]}`],
    },
    [ids[2]]: {
      ...none(), operation: 'mail', time: [(start + 5) * 1000, 1000],
      references: [`FOLLOWS_FROM ${traceId} ${ids[0]}`],
    },
  };
  const found = await expectTrace(service, traceId, expected);
  const tags = Object.fromEntries(Object.values(found.processes)[0].tags.map((tag) => [tag.key, tag.value]));
  assert.strictEqual(tags.version, '1.2.3');
  assert.strictEqual(tags['jaeger.version'], 'Node-3.19.0');
  assert.strictEqual(tags.hostname, require('os').hostname());
  await expectFound(service, service, ['GET /cart', 'SELECT', 'mail'], { run, 'http.status_code': '503' }, traceId);
  console.log(`ok: jaeger-client 3.19.0 over ${transport}: 3 spans`);
}

async function sampler() {
  const sampler = await new Promise((updated, failed) => {
    setTimeout(() => failed(new Error('the remote sampler heard nothing')), 5000).unref();
    const remote = new jaeger.RemoteSampler('anything', {
      host: samplingHost, port: Number(samplingPort), refreshInterval: 100, logger,
      sampler: new jaeger.ConstSampler(false),
      onSamplerUpdate: (sampler) => remote.close(() => updated(sampler)),
    });
  });
  assert.match(sampler.toString(), /ProbabilisticSampler\(samplingRate=0\.001\)/);
  console.log('ok: jaeger-client 3.19.0, remote sampler: probability 0.001');
}

(async () => {
  await trace('udp', { agentHost, agentPort: Number(agentPort) });
  await trace('http', { collectorEndpoint: process.env.WATCHPOST_COLLECTOR + '/api/traces' });
  await sampler();
})().catch((error) => { console.error(error.message || error); process.exit(1); });
