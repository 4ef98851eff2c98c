"""The part of every Python program here that is the same for all clients: what
each ability asks, as the README's table says it.

A program wraps its library in a Client and calls main. A Client is made of brokers and a Login,
and has

    produce(topic, records, idempotent=False, codec=None, max_bytes=None)
        sends records to the partitions they name and returns the list of
        (partition, offset) that it was told of them
    read(topic, start, n)       the next n records from {partition: offset}, without a group
    offsets_at(topic, ms)       {partition: first offset at or after a time, or -1 for none}
    join(group, topic, next)    a Member that reads from the earliest offset, commits only when
                                told, and has a session timeout of 6 s; next asks for KIP-848.
                                A Client with the attribute varies takes two more arguments by
                                name: cooperative, to rebalance step by step, and instance, to be
                                a static member, which closes without leaving

    enter(topic)                asks the cluster for something about a topic, of which
    kept_out(error)             says whether that is the library's for a log-in that was refused
                                or, without a mechanism, for a handshake of TLS that was

a Member, which one thread uses at a time but for assigned,

    poll(most)                  up to so many records; [] if there are none for a while
    assigned()                  the partitions that are the member's now
    commit()                    what poll has returned
    close()                     leaves the group
    changes                     how often assigned has changed, of a Client that varies

and a Client with administration

    create_topic(name, partitions, replicas, settings)   Kafka's error code, 0 for none
    alter(topic, set, reset), grow(topic, partitions)
    describe(topic)             a Description
    delete_topic(topic), topics(), delete_records(topic, {partition: before, -1 for the end})
    groups(), group_state(group), group_offsets(group, topic), delete_group(group)
"""

import logging
import os
import queue
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple, Optional

PARTITIONS = 3
FIRST_TIME = 1_700_000_000_000
QUIET = 30  # seconds, longer than anything here takes


class Record(NamedTuple):
    partition: int
    offset: int
    key: Optional[bytes]
    value: Optional[bytes]
    headers: tuple = ()
    time: Optional[int] = None  # milliseconds


class Description(NamedTuple):
    brokers: list
    controller: int
    cluster_id: Optional[str]  # None where the library hides it
    replicas: dict  # lists by partition
    leaders: dict
    settings: dict  # (value, set on the topic) by name


class Failed(Exception):
    """What a client did is not what was asked."""


class Login(NamedTuple):
    """How to speak to brokers: without TLS where ca is empty, as nobody without mechanism and cert."""

    mechanism: str  # of SASL
    user: str
    password: str
    token: str
    ca: str  # the file of the authority of the brokers' certificates
    cert: str  # the files of the client's own
    key: str

    def protocol(self):
        return ("SASL_" if self.mechanism else "") + ("SSL" if self.ca else "PLAINTEXT")


def logins():
    """How the environment says to log in, and how not to: with another password, token or certificate."""
    def of(name):
        return os.environ.get("LOGIN_" + name, "")

    def content(name):
        if not of(name):
            return ""
        with open(of(name)) as f:
            return f.read().strip()

    right = Login(of("MECHANISM"), of("USER"), of("PASSWORD"), content("TOKEN"), of("CA"), of("CERT"), of("KEY"))
    return right, right._replace(
        password=of("WRONG_PASSWORD"), token=content("WRONG_TOKEN"), cert=of("WRONG_CERT"), key=of("WRONG_KEY")
    )


class Heard(logging.Handler):
    """The errors that a library logs where it raises none, or another one later."""

    def __init__(self, library):
        super().__init__()
        self.errors = queue.Queue()
        logging.getLogger(library).addHandler(self)

    def emit(self, record):
        for a in record.args or ():
            if isinstance(a, Exception):
                self.errors.put(a)

    def first(self):
        try:
            return self.errors.get(timeout=QUIET)
        except queue.Empty:
            raise Failed(f"the library says nothing for {QUIET} s") from None


def main(open_client):
    """Runs the ability that the command line names and ends the process."""
    if len(sys.argv) != 4:
        print(f"usage: {sys.argv[0]} BROKERS ABILITY PREFIX", file=sys.stderr)
        sys.exit(2)
    _, brokers, ability, prefix = sys.argv
    try:
        right, wrong = logins()
        if ability.startswith("login-"):
            kept_out(lambda: open_client(brokers, wrong), prefix)
            log_in(open_client(brokers, right), prefix + "-group", prefix)
        else:
            run(open_client(brokers, right), len(brokers.split(",")), ability, prefix)
    except Failed as e:
        print(e, file=sys.stderr)
        os._exit(1)
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    sys.stdout.flush()
    os._exit(0)  # threads of a library may live on


