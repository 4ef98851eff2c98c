"""Does what abilities ask with confluent-kafka, which is librdkafka."""

import time

from confluent_kafka import (
    OFFSET_END, Consumer, ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewPartitions, NewTopic, ResourceType,
)

import ability
from ability import Description, Failed, Record


def converted(m):
    headers = tuple((k, v) for k, v in m.headers() or ())
    return Record(m.partition(), m.offset(), m.key(), m.value(), headers, m.timestamp()[1])


def settings(brokers, login):
    """Those of every client."""
    conf = {
        "bootstrap.servers": brokers, "security.protocol": login.protocol(), "sasl.mechanism": login.mechanism,
        "sasl.username": login.user, "sasl.password": login.password, "ssl.ca.location": login.ca,
        "ssl.certificate.location": login.cert, "ssl.key.location": login.key,
    }
    if login.token:
        conf["oauth_cb"] = lambda _: (login.token, time.time() + 600)
    return {k: v for k, v in conf.items() if v}


class Client:
    varies = True

    def __init__(self, brokers, login):
        self.settings = settings(brokers, login)
        self.admin = AdminClient(self.settings)

    def enter(self, topic):
        """Waits for what the library says of its connections."""
        said = []
        producer = Producer({**self.settings, "error_cb": said.append})
        deadline = time.monotonic() + ability.QUIET
        while not said:
            producer.poll(0.1)
            if time.monotonic() > deadline:
                raise Failed("the library says nothing")
        raise KafkaException(said[0])

    def kept_out(self, error):
        said = error.args[0]
        return said.code() == KafkaError._AUTHENTICATION or "alert unknown ca" in said.str()

    def produce(self, topic, records, idempotent=False, codec=None, max_bytes=None):
        conf = {**self.settings, "acks": "all", "enable.idempotence": idempotent, "linger.ms": 20}
        if codec:
            conf["compression.type"] = codec
        if max_bytes:
            conf["message.max.bytes"] = max_bytes
        producer = Producer(conf)
        told = [None] * len(records)
        for i, r in enumerate(records):
            def delivered(error, message, i=i):
                told[i] = error or (message.partition(), message.offset())

            producer.produce(topic, r.value, r.key, r.partition, delivered, headers=list(r.headers))
        if left := producer.flush(ability.QUIET):
            raise Failed(f"{left} records are not delivered after {ability.QUIET} s")
        return told

    def read(self, topic, start, n):
        consumer = Consumer({**self.settings, "group.id": "unused", "enable.auto.commit": False})
        consumer.assign([TopicPartition(topic, p, o) for p, o in start.items()])
        records = []
        while len(records) < n:
            m = consumer.poll(ability.QUIET)
            if m is None:
                raise Failed(f"{len(records)} of {n} records")
            if m.error():
                raise KafkaException(m.error())
            records.append(converted(m))
        consumer.close()
        return records

    def offsets_at(self, topic, ms):
        consumer = Consumer({**self.settings, "group.id": "unused"})
        found = consumer.offsets_for_times([TopicPartition(topic, p, ms) for p in range(ability.PARTITIONS)], ability.QUIET)
        consumer.close()
        return {tp.partition: -1 if tp.offset == OFFSET_END else tp.offset for tp in found}

    def join(self, group, topic, next, cooperative=False, instance=None):
        return Member(self.settings, group, topic, next, cooperative, instance)

    def create_topic(self, name, partitions, replicas, settings):
        try:
            self.admin.create_topics([NewTopic(name, partitions, replicas, config=settings)])[name].result()
        except KafkaException as e:
            return e.args[0].code()
        return 0

    def alter(self, topic, set, reset):
        entries = [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in set.items()]
        entries += [ConfigEntry(k, None, incremental_operation=AlterConfigOpType.DELETE) for k in reset]
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
        self.admin.incremental_alter_configs([resource])[resource].result()

    def grow(self, topic, partitions):
        self.admin.create_partitions([NewPartitions(topic, partitions)])[topic].result()

    def describe(self, topic):
        listed = self.admin.list_topics(topic, ability.QUIET)
        cluster = self.admin.describe_cluster().result()
        resource = ConfigResource(ResourceType.TOPIC, topic)
        described = self.admin.describe_configs([resource])[resource].result()
        partitions = listed.topics[topic].partitions
        return Description(
            [n.id for n in cluster.nodes], cluster.controller.id, cluster.cluster_id,
            {p: d.replicas for p, d in partitions.items()}, {p: d.leader for p, d in partitions.items()},
            {s.name: (s.value, s.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value) for s in described.values()},
        )

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])[topic].result()

    def topics(self):
        return list(self.admin.list_topics(timeout=ability.QUIET).topics)

    def delete_records(self, topic, before):
        asked = [TopicPartition(topic, p, OFFSET_END if o == -1 else o) for p, o in before.items()]
        for future in self.admin.delete_records(asked).values():
            future.result()

    def groups(self):
        listed = self.admin.list_consumer_groups().result()
        if listed.errors:
            raise Failed(f"list groups: {listed.errors}")
        return [g.group_id for g in listed.valid]

    def group_state(self, group):
        state = self.admin.describe_consumer_groups([group])[group].result().state
        return {ConsumerGroupState.EMPTY: "Empty"}.get(state, str(state))

    def group_offsets(self, group, topic):
        found = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result()
        return {tp.partition: tp.offset for tp in found.topic_partitions if tp.topic == topic and not tp.error}

    def delete_group(self, group):
        self.admin.delete_consumer_groups([group])[group].result()


class Member:
    def __init__(self, settings, group, topic, next, cooperative, instance):
        self.changes = 0
        conf = {**settings, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False}
        if next:
            conf["group.protocol"] = "consumer"
        else:
            conf["session.timeout.ms"] = 6000
            conf["heartbeat.interval.ms"] = 500
        if cooperative:
            conf["partition.assignment.strategy"] = "cooperative-sticky"
        if instance:
            conf["group.instance.id"] = instance
        self.consumer = Consumer(conf)
        self.mine = []
        self.consumer.subscribe([topic], on_assign=self.gained, on_revoke=self.lost, on_lost=self.lost)

    def gained(self, consumer, partitions):
        self.changes += 1
        self.mine = sorted(self.mine + [tp.partition for tp in partitions])

    def lost(self, consumer, partitions):
        self.changes += 1
        gone = {tp.partition for tp in partitions}
        self.mine = [p for p in self.mine if p not in gone]

    def poll(self, most):
        records = []
        for m in self.consumer.consume(most, 0.2):
            if m.error():
                raise KafkaException(m.error())
            records.append(converted(m))
        return records

    def assigned(self):
        return list(self.mine)

    def commit(self):
        self.consumer.commit(asynchronous=False)

    def close(self):
        self.consumer.close()


if __name__ == "__main__":
    ability.main(Client)
