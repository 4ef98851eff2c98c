package conformance;

import static conformance.Cluster.eventually;
import static conformance.Cluster.expect;
import static conformance.Cluster.get;
import static conformance.Cluster.refused;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.IntFunction;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListConsumerGroupsOptions;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.ConsumerGroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.UnknownMemberIdException;
import org.apache.kafka.common.utils.AppInfoParser;

/** What members of groups rely on: every partition has one owner, and what was committed is where the next one begins. */
final class Groups {
    private Groups() {}

    /** Settings of a classic member that notices rebalances soon. */
    private static String[] classic(String group, String... more) {
        return join(new String[] {"group.id", group, "session.timeout.ms", "6000", "heartbeat.interval.ms", "500"}, more);
    }

    private static String[] join(String[] a, String... b) {
        String[] all = Arrays.copyOf(a, a.length + b.length);
        System.arraycopy(b, 0, all, a.length, b.length);
        return all;
    }

    static void subscribe(Cluster c) throws Exception {
        String topic = c.topic("records", 3);
        String other = c.topic("other", 1);
        String group = c.prefix + "group";
        Consuming.fill(c, topic, 3, 100);
        Consuming.fill(c, other, 1, 50);
        try (var consumer = c.consumer(classic(group, "client.id", "subscriber"))) {
            consumer.subscribe(Pattern.compile(Pattern.quote(c.prefix) + "(records|other)"));
            var got = Consuming.take(consumer, 350);
            Set<String> seen = new HashSet<>();
            for (var r : got) {
                expect(r.value(), "value " + r.partition() + "/" + r.offset(), "value in " + r.topic());
                expect(seen.add(r.topic() + r.partition() + "/" + r.offset()), "twice: " + r);
            }
            expect(consumer.assignment().size(), 4, "partitions assigned");
            consumer.commitSync();
            for (var p : consumer.assignment()) {
                long want = p.topic().equals(other) ? 50 : 100;
                expect(consumer.committed(Set.of(p)).get(p).offset(), want, "committed in " + p);
            }
            var d = describe(c, group);
            expect(d.state(), ConsumerGroupState.STABLE, "state of the group");
            expect(d.partitionAssignor(), "range", "assignor of the group");
            expect(d.members().size(), 1, "members");
            var m = d.members().iterator().next();
            expect(m.clientId(), "subscriber", "client id of the member");
            expect(m.host(), "/127.0.0.1", "host of the member");
            expect(m.consumerId().startsWith("subscriber-"), "member id " + m.consumerId());
            expect(m.assignment().topicPartitions(), consumer.assignment(), "assignment of the member as described");
            expect(consumer.groupMetadata().memberId(), m.consumerId(), "member id as the member knows it");
            expect(consumer.groupMetadata().generationId() > 0, "generation " + consumer.groupMetadata().generationId());
            expect(listed(c, group), "the group is not listed");
        }
        expect(describe(c, group).state(), ConsumerGroupState.EMPTY, "state of the group when the member has left");
    }

    private static ConsumerGroupDescription describe(Cluster c, String group) throws Exception {
        return get(c.admin.describeConsumerGroups(List.of(group)).all()).get(group);
    }

    private static boolean listed(Cluster c, String group) throws Exception {
        return get(c.admin.listConsumerGroups().all()).stream().anyMatch(g -> g.groupId().equals(group));
    }

