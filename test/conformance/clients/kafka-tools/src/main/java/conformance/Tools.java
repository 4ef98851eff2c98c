package conformance;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.utils.Exit;

/**
 * Apache Kafka's command-line tools against a cluster, nearly all in one JVM: each one's main is called with its output
 * captured and its exit caught, and what it printed is checked. Arguments: BROKERS PREFIX. Prints a line for each
 * tool: "TOOL ok" or "TOOL FAIL reason"; the exit status is 0 if all were ok.
 */
public final class Tools {
    /** A Check is one tool. It throws when the tool did not say what it says of a Kafka cluster. */
    interface Check {
        void run() throws Exception;
    }

    /** How long anything may take before it counts as never. */
    private static final Duration PATIENCE = Duration.ofSeconds(45);

    private static final PrintStream STDOUT = System.out;
    private static final Output OUTPUT = new Output();

    private final String brokers;
    private final String prefix;
    private final int brokerCount;
    private final Map<String, Check> checks = new LinkedHashMap<>();

    private Tools(String brokers, String prefix) {
        this.brokers = brokers;
        this.prefix = prefix;
        this.brokerCount = brokers.split(",").length;
        // In this order: later ones look at what earlier ones made.
        checks.put("kafka-topics", this::topics);
        checks.put("kafka-console-producer", this::consoleProducer);
        checks.put("kafka-console-consumer", this::consoleConsumer);
        checks.put("kafka-console-consumer-group", this::consoleConsumerGroup);
        checks.put("kafka-get-offsets", this::getOffsets);
        checks.put("kafka-configs", this::configs);
        checks.put("kafka-consumer-groups", this::consumerGroups);
        checks.put("kafka-verifiable-producer", this::verifiableProducer);
        checks.put("kafka-verifiable-consumer", this::verifiableConsumer);
        checks.put("kafka-producer-perf-test", this::producerPerformance);
        checks.put("kafka-delete-records", this::deleteRecords);
        checks.put("kafka-log-dirs", this::logDirs);
        checks.put("kafka-broker-api-versions", this::brokerApiVersions);
        checks.put("client-compatibility-test", this::clientCompatibility);
    }

    public static void main(String[] args) throws Exception {
        if (args.length != 2) {
            System.err.println("usage: Tools BROKERS PREFIX");
            System.exit(2);
        }
        // Scala's Console keeps the streams it finds when it is loaded: these, for good.
        System.setOut(new PrintStream(OUTPUT, true, UTF_8));
        System.setErr(System.out);
        Exit.setExitProcedure(Tools::exited);
        Exit.setHaltProcedure(Tools::exited);
        Exit.setShutdownHookAdder((name, hook) -> HOOKS.add(hook));
        int failed = 0;
        for (Map.Entry<String, Check> c : new Tools(args[0], args[1]).checks.entrySet()) {
            String verdict = "ok";
            try {
                c.getValue().run();
            } catch (Throwable e) {
                failed++;
                verdict = "FAIL " + e.toString().replace('\n', '|');
            }
            STDOUT.println(c.getKey() + " " + verdict);
            STDOUT.flush();
        }
        Runtime.getRuntime().halt(failed == 0 ? 0 : 1); // not waiting for what tools leave behind
    }

    /** The status of the first exit that the present tool asked for. Some catch what ends their main then, and exit again. */
    private static volatile Integer exitStatus;

    /** What the present tool wants done when its JVM ends. */
    private static final List<Runnable> HOOKS = Collections.synchronizedList(new ArrayList<>());

    private static void exited(int status, String message) {
        if (exitStatus == null) {
            exitStatus = status;
        }
        throw new IllegalStateException("exit " + status + (message == null ? "" : ": " + message));
    }

    /** An Output collects what is printed since the last call of take. Safe for several threads. */
    private static final class Output extends OutputStream {
        private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

        @Override
        public synchronized void write(int b) {
            bytes.write(b);
        }

        @Override
        public synchronized void write(byte[] b, int from, int n) {
            bytes.write(b, from, n);
        }

        synchronized String take() {
            String all = bytes.toString(UTF_8);
            bytes.reset();
            return all;
        }
    }

    /** Runs a tool, which must end well, and returns what it printed. */
    private String run(String main, String... args) throws Exception {
        return runWith("", main, args);
    }

