package conformance;

import static conformance.Cluster.expect;
import static conformance.Cluster.get;
import static conformance.Cluster.refused;
import static java.nio.charset.StandardCharsets.UTF_8;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** What producers rely on: where a record was said to be, there it is, byte for byte. */
final class Producing {
    private Producing() {}

    static void plain(Cluster c) throws Exception {
        for (String acks : List.of("all", "1", "0")) {
            String topic = c.topic("acks-" + acks, 3);
            try (var p = c.producer("acks", acks, "enable.idempotence", "false", "linger.ms", "1")) {
                roundTrip(c, p, topic, 1000, !acks.equals("0"));
            }
        }
    }

    static void idempotent(Cluster c) throws Exception {
        String topic = c.topic("records", 3);
        // Small batches, five in flight: sequences count.
        try (var p = c.producer("acks", "all", "enable.idempotence", "true", "batch.size", "400", "linger.ms", "0", "max.in.flight.requests.per.connection", "5")) {
            roundTrip(c, p, topic, 2000, true);
        }
        var partition = new TopicPartition(topic, 0);
        var producers = get(c.admin.describeProducers(List.of(partition)).all()).get(partition).activeProducers();
        expect(producers.size(), 1, "producers of " + partition);
        long end = c.readAll(topic).stream().filter(r -> r.partition() == 0).count();
        expect((long) producers.get(0).lastSequence(), end - 1, "last sequence of " + producers.get(0));
        expect(producers.get(0).producerId() >= 0, "producer id " + producers.get(0));
    }

    static void compressed(Cluster c, String codec) throws Exception {
        String topic = c.topic("records", 1);
        int raw;
        try (var p = c.producer("compression.type", codec, "linger.ms", "100", "batch.size", "65536")) {
            raw = roundTrip(c, p, topic, 3000, true);
        }
        // The broker keeps what the producer compressed.
        long stored = 0;
        for (var dirs : get(c.admin.describeLogDirs(brokerIds(c)).allDescriptions()).values()) {
            for (var dir : dirs.values()) {
                var replica = dir.replicaInfos().get(new TopicPartition(topic, 0));
                stored = Math.max(stored, replica == null ? 0 : replica.size());
            }
        }
        expect(stored > 0 && stored < raw / 2, raw + " bytes sent with " + codec + " take " + stored);
        // A topic that wants another codec gets it, and nothing is lost by that.
        String again = c.topic("recompressed", 1, "compression.type", codec);
        try (var p = c.producer("linger.ms", "20")) {
            roundTrip(c, p, again, 500, true);
        }
    }

    private static Set<Integer> brokerIds(Cluster c) throws Exception {
        Set<Integer> ids = new java.util.TreeSet<>();
        get(c.admin.describeCluster().nodes()).forEach(n -> ids.add(n.id()));
        return ids;
    }

    /** Sends n records to all partitions in turn and reads them back; returns how many bytes of values that were. */
    private static int roundTrip(Cluster c, Producer<String, String> p, String topic, int n, boolean acknowledged) throws Exception {
        int partitions = p.partitionsFor(topic).size();
        long first = 1_600_000_000_000L;
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        int bytes = 0;
        for (int i = 0; i < n; i++) {
            String value = value(i);
            bytes += value.length();
            sent.add(p.send(new ProducerRecord<>(topic, i % partitions, first + i, "key " + i, value)));
        }
        p.flush();
        for (int i = 0; i < n; i++) {
            RecordMetadata m = sent.get(i).get();
            expect(m.partition(), i % partitions, "partition of record " + i);
            if (acknowledged) {
                expect(m.offset(), (long) i / partitions, "offset of record " + i);
                expect(m.timestamp(), first + i, "timestamp of record " + i);
            }
        }
        if (!acknowledged) { // nobody said when they are there
            Cluster.eventually("all " + n + " records", () -> c.readAll(topic).size() == n);
        }
        var got = c.readAll(topic);
        expect(got.size(), n, "records of " + topic);
        for (var r : got) {
            int i = (int) r.offset() * partitions + r.partition();
            expect(new String(r.key(), UTF_8), "key " + i, "key at " + r.partition() + "/" + r.offset());
            expect(new String(r.value(), UTF_8), value(i), "value at " + r.partition() + "/" + r.offset());
            expect(r.timestamp(), first + i, "timestamp at " + r.partition() + "/" + r.offset());
            expect(r.leaderEpoch().isPresent(), "no leader epoch at " + r.partition() + "/" + r.offset());
        }
        return bytes;
    }