    static void rebalance(Cluster c) throws Exception {
        for (String assignor : List.of("RangeAssignor", "CooperativeStickyAssignor")) {
            String group = c.prefix + assignor;
            threeMembers(c, group, c.topic(assignor, 6), i -> c.consumer(classic(group,
                "enable.auto.commit", "true", "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor)));
        }
        staticMembers(c);
    }

    /** Three members of a group share six partitions, then two of them do, and nothing is read twice or lost. */
    private static void threeMembers(Cluster c, String group, String topic, IntFunction<KafkaConsumer<String, String>> consumer) throws Exception {
        List<Member> members = new ArrayList<>();
        try {
            for (int i = 0; i < 3; i++) {
                members.add(new Member(consumer.apply(i), topic));
            }
            eventually("three members with two partitions each", () -> shares(members, 2));
            Consuming.fill(c, topic, 6, 100);
            eventually("600 records", () -> read(members).size() >= 600);
            expectOnce(members, 600);
            var d = describe(c, group);
            expect(d.state(), ConsumerGroupState.STABLE, "state of the group");
            expect(d.members().size(), 3, "members");
            d.members().forEach(m -> expect(m.assignment().topicPartitions().size(), 2, "partitions of " + m.consumerId()));

            Member leaver = members.get(1);
            leaver.close();
            expect(leaver.error(), null, "error of the member that left");
            List<Member> stay = List.of(members.get(0), members.get(2));
            eventually("two members with three partitions each", () -> shares(stay, 3));
            Consuming.fill(c, topic, 6, 100);
            eventually("600 more records", () -> read(members).size() >= 1200);
            expectOnce(members, 1200);
        } finally {
            for (Member m : members) {
                m.close();
            }
        }
        // Everything read is committed: the clients do so when they leave.
        for (Member m : members) {
            expect(m.error(), null, "error of a member that left");
        }
        Map<Integer, Long> committed = new TreeMap<>();
        get(c.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).forEach((p, o) -> committed.put(p.partition(), o.offset()));
        expect(committed, Map.of(0, 200L, 1, 200L, 2, 200L, 3, 200L, 4, 200L, 5, 200L), "committed offset of each partition");
        eventually("the group is empty", () -> describe(c, group).state() == ConsumerGroupState.EMPTY);
    }

    /**
     * A group goes from the classic protocol to KIP-848's and back, member by member, while records keep coming.
     * Consumers commit what they give up, as well as they can: no record is skipped, and none is read again that was
     * committed.
     */
    static void roll(Cluster c, String assignor) throws Exception {
        String group = c.prefix + "roll-" + assignor;
        String topic = c.topic("roll-" + assignor, 6);
        IntFunction<KafkaConsumer<String, String>> old = i -> c.consumer(classic(group,
            "enable.auto.commit", "true", "interceptor.classes", Commits.class.getName(),
            "partition.assignment.strategy", "org.apache.kafka.clients.consumer." + assignor));
        IntFunction<KafkaConsumer<String, String>> next = i -> c.consumer("group.id", group, "group.protocol", "consumer",
            "enable.auto.commit", "true", "interceptor.classes", Commits.class.getName());
        List<Member> all = new ArrayList<>();
        var rounds = new java.util.concurrent.atomic.AtomicInteger();
        var stop = new java.util.concurrent.atomic.AtomicBoolean();
        var trouble = new java.util.concurrent.atomic.AtomicReference<Throwable>();
        Thread load = new Thread(() -> {
            try {
                while (!stop.get()) {
                    Consuming.fill(c, topic, 6, 5);
                    rounds.incrementAndGet();
                    Thread.sleep(50);
                }
            } catch (Throwable e) {
                trouble.set(e);
            }
        }, "load");
        try {
            List<Member> members = new ArrayList<>();
            for (int i = 0; i < 2; i++) {
                members.add(new Member(old.apply(i), topic));
                all.add(members.get(i));
            }
            eventually("two classic members with three partitions each", () -> shares(members, 3));
            load.start();
            for (IntFunction<KafkaConsumer<String, String>> kind : List.of(next, next, old, old)) {
                Member m = new Member(kind.apply(all.size()), (consumer, listener) ->
                    consumer.subscribe(List.of(topic), kind == next ? seeking(consumer, listener) : listener));
                members.add(m);
                all.add(m);
                eventually("three members with two partitions each", () -> shares(members, 2));
                Member leaver = members.remove(0);
                leaver.close();
                expect(leaver.error(), null, "error of the member that left");
                eventually("two members with three partitions each", () -> shares(members, 3));
            }
            stop.set(true);
            load.join();
            expect(trouble.get(), null, "error of the producer");
            int n = rounds.get() * 30;
            eventually(n + " different records", () -> new HashSet<>(read(all)).size() >= n);
            expect(new HashSet<>(read(all)).size(), n, "different records read");
            expect(Commits.readAgain(topic), List.of(), "records read again although they were committed");
            expect(Commits.committed(topic), 6L, "partitions of which something was committed");
        } finally {
            stop.set(true);
            for (Member m : all) {
                m.close();
            }
        }
    }

    /**
     * A listener that seeks to what is committed before it hands on what was assigned. The preview of KIP-848's protocol
     * in the client of 3.9 needs it: there a partition that is assigned between the answer to OffsetFetch for others and
     * the reset of positions begins at auto.offset.reset, without a question whether anything is committed
     * (KAFKA-17066, mended in 4.0).
     */
    private static ConsumerRebalanceListener seeking(KafkaConsumer<String, String> consumer, ConsumerRebalanceListener listener) {
        if (!AppInfoParser.getVersion().startsWith("3.")) {
            return listener;
        }
        return new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
                consumer.committed(Set.copyOf(partitions)).forEach((p, o) -> {
                    if (o != null) {
                        consumer.seek(p, o);
                    }
                });
                listener.onPartitionsAssigned(partitions);
            }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                listener.onPartitionsRevoked(partitions);
            }
        };
    }

