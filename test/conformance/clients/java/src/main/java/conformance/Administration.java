package conformance;

import static conformance.Cluster.eventually;
import static conformance.Cluster.expect;
import static conformance.Cluster.get;
import static conformance.Cluster.map;
import static conformance.Cluster.refused;

import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.DescribeConfigsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** What Kafka's Admin relies on. */
final class Administration {
    private Administration() {}

    static void create(Cluster c) throws Exception {
        Collection<Node> brokers = get(c.admin.describeCluster().nodes());
        short replicas = (short) Math.min(3, brokers.size());
        String name = c.prefix + "topic";
        var topic = new NewTopic(name, 4, replicas).configs(map("cleanup.policy", "compact", "retention.ms", "123456"));
        get(c.admin.createTopics(List.of(topic), new CreateTopicsOptions().validateOnly(true)).all());
        expect(get(c.admin.listTopics().names()).contains(name), false, "listed after validating only");
        var created = c.admin.createTopics(List.of(topic));
        get(created.all());
        expect(get(created.numPartitions(name)), 4, "partitions answered");
        expect(get(created.replicationFactor(name)), (int) replicas, "replication factor answered");
        expect(get(created.config(name)).get("retention.ms").value(), "123456", "retention.ms answered");
        expect(get(created.config(name)).get("cleanup.policy").value(), "compact", "cleanup.policy answered");
        Uuid id = get(created.topicId(name));
        expect(!id.equals(Uuid.ZERO_UUID), "topic id answered: " + id);
        eventually("the topic is described", () -> {
            var d = get(c.admin.describeTopics(List.of(name)).allTopicNames()).get(name);
            expect(d.topicId(), id, "topic id described");
            expect(d.partitions().size(), 4, "partitions described");
            d.partitions().forEach(p -> expect(p.replicas().size(), (int) replicas, "replicas described"));
            return d.partitions().stream().allMatch(p -> p.leader() != null && !p.leader().isEmpty());
        });

        // Replicas where they are asked for.
        String placed = c.prefix + "placed";
        List<Integer> ids = brokers.stream().map(Node::id).sorted().toList();
        List<Integer> last = List.of(ids.get(ids.size() - 1));
        get(c.admin.createTopics(List.of(new NewTopic(placed, Map.of(0, last, 1, List.of(ids.get(0)))))).all());
        eventually("the placed topic is described", () -> {
            var d = get(c.admin.describeTopics(List.of(placed)).allTopicNames()).get(placed);
            return d.partitions().get(0).replicas().stream().map(Node::id).toList().equals(last);
        });

        // Defaults; and each refusal for its topic alone.
        String standard = c.prefix + "standard";
        var mixed = c.admin.createTopics(List.of(new NewTopic(standard, java.util.Optional.empty(), java.util.Optional.empty()),
            new NewTopic(name, 1, (short) 1), new NewTopic("no/good", 1, (short) 1), new NewTopic(c.prefix + "many", 1, (short) 99),
            new NewTopic(c.prefix + "none", 0, (short) 1), new NewTopic(c.prefix + "bad", 1, (short) 1).configs(map("retention.ms", "soon"))));
        get(mixed.values().get(standard));
        expect(get(mixed.numPartitions(standard)) >= 1, "partitions by default");
        refused(TopicExistsException.class, "a topic that exists", () -> get(mixed.values().get(name)));
        refused(InvalidTopicException.class, "an illegal name", () -> get(mixed.values().get("no/good")));
        refused(InvalidReplicationFactorException.class, "99 replicas", () -> get(mixed.values().get(c.prefix + "many")));
        refused(InvalidPartitionsException.class, "no partitions", () -> get(mixed.values().get(c.prefix + "none")));
        refused(InvalidConfigurationException.class, "retention.ms of soon", () -> get(mixed.values().get(c.prefix + "bad")));
    }

