"""Sends orders: JSON with an id, keyed by customer.

    python producer.py TOPIC ORDERS [--first ID] [--rate ORDERS_A_SECOND]

It ends with status 0 only if every order was acknowledged. docs/tutorial.md uses it.
"""

import argparse
import json
import os
import sys
import time

from confluent_kafka import Producer

CUSTOMERS = ["ada", "bob", "dan", "eve", "gus", "mia"]
ITEMS = ["espresso", "green tea", "lemonade"]

options = argparse.ArgumentParser()
options.add_argument("topic")
options.add_argument("orders", type=int)
options.add_argument("--first", type=int, default=1, help="id of the first order")
options.add_argument("--rate", type=float, help="orders a second; without it, as fast as they go")
options = options.parse_args()

producer = Producer({
    "bootstrap.servers": os.environ["MILLRACE_BROKERS"],
    "enable.idempotence": True,  # a retry is stored once, and in its place
    "partitioner": "murmur2_random",  # the partition of a key, as Java's clients choose it
    "linger.ms": 5,  # wait so long for company: one request carries many orders
})

acknowledged = 0


def delivered(error, message):
    """Is called once for each order: a majority of its replicas has it on disk, or it failed."""
    global acknowledged
    if error:
        print(f"{message.value().decode()}: {error}", file=sys.stderr)
        return
    acknowledged += 1
    if options.rate and acknowledged % 500 == 0:
        print(f"{acknowledged} acknowledged", flush=True)


began = time.monotonic()
for i in range(options.orders):
    if options.rate:
        due = began + i / options.rate
        while (left := due - time.monotonic()) > 0:
            producer.poll(left)
    n = options.first + i
    order = {"id": n, "customer": CUSTOMERS[n % 6], "item": ITEMS[n // 6 % 3]}
    while True:
        try:
            producer.produce(options.topic, json.dumps(order), order["customer"], on_delivery=delivered)
            break
        except BufferError:  # as many are on their way as the producer keeps
            producer.poll(1)
    producer.poll(0)

producer.flush()  # waits for the last acknowledgement
print(f"sent {options.orders}, acknowledged {acknowledged}")
sys.exit(0 if acknowledged == options.orders else 1)
