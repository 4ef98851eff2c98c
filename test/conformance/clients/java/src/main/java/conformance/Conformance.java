package conformance;

import java.io.IOException;
import java.util.Map;
import java.util.TreeMap;

/**
 * The Java client against a cluster: each ability does what applications do and
 * compares what came back with what it sent. Arguments, and what the topic PREFIX
 * holds, are those of test/conformance/clients/README.md. {@link Matrix} is what the
 * README asks of every client; after it come checks that only this client does,
 * with topics and groups of their own.
 */
public final class Conformance {
    /** An Ability is one line of the matrix. It throws when the cluster did not do as Kafka does. */
    interface Ability {
        void check(Cluster cluster) throws Exception;
    }

    private static final Map<String, Ability[]> ABILITIES = new TreeMap<>();

    private static void ability(String name, Ability... steps) {
        ABILITIES.put(name, steps);
    }

    static {
        ability("produce-plain", Matrix::producePlain, Producing::plain);
        ability("produce-idempotent", Matrix::produceIdempotent, Producing::idempotent);
        for (String codec : new String[] {"gzip", "snappy", "lz4", "zstd"}) {
            ability("codec-" + codec, c -> Matrix.codec(c, codec), c -> Producing.compressed(c, codec));
        }
        ability("headers", Matrix::headers, Producing::headers);
        ability("nulls", Matrix::nulls, Producing::nulls);
        ability("large", Matrix::large, Producing::large);
        ability("consume-assign", Matrix::consumeAssign, Consuming::assign);
        ability("seek-by-time", Matrix::seekByTime, Consuming::seekByTime);
        ability("consume-subscribe", Matrix::consumeSubscribe, Groups::subscribe);
        ability("rebalance-three-members", Groups::rebalance);
        ability("member-killed", Groups::memberKilled);
        ability("commit-resume", Matrix::commitResume, Groups::commitResume);
        ability("roll-eager", c -> Groups.roll(c, "RangeAssignor"));
        ability("roll-cooperative", c -> Groups.roll(c, "CooperativeStickyAssignor"));
        ability("next-protocol", Matrix::nextProtocol, Groups::nextProtocol);
        ability("admin-create", Matrix::adminCreate, Administration::create);
        ability("admin-alter", Matrix::adminAlter, Administration::alter);
        ability("admin-describe", Matrix::adminDescribe, Administration::describe);
        ability("admin-delete", Matrix::adminDelete, Administration::delete);
        ability("delete-records", Matrix::deleteRecords, Administration::deleteRecords);
        ability("admin-groups", Matrix::adminGroups, Administration::groups);
        for (String way : new String[] {"plain", "scram-256", "scram-512", "token"}) {
            ability("login-" + way, Login::logIn);
            ability("login-" + way + "-tls", Login::logIn);
        }
        ability("login-certificate", Login::logIn);
    }

    public static void main(String[] args) throws IOException {
        if (args.length == 4 && args[1].equals("member")) {
            Groups.member(args[0], args[2], args[3]);
            return;
        }
        if (args.length != 3 || !ABILITIES.containsKey(args[1])) {
            System.err.println("usage: Conformance BROKERS ABILITY PREFIX, where ABILITY is one of " + ABILITIES.keySet());
            System.exit(2);
        }
        int status = 0;
        try (Cluster cluster = new Cluster(args[0], args[2])) {
            for (Ability step : ABILITIES.get(args[1])) {
                step.check(cluster);
            }
        } catch (Throwable e) {
            status = 1;
            e.printStackTrace();
        }
        System.exit(status); // not waiting for threads of clients left open by a failure
    }
}
