"""Does what abilities ask with aiokafka, on an event loop in a thread of its own."""

import asyncio
import threading

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaConnectionError, KafkaError, SaslAuthenticationFailed
from aiokafka.helpers import create_ssl_context

import ability
from ability import Description, Failed, Heard, Record

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()


def wait(coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(2 * ability.QUIET)


def converted(m):
    return Record(m.partition, m.offset, m.key, m.value, tuple(m.headers), m.timestamp)


class Token(AbstractTokenProvider):
    def __init__(self, token):
        self.fixed = token

    async def token(self):
        return self.fixed


def settings(brokers, login):
    """Those of every client."""
    conf = {
        "bootstrap_servers": brokers, "security_protocol": login.protocol(), "sasl_mechanism": login.mechanism,
        "sasl_plain_username": login.user, "sasl_plain_password": login.password,
        "sasl_oauth_token_provider": Token(login.token) if login.token else None,
    }
    if login.ca:
        conf["ssl_context"] = create_ssl_context(cafile=login.ca, certfile=login.cert or None, keyfile=login.key or None)
    return {k: v for k, v in conf.items() if v}


class Client:
    def __init__(self, brokers, login):
        self.settings = settings(brokers, login)
        self.opened = None

    def enter(self, topic):
        """Where no broker lets it in, the library logs why, and raises that there is none."""
        heard = Heard("aiokafka")
        try:
            self.admin
        except KafkaConnectionError:
            raise heard.first()

    def kept_out(self, error):
        """The library takes a token that is refused for one that is not, and finds its connection closed."""
        closed = isinstance(error, KafkaConnectionError)
        return (
            isinstance(error, SaslAuthenticationFailed)
            or closed and "alert unknown ca" in str(error.__cause__)
            or closed and self.settings.get("sasl_mechanism") == "OAUTHBEARER"
        )

    @property
    def admin(self):
        if self.opened is None:
            async def opened():
                admin = AIOKafkaAdminClient(**self.settings)
                await admin.start()
                return admin

            self.opened = wait(opened())
        return self.opened

    def produce(self, topic, records, idempotent=False, codec=None, max_bytes=None):
        async def produced():
            conf = {"max_request_size": max_bytes} if max_bytes else {}
            producer = AIOKafkaProducer(
                **self.settings, acks="all", enable_idempotence=idempotent, compression_type=codec, linger_ms=20, **conf
            )
            await producer.start()
            sent = [await producer.send(topic, r.value, r.key, r.partition, headers=list(r.headers)) for r in records]
            told = [await s for s in sent]
            await producer.stop()
            return [(t.partition, t.offset) for t in told]

        return wait(produced())

    def read(self, topic, start, n):
        async def got():
            consumer = AIOKafkaConsumer(**self.settings, max_partition_fetch_bytes=8 * 1024 * 1024)
            await consumer.start()
            consumer.assign([TopicPartition(topic, p) for p in start])
            for p, o in start.items():
                consumer.seek(TopicPartition(topic, p), o)
            records = []
            while len(records) < n:
                polled = await consumer.getmany(timeout_ms=ability.QUIET * 1000)
                if not polled:
                    raise Failed(f"{len(records)} of {n} records")
                records += [converted(m) for messages in polled.values() for m in messages]
            await consumer.stop()
            return records

        return wait(got())

    def offsets_at(self, topic, ms):
        async def found():
            consumer = AIOKafkaConsumer(**self.settings)
            await consumer.start()
            offsets = await consumer.offsets_for_times({TopicPartition(topic, p): ms for p in range(ability.PARTITIONS)})
            await consumer.stop()
            return offsets

        return {tp.partition: -1 if o is None else o.offset for tp, o in wait(found()).items()}

    def join(self, group, topic, next):
        return Member(self.settings, group, topic)

    def create_topic(self, name, partitions, replicas, settings):
        try:
            answer = wait(self.admin.create_topics([NewTopic(name, partitions, replicas, topic_configs=settings)]))
        except KafkaError as e:
            return e.errno
        return answer.topic_errors[0][1]

    def alter(self, topic, set, reset):
        """The library has AlterConfigs only, which sets all that a topic has: what
        is to stay must be said."""
        answers = wait(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        entries = {e[0]: e[1] for e in answers[0].resources[0][4] if e[3] == 1 and e[0] not in reset}
        answers = wait(self.admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs={**entries, **set})]))
        for code, message, *_ in answers[0].resources:
            if code:
                raise Failed(f"alter: {code}: {message}")

    def grow(self, topic, partitions):
        wait(self.admin.create_partitions({topic: NewPartitions(partitions)}))

    def describe(self, topic):
        cluster = wait(self.admin.describe_cluster())
        partitions = wait(self.admin.describe_topics([topic]))[0]["partitions"]
        answers = wait(self.admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)]))
        return Description(
            [b["node_id"] for b in cluster["brokers"]], cluster["controller_id"], cluster.get("cluster_id"),
            {p["partition"]: p["replicas"] for p in partitions}, {p["partition"]: p["leader"] for p in partitions},
            {e[0]: (e[1], e[3] == 1) for e in answers[0].resources[0][4]},
        )

    def delete_topic(self, topic):
        answer = wait(self.admin.delete_topics([topic]))
        for _, code in answer.topic_error_codes:
            if code:
                raise Failed(f"delete topic: {code}")

    def topics(self):
        return wait(self.admin.list_topics())

    def delete_records(self, topic, before):
        wait(self.admin.delete_records({TopicPartition(topic, p): RecordsToDelete(o) for p, o in before.items()}))

    def groups(self):
        return [g[0] for g in wait(self.admin.list_consumer_groups())]

    def group_state(self, group):
        answer = wait(self.admin.describe_consumer_groups([group]))[0]
        code, _, state, *_ = answer.groups[0]
        return state if code == 0 else f"error {code}"

    def group_offsets(self, group, topic):
        found = wait(self.admin.list_consumer_group_offsets(group))
        return {tp.partition: o.offset for tp, o in found.items() if tp.topic == topic}


class Member(ConsumerRebalanceListener):
    def __init__(self, settings, group, topic):
        self.mine = []

        async def opened():
            consumer = AIOKafkaConsumer(
                **settings, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                session_timeout_ms=6000, heartbeat_interval_ms=500,
            )
            consumer.subscribe([topic], listener=self)
            await consumer.start()
            return consumer

        # start waits for the group, which waits for the members that poll: let it.
        self.starting = asyncio.run_coroutine_threadsafe(opened(), loop)

    @property
    def consumer(self):
        return self.starting.result(ability.QUIET)

    async def on_partitions_assigned(self, assigned):
        self.mine = sorted({tp.partition for tp in assigned})

    async def on_partitions_revoked(self, revoked):
        self.mine = []

    def poll(self, most):
        polled = wait(self.consumer.getmany(timeout_ms=200, max_records=most))
        return [converted(m) for messages in polled.values() for m in messages]

    def assigned(self):
        return list(self.mine)

    def commit(self):
        wait(self.consumer.commit())

    def close(self):
        wait(self.consumer.stop())


if __name__ == "__main__":
    ability.main(Client)