    private String runWith(String stdin, String main, String... args) throws Exception {
        InputStream before = System.in;
        System.setIn(new ByteArrayInputStream(stdin.getBytes(UTF_8)));
        OUTPUT.take();
        exitStatus = null;
        HOOKS.clear();
        Throwable error = null;
        try {
            Class.forName(main).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (InvocationTargetException e) {
            error = e.getCause();
        } finally {
            System.setIn(before);
        }
        List.copyOf(HOOKS).forEach(Runnable::run);
        String out = OUTPUT.take();
        if (exitStatus == null ? error != null : exitStatus != 0) {
            throw new AssertionError(main + " " + String.join(" ", args) + ": " + error + ": " + out);
        }
        return out;
    }

    private static String fork(String main, String... args) throws Exception {
        List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-cp", System.getProperty("java.class.path"), main));
        command.addAll(List.of(args));
        Process p = new ProcessBuilder(command).redirectErrorStream(true).start();
        String out = new String(p.getInputStream().readAllBytes(), UTF_8);
        expect(p.waitFor() == 0, main + ": exit " + p.exitValue() + ": " + out);
        return out;
    }

    private static void expect(boolean holds, String otherwise) {
        if (!holds) {
            throw new AssertionError(otherwise);
        }
    }

    /** Expects a pattern somewhere in an output. */
    private static void expect(String out, String... patterns) {
        for (String p : patterns) {
            expect(java.util.regex.Pattern.compile(p, java.util.regex.Pattern.MULTILINE).matcher(out).find(), "no " + p + " in " + out);
        }
    }

    /** Waits until a check passes: a change reaches every broker a moment later, and groups take theirs to settle. */
    private static void eventually(Check check) throws Exception {
        long deadline = System.nanoTime() + PATIENCE.toNanos();
        while (true) {
            try {
                check.run();
                return;
            } catch (Exception | AssertionError e) {
                if (System.nanoTime() > deadline) {
                    throw e;
                }
            }
            Thread.sleep(100);
        }
    }

    private static final String TOPICS = "org.apache.kafka.tools.TopicCommand";
    private static final String CONFIGS = "kafka.admin.ConfigCommand";
    private static final String GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    private static final String CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer";

    private String create(String name, int partitions, String... more) throws Exception {
        String topic = prefix + name;
        List<String> args = new ArrayList<>(List.of("--bootstrap-server", brokers, "--create", "--topic", topic, "--partitions", "" + partitions,
            "--replication-factor", "" + Math.min(3, brokerCount)));
        args.addAll(List.of(more));
        expect(run(TOPICS, args.toArray(String[]::new)), "Created topic " + topic + "\\.");
        eventually(() -> expect(run(TOPICS, "--bootstrap-server", brokers, "--describe", "--topic", topic), "PartitionCount: " + partitions + "\t", "Leader: [0-9]"));
        return topic;
    }

    private void topics() throws Exception {
        String topic = create("lines", 3, "--config", "retention.ms=123456789");
        expect(run(TOPICS, "--bootstrap-server", brokers, "--list"), "^" + topic + "$");
        int replicas = Math.min(3, brokerCount);
        eventually(() -> { // a new replica is in sync when it has said so
            String out = run(TOPICS, "--bootstrap-server", brokers, "--describe", "--topic", topic);
            expect(out, "^Topic: " + topic + "\tTopicId: \\S{22}\tPartitionCount: 3\tReplicationFactor: " + replicas + "\tConfigs: .*retention.ms=123456789");
            for (int p = 0; p < 3; p++) {
                expect(out, "Partition: " + p + "\tLeader: \\d+\tReplicas: (\\d+,?){" + replicas + "}\tIsr: (\\d+,?){" + replicas + "}\t");
            }
        });
        eventually(() -> expect(!run(TOPICS, "--bootstrap-server", brokers, "--describe", "--under-replicated-partitions", "--topic", topic).contains("Partition:"), "partitions are under-replicated"));
        run(TOPICS, "--bootstrap-server", brokers, "--alter", "--topic", topic, "--partitions", "4");
        eventually(() -> expect(run(TOPICS, "--bootstrap-server", brokers, "--describe", "--topic", topic), "PartitionCount: 4\t"));
        String gone = create("gone", 1);
        run(TOPICS, "--bootstrap-server", brokers, "--delete", "--topic", gone);
        eventually(() -> expect(!run(TOPICS, "--bootstrap-server", brokers, "--list").contains(gone), gone + " is still listed"));
    }

    private String lines;

    private void consoleProducer() throws Exception {
        lines = create("console", 1);
        String in = IntStream.range(0, 100).mapToObj(i -> "color:blue,n:" + i + "\tk" + i + "|v" + i + "\n").collect(Collectors.joining());
        runWith(in, "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", brokers, "--topic", lines, "--compression-codec", "lz4",
            "--property", "parse.key=true", "--property", "key.separator=|", "--property", "parse.headers=true");
        expect(run("org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", brokers, "--topic", lines), "^" + lines + ":0:100$");
    }

    private static final String[] FORMAT = {"--property", "print.key=true", "--property", "key.separator=|", "--property", "print.headers=true", "--property", "print.offset=true"};

    private static String[] with(String[] a, String... b) {
        List<String> all = new ArrayList<>(List.of(a));
        all.addAll(List.of(b));
        return all.toArray(String[]::new);
    }

    private void consoleConsumer() throws Exception {
        String out = run(CONSUMER, with(FORMAT, "--bootstrap-server", brokers, "--topic", lines, "--from-beginning", "--max-messages", "100", "--timeout-ms", "30000"));
        expect(out, "Processed a total of 100 messages");
        expectConsole(out, 0, 100);
        out = run(CONSUMER, with(FORMAT, "--bootstrap-server", brokers, "--topic", lines, "--partition", "0", "--offset", "60", "--max-messages", "40", "--timeout-ms", "30000"));
        expectConsole(out, 60, 100);
    }

    /** The records from one to another, each once and in order, in the format of FORMAT. */
    private static void expectConsole(String out, int from, int to) {
        List<String> want = IntStream.range(from, to).mapToObj(i -> "Offset:" + i + "|color:blue,n:" + i + "|k" + i + "|v" + i).toList();
        List<String> got = out.lines().filter(l -> l.startsWith("Offset:")).toList();
        expect(got.equals(want), "consumed " + got.size() + " lines, want " + want.size() + ": " + got.stream().limit(2).toList());
    }

    private void consoleConsumerGroup() throws Exception {
        String group = prefix + "console-group";
        String[] args = with(FORMAT, "--bootstrap-server", brokers, "--topic", lines, "--from-beginning", "--group", group, "--max-messages", "50", "--timeout-ms", "30000");
        expectConsole(run(CONSUMER, args), 0, 50);
        expectConsole(run(CONSUMER, args), 50, 100); // from where the group was
    }

    private void getOffsets() throws Exception {
        String main = "org.apache.kafka.tools.GetOffsetShell";
        for (String[] c : new String[][] {{"-1", "100"}, {"-2", "0"}, {"latest", "100"}, {"earliest", "0"}, {"-3", "99"}, {"1", "0"}}) {
            expect(run(main, "--bootstrap-server", brokers, "--topic", lines, "--time", c[0]), "^" + lines + ":0:" + (c[0].equals("-3") ? "\\d+" : c[1]) + "$");
        }
        expect(run(main, "--bootstrap-server", brokers, "--topic-partitions", lines + ":0"), "^" + lines + ":0:100$");
    }

    private void configs() throws Exception {
        String[] topic = {"--bootstrap-server", brokers, "--entity-type", "topics", "--entity-name", lines};
        expect(run(CONFIGS, with(topic, "--alter", "--add-config", "retention.ms=7654321,max.message.bytes=2000000")), "Completed updating config for topic " + lines);
        eventually(() -> expect(run(CONFIGS, with(topic, "--describe")), "retention.ms=7654321 sensitive=false synonyms=\\{DYNAMIC_TOPIC_CONFIG:retention.ms=7654321", "max.message.bytes=2000000"));
        run(CONFIGS, with(topic, "--alter", "--delete-config", "retention.ms"));
        eventually(() -> expect(!run(CONFIGS, with(topic, "--describe")).contains("retention.ms=7654321"), "retention.ms is still set"));
        expect(run(CONFIGS, with(topic, "--describe", "--all")), "segment.bytes=1073741824", "cleanup.policy=delete", "max.message.bytes=2000000");
        expect(run(CONFIGS, "--bootstrap-server", brokers, "--entity-type", "brokers", "--entity-name", "1", "--describe", "--all"), "message.max.bytes=1048588");
    }

    private void consumerGroups() throws Exception {
        String topic = create("grouped", 2);
        String group = prefix + "group";
        String[] base = {"--bootstrap-server", brokers};
        String[] of = with(base, "--group", group);
        runWith("a\nb\nc\n", "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", brokers, "--topic", topic);
        AtomicBoolean stop = new AtomicBoolean();
        Thread member = new Thread(() -> consume(topic, group, stop), "member");
        member.start();
        try {
            eventually(() -> expect(run(GROUPS, with(of, "--describe", "--state")), "\\bStable\\b"));
            expect(run(GROUPS, with(of, "--describe", "--state")), "^" + group + "\\s+127.0.0.1:\\d+\\s+\\(\\d+\\)\\s+range\\s+Stable\\s+1\\s*$");
            expect(run(GROUPS, with(base, "--list")), "^" + group + "$");
            expect(run(GROUPS, with(base, "--list", "--state")), "^" + group + "\\s+.*Stable\\s*$");
            eventually(() -> {
                String out = run(GROUPS, with(of, "--describe"));
                long ends = 0;
                for (String line : out.lines().filter(l -> l.startsWith(group)).toList()) {
                    String[] cells = line.trim().split("\\s+"); // GROUP TOPIC PARTITION CURRENT LOG-END LAG CONSUMER HOST CLIENT
                    expect(cells.length == 9 && cells[1].equals(topic) && cells[6].startsWith("described-") && cells[7].equals("/127.0.0.1") && cells[8].equals("described"), "line " + line);
                    expect(cells[3].equals(cells[4]) && cells[5].equals("0"), "line " + line);
                    ends += Long.parseLong(cells[4]);
                }
                expect(ends == 3, "log ends add up to " + ends + " in " + out);
            });
            expect(run(GROUPS, with(of, "--describe", "--members", "--verbose")), "described-\\S+\\s+/127.0.0.1\\s+described\\s+2\\s+.*" + topic + "[:(]0,\\s*1");
        } finally {
            stop.set(true);
            member.join();
        }
        eventually(() -> expect(run(GROUPS, with(of, "--describe", "--state")), "\\bEmpty\\b"));
        String reset = run(GROUPS, with(of, "--reset-offsets", "--to-earliest", "--topic", topic, "--execute"));
        expect(reset, "^" + group + "\\s+" + topic + "\\s+0\\s+0\\s*$", "^" + group + "\\s+" + topic + "\\s+1\\s+0\\s*$");
        expect(run(GROUPS, with(of, "--describe")), topic + "\\s+0\\s+0\\s+\\d+\\s+\\d+\\s+-\\s+-\\s+-");
        expect(run(GROUPS, with(of, "--reset-offsets", "--to-latest", "--topic", topic + ":0", "--dry-run")), topic + "\\s+0\\s+\\d+");
        expect(run(GROUPS, with(of, "--delete-offsets", "--topic", topic + ":1")), topic + "\\s+1\\s+Successful");
        String left = run(GROUPS, with(of, "--describe"));
        expect(left, topic + "\\s+0\\s+0\\s");
        expect(left.lines().noneMatch(l -> l.matches(group + "\\s+" + topic + "\\s+1\\s.*")), "offsets of partition 1 are still there: " + left);
        expect(run(GROUPS, with(of, "--delete")), "Deletion of requested consumer groups \\('" + group + "'\\) was successful");
        expect(run(GROUPS, with(base, "--list")).lines().noneMatch(group::equals), "the group is still listed");
    }

    private void consume(String topic, String group, AtomicBoolean stop) {
        Map<String, Object> settings = Map.of("bootstrap.servers", brokers, "group.id", group, "client.id", "described", "auto.offset.reset", "earliest",
            "enable.auto.commit", "true", "auto.commit.interval.ms", "100");
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (!stop.get()) {
                consumer.poll(Duration.ofMillis(100));
            }
        }
    }