    /** Whether each member has n partitions and no partition two owners. */
    private static boolean shares(List<Member> members, int n) throws Exception {
        Set<Integer> all = new TreeSet<>();
        for (Member m : members) {
            Set<Integer> own = m.assigned();
            if (own.size() != n || !all.addAll(own) || all.size() % n != 0) {
                return false;
            }
        }
        return all.size() == n * members.size();
    }

    private static List<String> read(List<Member> members) {
        List<String> all = new ArrayList<>();
        members.forEach(m -> all.addAll(m.read()));
        return all;
    }

    private static void expectOnce(List<Member> members, int n) {
        List<String> all = read(members);
        expect(new HashSet<>(all).size(), n, "different records read");
        expect(all.size(), n, "records read");
    }

    /** KIP-345: a static member that comes back finds its partitions, and nobody else notices. */
    private static void staticMembers(Cluster c) throws Exception {
        String topic = c.topic("static", 4);
        String group = c.prefix + "static";
        IntFunction<KafkaConsumer<String, String>> consumer = i -> c.consumer(classic(group, "enable.auto.commit", "true", "group.instance.id", "instance-" + i, "session.timeout.ms", "60000"));
        Member first = new Member(consumer.apply(1), topic);
        Member second = new Member(consumer.apply(2), topic);
        Member again = null;
        Member usurper = null;
        try {
            eventually("two static members with two partitions each", () -> shares(List.of(first, second), 2));
            Set<Integer> had = second.assigned();
            int revocations = first.revocations();
            second.close();
            expect(describe(c, group).members().size(), 2, "members while a static one is away");
            again = new Member(consumer.apply(2), topic);
            Member back = again;
            eventually("the static member is back", () -> back.assigned().equals(had));
            Consuming.fill(c, topic, 4, 50);
            eventually("200 records", () -> first.read().size() + back.read().size() >= 200);
            expect(first.revocations(), revocations, "rebalances the other member saw");
            var ids = new TreeSet<String>();
            describe(c, group).members().forEach(m -> ids.add(m.groupInstanceId().orElse("none")));
            expect(ids, new TreeSet<>(List.of("instance-1", "instance-2")), "instance ids described");
            // A second one under the same id fences the first.
            usurper = new Member(consumer.apply(2), topic);
            eventually("the older of two with one instance id is fenced", () -> back.error() != null);
            expect(back.error() instanceof FencedInstanceIdException, "fenced with " + back.error());
        } finally {
            first.close();
            second.close();
            if (again != null) {
                again.close();
            }
            if (usurper != null) {
                usurper.close();
            }
        }
    }

    /** The member of another JVM: reads and commits at once, until it is killed. */
    static void member(String brokers, String topic, String group) throws IOException {
        try (Cluster c = new Cluster(brokers, "")) {
            var consumer = c.consumer(classic(group, "client.id", "victim"));
            consumer.subscribe(List.of(topic));
            while (true) {
                if (!consumer.poll(Duration.ofMillis(100)).isEmpty()) {
                    consumer.commitSync();
                }
            }
        }
    }

