// kafkajs against a cluster: arguments and abilities are those of ../README.md.
// Its consumers are always members of a group, so to read back is to join one.
'use strict'

const { Kafka, CompressionTypes, CompressionCodecs, Partitioners, ConfigResourceTypes, logLevel } = require('kafkajs')
const { spawn } = require('child_process')
const { once } = require('events')
const { readFileSync } = require('fs')

const [brokers, ability, prefix] = process.argv.slice(2)
const topic = prefix
const groupId = prefix + '-group'
const PATIENCE = 50_000
const FIRST = 1_700_000_000_000

const login = name => process.env['LOGIN_' + name] || ''
const content = path => readFileSync(path, 'utf8').trim()

// connect says how to log in, or with 'WRONG_' how not to.
function connect(wrong, retries) {
  const settings = { clientId: 'kafkajs', brokers: brokers.split(','), logLevel: logLevel.NOTHING, retry: { initialRetryTime: 50, retries } }
  if (login('CA')) settings.ssl = { ca: [content(login('CA'))] }
  if (login('CERT')) Object.assign(settings.ssl, { cert: content(login(wrong + 'CERT')), key: content(login(wrong + 'KEY')) })
  const mechanism = login('MECHANISM').toLowerCase()
  if (mechanism === 'oauthbearer') settings.sasl = { mechanism, oauthBearerProvider: async () => ({ value: content(login(wrong + 'TOKEN')) }) }
  else if (mechanism) settings.sasl = { mechanism, username: login('USER'), password: login(wrong + 'PASSWORD') }
  return new Kafka(settings)
}

const kafka = connect('', 12)

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy')
const lz4 = require('lz4-napi')
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: encoder => lz4.compressFrame(encoder.buffer),
  decompress: buffer => lz4.decompressFrame(buffer),
})
const zstd = new Promise(resolve => require('zstd-codec').ZstdCodec.run(z => resolve(new z.Simple())))
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async encoder => Buffer.from((await zstd).compress(encoder.buffer)),
  decompress: async buffer => Buffer.from((await zstd).decompress(buffer)),
})

function expect(got, want, what) {
  const [g, w] = [JSON.stringify(got), JSON.stringify(want)]
  if (g !== w) throw new Error(`${what}: ${g}, want ${w}`)
}

async function eventually(what, holds) {
  const deadline = Date.now() + PATIENCE
  for (;;) {
    if (await holds()) return
    if (Date.now() > deadline) throw new Error(`${what}: not after ${PATIENCE} ms`)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

// refused expects a promise to fail with an error of Kafka's.
async function refused(promise, type, what) {
  try {
    await promise
  } catch (e) {
    const types = [e, e.cause, ...(e.errors || [])].filter(Boolean).map(x => x.type)
    if (!types.includes(type)) throw new Error(`${what}: ${e} (${types}), want ${type}`)
    return
  }
  throw new Error(`${what}: accepted, want ${type}`)
}

async function withAdmin(f) {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await f(admin)
  } finally {
    await admin.disconnect()
  }
}

async function withProducer(options, f) {
  const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner, ...options })
  await producer.connect()
  try {
    return await f(producer)
  } finally {
    await producer.disconnect()
  }
}

// A Member runs a consumer and keeps what it read and owns.
class Member {
  constructor(options = {}) {
    this.records = []
    this.assigned = []
    this.limit = options.limit ?? Infinity
    this.onTopic = options.topic ?? topic
    this.consumer = kafka.consumer({
      groupId: options.groupId ?? groupId, sessionTimeout: 6000, heartbeatInterval: 300, rebalanceTimeout: 10000,
      maxWaitTimeInMs: 200, maxBytesPerPartition: 8 << 20, metadataMaxAge: 3000,
    })
    this.consumer.on(this.consumer.events.GROUP_JOIN, e => { this.assigned = e.payload.memberAssignment[this.onTopic] ?? [] })
    this.consumer.on(this.consumer.events.REBALANCING, () => { this.assigned = [] })
    this.consumer.on(this.consumer.events.CRASH, e => { this.crash = e.payload.error })
  }

