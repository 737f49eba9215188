// A token server for tests, on loopback and in memory: oidc-provider, with client secrets (basic, post) and SMART backend services (private_key_jwt).
import http from 'node:http';
import { createPrivateKey, createPublicKey, generateKeyPairSync } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Provider } from 'oidc-provider';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string', default: '0' }, // a free one
    ttl: { type: 'string', default: '300' }, // of access tokens, in seconds
    alg: { type: 'string', default: 'ES384' }, // of assertions
    keys: { type: 'string' }, // a folder: backend.pem and backend.jwks are written into it
    jwks: { type: 'string' }, // or the public set of a key that somebody else made
  },
});
const audience = 'http://fhir.test/fhir';
const scope = 'system/*.cruds system/*.rs';
const secret = 'hunter2 & co:%';

/** By way of PEM: Node 20 can wait for itself for ever when it collects garbage while it exports a key that it has just made. */
function pair(alg) {
  const [kind, how] = alg.startsWith('ES') ? ['ec', { namedCurve: 'P-384' }] : ['rsa', { modulusLength: 2048 }];
  const pem = { privateKeyEncoding: { type: 'pkcs8', format: 'pem' }, publicKeyEncoding: { type: 'spki', format: 'pem' } };
  const made = generateKeyPairSync(kind, { ...how, ...pem });
  return { privateKey: createPrivateKey(made.privateKey), publicKey: createPublicKey(made.publicKey) };
}

/** The key of the backend client: its public half is registered here. */
function backend() {
  if (options.jwks) return JSON.parse(readFileSync(options.jwks));
  const { publicKey, privateKey } = pair(options.alg);
  const facts = { kid: 'backend-1', alg: options.alg, use: 'sig' };
  if (options.keys) {
    writeFileSync(`${options.keys}/backend.pem`, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 });
    const other = pair(options.alg).privateKey.export({ format: 'jwk' });
    const set = { keys: [{ ...other, kid: 'other', alg: options.alg }, { ...privateKey.export({ format: 'jwk' }), ...facts }] };
    writeFileSync(`${options.keys}/backend.jwks`, JSON.stringify(set), { mode: 0o600 });
  }
  return { keys: [{ ...publicKey.export({ format: 'jwk' }), ...facts }] };
}

const stats = { asked: 0, issued: 0, refused: 0 };
const fault = { status: 0, delayMs: 0 };
let lastForm = '';

function provider(issuer) {
  const common = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope };
  const server = new Provider(issuer, {
    clients: [
      { client_id: 'kiln', client_secret: secret, token_endpoint_auth_method: 'client_secret_basic', ...common },
      { client_id: 'kiln-post', client_secret: secret, token_endpoint_auth_method: 'client_secret_post', ...common },
      { client_id: 'kiln-backend', token_endpoint_auth_method: 'private_key_jwt', token_endpoint_auth_signing_alg: options.alg, jwks: backend(), ...common },
    ],
    jwks: { keys: [{ ...pair('RS256').privateKey.export({ format: 'jwk' }), kid: 'issuer-1', alg: 'RS256', use: 'sig' }] },
    scopes: scope.split(' '),
    enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
    ttl: { ClientCredentials: Number(options.ttl) },
    cookies: { keys: ['test'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({ scope, audience, accessTokenTTL: Number(options.ttl), accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
      },
    },
  });
  server.on('grant.success', () => stats.issued++);
  server.on('grant.error', () => stats.refused++);
  return server.callback();
}

let answer;
async function handle(request, response) {
  const json = (status, body, headers = {}) => response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(JSON.stringify(body));
  if (request.url === '/__stats') return json(200, stats);
  if (request.url === '/__last') return json(200, lastForm);
  if (request.url === '/__fault') {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    return json(200, Object.assign(fault, JSON.parse(Buffer.concat(chunks).toString())));
  }
  if (request.url === '/token') {
    stats.asked++;
    if (fault.delayMs) await new Promise((done) => setTimeout(done, fault.delayMs));
    if (fault.status) return json(fault.status, { error: 'temporarily_unavailable' }, { 'retry-after': '3' });
    request.on('data', (chunk) => (lastForm = chunk.toString())); // a form comes in one piece
  }
  return answer(request, response);
}

http.createServer(handle).listen(Number(options.port), '127.0.0.1', function ready() {
  const issuer = `http://127.0.0.1:${this.address().port}`;
  answer = provider(issuer);
  console.log(issuer);
});
process.stdin.resume().on('end', () => process.exit(0)); // ends with the test that started it