    private String verifiable;

    private void verifiableProducer() throws Exception {
        verifiable = create("verifiable", 2);
        // It flushes in a hook of the JVM's end, so it gets a JVM of its own.
        String out = fork("org.apache.kafka.tools.VerifiableProducer", "--bootstrap-server", brokers, "--topic", verifiable, "--max-messages", "200", "--acks", "-1");
        expect(out.lines().filter(l -> l.contains("\"producer_send_success\"")).count() == 200, "not 200 times producer_send_success: " + out);
        var places = out.lines().filter(l -> l.contains("\"producer_send_success\"")).map(l -> l.replaceAll(".*\"partition\":(\\d+).*", "$1") + "/" + l.replaceAll(".*\"offset\":(\\d+).*", "$1"))
            .collect(Collectors.toCollection(TreeSet::new));
        expect(places.size() == 200, places.size() + " different offsets");
        expect(out, "\"sent\":200", "\"acked\":200");
    }

    private void verifiableConsumer() throws Exception {
        String out = run("org.apache.kafka.tools.VerifiableConsumer", "--bootstrap-server", brokers, "--topic", verifiable, "--group-id", prefix + "verifiable-group",
            "--max-messages", "200", "--reset-policy", "earliest", "--verbose");
        expect(out.lines().filter(l -> l.contains("\"name\":\"record_data\"")).count() == 200, "not 200 times record_data in " + out);
        expect(out, "\"name\":\"partitions_assigned\"", "\"name\":\"offsets_committed\".*\"success\":true", "\"name\":\"shutdown_complete\"");
    }

