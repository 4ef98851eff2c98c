"""Does what abilities ask with kafka-python."""

import threading

from kafka import ConsumerRebalanceListener, KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, SaslAuthenticationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider

import ability
from ability import Description, Failed, Heard, Record


def converted(m):
    return Record(m.partition, m.offset, m.key, m.value, tuple(m.headers), m.timestamp)


class Token(AbstractTokenProvider):
    def __init__(self, token):
        self.fixed = token

    def token(self):
        return self.fixed


def settings(brokers, login):
    """Those of every client."""
    conf = {
        "bootstrap_servers": brokers.split(","), "security_protocol": login.protocol(), "sasl_mechanism": login.mechanism,
        "sasl_plain_username": login.user, "sasl_plain_password": login.password, "ssl_cafile": login.ca,
        "ssl_certfile": login.cert, "ssl_keyfile": login.key,
        "sasl_oauth_token_provider": Token(login.token) if login.token else None,
    }
    return {k: v for k, v in conf.items() if v}


class Client:
    def __init__(self, brokers, login):
        self.settings = settings(brokers, login)
        self.opened = None

    def enter(self, topic):
        """Where no broker lets it in, the library logs why, and raises after half a minute that there is none."""
        heard = Heard("kafka")
        threading.Thread(target=lambda: self.admin, daemon=True).start()
        raise heard.first()

    def kept_out(self, error):
        return isinstance(error, SaslAuthenticationFailedError) or "alert unknown ca" in str(error)

    @property
    def admin(self):
        if self.opened is None:
            self.opened = KafkaAdminClient(**self.settings)
        return self.opened

    def produce(self, topic, records, idempotent=False, codec=None, max_bytes=None):
        conf = {"max_request_size": max_bytes} if max_bytes else {}
        producer = KafkaProducer(
            **self.settings, acks="all", enable_idempotence=idempotent, compression_type=codec, linger_ms=20, **conf
        )
        sent = [producer.send(topic, r.value, r.key, list(r.headers), r.partition) for r in records]
        told = [s.get(ability.QUIET) for s in sent]
        producer.close()
        return [(t.partition, t.offset) for t in told]

    def read(self, topic, start, n):
        consumer = KafkaConsumer(**self.settings, max_partition_fetch_bytes=8 * 1024 * 1024)
        consumer.assign([TopicPartition(topic, p) for p in start])
        for p, o in start.items():
            consumer.seek(TopicPartition(topic, p), o)
        records = []
        while len(records) < n:
            polled = consumer.poll(ability.QUIET * 1000)
            if not polled:
                raise Failed(f"{len(records)} of {n} records")
            records += [converted(m) for messages in polled.values() for m in messages]
        consumer.close()
        return records

    def offsets_at(self, topic, ms):
        consumer = KafkaConsumer(**self.settings)
        found = consumer.offsets_for_times({TopicPartition(topic, p): ms for p in range(ability.PARTITIONS)})
        consumer.close()
        return {tp.partition: -1 if o is None else o.offset for tp, o in found.items()}

    def join(self, group, topic, next):
        return Member(self.settings, group, topic)

    def create_topic(self, name, partitions, replicas, settings):
        try:
            self.admin.create_topics({name: {"num_partitions": partitions, "replication_factor": replicas, "configs": settings}})
        except KafkaError as e:
            return e.errno
        return 0

    def alter(self, topic, set, reset):
        self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={
            **{k: ("SET", v) for k, v in set.items()}, **{k: ("DELETE", None) for k in reset},
        })])

    def grow(self, topic, partitions):
        self.admin.create_partitions({topic: partitions})

    def describe(self, topic):
        cluster = self.admin.describe_cluster()
        partitions = self.admin.describe_topics([topic])[0]["partitions"]
        described = self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")["topic"][topic]
        return Description(
            [b["broker_id"] for b in cluster["brokers"]], cluster["controller_id"], cluster["cluster_id"],
            {p["partition_index"]: p["replica_nodes"] for p in partitions}, {p["partition_index"]: p["leader_id"] for p in partitions},
            {name: (s["value"], s["config_source"] in (1, "DYNAMIC_TOPIC_CONFIG")) for name, s in described.items()},
        )

    def delete_topic(self, topic):
        self.admin.delete_topics([topic])

    def topics(self):
        return self.admin.list_topics()

    def delete_records(self, topic, before):
        self.admin.delete_records({TopicPartition(topic, p): o for p, o in before.items()})

    def groups(self):
        return [g["group_id"] for g in self.admin.list_groups()]

    def group_state(self, group):
        return self.admin.describe_groups([group])[group]["group_state"]

    def group_offsets(self, group, topic):
        found = self.admin.list_group_offsets({group: None})[group]
        return {tp.partition: o.offset for tp, o in found.items() if tp.topic == topic}

    def delete_group(self, group):
        self.admin.delete_groups([group])


class Member(ConsumerRebalanceListener):
    def __init__(self, settings, group, topic):
        self.mine = []
        self.consumer = KafkaConsumer(
            **settings, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=6000, heartbeat_interval_ms=500,
        )
        self.consumer.subscribe([topic], listener=self)

    def on_partitions_assigned(self, assigned):
        self.mine = sorted({tp.partition for tp in assigned} | set(self.mine))

    def on_partitions_revoked(self, revoked):
        self.mine = [p for p in self.mine if p not in {tp.partition for tp in revoked}]

    def poll(self, most):
        # A poll that ends before SyncGroup is answered loses the assignment, until the next rebalance.
        polled = self.consumer.poll(200 if self.mine else 5000, max_records=most)
        return [converted(m) for messages in polled.values() for m in messages]

    def assigned(self):
        return list(self.mine)

    def commit(self):
        self.consumer.commit()

    def close(self):
        self.consumer.close()


if __name__ == "__main__":
    ability.main(Client)