    static void alter(Cluster c) throws Exception {
        String name = c.topic("topic", 2, "retention.ms", "1000000");
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
        get(c.admin.incrementalAlterConfigs(Map.of(resource, List.of(
            op("max.message.bytes", "2000000", OpType.SET), op("cleanup.policy", "compact", OpType.APPEND), op("retention.ms", "", OpType.DELETE)))).all());
        eventually("the settings are described", () -> {
            Config config = get(c.admin.describeConfigs(List.of(resource)).all()).get(resource);
            expect(config.get("max.message.bytes").value(), "2000000", "max.message.bytes");
            expect(config.get("max.message.bytes").source(), ConfigSource.DYNAMIC_TOPIC_CONFIG, "source of a changed setting");
            expect(new TreeSet<>(List.of(config.get("cleanup.policy").value().split(","))), new TreeSet<>(List.of("compact", "delete")), "cleanup.policy after an append");
            expect(config.get("retention.ms").value(), "604800000", "retention.ms after a delete");
            expect(config.get("retention.ms").isDefault(), "retention.ms is not the default after a delete");
            return true;
        });
        get(c.admin.incrementalAlterConfigs(Map.of(resource, List.of(op("cleanup.policy", "delete", OpType.SUBTRACT)))).all());
        eventually("cleanup.policy after a subtract", 
            () -> get(c.admin.describeConfigs(List.of(resource)).all()).get(resource).get("cleanup.policy").value().equals("compact"));
        refused(InvalidConfigurationException.class, "a value that is none",
            () -> get(c.admin.incrementalAlterConfigs(Map.of(resource, List.of(op("segment.bytes", "many", OpType.SET)))).all()));
        refused(InvalidConfigurationException.class, "a setting that is none",
            () -> get(c.admin.incrementalAlterConfigs(Map.of(resource, List.of(op("no.such.setting", "1", OpType.SET)))).all()));
        var none = new ConfigResource(ConfigResource.Type.TOPIC, c.prefix + "none");
        refused(UnknownTopicOrPartitionException.class, "settings of a topic that is none",
            () -> get(c.admin.incrementalAlterConfigs(Map.of(none, List.of(op("retention.ms", "1", OpType.SET)))).all()));

        get(c.admin.createPartitions(Map.of(name, NewPartitions.increaseTo(5))).all());
        eventually("five partitions with leaders", () -> {
            var d = get(c.admin.describeTopics(List.of(name)).allTopicNames()).get(name);
            return d.partitions().size() == 5 && d.partitions().stream().allMatch(p -> p.leader() != null && !p.leader().isEmpty());
        });
        refused(InvalidPartitionsException.class, "fewer partitions", () -> get(c.admin.createPartitions(Map.of(name, NewPartitions.increaseTo(3))).all()));
        Consuming.fill(c, name, 5, 10);
        expect(c.readAll(name).size(), 50, "records in five partitions");
    }

    private static AlterConfigOp op(String name, String value, OpType type) {
        return new AlterConfigOp(new ConfigEntry(name, value), type);
    }

    static void describe(Cluster c) throws Exception {
        String name = c.topic("topic", 3, "retention.ms", "1000000");
        Consuming.fill(c, name, 3, 20);
        eventually("all is described", () -> {
            described(c, name);
            return true;
        });
        refused(UnknownTopicOrPartitionException.class, "a topic that is none", () -> get(c.admin.describeTopics(List.of(c.prefix + "none")).allTopicNames()));
    }

    private static void described(Cluster c, String name) throws Exception {
        var cluster = c.admin.describeCluster();
        Collection<Node> brokers = get(cluster.nodes());
        expect(brokers.size(), c.brokers.split(",").length, "brokers");
        expect(get(cluster.clusterId()).length(), 22, "length of cluster id " + get(cluster.clusterId()));
        expect(brokers.contains(get(cluster.controller())), "the controller " + get(cluster.controller()) + " is none of " + brokers);

        expect(get(c.admin.listTopics().namesToListings()).get(name).isInternal(), false, "internal");
        var d = get(c.admin.describeTopics(List.of(name)).allTopicNames()).get(name);
        expect(get(c.admin.describeTopics(TopicCollection.ofTopicIds(List.of(d.topicId()))).allTopicIds()).get(d.topicId()).name(), name, "name by id");
        for (var p : d.partitions()) {
            expect(Set.copyOf(p.isr()), Set.copyOf(p.replicas()), "replicas in sync");
            expect(p.replicas().contains(p.leader()), "leader " + p.leader() + " is none of " + p.replicas());
        }

        var resource = new ConfigResource(ConfigResource.Type.TOPIC, name);
        var options = new DescribeConfigsOptions().includeSynonyms(true).includeDocumentation(true);
        Config config = get(c.admin.describeConfigs(List.of(resource), options).all()).get(resource);
        expect(config.entries().size() >= 28, config.entries().size() + " settings of a topic");
        expect(config.get("retention.ms").value(), "1000000", "retention.ms");
        expect(config.get("retention.ms").source(), ConfigSource.DYNAMIC_TOPIC_CONFIG, "source of retention.ms");
        expect(config.get("retention.ms").type(), ConfigEntry.ConfigType.LONG, "type of retention.ms");
        expect(config.get("retention.ms").documentation() != null, "no documentation of retention.ms");
        expect(config.get("retention.ms").synonyms().get(0).value(), "1000000", "first synonym of retention.ms");
        expect(config.get("segment.bytes").isDefault(), "segment.bytes is not the default");
        Node one = brokers.iterator().next();
        var broker = new ConfigResource(ConfigResource.Type.BROKER, one.idString());
        Config settings = get(c.admin.describeConfigs(List.of(broker)).all()).get(broker);
        expect(settings.get("message.max.bytes").value(), "1048588", "message.max.bytes of a broker");

        var replicas = 0;
        for (var dirs : get(c.admin.describeLogDirs(brokers.stream().map(Node::id).toList()).allDescriptions()).values()) {
            for (var dir : dirs.values()) {
                expect(dir.error(), null, "error of a log dir");
                expect(dir.totalBytes().orElse(0) > 0, "total bytes of a log dir");
                for (var r : dir.replicaInfos().entrySet()) {
                    if (r.getKey().topic().equals(name)) {
                        replicas++;
                        expect(r.getValue().size() > 0, "size of " + r.getKey());
                    }
                }
            }
        }
        expect(replicas, 3 * Math.min(3, brokers.size()), "replicas in the log dirs");

        var p0 = new TopicPartition(name, 0);
        expect(get(c.admin.listOffsets(Map.of(p0, OffsetSpec.latest())).all()).get(p0).offset(), 20L, "latest offset");
        expect(get(c.admin.describeProducers(List.of(p0)).all()).get(p0).activeProducers().size(), 1, "producers");
        expect(get(c.admin.listPartitionReassignments().reassignments()).size(), 0, "reassignments");
        var features = get(c.admin.describeFeatures().featureMetadata());
        expect(features.supportedFeatures().get("metadata.version").maxVersion() > 0, "features " + features);
    }

