#!/bin/sh -e
# Three records to the topic hello and back, with kcat.
brokers=${1:-${MILLRACE_BROKERS:-127.0.0.1:9092}}

# Each line is a record; kcat ends when all are acknowledged.
printf '%s\n' one two three | kcat -b "$brokers" -P -t hello

# A member of the group hello: it begins at the first record, or where the group was, and commits.
kcat -b "$brokers" -G hello -X auto.offset.reset=earliest -c 3 -q hello
