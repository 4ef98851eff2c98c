package conformance;

import static conformance.Cluster.eventually;
import static conformance.Cluster.expect;
import static conformance.Cluster.get;
import static conformance.Cluster.map;
import static conformance.Cluster.refused;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Future;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.ConsumerGroupState;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.header.internals.RecordHeader;

/** What the matrix asks of every client: see test/conformance/clients/README.md, from which names and numbers come. */
final class Matrix {
    static final int PRODUCED = 99;
    private static final int CONSUMED = 300;
    private static final long FIRST = 1_700_000_000_000L;

    private Matrix() {}

    static void producePlain(Cluster c) throws Exception {
        produce(c, "", "acks", "all", "enable.idempotence", "false");
    }

    static void produceIdempotent(Cluster c) throws Exception {
        produce(c, "", "acks", "all", "enable.idempotence", "true");
    }

    static void codec(Cluster c, String codec) throws Exception {
        String padding = "x".repeat(500);
        produce(c, padding, "compression.type", codec, "linger.ms", "50");
        for (var r : c.readAll(c.topic)) {
            expect(new String(r.value(), UTF_8), "v" + (3 * r.offset() + r.partition()) + padding, "value at " + r.partition() + "/" + r.offset());
        }
    }

    private static void produce(Cluster c, String padding, String... settings) throws Exception {
        try (var p = c.producer(settings)) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (int i = 0; i < PRODUCED; i++) {
                sent.add(p.send(new ProducerRecord<>(c.topic, i % 3, "k" + i, "v" + i + padding)));
            }
            for (int i = 0; i < PRODUCED; i++) {
                RecordMetadata m = sent.get(i).get();
                expect(m.partition() + "/" + m.offset(), i % 3 + "/" + i / 3, "where record " + i + " is");
            }
        }
    }

    static void headers(Cluster c) throws Exception {
        try (var p = c.producer()) {
            for (int i = 0; i < 10; i++) {
                p.send(new ProducerRecord<>(c.topic, i % 3, null, "k" + i, "v" + i, List.of(header("color", "blue" + i), header("empty", ""), header("color", "again"), header("größe", "déjà"))));
            }
        }
        for (var r : c.readAll(c.topic)) {
            List<String> got = new ArrayList<>();
            r.headers().forEach(h -> got.add(h.key() + "=" + new String(h.value(), UTF_8)));
            expect(got, List.of("color=blue" + (3 * r.offset() + r.partition()), "empty=", "color=again", "größe=déjà"), "headers");
        }
    }

    private static RecordHeader header(String key, String value) {
        return new RecordHeader(key, value.getBytes(UTF_8));
    }

    static void nulls(Cluster c) throws Exception {
        String[][] want = {{null, "nokey"}, {"novalue", null}, {"", ""}};
        try (var p = c.producer()) {
            for (String[] r : want) {
                p.send(new ProducerRecord<>(c.topic, 0, r[0], r[1]));
            }
        }
        List<List<String>> got = new ArrayList<>();
        for (var r : c.readAll(c.topic)) {
            got.add(Arrays.asList(r.key() == null ? null : new String(r.key(), UTF_8), r.value() == null ? null : new String(r.value(), UTF_8)));
        }
        expect(got, Arrays.stream(want).map(Arrays::asList).toList(), "keys and values");
    }

    static void large(Cluster c) throws Exception {
        byte[] value = new byte[5 << 20];
        for (int i = 0; i < value.length; i++) {
            value[i] = (byte) ('a' + i % 23);
        }
        try (var p = c.bytesProducer("max.request.size", "8000000")) {
            p.send(new ProducerRecord<>(c.topic, 0, "k0".getBytes(UTF_8), value)).get();
        }
        var got = c.readAll(c.topic);
        expect(got.size(), 1, "records");
        expect(Arrays.equals(got.get(0).value(), value), "the large value is another one");
    }

    static void consumeAssign(Cluster c) throws Exception {
        var all = c.readAll(c.topic);
        expect(all.size(), CONSUMED, "records");
        for (int i = 0; i < CONSUMED; i++) {
            var r = all.get(i);
            int number = 3 * (i % 100) + i / 100;
            expect(r.partition() + "/" + r.offset() + " " + new String(r.key(), UTF_8) + " " + new String(r.value(), UTF_8) + " " + r.timestamp(),
                i / 100 + "/" + i % 100 + " k" + number + " v" + number + " " + (FIRST + 1000L * number), "record " + i);
        }
        try (var consumer = c.consumer()) {
            var p1 = new TopicPartition(c.topic, 1);
            consumer.assign(List.of(p1));
            consumer.seek(p1, 50);
            expect(Consuming.take(consumer, 50).get(0).value(), "v151", "value at 1/50");
        }
    }

    static void seekByTime(Cluster c) throws Exception {
        Map<TopicPartition, Long> ask = Map.of(new TopicPartition(c.topic, 0), FIRST + 150_000, new TopicPartition(c.topic, 1), FIRST + 150_000, new TopicPartition(c.topic, 2), FIRST + 150_000);
        try (var consumer = c.consumer()) {
            var found = consumer.offsetsForTimes(ask);
            consumer.assign(ask.keySet());
            for (var f : found.entrySet()) {
                expect(f.getValue().offset(), 50L, "offset by time in " + f.getKey());
                consumer.seek(f.getKey(), f.getValue().offset());
            }
            expect(numbers(Consuming.take(consumer, 150)), range(150, 300), "records from a time on");
            consumer.offsetsForTimes(Map.of(new TopicPartition(c.topic, 0), FIRST + 300_000)).values().forEach(o -> expect(o, null, "offset past the end"));
        }
    }

    /** The numbers of records, of which none may come twice and those of a partition only in order. */
    private static Set<Integer> numbers(List<ConsumerRecord<String, String>> records) {
        Set<Integer> all = new TreeSet<>();
        long[] next = {-1, -1, -1};
        for (var r : records) {
            expect(next[r.partition()] < 0 || next[r.partition()] == r.offset(), "offset " + r.offset() + " in partition " + r.partition() + ", want " + next[r.partition()]);
            next[r.partition()] = r.offset() + 1;
            int number = Integer.parseInt(r.value().substring(1));
            expect(r.partition() + "/" + r.offset(), number % 3 + "/" + number / 3, "where record " + number + " is");
            expect(all.add(number), "record " + number + " twice");
        }
        return all;
    }

    private static Set<Integer> range(int from, int to) {
        Set<Integer> all = new TreeSet<>();
        for (int i = from; i < to; i++) {
            all.add(i);
        }
        return all;
    }

    private static KafkaConsumer<String, String> member(Cluster c) {
        var consumer = c.consumer("group.id", c.topic + "-group", "max.poll.records", "100");
        consumer.subscribe(List.of(c.topic));
        return consumer;
    }

    static void consumeSubscribe(Cluster c) throws Exception {
        try (var consumer = member(c)) {
            expect(numbers(Consuming.take(consumer, CONSUMED)), range(0, CONSUMED), "records");
        }
    }

    static void nextProtocol(Cluster c) throws Exception {
        try (var consumer = c.consumer("group.id", c.topic + "-group", "group.protocol", "consumer")) {
            consumer.subscribe(List.of(c.topic));
            expect(numbers(Consuming.take(consumer, CONSUMED)), range(0, CONSUMED), "records");
        }
    }

    static void commitResume(Cluster c) throws Exception {
        Set<Integer> before;
        try (var consumer = member(c)) {
            before = numbers(Consuming.take(consumer, 100));
            consumer.commitSync();
        }
        try (var consumer = member(c)) {
            var rest = range(0, CONSUMED);
            rest.removeAll(before);
            expect(numbers(Consuming.take(consumer, 200)), rest, "records after the commit");
            consumer.commitSync();
        }
    }

    static void adminCreate(Cluster c) throws Exception {
        var made = new NewTopic(c.topic + "-made", 4, c.replication()).configs(map("retention.ms", "123456789", "cleanup.policy", "compact"));
        get(c.admin.createTopics(List.of(made)).all());
        refused(TopicExistsException.class, "creating it again", () -> get(c.admin.createTopics(List.of(made)).all()));
        var bad = new NewTopic(c.topic + "-bad", 1, (short) 1).configs(map("retention.ms", "x"));
        refused(InvalidConfigurationException.class, "a retention.ms of x", () -> get(c.admin.createTopics(List.of(bad)).all()));
    }

    static void adminAlter(Cluster c) throws Exception {
        get(c.admin.incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, c.topic), List.of(
            new AlterConfigOp(new ConfigEntry("retention.ms", "7777777"), OpType.SET), new AlterConfigOp(new ConfigEntry("segment.bytes", null), OpType.DELETE)))).all());
        get(c.admin.createPartitions(Map.of(c.topic, NewPartitions.increaseTo(5))).all());
    }

    static void adminDescribe(Cluster c) throws Exception {
        eventually("the topic is described", () -> {
            described(c);
            return true;
        });
    }

    private static void described(Cluster c) throws Exception {
        var d = get(c.admin.describeTopics(List.of(c.topic)).allTopicNames()).get(c.topic);
        expect(d.partitions().size(), 3, "partitions");
        for (var p : d.partitions()) {
            expect(p.replicas().size(), (int) c.replication(), "replicas");
            expect(p.replicas().contains(p.leader()), "leader " + p.leader() + " is none of " + p.replicas());
        }
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, c.topic);
        var config = get(c.admin.describeConfigs(List.of(resource)).all()).get(resource);
        expect(config.get("retention.ms").value(), "86400000", "retention.ms");
        expect(config.get("retention.ms").source(), ConfigSource.DYNAMIC_TOPIC_CONFIG, "source of retention.ms");
        expect(config.get("max.message.bytes").isDefault(), "max.message.bytes is no default");
    }

    static void deleteRecords(Cluster c) throws Exception {
        get(c.admin.deleteRecords(Map.of(new TopicPartition(c.topic, 0), RecordsToDelete.beforeOffset(40), new TopicPartition(c.topic, 2), RecordsToDelete.beforeOffset(-1))).all());
    }

    static void adminDelete(Cluster c) throws Exception {
        get(c.admin.deleteTopics(List.of(c.topic + "-gone")).all());
        eventually("the deleted topic is not listed", () -> !get(c.admin.listTopics().names()).contains(c.topic + "-gone"));
    }

    static void adminGroups(Cluster c) throws Exception {
        String group = c.topic + "-group";
        var listing = get(c.admin.listConsumerGroups().all()).stream().filter(g -> g.groupId().equals(group)).findFirst().orElseThrow();
        expect(listing.state(), Optional.of(ConsumerGroupState.EMPTY), "state listed");
        var d = get(c.admin.describeConsumerGroups(List.of(group)).all()).get(group);
        expect(d.state(), ConsumerGroupState.EMPTY, "state described");
        expect(d.members().size(), 0, "members");
        var offsets = get(c.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
        for (int p = 0; p < 3; p++) {
            expect(offsets.get(new TopicPartition(c.topic, p)).offset(), 10L * (p + 1), "offset committed in partition " + p);
        }
        get(c.admin.deleteConsumerGroups(List.of(group)).all());
    }
}
