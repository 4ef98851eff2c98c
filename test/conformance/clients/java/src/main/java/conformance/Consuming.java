package conformance;

import static conformance.Cluster.expect;
import static conformance.Cluster.get;
import static conformance.Cluster.refused;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;

/** What consumers without a group rely on. */
final class Consuming {
    private Consuming() {}

    static void assign(Cluster c) throws Exception {
        String topic = c.topic("records", 2);
        fill(c, topic, 2, 500);
        var p0 = new TopicPartition(topic, 0);
        var p1 = new TopicPartition(topic, 1);
        try (var consumer = c.consumer("max.poll.records", "100")) {
            expect(consumer.listTopics().get(topic).size(), 2, "partitions listed");
            expect(consumer.beginningOffsets(List.of(p0, p1)), Map.of(p0, 0L, p1, 0L), "beginning offsets");
            expect(consumer.endOffsets(List.of(p0, p1)), Map.of(p0, 500L, p1, 500L), "end offsets");

            consumer.assign(List.of(p0, p1));
            consumer.seekToBeginning(List.of(p0, p1));
            var got = take(consumer, 1000);
            for (var p : List.of(p0, p1)) {
                long next = 0;
                for (var r : got) {
                    if (r.partition() == p.partition()) {
                        expect(r.offset(), next++, "offset in " + p);
                        expect(r.value(), "value " + r.partition() + "/" + r.offset(), "value in " + p);
                    }
                }
                expect(next, 500L, "records of " + p);
            }

            consumer.seek(p0, 250);
            consumer.pause(Set.of(p1));
            consumer.seekToBeginning(List.of(p1));
            got = take(consumer, 250);
            expect(got.get(0).offset(), 250L, "first offset after a seek to 250");
            expect(got.get(0).partition(), 0, "partition of a record while the other is paused");
            consumer.resume(Set.of(p1));
            expect(take(consumer, 500).get(0).offset(), 0L, "first offset of the partition resumed");

            consumer.seekToEnd(List.of(p0, p1));
            expect(consumer.position(p0), 500L, "position at the end");
            fill(c, topic, 2, 10);
            expect(take(consumer, 20).size(), 20, "records produced while at the end");
            expect(consumer.currentLag(p0).orElse(-1), 0L, "lag at the end");
        }
        try (var consumer = c.consumer("auto.offset.reset", "none")) {
            consumer.assign(List.of(p0));
            consumer.seek(p0, 100_000);
            refused(OffsetOutOfRangeException.class, "fetch past the end", () -> take(consumer, 1));
        }
        try (var consumer = c.consumer("isolation.level", "read_committed", "fetch.min.bytes", "1000000", "fetch.max.wait.ms", "200")) {
            consumer.assign(List.of(p0));
            consumer.seek(p0, 509);
            expect(take(consumer, 1).get(0).value(), "value 0/9", "the last record, read committed");
        }
    }

    static void seekByTime(Cluster c) throws Exception {
        String topic = c.topic("records", 2);
        var p0 = new TopicPartition(topic, 0);
        var p1 = new TopicPartition(topic, 1);
        long first = 1_600_000_000_000L;
        try (var p = c.producer("batch.size", "500")) {
            for (int i = 0; i < 300; i++) {
                p.send(new ProducerRecord<>(topic, 0, first + 1000L * i, null, "at " + i));
            }
            // The newest is not the last.
            p.send(new ProducerRecord<>(topic, 0, first + 1000L * 299 - 500, null, "late"));
        }
        try (var consumer = c.consumer()) {
            for (int i : new int[] {0, 1, 150, 299}) {
                var exact = consumer.offsetsForTimes(Map.of(p0, first + 1000L * i)).get(p0);
                expect(exact.offset(), (long) i, "offset at the time of record " + i);
                expect(exact.timestamp(), first + 1000L * i, "timestamp at the time of record " + i);
                expect(consumer.offsetsForTimes(Map.of(p0, first + 1000L * i - 999)).get(p0).offset(), (long) i, "offset a little before record " + i);
            }
            Map<TopicPartition, Long> ask = new HashMap<>(Map.of(p0, first + 300_000L, p1, 0L));
            var none = consumer.offsetsForTimes(ask);
            expect(none.get(p0), null, "offset after the newest record");
            expect(none.get(p1), null, "offset by time in an empty partition");

            consumer.assign(List.of(p0));
            consumer.seek(p0, consumer.offsetsForTimes(Map.of(p0, first + 200_000L)).get(p0).offset());
            expect(take(consumer, 101).get(0).value(), "at 200", "first record from a time");
        }
        var newest = get(c.admin.listOffsets(Map.of(p0, OffsetSpec.maxTimestamp())).all()).get(p0);
        expect(newest.offset(), 299L, "offset of the newest record");
        expect(newest.timestamp(), first + 299_000L, "timestamp of the newest record");
        expect(get(c.admin.listOffsets(Map.of(p0, OffsetSpec.latest())).all()).get(p0).offset(), 301L, "latest");
        expect(get(c.admin.listOffsets(Map.of(p0, OffsetSpec.earliest())).all()).get(p0).offset(), 0L, "earliest");
        expect(get(c.admin.listOffsets(Map.of(p0, OffsetSpec.forTimestamp(first + 1))).all()).get(p0).offset(), 1L, "by time through the admin client");
        expect(get(c.admin.listOffsets(Map.of(p1, OffsetSpec.maxTimestamp())).all()).get(p1).offset(), -1L, "newest of an empty partition");
    }

    /** Sends n records to each partition: "value PARTITION/I". */
    static void fill(Cluster c, String topic, int partitions, int n) throws Exception {
        try (var p = c.producer()) {
            for (int i = 0; i < n; i++) {
                for (int partition = 0; partition < partitions; partition++) {
                    p.send(new ProducerRecord<>(topic, partition, "key " + i, "value " + partition + "/" + i));
                }
            }
        }
    }

    /** Polls until n records came; more is an error. */
    static List<ConsumerRecord<String, String>> take(KafkaConsumer<String, String> consumer, int n) {
        List<ConsumerRecord<String, String>> got = new ArrayList<>();
        long deadline = System.nanoTime() + Cluster.PATIENCE.toNanos();
        while (got.size() < n) {
            expect(System.nanoTime() < deadline, got.size() + " records of " + n + " came");
            for (var r : consumer.poll(Duration.ofMillis(100))) {
                got.add(r);
            }
        }
        expect(got.size(), n, "records taken");
        return got;
    }
}
