#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// A subscriber that always knows the totals of the fleet: subscribe, take a snapshot of each topic,
// follow the messages, notice what was missed, take that topic's snapshot again.
//
//   node subscriber.js PROTO BUS_PORT SNAPSHOT_PORT [HOST]
//
// Prints one JSON object a line: {"ready":…}, {"gap":…}, {"restart":…}, and for each line on stdin, which
// names a metric, {"metric":…,"total":"…"}: its sum over all series (of a histogram: how many values).
'use strict';
const net = require('net');
const readline = require('readline');
const protobuf = require('protobufjs');
const fzstd = require('fzstd');

const [protoPath, busPort, snapshotPort, host = '127.0.0.1'] = process.argv.slice(2);
const root = protobuf.loadSync(protoPath);
const Message = root.lookupType('tidegate.BusMessage');
const Body = root.lookupType('tidegate.BusBody');
const say = (o) => process.stdout.write(JSON.stringify(o) + '\n');

// ---- SP over TCP: 8 bytes of handshake, then u64 length and bytes, big-endian ----
const SUB = 0x21, PUB = 0x20, REQ = 0x30, REP = 0x31;
const MESSAGE_MAX = 1 << 20;

function spConnect(port, self, expect, onMessage, onReady) {
  const socket = net.connect({ port: Number(port), host });
  let buffer = Buffer.alloc(0), isReady = false;
  socket.write(Buffer.from([0, 0x53, 0x50, 0, self >> 8, self & 255, 0, 0]));
  socket.on('error', () => {}); // close follows
  socket.on('data', (chunk) => {
    buffer = Buffer.concat([buffer, chunk]);
    if (!isReady) {
      if (buffer.length < 8) return;
      if (buffer.readUInt32BE(0) !== 0x00535000 || buffer.readUInt16BE(4) !== expect) {
        socket.destroy();
        return;
      }
      isReady = true;
      buffer = buffer.subarray(8);
      onReady();
    }
    while (buffer.length >= 8) {
      const size = Number(buffer.readBigUInt64BE(0));
      if (size > MESSAGE_MAX) {
        socket.destroy();
        return;
      }
      if (buffer.length < 8 + size) return;
      const message = buffer.subarray(8, 8 + size);
      buffer = buffer.subarray(8 + size);
      onMessage(message);
    }
  });
  return socket;
}

function spSend(socket, message) {
  const header = Buffer.alloc(8);
  header.writeBigUInt64BE(BigInt(message.length));
  socket.write(Buffer.concat([header, message]));
}

// ---- messages: topic, NUL, BusMessage ----
function decode(bytes) {
  const end = bytes.indexOf(0);
  const m = Message.toObject(Message.decode(bytes.subarray(end + 1)), { longs: String, defaults: true });
  const plain = m.zstd ? fzstd.decompress(m.body) : m.body;
  const body = Body.toObject(Body.decode(plain), { longs: String, defaults: true, arrays: true });
  return { topic: bytes.toString('utf8', 0, end), epoch: m.epoch, sequence: BigInt(m.sequence), body };
}

// ---- what is known ----
let epoch = null;
const sequences = new Map(); // topic -> last sequence seen or known to be missed
const values = new Map(); // topic, metric, labels -> { metric, sequence, value }
const wanted = []; // snapshot requests: { topic, next }
let waiting = null, isListed = false, wasReady = false;

function keep(topic, sequence, s) {
  if (s.kind === 1) return; // a gauge has no total
  const key = JSON.stringify([topic, s.metric, s.labels]);
  const known = values.get(key);
  if (known && known.sequence > sequence) return; // of two values the later one holds
  const value = s.kind === 2 ? s.counts.reduce((sum, n) => sum + BigInt(n), 0n) : BigInt(s.counter);
  values.set(key, { metric: s.metric, sequence, value });
}

function want(topic) {
  if (!wanted.some((w) => w.topic === topic && !w.next)) wanted.push({ topic, next: '' });
  ask();
}

function missed(topic, n) {
  say({ gap: { topic, missed: String(n) } });
  if (topic.startsWith('metrics/')) want(topic); // an event that was missed is gone
}