def run(client, brokers, ability, topic):
    group = topic + "-group"
    if ability == "produce-plain":
        produce(client, topic, numbered(99))
    elif ability == "produce-idempotent":
        produce(client, topic, numbered(99), idempotent=True)
    elif ability.startswith("codec-"):
        records = [r._replace(value=r.value + b"x" * 500) for r in numbered(99)]
        produce_and_read(client, topic, records, codec=ability[len("codec-"):])
    elif ability == "headers":
        produce_and_read(client, topic, [
            r._replace(headers=(("color", b"blue%d" % i), ("empty", b""), ("color", b"again"), ("größe", "déjà".encode())))
            for i, r in enumerate(numbered(10))
        ])
    elif ability == "nulls":
        produce_and_read(client, topic, [
            Record(0, 0, None, b"nokey"), Record(0, 1, b"novalue", None), Record(0, 2, b"", b""),
        ])
    elif ability == "large":
        pattern = bytes(ord("a") + i for i in range(23))
        value = (pattern * (5 * 1024 * 1024 // 23 + 1))[: 5 * 1024 * 1024]
        produce_and_read(client, topic, [Record(0, 0, b"k0", value)], max_bytes=8 * 1024 * 1024)
    elif ability == "consume-assign":
        read(client, topic, filled())
        read(client, topic, [r for r in filled() if r.partition == 1 and r.offset >= 50])
    elif ability == "seek-by-time":
        seek_by_time(client, topic)
    elif ability == "consume-subscribe":
        subscribe(client, group, topic)
    elif ability == "commit-resume":
        commit_resume(client, group, topic)
    elif ability == "rebalance-three-members":
        rebalance(client, group, topic)
        if hasattr(client, "varies"):
            rebalance(client, group + "-2", topic, cooperative=True)
            static(client, group + "-3", topic)
    elif ability == "member-killed":
        member_killed(client, group, topic)
    elif ability == "victim":
        victim(client, group, topic)
    elif ability == "roll-eager":
        roll(client, group, topic)
    elif ability == "roll-cooperative":
        roll(client, group, topic, cooperative=True)
    elif ability == "next-protocol":
        subscribe(client, group, topic, next=True)
        rebalance(client, group + "-2", topic, next=True)
    elif ability == "admin-create":
        create(client, topic + "-made", min(3, brokers))
    elif ability == "admin-alter":
        client.alter(topic, {"retention.ms": "7777777"}, ["segment.bytes"])
        client.grow(topic, 5)
    elif ability == "admin-describe":
        eventually("the description is right", lambda: describe(client, topic, brokers))
    elif ability == "admin-delete":
        client.delete_topic(topic + "-gone")
        eventually("the topic is gone", lambda: absent(client.topics(), topic, topic + "-gone"))
    elif ability == "delete-records":
        client.delete_records(topic, {0: 40, 2: -1})
    elif ability == "admin-groups":
        groups(client, group, topic)
    else:
        raise Failed(f"ability {ability!r} is not known")


def kept_out(open_client, topic):
    """Expects the library to say that it was not let in, in one word or another."""
    client = open_client()
    try:
        client.enter(topic)
    except Exception as e:
        if not client.kept_out(e):
            raise
        return
    raise Failed("the wrong log-in is not refused")


def log_in(client, group, topic):
    produce(client, topic, numbered(99))
    member = client.join(group, topic, False)
    got = collect(member, 99)
    member.commit()
    member.close()
    compare(got, numbered(99))


def numbered(n):
    return [Record(i % PARTITIONS, i // PARTITIONS, b"k%d" % i, b"v%d" % i) for i in range(n)]


def filled():
    return [r._replace(time=FIRST_TIME + i * 1000) for i, r in enumerate(numbered(300))]


def start(records):
    """Where records begin, by partition."""
    first = {}
    for r in records:
        first[r.partition] = min(first.get(r.partition, r.offset), r.offset)
    return first


def produce(client, topic, records, **how):
    told = client.produce(topic, records, **how)
    want = [(r.partition, r.offset) for r in records]
    if told != want:
        raise Failed(f"acknowledged at {told}, want {want}")


def produce_and_read(client, topic, records, **how):
    produce(client, topic, records, **how)
    read(client, topic, records)


def read(client, topic, want):
    compare(client.read(topic, start(want), len(want)), want)


def compare(got, want):
    """Only the order within a partition counts, and times where want has them."""
    got, want = (sorted(records, key=lambda r: r.partition) for records in (got, want))
    for g, w in zip(got, want):
        if w.time is None:
            g = g._replace(time=None)
        if g != w:
            raise Failed(f"read {str(g)[:300]}, want {str(w)[:300]}")
    if len(got) != len(want):
        raise Failed(f"read {len(got)} records, want {len(want)}")


def seek_by_time(client, topic):
    want = filled()[150:]
    offsets = client.offsets_at(topic, FIRST_TIME + 150_000)
    if offsets != start(want):
        raise Failed(f"offsets by time are {offsets}, want {start(want)}")
    read(client, topic, want)
    offsets = client.offsets_at(topic, FIRST_TIME + 300_000)
    if any(o != -1 for o in offsets.values()):
        raise Failed(f"offsets at a time past the end are {offsets}, want none")


def collect(member, n):
    records = []
    deadline = time.monotonic() + QUIET
    while len(records) < n:
        records += member.poll(n - len(records))
        if time.monotonic() > deadline:
            raise Failed(f"{len(records)} of {n} records after {QUIET} s, assigned {member.assigned()}")
    return records


def subscribe(client, group, topic, next=False):
    member = client.join(group, topic, next)
    compare(collect(member, 300), filled())
    member.close()


def commit_resume(client, group, topic):
    records = []
    for n in (100, 200):
        member = client.join(group, topic, False)
        records += collect(member, n)
        member.commit()
        member.close()
    compare(records, filled())


class Driven(threading.Thread):
    """A member that polls all the time, as an application does, until it is closed."""

    def __init__(self, member):
        super().__init__(daemon=True)
        self.member, self.keys, self.error = member, set(), None
        self.stopping = threading.Event()
        self.start()

    def run(self):
        try:
            while not self.stopping.is_set():
                self.keys |= {r.key for r in self.member.poll(50)}
            self.member.close()
        except BaseException as e:
            self.error = e

    def assigned(self):
        if self.error:
            raise self.error
        return self.member.assigned()

    def close(self):
        self.stopping.set()
        self.join(QUIET)
        if self.error:
            raise self.error
        if self.is_alive():
            raise Failed(f"a member does not close within {QUIET} s")


class Rolling(threading.Thread):
    """A member that commits what it polls before it polls again, and remembers what it could not."""

    def __init__(self, member):
        super().__init__(daemon=True)
        self.member, self.keys, self.loose, self.error = member, [], set(), None
        self.stopping = threading.Event()
        self.start()

    def run(self):
        try:
            while not self.stopping.is_set():
                records = self.member.poll(50)
                self.keys += [r.key for r in records]
                try:
                    if records:
                        self.member.commit()
                except Exception:  # a rebalance came between
                    self.loose |= {r.key for r in records}
            self.member.close()
        except BaseException as e:
            self.error = e

    assigned, close = Driven.assigned, Driven.close


def roll(client, group, topic, **how):
    """A group goes from the classic protocol to KIP-848's and back, member by member, while
    records keep coming. None is skipped, none read again that was committed."""
    sent, done, trouble = {b"k%d" % i for i in range(300)}, threading.Event(), []

    def load():
        try:
            while not done.is_set():
                batch = [Record(p, 0, f"{group}-{len(sent)}-{p}".encode(), b"v") for p in range(PARTITIONS)]
                client.produce(topic, batch)
                sent.update(r.key for r in batch)
                time.sleep(0.05)
        except BaseException as e:
            trouble.append(e)

    def member(next):
        m = Rolling(client.join(group, topic, next, **how if not next else {}))
        everybody.append(m)
        return m

    everybody = []
    members = [member(False), member(False)]
    eventually("two classic members share", lambda: share(members))
    loading = threading.Thread(target=load, daemon=True)
    loading.start()
    for next in [True, True, False, False]:
        members.append(member(next))
        eventually(f"another member shares, of KIP-848: {next}", lambda: share(members))
        members.pop(0).close()
        eventually("the others share", lambda: share(members))
    done.set()
    loading.join(QUIET)
    if trouble:
        raise trouble[0]

    def all_read():
        missing = sent - set().union(*(m.keys for m in everybody))
        if missing:
            raise Failed(f"{len(missing)} of {len(sent)} records are missing: {sorted(missing)[:10]}")

    eventually("all records are read", all_read)
    for m in members:
        m.close()
    keys = sorted(k for m in everybody for k in m.keys)
    twice = {a for a, b in zip(keys, keys[1:]) if a == b}
    loose = set().union(*(m.loose for m in everybody))
    if twice - loose:
        raise Failed(f"read again although committed: {sorted(twice - loose)[:10]}")


def share(members):
    """Says whether members own all partitions, each at least one, none two."""
    assigned = [m.assigned() for m in members]
    if not all(assigned) or sorted(sum(assigned, [])) != list(range(PARTITIONS)):
        raise Failed(f"assigned: {assigned}")


def rebalance(client, group, topic, next=False, **how):
    members = [Driven(client.join(group, topic, next, **how)) for _ in range(3)]
    eventually("three members have a partition each", lambda: share(members))
    members[2].close()
    eventually("two members share three partitions", lambda: share(members[:2]))

    def all_read():
        n = len(set().union(*(m.keys for m in members)))
        if n != 300:
            raise Failed(f"{n} of 300 records")

    eventually("all records are read", all_read)
    members[0].close()
    members[1].close()


def static(client, group, topic):
    """A static member that is away for less than its session comes back to its
    partitions, and the others notice nothing."""
    members = [Driven(client.join(group, topic, False, instance=name)) for name in ("a", "b")]
    eventually("two static members share three partitions", lambda: share(members))
    before, changes = members[1].assigned(), members[0].member.changes
    members[1].close()
    members[1] = Driven(client.join(group, topic, False, instance="b"))
    eventually("the member has come back", lambda: share(members))
    if members[1].assigned() != before or members[0].member.changes != changes:
        raise Failed(f"the member came back to {members[1].assigned()} instead of {before}, the other's assignment changed "
                     f"{members[0].member.changes - changes} times")
    members[0].close()
    members[1].close()


def victim(client, group, topic):
    """The second process of member-killed: says when it has partitions, and reads
    until it is killed."""
    member = client.join(group, topic, False)
    told = False
    deadline = time.monotonic() + 2 * QUIET
    while time.monotonic() < deadline:
        member.poll(50)
        if not told and member.assigned():
            told = True
            print("assigned", flush=True)
    raise Failed("nobody killed the victim")


def member_killed(client, group, topic):
    survivor = Driven(client.join(group, topic, False))
    eventually("one member has all partitions", lambda: share([survivor]))
    other = subprocess.Popen([sys.executable, "-B", sys.argv[0], sys.argv[1], "victim", topic], stdout=subprocess.PIPE)
    try:
        said = other.stdout.readline()
        if said != b"assigned\n":
            raise Failed(f"the second member said {said!r}")

        def fewer():
            if len(survivor.assigned()) in (0, PARTITIONS):
                raise Failed(f"assigned: {survivor.assigned()}")

        eventually("the first member has fewer partitions", fewer)
    finally:
        other.kill()
        other.wait()
    eventually("the survivor has all partitions", lambda: share([survivor]))
    survivor.close()


def create(client, topic, replicas):
    settings = {"retention.ms": "123456789", "cleanup.policy": "compact"}
    for want in (0, 36):  # none, TOPIC_ALREADY_EXISTS
        code = client.create_topic(topic, 4, replicas, settings)
        if code != want:
            raise Failed(f"create: code {code}, want {want}")
    code = client.create_topic(topic + "-bad", 1, replicas, {"retention.ms": "x"})
    if code != 40:  # INVALID_CONFIG
        raise Failed(f"create with a setting that is not one: code {code}, want 40")


def describe(client, topic, brokers):
    d = client.describe(topic)
    if len(d.brokers) != brokers or d.controller not in d.brokers:
        raise Failed(f"brokers {d.brokers}, controller {d.controller}; want {brokers}")
    if d.cluster_id is not None and len(d.cluster_id) != 22:
        raise Failed(f"cluster id {d.cluster_id!r} is not 22 characters long")
    if len(d.replicas) != PARTITIONS:
        raise Failed(f"{len(d.replicas)} partitions, want {PARTITIONS}")
    for p, replicas in d.replicas.items():
        if len(replicas) != min(3, brokers) or d.leaders[p] not in replicas:
            raise Failed(f"partition {p}: leader {d.leaders[p]} of replicas {replicas}")
    for name, want in (("retention.ms", ("86400000", True)), ("max.message.bytes", ("1048588", False))):
        if d.settings.get(name) != want:
            raise Failed(f"{name} and whether it is set on the topic: {d.settings.get(name)}, want {want}")


def groups(client, group, topic):
    listed = client.groups()
    if group not in listed:
        raise Failed(f"groups are {listed}, want {group} among them")
    state = client.group_state(group)
    if state != "Empty":
        raise Failed(f"the group is {state!r}, want Empty")
    offsets = client.group_offsets(group, topic)
    if offsets != {0: 10, 1: 20, 2: 30}:
        raise Failed(f"the group has committed {offsets}")
    client.delete_group(group)
    listed = client.groups()
    if group in listed:
        raise Failed(f"groups are {listed} after {group} was deleted")


def absent(topics, present, gone):
    if present not in topics or gone in topics:
        raise Failed(f"topics are {topics}")


def eventually(what, check: Any):
    """Waits for what has to come true."""
    deadline = time.monotonic() + QUIET
    while True:
        try:
            return check()
        except Failed as e:
            if time.monotonic() > deadline:
                raise Failed(f"{what}: not after {QUIET} s: {e}") from None
        time.sleep(0.02)
