// node receive.mjs SERVER [CERTIFICATE KEY]: takes messages with that server, over TLS with a certificate. Prints `port N`, then the control ID
// (MSH-10) of each message that it is given; acknowledges each with AA. Ends when it is ended.
import { readFileSync } from 'node:fs';
import net from 'node:net';
import tls from 'node:tls';

const [server, certificate, key] = process.argv.slice(2);
const secure = certificate && { cert: readFileSync(certificate), key: readFileSync(key) };
const host = '127.0.0.1';
const listening = (port) => console.log(`port ${port}`);
const received = (controlId) => console.log(String(controlId));

// A free port, for servers that want to be told one.
const freePort = () =>
  new Promise((found) => {
    const probe = net.createServer().listen(0, host, () => {
      const { port } = probe.address();
      probe.close(() => found(port));
    });
  });

const servers = {
  // Its own server binds every interface; the connection is the library.
  async medplum() {
    const { Hl7Connection } = await import('@medplum/hl7');
    const on = (socket) => {
      const connection = new Hl7Connection(socket);
      connection.addEventListener('message', ({ message }) => {
        received(message.getSegment('MSH').getField(10));
        connection.send(message.buildAck());
      });
      connection.addEventListener('error', () => {});
    };
    const sockets = secure ? tls.createServer(secure, on) : net.createServer(on);
    sockets.on('tlsClientError', () => {});
    sockets.listen(0, host, () => listening(sockets.address().port));
  },

  // Handles message k of a connection k times, and sends the first acknowledgement again.
  async 'node-hl7-server'() {
    const { Server } = await import('node-hl7-server');
    const port = await freePort();
    const inbound = new Server({ bindAddress: host, tls: secure }).createInbound({ port }, async (request, response) => {
      received(request.getMessage().get('MSH.10').toString());
      await response.sendResponse('AA');
    });
    inbound.on('error', () => {}).on('data.error', () => {});
    inbound.on('listen', () => listening(port));
  },

  // Without TLS: it hands its TLS server's sockets over before the handshake, and reads ciphertext.
  async 'hl7v2-net'() {
    const { HL7Server } = await import('hl7v2-net');
    const port = await freePort();
    const receiver = HL7Server.createServer();
    receiver.on('error', () => {});
    receiver.use((request, response) => {
      received(request.message.controlId);
      response.message = request.message.createAck('AA');
    });
    await receiver.listen(port, host);
    listening(port);
  },

  async 'simple-hl7'() {
    const { default: hl7 } = await import('simple-hl7');
    const port = await freePort();
    const app = hl7.tcp();
    app.use((request, response) => {
      received(request.msg.header.getField(8));
      response.end();
    });
    app.start({ port, host });
    listening(port);
  },
};

process.on('uncaughtException', () => {});
await servers[server]();
