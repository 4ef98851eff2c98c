"""Mails a receipt for the order on standard input: what consume --exec runs for each record.

Two kinds of failure: a mail server that is busy at the first attempt, for every fifth
order, and a customer without an address in addresses.txt, for whom no attempt is of use.
docs/tutorial.md uses it.
"""

import json
import os
import sys

with open("addresses.txt") as lines:
    addresses = dict(line.split() for line in lines)

order = json.load(sys.stdin)
if order["customer"] not in addresses:
    sys.exit(order["customer"] + " has no address")
if order["id"] % 5 == 0 and os.environ["MILLRACE_ATTEMPT"] == "1":
    sys.exit("the mail server is busy")
print("receipt for order", order["id"], "to", addresses[order["customer"]])