    private static String value(int i) {
        return "value " + i + " " + "abcdefghij".repeat(i % 20);
    }

    static void headers(Cluster c) throws Exception {
        String topic = c.topic("records", 1);
        List<Header> want = List.of(
            new RecordHeader("color", "blue".getBytes(UTF_8)),
            new RecordHeader("color", "red".getBytes(UTF_8)), // the same key twice, in order
            new RecordHeader("empty", new byte[0]),
            new RecordHeader("null", (byte[]) null),
            new RecordHeader("", "no key".getBytes(UTF_8)),
            new RecordHeader("schlüssel", new byte[] {0, (byte) 0xff, (byte) 0xfe, 0}),
            new RecordHeader("long", new byte[10_000]));
        try (var p = c.producer("compression.type", "lz4")) {
            p.send(new ProducerRecord<>(topic, 0, "k", "none")).get();
            p.send(new ProducerRecord<>(topic, 0, null, "k", "many", want)).get();
        }
        var got = c.readAll(topic);
        expect(got.size(), 2, "records");
        expect(got.get(0).headers().toArray().length, 0, "headers of a record sent without");
        Header[] headers = got.get(1).headers().toArray();
        expect(headers.length, want.size(), "headers");
        for (int i = 0; i < headers.length; i++) {
            expect(headers[i].key(), want.get(i).key(), "key of header " + i);
            expect(Arrays.equals(headers[i].value(), want.get(i).value()), "value of header " + i + ": " + Arrays.toString(headers[i].value()));
        }
    }

    static void nulls(Cluster c) throws Exception {
        String topic = c.topic("records", 1);
        String[][] want = {{null, "no key"}, {"no value", null}, {null, null}, {"", "empty key"}, {"empty value", ""}, {"", ""}};
        try (var p = c.producer()) {
            for (String[] r : want) {
                p.send(new ProducerRecord<>(topic, 0, r[0], r[1]));
            }
        }
        var got = c.readAll(topic);
        expect(got.size(), want.length, "records");
        for (int i = 0; i < want.length; i++) {
            var r = got.get(i);
            expect(r.key() == null ? null : new String(r.key(), UTF_8), want[i][0], "key of record " + i);
            expect(r.value() == null ? null : new String(r.value(), UTF_8), want[i][1], "value of record " + i);
        }
    }

    static void large(Cluster c) throws Exception {
        int size = 5 << 20;
        byte[] value = new byte[size];
        new Random(1).nextBytes(value);
        String narrow = c.topic("narrow", 1);
        String wide = c.topic("wide", 1, "max.message.bytes", "6291456");
        try (var p = c.bytesProducer("max.request.size", "8388608", "linger.ms", "0")) {
            refused(RecordTooLargeException.class, "5 MiB to a topic with max.message.bytes of 1 MiB",
                () -> p.send(new ProducerRecord<>(narrow, 0, null, value)).get());
            p.send(new ProducerRecord<>(wide, 0, "before".getBytes(UTF_8), new byte[] {1}));
            expect(p.send(new ProducerRecord<>(wide, 0, "large".getBytes(UTF_8), value)).get().offset(), 1L, "offset of the large record");
            p.send(new ProducerRecord<>(wide, 0, "after".getBytes(UTF_8), new byte[] {2})).get();
        }
        expect(c.readAll(narrow).size(), 0, "records of " + narrow);
        // A consumer's own limits (1 MiB a partition) do not keep it from coming.
        var got = c.readAll(wide);
        expect(got.size(), 3, "records of " + wide);
        expect(Arrays.equals(got.get(1).value(), value), "the large value is another one");
        expect(new String(got.get(2).key(), UTF_8), "after", "key after the large record");
    }
}