    private void producerPerformance() throws Exception {
        String topic = create("perf", 3);
        String out = run("org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", "20000", "--record-size", "200", "--throughput", "-1",
            "--producer-props", "bootstrap.servers=" + brokers, "acks=all");
        expect(out, "20000 records sent, .* records/sec");
        String ends = run("org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", brokers, "--topic", topic);
        long sum = ends.lines().filter(l -> l.startsWith(topic)).mapToLong(l -> Long.parseLong(l.substring(l.lastIndexOf(':') + 1))).sum();
        expect(sum == 20000, "ends add up to " + sum);
    }

    private void deleteRecords() throws Exception {
        Path json = Files.createTempFile("delete-records", ".json");
        try {
            Files.writeString(json, "{\"version\":1,\"partitions\":[{\"topic\":\"" + lines + "\",\"partition\":0,\"offset\":30}]}");
            expect(run("org.apache.kafka.tools.DeleteRecordsCommand", "--bootstrap-server", brokers, "--offset-json-file", json.toString()), "partition: " + lines + "-0\\s+low_watermark: 30");
        } finally {
            Files.delete(json);
        }
        expect(run("org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", brokers, "--topic", lines, "--time", "-2"), "^" + lines + ":0:30$");
        expectConsole(run(CONSUMER, with(FORMAT, "--bootstrap-server", brokers, "--topic", lines, "--from-beginning", "--max-messages", "70", "--timeout-ms", "30000")), 30, 100);
    }