    static void memberKilled(Cluster c) throws Exception {
        String topic = c.topic("records", 4);
        String group = c.prefix + "group";
        Process victim = new ProcessBuilder(System.getProperty("java.home") + "/bin/java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
            "-cp", System.getProperty("java.class.path"), "conformance.Conformance", c.brokers, "member", topic, group)
            .redirectErrorStream(true).start();
        Member survivor = new Member(c.consumer(classic(group, "client.id", "survivor", "enable.auto.commit", "true", "auto.commit.interval.ms", "200")), topic);
        try {
            eventually("two members with two partitions each", () -> {
                if (!victim.isAlive()) {
                    throw new AssertionError("the other JVM ended: " + output(victim));
                }
                var members = describe(c, group).members();
                return members.size() == 2 && members.stream().allMatch(m -> m.assignment().topicPartitions().size() == 2) && survivor.assigned().size() == 2;
            });
            Set<Integer> own = survivor.assigned();
            Consuming.fill(c, topic, 4, 100);
            eventually("both have committed", () -> committed(c, group) == 400);
            survivor.read().forEach(r -> expect(own.contains(Integer.parseInt(r.split("/")[0])), "read from a partition of the other: " + r));

            victim.destroyForcibly().waitFor(); // SIGKILL: no LeaveGroup
            eventually("the survivor has all partitions", () -> survivor.assigned().size() == 4);
            Consuming.fill(c, topic, 4, 100);
            eventually("the survivor reads all that comes", () -> survivor.read().size() >= 600);
            Set<String> want = new TreeSet<>();
            for (int p = 0; p < 4; p++) {
                for (int i = own.contains(p) ? 0 : 100; i < 200; i++) { // what the victim committed is not read again
                    want.add(p + "/" + i);
                }
            }
            List<String> read = survivor.read();
            expect(new TreeSet<>(read), want, "read by the survivor");
            expect(read.size(), want.size(), "records read by the survivor");
            expect(describe(c, group).members().size(), 1, "members after the kill");
        } finally {
            victim.destroyForcibly().waitFor();
            survivor.close();
        }
    }

    private static long committed(Cluster c, String group) throws Exception {
        long sum = 0;
        for (var o : get(c.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).values()) {
            sum += o.offset();
        }
        return sum;
    }

    private static String output(Process p) throws Exception {
        try (var r = new BufferedReader(new InputStreamReader(p.getInputStream()))) {
            return String.join(" | ", r.lines().toList());
        }
    }