    static void deleteRecords(Cluster c) throws Exception {
        String name = c.topic("topic", 2);
        Consuming.fill(c, name, 2, 100);
        var p0 = new TopicPartition(name, 0);
        var p1 = new TopicPartition(name, 1);
        get(c.admin.deleteRecords(Map.of(p0, RecordsToDelete.beforeOffset(30), p1, RecordsToDelete.beforeOffset(-1))).all());
        var marks = c.admin.deleteRecords(Map.of(p0, RecordsToDelete.beforeOffset(30))).lowWatermarks();
        expect(get(marks.get(p0)).lowWatermark(), 30L, "low watermark answered");
        refused(OffsetOutOfRangeException.class, "records past the end", () -> get(c.admin.deleteRecords(Map.of(p0, RecordsToDelete.beforeOffset(1000))).all()));
        var starts = get(c.admin.listOffsets(Map.of(p0, OffsetSpec.earliest(), p1, OffsetSpec.earliest())).all());
        expect(starts.get(p0).offset(), 30L, "earliest offset after deleting up to 30");
        expect(starts.get(p1).offset(), 100L, "earliest offset after deleting all");
        var left = c.readAll(name);
        expect(left.size(), 70, "records left");
        expect(left.get(0).offset(), 30L, "first record left");
    }

    /** Topics go by name and by id. */
    static void delete(Cluster c) throws Exception {
        String name = c.topic("topic", 2);
        Consuming.fill(c, name, 2, 100);
        Uuid id = get(c.admin.describeTopics(List.of(name)).allTopicNames()).get(name).topicId();
        String second = c.topic("second", 1);
        get(c.admin.deleteTopics(List.of(second)).all());
        get(c.admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all());
        eventually("no topic is listed", () -> {
            var names = get(c.admin.listTopics().names());
            return !names.contains(name) && !names.contains(second);
        });
        refused(UnknownTopicOrPartitionException.class, "a topic that is none", () -> get(c.admin.deleteTopics(List.of(second)).all()));
        // The same name again is another topic.
        c.topic("topic", 1);
        eventually("a new topic under the old name", () -> {
            var d = get(c.admin.describeTopics(List.of(name)).allTopicNames()).get(name);
            expect(!d.topicId().equals(id), "the new topic has the id of the old");
            expect(d.partitions().size(), 1, "partitions");
            return true;
        });
        expect(c.readAll(name).size(), 0, "records of the new topic");
    }

    static void groups(Cluster c) throws Exception {
        Collection<Node> brokers = get(c.admin.describeCluster().nodes());
        String name = c.topic("topic", 2);
        Consuming.fill(c, name, 2, 100);
        var p0 = new TopicPartition(name, 0);
        var p1 = new TopicPartition(name, 1);
        String set = c.prefix + "set";
        get(c.admin.alterConsumerGroupOffsets(set, Map.of(p0, new OffsetAndMetadata(5, "five"))).all());
        expect(get(c.admin.listConsumerGroupOffsets(set).partitionsToOffsetAndMetadata()), Map.of(p0, new OffsetAndMetadata(5, "five")), "offsets of a group");
        expect(get(c.admin.listConsumerGroups().all()).stream().anyMatch(g -> g.groupId().equals(set)), "the group is not listed");
        var coordinator = get(c.admin.describeConsumerGroups(List.of(set)).all()).get(set).coordinator();
        expect(brokers.stream().anyMatch(n -> n.id() == coordinator.id()), "coordinator " + coordinator);

        String group = c.prefix + "group";
        try (var consumer = c.consumer("group.id", group)) {
            consumer.subscribe(List.of(name));
            Consuming.take(consumer, 200);
            consumer.commitSync();
            refused(GroupNotEmptyException.class, "a group with a member", () -> get(c.admin.deleteConsumerGroups(List.of(group)).all()));
        }
        get(c.admin.deleteConsumerGroupOffsets(group, Set.of(p1)).all());
        expect(get(c.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).keySet(), Set.of(p0), "partitions with offsets");
        get(c.admin.deleteConsumerGroups(List.of(group)).all());
        expect(get(c.admin.listConsumerGroups().all()).stream().noneMatch(g -> g.groupId().equals(group)), "the group is listed after it was deleted");
        refused(GroupIdNotFoundException.class, "a group that is none", () -> get(c.admin.deleteConsumerGroups(List.of(group)).all()));
    }
}
