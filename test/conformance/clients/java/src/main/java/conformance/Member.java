package conformance;

import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;

/**
 * A Member polls a subscribed consumer on a thread of its own, which {@link #close} ends, and keeps what it was
 * assigned and what it read. Its methods are for any thread.
 */
final class Member implements AutoCloseable, ConsumerRebalanceListener {
    /** What subscribes the consumer; its listener is the member. */
    interface Subscription {
        void subscribe(KafkaConsumer<String, String> consumer, ConsumerRebalanceListener listener) throws Exception;
    }

    private final KafkaConsumer<String, String> consumer;
    private final Thread thread;
    private final Set<Integer> assigned = new TreeSet<>(); // guarded by this, as is what follows
    private final List<String> read = new ArrayList<>();
    private int revocations;
    private Throwable error;

    Member(KafkaConsumer<String, String> consumer, String topic) {
        this(consumer, (k, listener) -> k.subscribe(List.of(topic), listener));
    }

    Member(KafkaConsumer<String, String> consumer, Subscription subscription) {
        this.consumer = consumer;
        thread = new Thread(() -> poll(subscription), "member");
        thread.setDaemon(true);
        thread.start();
    }

    private void poll(Subscription subscription) {
        try (consumer) {
            subscription.subscribe(consumer, this);
            while (true) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
                    synchronized (this) {
                        read.add(r.partition() + "/" + r.offset());
                    }
                }
            }
        } catch (WakeupException e) {
            // close was called
        } catch (Throwable e) {
            synchronized (this) {
                error = e;
            }
        }
    }

    @Override
    public synchronized void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        partitions.forEach(p -> assigned.add(p.partition()));
    }

    @Override
    public synchronized void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        revocations += partitions.isEmpty() ? 0 : 1;
        partitions.forEach(p -> assigned.remove(p.partition()));
    }

    /** The partitions it has now. Throws what ended its thread, if anything did. */
    synchronized Set<Integer> assigned() throws Exception {
        if (error != null) {
            throw new IllegalStateException("the member ended", error);
        }
        return new TreeSet<>(assigned);
    }

    /** PARTITION/OFFSET of all it read, in order. */
    synchronized List<String> read() {
        return new ArrayList<>(read);
    }

    synchronized int revocations() {
        return revocations;
    }

    synchronized Throwable error() {
        return error;
    }

    /** Leaves the group as a consumer's close does, and waits for that. */
    @Override
    public void close() throws InterruptedException {
        consumer.wakeup();
        thread.join(Cluster.PATIENCE.toMillis());
    }
}
