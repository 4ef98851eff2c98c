package conformance;

import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** A Cluster is what one ability sees of the brokers: clients of it, and topics of its own. Safe for several threads. */
final class Cluster implements AutoCloseable {
    /** How long anything may take before it counts as never; decides nothing else. */
    static final Duration PATIENCE = Duration.ofSeconds(45);

    final String brokers;
    /** The topic the harness may have made. */
    final String topic;
    /** How names of topics and groups made here begin. */
    final String prefix;
    final Admin admin;
    /** The settings of every client. */
    private final Map<String, Object> common;

    Cluster(String brokers, String topic) throws IOException {
        this(brokers, topic, Login.settings(""));
    }

    Cluster(String brokers, String topic, Map<String, String> login) {
        this.brokers = brokers;
        this.topic = topic;
        this.prefix = topic + "-own-";
        this.common = new HashMap<>(login);
        common.put("bootstrap.servers", brokers);
        this.admin = Admin.create(with("default.api.timeout.ms", "60000"));
    }

    /** The settings of every client, and more: KEY, VALUE, … */
    private Map<String, Object> with(String... settings) {
        Map<String, Object> all = new HashMap<>(common);
        all.putAll(map(settings));
        return all;
    }

    @Override
    public void close() {
        admin.close(Duration.ofSeconds(5));
    }

    /**
     * Makes a topic, three times replicated where there are three brokers, and waits until it has leaders. Settings are KEY, VALUE, …
     * Records stay unless they say otherwise: some have timestamps of years ago, and every five minutes a broker looks for what has expired.
     */
    String topic(String name, int partitions, String... settings) throws Exception {
        String full = prefix + name;
        Map<String, String> all = new HashMap<>(map(settings));
        all.putIfAbsent("retention.ms", "-1");
        get(admin.createTopics(List.of(new NewTopic(full, partitions, replication()).configs(all))).all());
        eventually("leaders of " + full, () -> {
            var d = get(admin.describeTopics(List.of(full)).allTopicNames()).get(full);
            return d.partitions().size() == partitions && d.partitions().stream().allMatch(p -> p.leader() != null && !p.leader().isEmpty());
        });
        return full;
    }

    /** Three, or as many as there are brokers. */
    short replication() throws Exception {
        return (short) Math.min(3, get(admin.describeCluster().nodes()).size());
    }

    /** A producer of strings. Settings are KEY, VALUE, … */
    KafkaProducer<String, String> producer(String... settings) {
        Map<String, Object> all = with("delivery.timeout.ms", "60000", "request.timeout.ms", "30000");
        all.putAll(map(settings));
        return new KafkaProducer<>(all, new StringSerializer(), new StringSerializer());
    }

    KafkaProducer<byte[], byte[]> bytesProducer(String... settings) {
        return new KafkaProducer<>(with(settings), new ByteArraySerializer(), new ByteArraySerializer());
    }

    /** A consumer of strings that starts at the beginning and commits only when told. */
    KafkaConsumer<String, String> consumer(String... settings) {
        Map<String, Object> all = with("auto.offset.reset", "earliest", "enable.auto.commit", "false");
        all.putAll(map(settings));
        return new KafkaConsumer<>(all, new StringDeserializer(), new StringDeserializer());
    }

    /** Every record of a topic, partition by partition, up to what was its end at the call. */
    List<ConsumerRecord<byte[], byte[]>> readAll(String topic) throws Exception {
        Map<String, Object> settings = with("auto.offset.reset", "none", "enable.auto.commit", "false");
        List<ConsumerRecord<byte[], byte[]>> all = new ArrayList<>();
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (PartitionInfo p : consumer.partitionsFor(topic)) {
                partitions.add(new TopicPartition(topic, p.partition()));
            }
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            eventually("the end of " + topic, () -> {
                for (var r : consumer.poll(Duration.ofMillis(100))) {
                    all.add(r);
                }
                for (TopicPartition p : partitions) {
                    if (consumer.position(p) < ends.get(p)) {
                        return false;
                    }
                }
                return true;
            });
        }
        all.sort((a, b) -> a.partition() != b.partition() ? a.partition() - b.partition() : Long.compare(a.offset(), b.offset()));
        return all;
    }

    /**
     * Waits for a condition that has to come true; when it throws it is tried again too. So must be asked whatever any
     * broker may answer: after a change the others learn of it a moment later, here as in Kafka.
     */
    static void eventually(String what, Callable<Boolean> holds) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        Throwable last = null;
        while (true) {
            try {
                if (holds.call()) {
                    return;
                }
                last = null;
            } catch (Exception | AssertionError e) {
                last = e;
            }
            if (System.nanoTime() > deadline) {
                throw new AssertionError(what + ": not after " + PATIENCE, last);
            }
            Thread.sleep(20);
        }
    }

    /** The result of a call, or the error the broker answered, bare. */
    static <T> T get(KafkaFuture<T> future) throws Exception {
        try {
            return future.get(PATIENCE.toSeconds(), TimeUnit.SECONDS);
        } catch (ExecutionException e) {
            if (e.getCause() instanceof Exception cause) {
                cause.addSuppressed(e); // keeps the line that asked
                throw cause;
            }
            throw e;
        }
    }

    /** Expects a call to fail with an error of Kafka's; returns it. */
    static <E extends Throwable> E refused(Class<E> want, String what, Callable<?> call) {
        Object got;
        try {
            got = call.call();
        } catch (Throwable e) {
            for (Throwable t = e; t != null; t = t.getCause()) {
                if (want.isInstance(t)) {
                    return want.cast(t);
                }
            }
            throw new AssertionError(what + ": " + e + ", want " + want.getSimpleName(), e);
        }
        throw new AssertionError(what + ": answered " + got + ", want " + want.getSimpleName());
    }

    static void expect(Object got, Object want, String what) {
        if (!Objects.equals(got, want)) {
            throw new AssertionError(what + ": " + got + ", want " + want);
        }
    }

    static void expect(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    static Map<String, String> map(String... pairs) {
        Map<String, String> all = new HashMap<>();
        for (int i = 0; i < pairs.length; i += 2) {
            all.put(pairs[i], pairs[i + 1]);
        }
        return all;
    }
}
