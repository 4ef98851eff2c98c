// Three records to the topic hello and back, with Apache Kafka's own client.
import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.serialization.*;

public class Hello {
    public static void main(String[] args) throws Exception {
        String brokers = args.length > 0 ? args[0] : System.getenv().getOrDefault("MILLRACE_BROKERS", "127.0.0.1:9092");

        Map<String, Object> producing = Map.of("bootstrap.servers", brokers);
        try (var producer = new KafkaProducer<>(producing, new StringSerializer(), new StringSerializer())) {
            for (String value : List.of("one", "two", "three")) {
                producer.send(new ProducerRecord<>("hello", value)).get(); // until it is acknowledged
            }
        }

        Map<String, Object> consuming = Map.of("bootstrap.servers", brokers, "group.id", "hello",
            "auto.offset.reset", "earliest", "enable.auto.commit", "false");
        try (var consumer = new KafkaConsumer<>(consuming, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of("hello"));
            for (int read = 0; read < 3; ) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(record.value());
                    read++;
                }
                consumer.commitSync();
            }
        }
    }
}
