// node send.mjs CLIENT PORT FILE...: sends each message with that client, one after the other on one connection, and prints what the client
// itself made of each answer: `CODE CONTROL-ID`, from MSA-1 and MSA-2. Ends when all are answered; the caller ends it when they are not.
import { readFileSync } from 'node:fs';

const [client, port, ...files] = process.argv.slice(2);
const address = { host: '127.0.0.1', port: Number(port) };
const messages = files.map((file) => readFileSync(file, 'utf8').replace(/\r?\n/g, '\r').replace(/\r$/, ''));
const told = (code, controlId) => console.log(`${code} ${controlId}`);

async function nodeHl7Client(answered) {
  const { Client, Message } = await import('node-hl7-client');
  const connection = new Client({ host: address.host }).createConnection({ port: address.port, waitAck: true }, (answer) => {
    const message = answer.getMessage();
    told(message.get('MSA.1').toString(), message.get('MSA.2').toString());
    answered();
  });
  await new Promise((connected) => connection.on('connect', connected));
  return { connection, Message };
}

const clients = {
  // Matches answers by MSA-2, and knows of no other way to get one.
  async medplum() {
    const { Hl7Client } = await import('@medplum/hl7');
    const { Hl7Message } = await import('@medplum/core');
    const hl7 = new Hl7Client({ ...address, keepAlive: true });
    for (const message of messages) {
      const answer = (await hl7.sendAndWait(Hl7Message.parse(message), { timeoutMs: 10_000 })).getSegment('MSA');
      told(answer.getField(1).toString(), answer.getField(2).toString());
    }
    await hl7.close();
  },

  // Writes each message anew from a tree of its own. Its `waitAck` holds nothing back, so the next one is sent from here when an answer came.
  async 'node-hl7-client'() {
    const { connection, Message } = await nodeHl7Client(() => {
      const next = messages[++sent];
      if (next === undefined) ended();
      else connection.sendMessage(new Message({ text: next }));
    });
    let sent = 0;
    let ended;
    const end = new Promise((done) => (ended = done));
    await connection.sendMessage(new Message({ text: messages[0] }));
    await end;
  },

  // The same, left to itself: sends everything at once and, of answers that come in one packet, reads only the first. Never ends.
  async 'node-hl7-client ahead'() {
    const { connection, Message } = await nodeHl7Client(() => {});
    for (const message of messages) await connection.sendMessage(new Message({ text: message }));
    await new Promise(() => {});
  },

  // Acknowledges our acknowledgement: if that were answered, it would acknowledge the answer, without end.
  async 'hl7v2-net'() {
    const { Hl7Client } = await import('hl7v2-net');
    const { HL7Message } = await import('hl7v2');
    const hl7 = Hl7Client.createClient(address);
    await hl7.connect();
    for (const message of messages) {
      const answer = (await hl7.sendMessageWaitAck(HL7Message.parse(message))).getSegment('MSA');
      told(answer.field(1).getValue(), answer.field(2).getValue());
    }
    await hl7.close();
  },

  // Gives each answer to whoever sent last, whatever its MSA-2 says.
  async 'simple-hl7'() {
    const { default: hl7 } = await import('simple-hl7');
    const tcp = hl7.Server.createTcpClient({ ...address, keepalive: true });
    for (const message of messages) {
      const answer = await new Promise((done, failed) => {
        tcp.send(new hl7.Parser().parse(message), (error, ack) => (error ? failed(error) : done(ack)));
      });
      told(answer.getSegment('MSA').getField(1), answer.getSegment('MSA').getField(2));
      // It calls back before it has forgotten the message that it waited for.
      await new Promise((next) => setImmediate(next));
    }
  },
};

await clients[client]();
process.exit(0);
