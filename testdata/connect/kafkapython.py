# Three records to the topic hello and back, with kafka-python.
import itertools, os, sys
from kafka import KafkaConsumer, KafkaProducer

brokers = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MILLRACE_BROKERS", "127.0.0.1:9092")

producer = KafkaProducer(bootstrap_servers=brokers, acks="all")
for sent in [producer.send("hello", value) for value in [b"one", b"two", b"three"]]:
    sent.get()  # until it is acknowledged
producer.close()

consumer = KafkaConsumer("hello", bootstrap_servers=brokers, group_id="hello",
                         auto_offset_reset="earliest", enable_auto_commit=False)
for record in itertools.islice(consumer, 3):
    print(record.value.decode())
    consumer.commit()  # up to here
consumer.close()
