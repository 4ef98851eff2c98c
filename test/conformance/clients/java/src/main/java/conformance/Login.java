package conformance;

import static conformance.Cluster.expect;
import static conformance.Cluster.get;
import static conformance.Cluster.refused;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.common.errors.AuthenticationException;
import org.apache.kafka.common.errors.SaslAuthenticationException;
import org.apache.kafka.common.errors.SslAuthenticationException;

/** How the environment says to log in; see test/conformance/clients/README.md. */
final class Login {
    private static final String MODULES = "org.apache.kafka.common.security.";

    private Login() {}

    /** The settings of every client that log it in, or with "WRONG_" those with which it is refused. */
    static Map<String, String> settings(String wrong) throws IOException {
        Map<String, String> all = new HashMap<>();
        String mechanism = variable("MECHANISM");
        boolean tls = !variable("CA").isEmpty();
        all.put("security.protocol", (mechanism.isEmpty() ? "" : "SASL_") + (tls ? "SSL" : "PLAINTEXT"));
        if (tls) {
            all.put("ssl.truststore.type", "PEM");
            all.put("ssl.truststore.location", variable("CA"));
        }
        if (!variable("CERT").isEmpty()) {
            all.put("ssl.keystore.type", "PEM");
            all.put("ssl.keystore.certificate.chain", Files.readString(Path.of(variable(wrong + "CERT"))));
            all.put("ssl.keystore.key", Files.readString(Path.of(variable(wrong + "KEY"))));
        }
        if (mechanism.isEmpty()) {
            return all;
        }
        all.put("sasl.mechanism", mechanism);
        if (mechanism.equals("OAUTHBEARER")) {
            String token = Path.of(variable(wrong + "TOKEN")).toUri().toString();
            System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", token);
            System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.files", variable(wrong + "TOKEN"));
            all.put("sasl.oauthbearer.token.endpoint.url", token);
            all.put("sasl.login.callback.handler.class", MODULES + "oauthbearer.OAuthBearerLoginCallbackHandler");
            all.put("sasl.jaas.config", MODULES + "oauthbearer.OAuthBearerLoginModule required;");
            return all;
        }
        String module = mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule";
        all.put("sasl.jaas.config", MODULES + module + " required username=" + quoted(variable("USER")) + " password=" + quoted(variable(wrong + "PASSWORD")) + ";");
        return all;
    }

    private static String variable(String name) {
        String value = System.getenv("LOGIN_" + name);
        return value == null ? "" : value;
    }

    private static String quoted(String text) {
        return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"") + '"';
    }

    /** Is refused with what is wrong, and with what is right produces, reads it back in a group, and commits. */
    static void logIn(Cluster c) throws Exception {
        Class<? extends AuthenticationException> want = variable("MECHANISM").isEmpty() ? SslAuthenticationException.class : SaslAuthenticationException.class;
        try (Cluster wrong = new Cluster(c.brokers, c.topic, settings("WRONG_"))) {
            refused(want, "the wrong log-in", () -> get(wrong.admin.describeTopics(List.of(c.topic)).allTopicNames()));
        }
        Matrix.producePlain(c);
        try (var consumer = c.consumer("group.id", c.topic + "-group")) {
            consumer.subscribe(List.of(c.topic));
            for (var r : Consuming.take(consumer, Matrix.PRODUCED)) {
                expect(r.key() + " " + r.value(), "k" + (3 * r.offset() + r.partition()) + " v" + (3 * r.offset() + r.partition()), "record " + r.partition() + "/" + r.offset());
            }
            consumer.commitSync();
        }
    }
}
