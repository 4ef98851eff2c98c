"""A worker: takes orders, works on each, and acknowledges it when it is done.

    python worker.py TOPIC GROUP [-n ORDERS] [--seconds S] [--ack-every N]

The workers of a group share the orders. SIGTERM ends a worker between two orders.
docs/tutorial.md uses it.
"""

import argparse
import json
import os
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaException

options = argparse.ArgumentParser()
options.add_argument("topic")
options.add_argument("group")
options.add_argument("-n", type=int, help="end after so many orders")
options.add_argument("--seconds", type=float, default=0, help="that an order takes")
options.add_argument("--ack-every", type=int, default=1, help="acknowledge so many orders at a time")
options = options.parse_args()

consumer = Consumer({
    "bootstrap.servers": os.environ["MILLRACE_BROKERS"],
    "group.id": options.group,
    "enable.auto.commit": False,  # an order is done when we say so
    "auto.offset.reset": "earliest",  # a new group begins with the oldest order
    "session.timeout.ms": 10000,  # a worker silent for so long has died
})

unacknowledged = 0


def acknowledge():
    """Commits how far this worker is: returns when a majority has it on disk."""
    global unacknowledged
    if unacknowledged:
        consumer.commit(asynchronous=False)
        unacknowledged = 0


def assigned(_, partitions):
    print("partitions", *sorted(p.partition for p in partitions), flush=True)


def revoked(_, partitions):
    acknowledge()  # whoever gets these partitions begins after what is done


stopping = False


def stop(*_):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
consumer.subscribe([options.topic], on_assign=assigned, on_revoke=revoked)
done = 0
while not stopping and done != options.n:
    message = consumer.poll(0.5)
    if message is None:
        acknowledge()  # nothing more for now: what is done need not wait
        continue
    if error := message.error():
        if error.fatal():
            raise KafkaException(error)
        print(error, file=sys.stderr)  # a broker is gone, say: the client looks for another
        continue
    order = json.loads(message.value())
    print("taken", order["id"], order["customer"], order["item"], flush=True)
    time.sleep(options.seconds)
    print("done", order["id"], flush=True)
    done += 1
    unacknowledged += 1
    if unacknowledged == options.ack_every:
        acknowledge()

acknowledge()
consumer.close()  # leaves the group: the others get its partitions at once