  async start() {
    await this.consumer.connect()
    await this.consumer.subscribe({ topics: [this.onTopic], fromBeginning: true })
    await this.consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message: m }) => {
        if (this.records.length < this.limit) {
          this.records.push({ partition, offset: Number(m.offset), key: m.key, value: m.value, timestamp: Number(m.timestamp), headers: m.headers })
        }
      },
    })
    return this
  }

  // take waits for n records, and returns them by partition and offset.
  async take(n) {
    await eventually(`${n} records of ${this.onTopic}`, () => {
      if (this.crash && !this.crash.retriable) throw this.crash
      return this.records.length >= n
    })
    expect(this.records.length, n, 'records')
    const next = {}
    for (const r of this.records) {
      if (next[r.partition] !== undefined) expect(r.offset, next[r.partition], `offset in partition ${r.partition}`)
      next[r.partition] = r.offset + 1
    }
    this.next = next
    return [...this.records].sort((a, b) => a.partition - b.partition || a.offset - b.offset)
  }

  async commit() {
    await this.consumer.commitOffsets(Object.entries(this.next).map(([p, offset]) => ({ topic: this.onTopic, partition: Number(p), offset: String(offset) })))
  }

  async stop() {
    await this.consumer.disconnect()
  }
}

async function withMember(options, f) {
  const m = new Member(options)
  try {
    return await f(await m.start())
  } finally {
    await m.stop()
  }
}

// record i is what the matrix says it is.
function record(i, padding = '') {
  return { partition: i % 3, key: `k${i}`, value: `v${i}${padding}` }
}

async function produce(options, padding, compression) {
  await withProducer(options, async producer => {
    for (let from = 0; from < 99; from += 33) {
      const messages = Array.from({ length: 33 }, (_, i) => record(from + i, padding))
      const told = await producer.send({ topic, acks: -1, compression, messages })
      for (const t of told) {
        expect(t.errorCode, 0, 'error code')
        expect(Number(t.baseOffset), from / 3, `first offset in partition ${t.partition}`)
      }
      expect(told.map(t => t.partition).sort(), [0, 1, 2], 'partitions answered')
    }
  })
}

async function codec(compression) {
  const padding = 'x'.repeat(500)
  await produce({}, padding, compression)
  await withMember({}, async m => {
    for (const r of await m.take(99)) expect(String(r.value), `v${3 * r.offset + r.partition}${padding}`, 'value')
  })
}

function numbers(records) {
  return records.map(r => {
    const i = Number(String(r.value).slice(1))
    expect([r.partition, r.offset, String(r.key), r.timestamp], [i % 3, Math.floor(i / 3), `k${i}`, FIRST + 1000 * i], `record ${i}`)
    return i
  }).sort((a, b) => a - b)
}

const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i)

// logIn is refused with what is wrong, in the library's words for that, and with what is
// right produces, reads it back in a group, and commits.
async function logIn() {
  const outside = connect('WRONG_', 0).admin()
  const error = await outside.connect().then(() => outside.listTopics()).then(() => null, e => e)
  await outside.disconnect()
  // It takes every answer to a token for a yes, and finds its connection closed.
  const name = login('TOKEN') ? 'KafkaJSConnectionClosedError' : 'KafkaJSSASLAuthenticationError'
  const refused = login('MECHANISM') ? error?.name === name : /alert unknown ca/.test(error?.message)
  if (!refused) throw new Error(`the wrong log-in ends with ${error}`, { cause: error })
  await produce({})
  await withMember({}, async m => {
    for (const r of await m.take(99)) expect([String(r.key), String(r.value)], [`k${3 * r.offset + r.partition}`, `v${3 * r.offset + r.partition}`], 'record')
    await m.commit()
  })
}

