// The group scenario (compat-tests/src/clients.rs says what it is) with KafkaJS.
// Arguments: bootstrap servers, prefix of topics, number of records for each codec.
const { Kafka, CompressionTypes, CompressionCodecs, logLevel } = require("kafkajs");
const snappy = require("kafkajs-snappy");

CompressionCodecs[CompressionTypes.Snappy] = snappy;

const [servers, prefix, countText] = process.argv.slice(2);
const count = Number(countText);
const keys = 100;
const limitMs = Number(process.env.COMPAT_LIMIT_S || "120") * 1000;
const codecs = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
};
const topics = Object.keys(codecs).map((codec) => `${prefix}-${codec}`);
const kafka = new Kafka({ clientId: "kafkajs", brokers: [servers], logLevel: logLevel.NOTHING });

const last = new Map();
let seen = 0;
let redelivered = 0;
let failure = null;

// A record again is a redelivery; a record out of turn is one lost or out of order.
function take(topic, key, value) {
  const number = parseInt(value, 10);
  const name = `${topic}/${key}`;
  const expected = last.has(name) ? last.get(name) + keys : Number(key.slice(1));
  if (number === expected) {
    last.set(name, number);
    seen += 1;
  } else if (number < expected) {
    redelivered += 1;
  } else {
    failure = failure || `${name}: ${number} came instead of ${expected}`;
  }
}

async function join(name) {
  const consumer = kafka.consumer({ groupId: prefix, heartbeatInterval: 500 });
  const member = { consumer, name, assigned: false };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    member.assigned = member.assigned || Object.keys(payload.memberAssignment).length > 0;
  });
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    failure = failure || `${name}: ${payload.error}`;
  });
  await consumer.connect();
  await consumer.subscribe({ topics, fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ topic, message }) =>
      take(topic, message.key.toString(), message.value.toString()),
  });
  return member;
}

async function produce(from, to) {
  for (const [codec, compression] of Object.entries(codecs)) {
    const producer = kafka.producer();
    await producer.connect();
    for (let i = from; i < to; i += 500) {
      const messages = [];
      for (let j = i; j < Math.min(i + 500, to); j += 1) {
        const value = `${j} the same words again and again for ${codec}`;
        messages.push({ key: `k${j % keys}`, value });
      }
      await producer.send({ topic: `${prefix}-${codec}`, compression, acks: -1, messages });
    }
    await producer.disconnect();
  }
}

async function wait(what, holds) {
  const deadline = Date.now() + limitMs;
  for (;;) {
    if (failure) {
      throw new Error(failure);
    }
    if (holds()) {
      return;
    }
    if (Date.now() > deadline) {
      throw new Error(`no ${what}; records seen: ${seen}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

async function run() {
  const admin = kafka.admin();
  await admin.connect();
  const wanted = topics.map((topic) => ({ topic, numPartitions: 3, replicationFactor: 1 }));
  await admin.createTopics({ topics: wanted });
  await admin.disconnect();
  const first = Math.floor((count * 4) / 10);
  const second = Math.floor((count * 7) / 10);
  const [one, two] = await Promise.all([join("one"), join("two")]);
  await produce(0, first);
  await wait("first part", () => seen >= Math.floor((first * topics.length) / 2));
  const joining = join("three");
  await produce(first, second);
  const three = await joining;
  await wait("member that joined", () => three.assigned);
  await one.consumer.disconnect();
  await produce(second, count);
  await wait("end", () => seen === count * topics.length);
  await two.consumer.disconnect();
  await three.consumer.disconnect();
  await wait("good end", () => true);
}

run().then(
  () => {
    console.log(`ok ${seen} records, ${redelivered} redelivered`);
    process.exit(0);
  },
  (e) => {
    console.error(`failed: ${e.message}`);
    process.exit(1);
  },
);
