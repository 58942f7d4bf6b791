// npm zipkin with its HTTP transport: version 2 as JSON, and version 1.

'use strict';

const { BatchRecorder, ExplicitContext, Annotation, InetAddress, Tracer, jsonEncoder } = require('zipkin');
const { HttpLogger } = require('zipkin-transport-http');
const { expectTrace, expectFound } = require('./jaeger.js');

const run = process.pid + '-' + Date.now();

async function check(version) {
  const service = `zipkin-${version}-${run}`;
  const logger = new HttpLogger({
    endpoint: `${process.env.WATCHPOST_ZIPKIN}/api/${version}/spans`, httpInterval: 50,
    jsonEncoder: jsonEncoder[version === 'v1' ? 'JSON_V1' : 'JSON_V2'],
  });
  const tracer = new Tracer({
    ctxImpl: new ExplicitContext(), recorder: new BatchRecorder({ logger }), localServiceName: service,
    supportsJoin: false, traceId128Bit: version === 'v2',
  });
  const server = tracer.createRootId();
  const client = tracer.letId(server, () => tracer.createChildId());
  const record = (id, ...annotations) => tracer.letId(id, () => annotations.forEach((a) => tracer.recordAnnotation(a)));
  record(server, new Annotation.ServiceName(service), new Annotation.Rpc('get /cart'), new Annotation.ServerRecv(),
    new Annotation.BinaryAnnotation('run', run), new Annotation.BinaryAnnotation('error', 'no stock'));
  record(client, new Annotation.ServiceName(service), new Annotation.Rpc('select'), new Annotation.ClientSend(),
    new Annotation.ServerAddr({ serviceName: 'stock', host: new InetAddress('10.1.2.3'), port: 5432 }),
    new Annotation.Message('cache miss'), new Annotation.ClientRecv());
  record(server, new Annotation.ServerSend());

  const id = (id) => id.spanId;
  const found = await expectTrace(service, server.traceId, {
    [id(server)]: {
      service, operation: 'get /cart', references: [], logs: [], warnings: null,
      tags: ['internal.span.format:string="zipkin"', `run:string="${run}"`, 'error:bool=true',
        'error.message:string="no stock"', 'span.kind:string="server"'],
    },
    [id(client)]: {
      service, operation: 'select', references: [`CHILD_OF ${server.traceId} ${id(server)}`], warnings: null,
      tags: ['internal.span.format:string="zipkin"', 'span.kind:string="client"', 'peer.service:string="stock"',
        'peer.ipv4:string="10.1.2.3"', 'peer.port:int64=5432'],
      logs: [['event:string="cache miss"']],
    },
    // The client takes the times.
  }, ['time']);
  const spans = Object.fromEntries(found.spans.map((span) => [span.spanID, span]));
  const now = Date.now() * 1000;
  for (const span of found.spans) {
    if (Math.abs(now - span.startTime) > 60e6 || span.duration > 60e6) {
      throw new Error(`${service}: span at ${span.startTime} for ${span.duration}`);
    }
  }
  if (spans[id(client)].duration > spans[id(server)].duration) throw new Error(`${service}: ${JSON.stringify(spans)}`);
  await expectFound(service, service, ['get /cart', 'select'], { run, error: 'true' }, server.traceId);
  console.log(`ok: zipkin 0.22.0, version ${version.slice(1)}: 2 spans`);
}

(async () => {
  await check('v2');
  await check('v1');
  process.exit(0); // its transport has a timer that never ends
})().catch((error) => { console.error(error.message || error); process.exit(1); });