    private void logDirs() throws Exception {
        String out = run("org.apache.kafka.tools.LogDirsCommand", "--bootstrap-server", brokers, "--describe", "--topic-list", lines);
        expect(out, "\"partition\":\"" + lines + "-0\"", "\"size\":[1-9]", "\"error\":null");
        expect(out.split("\"partition\":\"" + lines + "-0\"", -1).length - 1 == Math.min(3, brokerCount), "replicas in " + out);
    }

    private void brokerApiVersions() throws Exception {
        String out = run("org.apache.kafka.tools.BrokerApiVersionsCommand", "--bootstrap-server", brokers);
        expect(out.lines().filter(l -> l.matches("\\S+:\\d+ \\(id: \\d+ rack: .*\\) -> \\(")).count() == brokerCount, "not " + brokerCount + " brokers in " + out);
        expect(out, "Produce\\(0\\): 0 to 13 \\[usable: 13\\]", "Fetch\\(1\\): 4 to 18 \\[usable: 18\\]", "ApiVersions\\(18\\): 0 to 4 \\[usable: 4\\]", "Metadata\\(3\\): 0 to 13 \\[usable: 13\\]");
        expect(!out.contains("ERROR"), "an error in " + out);
    }

    private void clientCompatibility() throws Exception {
        String topic = create("compatibility", 1);
        boolean acls = !run("org.apache.kafka.tools.BrokerApiVersionsCommand", "--bootstrap-server", brokers).contains("DescribeAcls(29): UNSUPPORTED");
        String out = run("org.apache.kafka.tools.ClientCompatibilityTest", "--bootstrap-server", brokers, "--topic", topic, "--offsets-for-times-supported", "true",
            "--cluster-id-supported", "true", "--expect-record-too-large-exception", "false", "--num-cluster-nodes", "" + brokerCount, "--create-topics-supported", "true",
            "--describe-acls-supported", "" + acls, "--describe-configs-supported", "true", "--idempotent-producer-supported", "true");
        expect(out, "SUCCESS");
        run(TOPICS, "--bootstrap-server", brokers, "--delete", "--topic", "newtopic"); // which it made, by that name
    }
}