    static void commitResume(Cluster c) throws Exception {
        String topic = c.topic("records", 1);
        String group = c.prefix + "group";
        var p0 = new TopicPartition(topic, 0);
        Consuming.fill(c, topic, 1, 100);
        int epoch;
        try (var consumer = c.consumer(classic(group, "max.poll.records", "10"))) {
            consumer.subscribe(List.of(topic));
            expect(consumer.committed(Set.of(p0)).get(p0), null, "committed before any commit");
            var got = Consuming.take(consumer, 40);
            epoch = got.get(39).leaderEpoch().get();
            consumer.commitSync(Map.of(p0, new OffsetAndMetadata(40, Optional.of(epoch), "märk 40")));
        }
        try (var consumer = c.consumer(classic(group, "max.poll.records", "10"))) {
            consumer.subscribe(List.of(topic));
            expect(Consuming.take(consumer, 10).get(0).offset(), 40L, "first offset after a commit of 40");
            var o = consumer.committed(Set.of(p0)).get(p0);
            expect(o, new OffsetAndMetadata(40, Optional.of(epoch), "märk 40"), "committed");
            var done = new Exception[] {new Exception("the callback has not run")};
            consumer.commitAsync((offsets, e) -> done[0] = e);
            consumer.poll(Duration.ZERO);
            eventually("the asynchronous commit", () -> {
                consumer.pause(consumer.assignment());
                consumer.poll(Duration.ofMillis(20));
                return done[0] == null;
            });
            // Who is not a member may not commit while there are members.
            refused(UnknownMemberIdException.class, "a commit from outside while the group has members",
                () -> get(c.admin.alterConsumerGroupOffsets(group, Map.of(p0, new OffsetAndMetadata(7))).all()));
        }
        expect(get(c.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(p0).offset(), 50L, "committed asynchronously");
        get(c.admin.alterConsumerGroupOffsets(group, Map.of(p0, new OffsetAndMetadata(90, "set"))).all());
        try (var consumer = c.consumer(classic(group))) {
            consumer.subscribe(List.of(topic));
            expect(Consuming.take(consumer, 10).get(0).offset(), 90L, "first offset after the administrator set 90");
        }
        // A consumer that assigns itself commits without being a member.
        String simple = c.prefix + "simple";
        try (var consumer = c.consumer("group.id", simple)) {
            consumer.assign(List.of(p0));
            consumer.commitSync(Map.of(p0, new OffsetAndMetadata(33)));
        }
        try (var consumer = c.consumer("group.id", simple)) {
            consumer.assign(List.of(p0));
            expect(Consuming.take(consumer, 67).get(0).offset(), 33L, "first offset of a consumer that assigns itself");
        }
    }

    /** KIP-848. The settings of a session are the broker's here. */
    static void nextProtocol(Cluster c) throws Exception {
        // Heartbeats come five seconds apart, so the three run at once.
        List<Callable<Void>> parts = new ArrayList<>();
        for (String assignor : List.of("uniform", "range")) {
            parts.add(() -> {
                String group = c.prefix + assignor;
                threeMembers(c, group, c.topic(assignor, 6), i -> c.consumer("group.id", group, "group.protocol", "consumer",
                    "group.remote.assignor", assignor, "enable.auto.commit", "true", "client.id", "next-" + i));
                return null;
            });
        }
        parts.add(() -> {
            nextResume(c);
            pattern(c);
            return null;
        });
        ExecutorService threads = Executors.newFixedThreadPool(parts.size());
        try {
            for (Future<Void> part : threads.invokeAll(parts)) {
                part.get();
            }
        } finally {
            threads.shutdownNow();
        }
    }

    private static void nextResume(Cluster c) throws Exception {
        String topic = c.topic("records", 2);
        String group = c.prefix + "resume";
        var p0 = new TopicPartition(topic, 0);
        Consuming.fill(c, topic, 2, 100);
        String[] settings = {"group.id", group, "group.protocol", "consumer"};
        try (var consumer = c.consumer(settings)) {
            consumer.subscribe(List.of(topic));
            Consuming.take(consumer, 200);
            consumer.commitSync(Map.of(p0, new OffsetAndMetadata(60, "m"), new TopicPartition(topic, 1), new OffsetAndMetadata(100)));
            expect(get(c.admin.listConsumerGroups(new ListConsumerGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))).all())
                .stream().anyMatch(g -> g.groupId().equals(group)), "the group is not listed with type consumer");
            var d = describe(c, group);
            expect(d.type(), GroupType.CONSUMER, "type of the group");
            expect(d.members().iterator().next().assignment().topicPartitions(), consumer.assignment(), "assignment as described");
            refused(UnknownMemberIdException.class, "a commit from outside while the group has members",
                () -> get(c.admin.alterConsumerGroupOffsets(group, Map.of(p0, new OffsetAndMetadata(7))).all()));
        }
        try (var consumer = c.consumer(settings)) {
            consumer.subscribe(List.of(topic));
            var got = Consuming.take(consumer, 40);
            expect(got.get(0).partition() + "/" + got.get(0).offset(), "0/60", "first record after a commit of 60");
        }
    }

    /** A pattern the broker evaluates, which clients have since 4.0. */
    private static void pattern(Cluster c) throws Exception {
        Class<?> type;
        try {
            type = Class.forName("org.apache.kafka.clients.consumer.SubscriptionPattern");
        } catch (ClassNotFoundException e) {
            return;
        }
        String a = c.topic("pattern-a", 1);
        String b = c.topic("pattern-b", 1);
        Object pattern = type.getConstructor(String.class).newInstance(Pattern.quote(c.prefix) + "pattern-.*");
        try (var consumer = c.consumer("group.id", c.prefix + "pattern", "group.protocol", "consumer")) {
            Consumer.class.getMethod("subscribe", type).invoke(consumer, pattern);
            Consuming.fill(c, a, 1, 10);
            Consuming.fill(c, b, 1, 10);
            var got = Consuming.take(consumer, 20);
            expect(got.stream().map(r -> r.topic()).distinct().sorted().toList(), List.of(a, b), "topics of the pattern");
        }
    }
}