// isListed: a beacon says that there were messages up to this one, which should have come before it.
function follow(topic, sequence, isListedOnly) {
  const last = sequences.get(topic);
  if (last === undefined) {
    sequences.set(topic, sequence);
    if (topic.startsWith('metrics/')) want(topic); // new to us: what was before?
    return;
  }
  const n = sequence - last - (isListedOnly ? 0n : 1n);
  if (n > 0n) missed(topic, n);
  if (sequence > last) sequences.set(topic, sequence);
}

function restart(next) {
  if (epoch !== null) say({ restart: { epoch: next } });
  epoch = next;
  sequences.clear();
  values.clear();
  wanted.length = 0;
  waiting = null; // its answer would be of another life
  isListed = false;
  want('metrics/');
}

function onMessage(bytes) {
  const m = decode(bytes);
  if (m.epoch !== epoch) restart(m.epoch);
  if (m.topic === 'beacon') for (const t of m.body.topics) follow(t.topic, BigInt(t.sequence), true);
  else follow(m.topic, m.sequence, false);
  for (const s of m.body.series) keep(m.topic, m.sequence, s);
}

// ---- snapshots: REQ/REP, one request at a time: id, topic, and for more than one part NUL and next ----
let snapshots = null, requestId = 0x80000000;

function ask() {
  if (waiting || !wanted.length || !snapshots) return;
  waiting = wanted.shift();
  requestId = (0x80000000 | (requestId + 1)) >>> 0; // the highest bit ends SP's list of hops
  waiting.id = requestId;
  waiting.since = Date.now();
  const id = Buffer.alloc(4);
  id.writeUInt32BE(requestId);
  spSend(snapshots, Buffer.concat([id, Buffer.from(waiting.topic + (waiting.next && '\0' + waiting.next))]));
}

// What was not answered, or not with what it should be, is asked again in a second.
function askLater() {
  if (waiting) wanted.push({ topic: waiting.topic, next: '' });
  waiting = null;
}
setInterval(() => {
  if (waiting && Date.now() - waiting.since > 5000) askLater();
  ask();
}, 1000);

function onSnapshot(bytes) {
  if (!waiting || bytes.readUInt32BE(0) !== waiting.id) return;
  const m = decode(bytes.subarray(4));
  if (m.epoch !== epoch || (m.body.why && !m.body.topics.length)) {
    askLater();
    return;
  }
  const request = waiting;
  waiting = null;
  if (request.topic === 'metrics/') { // the list of topics; their series come one by one
    for (const t of m.body.topics) {
      if (!sequences.has(t.topic)) sequences.set(t.topic, BigInt(t.sequence));
      want(t.topic);
    }
    isListed = isListed || !m.body.next;
  } else {
    for (const s of m.body.series) keep(request.topic, BigInt(m.body.topics[0].sequence), s);
  }
  if (m.body.next) wanted.unshift({ topic: request.topic, next: m.body.next });
  if (isListed && !wanted.length && !waiting && !wasReady) {
    wasReady = true;
    say({ ready: { topics: sequences.size } });
  }
  ask();
}

// ---- connections that come again ----
function stay(port, self, expect, onData, onOpen, onLost) {
  let wait = 100;
  const connect = () => {
    const socket = spConnect(port, self, expect, onData, () => {
      wait = 100;
      onOpen(socket);
    });
    // A publisher sends a beacon each second: silence is a connection that only we believe in.
    if (self === SUB) socket.setTimeout(10000, () => socket.destroy());
    socket.on('close', () => {
      onLost();
      setTimeout(connect, wait / 2 + (Math.random() * wait) / 2);
      wait = Math.min(wait * 2, 5000);
    });
  };
  connect();
}

stay(busPort, SUB, PUB, onMessage, () => {}, () => {});
stay(snapshotPort, REQ, REP, onSnapshot,
  (socket) => { snapshots = socket; ask(); },
  () => {
    snapshots = null;
    askLater();
  });

readline.createInterface({ input: process.stdin }).on('line', (metric) => {
  let total = 0n;
  for (const v of values.values()) if (v.metric === metric) total += v.value;
  say({ metric, total: String(total) });
}).on('close', () => process.exit(0));
