// Three records to the topic hello and back, with @confluentinc/kafka-javascript.
const { Kafka, logLevel } = require('@confluentinc/kafka-javascript').KafkaJS

const brokers = (process.argv[2] || process.env.MILLRACE_BROKERS || '127.0.0.1:9092').split(',')
const kafka = new Kafka({ kafkaJS: { brokers, logLevel: logLevel.WARN } }) // its log goes to standard output

async function main () {
  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: 'hello', messages: ['one', 'two', 'three'].map(value => ({ value })) })
  await producer.disconnect()

  const consumer = kafka.consumer({ kafkaJS: { groupId: 'hello', fromBeginning: true } })
  await consumer.connect()
  await consumer.subscribe({ topic: 'hello' })
  let left = 3
  await new Promise(resolve => consumer.run({
    eachMessage: async ({ message }) => {
      console.log(message.value.toString())
      if (--left === 0) resolve()
    }
  }))
  await consumer.disconnect() // commits what was handled
}

main().catch(error => { console.error(error); process.exit(1) })