const abilities = {
  'produce-plain': () => produce({}),
  'produce-idempotent': () => produce({ idempotent: true, maxInFlightRequests: 1 }),
  'codec-gzip': () => codec(CompressionTypes.GZIP),
  'codec-snappy': () => codec(CompressionTypes.Snappy),
  'codec-lz4': () => codec(CompressionTypes.LZ4),
  'codec-zstd': () => codec(CompressionTypes.ZSTD),

  async nulls() {
    const want = [[null, 'nokey'], ['novalue', null], ['', '']]
    await withProducer({}, p => p.send({ topic, messages: want.map(([key, value]) => ({ partition: 0, key: key === null ? null : Buffer.from(key), value: value === null ? null : Buffer.from(value) })) }))
    await withMember({}, async m => {
      const got = await m.take(3)
      expect(got.map(r => [r.key, r.value].map(b => (b === null ? null : String(b)))), want, 'keys and values')
    })
  },

  async large() {
    const value = Buffer.alloc(5 << 20)
    for (let i = 0; i < value.length; i++) value[i] = 97 + (i % 23)
    await withProducer({}, p => p.send({ topic, messages: [{ partition: 0, key: 'k0', value }] }))
    await withMember({}, async m => {
      if (!(await m.take(1))[0].value.equals(value)) throw new Error('the large value is another one')
    })
  },

  async 'seek-by-time'() {
    await withAdmin(async admin => {
      const at = await admin.fetchTopicOffsetsByTimestamp(topic, FIRST + 150_000)
      expect(at.map(o => [o.partition, o.offset]).sort(), [[0, '50'], [1, '50'], [2, '50']], 'offsets by time')
      // kafkajs turns "none" into the end.
      const none = await admin.fetchTopicOffsetsByTimestamp(topic, FIRST + 300_000)
      expect(none.map(o => o.offset), ['100', '100', '100'], 'offsets past the newest record')
      await admin.setOffsets({ groupId, topic, partitions: at })
    })
    await withMember({}, async m => expect(numbers(await m.take(150)), range(150, 300), 'records from a time on'))
  },

  async 'admin-create'() {
    await withAdmin(async admin => {
      const brokerCount = (await admin.describeCluster()).brokers.length
      const made = { topic: prefix + '-made', numPartitions: 4, replicationFactor: Math.min(3, brokerCount), configEntries: [{ name: 'retention.ms', value: '123456789' }, { name: 'cleanup.policy', value: 'compact' }] }
      expect(await admin.createTopics({ topics: [made], waitForLeaders: true }), true, 'created')
      // kafkajs keeps this refusal to itself.
      expect(await admin.createTopics({ topics: [made] }), false, 'created again')
      const bad = { topic: prefix + '-bad', numPartitions: 1, configEntries: [{ name: 'retention.ms', value: 'x' }] }
      await refused(admin.createTopics({ topics: [bad] }), 'INVALID_CONFIG', 'a retention.ms of x')
    })
  },

  async 'admin-alter'() {
    await withAdmin(async admin => {
      // AlterConfigs: what is not named goes back to its default.
      await admin.alterConfigs({ validateOnly: false, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.ms', value: '7777777' }, { name: 'max.message.bytes', value: '2000000' }] }] })
      await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] })
    })
  },

  async 'admin-describe'() {
    await withAdmin(async admin => {
      const cluster = await admin.describeCluster()
      expect(cluster.brokers.length, brokers.split(',').length, 'brokers')
      expect(cluster.brokers.some(b => b.nodeId === cluster.controller), true, 'the controller is a broker')
      expect(cluster.clusterId.length, 22, 'length of the cluster id')
      await eventually('the topic is described', async () => (await admin.listTopics()).includes(topic))
      const meta = (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0]
      expect(meta.partitions.length, 3, 'partitions')
      for (const p of meta.partitions) {
        expect(p.replicas.length, Math.min(3, cluster.brokers.length), 'replicas')
        expect(p.replicas.includes(p.leader), true, 'the leader is a replica')
      }
      const settings = (await admin.describeConfigs({ includeSynonyms: true, resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }] })).resources[0].configEntries
      const retention = settings.find(s => s.configName === 'retention.ms')
      expect([retention.configValue, retention.configSource], ['86400000', 1], 'retention.ms and its source')
      expect(settings.find(s => s.configName === 'max.message.bytes').isDefault, true, 'max.message.bytes is a default')
      expect((await admin.fetchTopicOffsets(topic)).map(o => [o.low, o.high]), [['0', '0'], ['0', '0'], ['0', '0']], 'low and high offsets')
    })
  },

  async 'delete-records'() {
    await withAdmin(async admin => {
      await admin.fetchTopicMetadata({ topics: [topic] }) // without it, kafkajs does not know where to send the next one
      await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '40' }, { partition: 2, offset: '-1' }] })
    })
  },

  async 'admin-delete'() {
    await withAdmin(async admin => {
      await admin.deleteTopics({ topics: [prefix + '-gone'] })
      await eventually('the deleted topic is not listed', async () => !(await admin.listTopics()).includes(prefix + '-gone'))
    })
  },

  async 'admin-groups'() {
    await withAdmin(async admin => {
      expect((await admin.listGroups()).groups.some(g => g.groupId === groupId), true, 'the group is listed')
      const d = (await admin.describeGroups([groupId])).groups[0]
      expect([d.errorCode, d.state, d.members.length], [0, 'Empty', 0], 'the group described')
      const offsets = (await admin.fetchOffsets({ groupId, topics: [topic] }))[0].partitions
      expect(offsets.map(o => [o.partition, o.offset]).sort(), [[0, '10'], [1, '20'], [2, '30']], 'offsets')
      expect((await admin.deleteGroups([groupId]))[0].errorCode ?? 0, 0, 'error of the deletion')
    })
  },

  'consume-subscribe': () => withMember({}, async m => expect(numbers(await m.take(300)), range(0, 300), 'records')),

  async 'commit-resume'() {
    const before = await withMember({ limit: 100 }, async m => {
      const got = numbers(await m.take(100))
      await m.commit()
      return got
    })
    await withMember({}, async m => {
      expect(numbers(await m.take(200)), range(0, 300).filter(i => !before.includes(i)), 'records after the commit')
      await m.commit()
    })
  },

  async 'rebalance-three-members'() {
    const members = [new Member(), new Member(), new Member()]
    const owned = some => some.map(m => m.assigned).flat().sort().join()
    try {
      await Promise.all(members.map(m => m.start()))
      await eventually('one partition each', () => members.every(m => m.assigned.length === 1) && owned(members) === '0,1,2')
      await members[1].stop()
      const stay = [members[0], members[2]]
      await eventually('two own all three', () => stay.every(m => m.assigned.length > 0) && owned(stay) === '0,1,2')
    } finally {
      await Promise.all(members.map(m => m.stop()))
    }
  },

  async 'member-killed'() {
    const victim = spawn(process.execPath, [__filename, brokers, 'second-member', prefix], { stdio: ['pipe', 'ignore', 'inherit'] })
    const ended = once(victim, 'exit')
    const m = new Member()
    try {
      await m.start()
      await withAdmin(async admin => {
        await eventually('two members share three partitions', async () => {
          const d = (await admin.describeGroups([groupId])).groups[0]
          return d.state === 'Stable' && d.members.length === 2 && m.assigned.length > 0 && m.assigned.length < 3
        })
        victim.kill('SIGKILL')
        await ended
        await eventually('the survivor owns all three', () => m.assigned.length === 3)
        expect((await admin.describeGroups([groupId])).groups[0].members.length, 1, 'members after the kill')
      })
    } finally {
      victim.kill('SIGKILL')
      await m.stop()
    }
  },

  // Runs until it is killed, or until the one who started it is gone.
  async 'second-member'() {
    process.stdin.on('end', () => process.exit(1)).resume()
    await new Member().start()
    await new Promise(() => {})
  },
}

for (const way of ['plain', 'scram-256', 'scram-512', 'token']) abilities['login-' + way] = abilities[`login-${way}-tls`] = logIn
abilities['login-certificate'] = logIn

async function main() {
  if (!abilities[ability] || !prefix) throw new Error(`usage: kafkajs.js BROKERS ABILITY PREFIX, where ABILITY is one of ${Object.keys(abilities).join(' ')}`)
  await abilities[ability]()
}

main().then(() => process.exit(0), e => {
  console.error(e.stack || e)
  process.exit(1)
})
