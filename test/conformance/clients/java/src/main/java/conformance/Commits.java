package conformance;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.kafka.clients.consumer.ConsumerInterceptor;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/**
 * Commits compares what consumers get with what had been committed by then, over all consumers of this process that
 * name it in interceptor.classes. A client commits what it gives up as well as it can, so records may be read twice; but
 * none that lies before an offset whose commit was acknowledged. A topic is to be read by one group.
 */
public final class Commits implements ConsumerInterceptor<String, String> {
    private static final Map<TopicPartition, Long> ACKNOWLEDGED = new ConcurrentHashMap<>();
    private static final List<String> AGAIN = new ArrayList<>(); // guarded by itself

    /** PARTITION/OFFSET of records of a topic that a consumer got although they were committed. */
    static List<String> readAgain(String topic) {
        synchronized (AGAIN) {
            return AGAIN.stream().filter(s -> s.startsWith(topic + "/")).map(s -> s.substring(topic.length() + 1)).toList();
        }
    }

    /** How many commits of a topic were acknowledged, at least. */
    static long committed(String topic) {
        return ACKNOWLEDGED.keySet().stream().filter(p -> p.topic().equals(topic)).count();
    }

    @Override
    public ConsumerRecords<String, String> onConsume(ConsumerRecords<String, String> records) {
        for (ConsumerRecord<String, String> r : records) {
            if (r.offset() < ACKNOWLEDGED.getOrDefault(new TopicPartition(r.topic(), r.partition()), 0L)) {
                synchronized (AGAIN) {
                    AGAIN.add(r.topic() + "/" + r.partition() + "/" + r.offset());
                }
            }
        }
        return records;
    }

    @Override
    public void onCommit(Map<TopicPartition, OffsetAndMetadata> offsets) {
        offsets.forEach((p, o) -> ACKNOWLEDGED.merge(p, o.offset(), Math::max));
    }

    @Override
    public void configure(Map<String, ?> settings) {
        // nothing to be set
    }

    @Override
    public void close() {
        // what was committed outlives the consumer
    }
}
