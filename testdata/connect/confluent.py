# Three records to the topic hello and back, with confluent-kafka.
import os, sys
from confluent_kafka import Consumer, KafkaException, Producer

brokers = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MILLRACE_BROKERS", "127.0.0.1:9092")

def delivered(error, message):
    if error:
        raise KafkaException(error)

producer = Producer({"bootstrap.servers": brokers})
for value in ["one", "two", "three"]:
    producer.produce("hello", value, on_delivery=delivered)
producer.flush()  # until all are acknowledged

consumer = Consumer({"bootstrap.servers": brokers, "group.id": "hello",
                     "auto.offset.reset": "earliest", "enable.auto.commit": False})
consumer.subscribe(["hello"])
for _ in range(3):
    message = consumer.poll()
    if message.error():
        raise KafkaException(message.error())
    print(message.value().decode())
    consumer.commit(message, asynchronous=False)
consumer.close()
