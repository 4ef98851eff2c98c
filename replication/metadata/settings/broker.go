package settings

import (
	"fmt"
	"net/netip"
)

// replicationDefault is how many replicas a topic gets when nobody says:
// enough to lose one broker, and no more than there are brokers.
const replicationDefault = 3

// maxReplicas is metadata.MaxReplicas, whose test holds this to it.
const maxReplicas = 15

// brokerSettings are the settings of a node under Kafka's names: those that do
// something here and those that give a topic's setting its default.
//
// Settings a topic takes its default from may be changed at run time for the
// whole cluster or, as in Kafka, for one broker, whose replicas then differ from
// the others: it deletes segments of its own at other times, and where it leads
// it takes batches of another size or stores them with another codec.
var brokerSettings = sorted([]*Definition{
	// The node.
	{Name: "node.id", Type: Int, Default: "-1", ReadOnly: true, PerNode: true, Doc: "Number of this node, 1 or more; -1 lets the cluster give one."},
	{Name: "broker.id", Type: Int, Default: "-1", ReadOnly: true, PerNode: true, Doc: "The same as node.id."},
	{Name: "broker.rack", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "Rack or zone of this node: replicas of a partition are put in different ones."},
	{Name: "listeners", Type: List, Default: "PLAINTEXT://:9092", ReadOnly: true, PerNode: true, Doc: "Addresses this node listens on, NAME://HOST:PORT,…; other nodes and clients come in by any of them."},
	{Name: "advertised.listeners", Type: List, Null: true, ReadOnly: true, PerNode: true, Doc: "Addresses clients are told, by the listener they came in by; without one, where their connection arrived."},
	{Name: "listener.security.protocol.map", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "What clients of a listener have to do, NAME:PROTOCOL,…: PLAINTEXT nothing, SSL speak TLS, SASL_PLAINTEXT log in, SASL_SSL both. A listener that is not named is open to this machine until the cluster has a user, and asks for a log-in from then on."},
	{Name: "inter.broker.listener.name", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "Listener at which other nodes reach this one; without it, PLAINTEXT or else the first."},
	{Name: "controller.listener.names", Type: List, Null: true, ReadOnly: true, PerNode: true, Doc: "Listeners for nodes alone. Every node takes part in the controller group as it is needed."},
	{Name: "controller.quorum.bootstrap.servers", Type: List, Null: true, ReadOnly: true, PerNode: true, Doc: "Nodes to join; of a list that has this node itself the first founds the cluster and the others join it."},
	{Name: "controller.quorum.voters", Type: List, Null: true, ReadOnly: true, PerNode: true, Doc: "The same, as ID@HOST:PORT,…; the lowest id founds the cluster."},
	{Name: "process.roles", Type: List, Null: true, ReadOnly: true, PerNode: true, Doc: "broker or broker,controller, which are the same: every node is both."},
	{Name: "log.dir", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "Folder that holds this node's data."},
	{Name: "log.dirs", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "The same as log.dir; one folder."},

	// Topics.
	{Name: "auto.create.topics.enable", Type: Boolean, Default: "true", Doc: "Create a topic when a client asks for one that does not exist and allows it."},
	{Name: "delete.topic.enable", Type: Boolean, Default: "true", Doc: "Allow topics to be deleted."},
	{Name: "num.partitions", Type: Int, Default: "1", valid: atLeast(1), Doc: "Partitions of a topic when nobody says how many."},
	{Name: "default.replication.factor", Type: Int, Default: "-1", valid: replicationFactor, Doc: "Replicas of a partition when nobody says how many; -1 is three, or as many as there are brokers, growing with them."},
	{Name: "auto.leader.rebalance.enable", Type: Boolean, Default: "true", Doc: "Keep leaders spread over the brokers."},
	{Name: "controlled.shutdown.enable", Type: Boolean, Default: "true", ReadOnly: true, PerNode: true, Doc: "Hand leadership over before stopping."},

	// Connections.
	{Name: "socket.request.max.bytes", Type: Int, Default: "104857600", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "Largest request."},
	{Name: "connections.max.idle.ms", Type: Long, Default: "600000", ReadOnly: true, PerNode: true, Doc: "Time after which a connection without requests is closed; negative is never."},
	{Name: "max.connections", Type: Int, Default: maxInt, valid: atLeast(0), PerNode: true, Doc: "Connections at one time: no more than 50,000, and than there are file descriptors for beside those of the logs."},
	{Name: "max.connections.per.ip", Type: Int, Default: maxInt, valid: atLeast(0), PerNode: true, Doc: "Connections at one time from one address."},
	{Name: "max.connections.per.ip.overrides", Type: String, Default: "", valid: ipOverrides, PerNode: true, Doc: "Addresses for which another number holds: 10.0.0.1:200,[::1]:100. Names of hosts are not looked up."},
	{Name: "max.connection.creation.rate", Type: Int, Default: maxInt, valid: atLeast(0), PerNode: true, Doc: "New connections in a second, of all addresses together. Who comes faster is closed; one address's rate is its quota connection_creation_rate."},
	// TLS, each also for one listener: listener.name.NAME.ssl.….
	{Name: "ssl.keystore.type", Type: String, Default: "PEM", valid: oneOf("PEM"), ReadOnly: true, PerNode: true, Doc: "Accepted without effect: keys and certificates are read as PEM, which openssl makes of Java's stores."},
	{Name: "ssl.keystore.location", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "File of the certificate that clients are shown, of those behind it, and of its key. It is read again when it changes."},
	{Name: "ssl.keystore.certificate.chain", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "The certificate that clients are shown, in the place of a file."},
	{Name: "ssl.keystore.key", Type: Password, Null: true, ReadOnly: true, PerNode: true, Doc: "Its key."},
	{Name: "ssl.truststore.type", Type: String, Default: "PEM", valid: oneOf("PEM"), ReadOnly: true, PerNode: true, Doc: "Accepted without effect: the authorities of clients' certificates are read as PEM."},
	{Name: "ssl.truststore.location", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "File of the authorities that clients' certificates are to be of. It is read again when it changes."},
	{Name: "ssl.truststore.certificates", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "Those authorities, in the place of a file."},
	{Name: "ssl.client.auth", Type: String, Default: "none", valid: oneOf("none", "requested", "required"), ReadOnly: true, PerNode: true, Doc: "Whether clients show a certificate, by which they are who its subject says."},
	{Name: "ssl.enabled.protocols", Type: List, Default: "TLSv1.2,TLSv1.3", valid: eachOneOf("TLSv1.2", "TLSv1.3"), ReadOnly: true, PerNode: true, Doc: "Versions of TLS that clients may speak."},
	{Name: "ssl.cipher.suites", Type: List, Default: "", ReadOnly: true, PerNode: true, Doc: "What TLS 1.2 may encrypt by, of what Go holds to be safe; empty is all of it. TLS 1.3 chooses for itself."},
	{Name: "ssl.principal.mapping.rules", Type: String, Default: "DEFAULT", ReadOnly: true, PerNode: true, Doc: "How a certificate's subject becomes a principal: DEFAULT, or RULE:PATTERN/REPLACEMENT/[LU],…; patterns are RE2's."},

	// Logging in.
	{Name: "sasl.enabled.mechanisms", Type: List, Default: "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN,OAUTHBEARER", valid: eachOneOf("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN", "OAUTHBEARER"), PerNode: true, Doc: "Mechanisms that clients may log in by. Those with a password are offered once the cluster has a user, PLAIN only where nobody else reads it, and OAUTHBEARER where sasl.oauthbearer.jwks.endpoint.url is set."},
	{Name: "delegation.token.max.lifetime.ms", Type: Long, Default: "604800000", valid: atLeast(1), Doc: "For how long a delegation token can be renewed, at most."},
	{Name: "delegation.token.expiry.time.ms", Type: Long, Default: "86400000", valid: atLeast(1), Doc: "For how long a delegation token holds without being renewed."},
	{Name: "delegation.token.secret.key", Type: Password, Null: true, ReadOnly: true, Doc: "Accepted without effect: what proves a token is drawn at random and kept with it, so there is no key to be the same on all brokers."},
	{Name: "connections.max.reauth.ms", Type: Long, Default: "0", valid: atLeast(0), PerNode: true, Doc: "Time after which a client has to log in again, or its connection is closed; 0 is never, unless its token ends."},
	{Name: "connection.failed.authentication.delay.ms", Type: Int, Default: "100", valid: between(0, 60_000), PerNode: true, Doc: "Time until a client is told that its log-in failed."},
	{Name: "sasl.oauthbearer.jwks.endpoint.url", Type: String, Null: true, valid: keySet, ReadOnly: true, PerNode: true, Doc: "Where the public keys of the issuer of tokens are: a file:, http: or https: URL of a JSON Web Key Set."},
	{Name: "sasl.oauthbearer.jwks.endpoint.refresh.ms", Type: Long, Default: "3600000", valid: atLeast(1000), ReadOnly: true, PerNode: true, Doc: "Time after which those keys are read again."},
	{Name: "sasl.oauthbearer.expected.issuer", Type: String, Null: true, ReadOnly: true, PerNode: true, Doc: "Issuer (iss) that tokens must have."},
	{Name: "sasl.oauthbearer.expected.audience", Type: List, Null: true, ReadOnly: true, PerNode: true, Doc: "Audiences (aud) of which tokens must name one."},
	{Name: "sasl.oauthbearer.clock.skew.seconds", Type: Int, Default: "30", valid: between(0, 3600), ReadOnly: true, PerNode: true, Doc: "How far the issuer's clock and this one may be apart."},
	{Name: "sasl.oauthbearer.sub.claim.name", Type: String, Default: "sub", ReadOnly: true, PerNode: true, Doc: "Claim of a token that names the user."},
	{Name: "fetch.max.bytes", Type: Int, Default: "57671680", valid: atLeast(1024), PerNode: true, Doc: "Most bytes a fetch returns, save that one batch always fits."},
	{Name: "max.incremental.fetch.session.cache.slots", Type: Int, Default: "1000", valid: atLeast(0), ReadOnly: true, PerNode: true, Doc: "Fetch sessions kept at one time."},

	// Quotas.
	{Name: "quota.window.size.seconds", Type: Int, Default: "1", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "Window over which clients are held to their quotas: half of it is what one may use at once."},
	{Name: "controller.quota.window.size.seconds", Type: Int, Default: "1", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "The same for partitions that are created and deleted."},
	{Name: "controller.quota.window.num", Type: Int, Default: "11", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "How many such windows may be used at once."},

	// Access.
	{Name: "super.users", Type: String, Default: "", valid: principals, Doc: "Principals that may do everything, whatever is allowed or denied: User:alice;User:bob."},
	{Name: "allow.everyone.if.no.acl.found", Type: Boolean, Default: "false", Doc: "Let everybody do everything with resources that nothing is allowed or denied for."},
	{Name: "authorizer.class.name", Type: String, Default: "", valid: authorizers, ReadOnly: true, PerNode: true, Doc: "Decide who may do what even while the cluster has no users. Kafka's authorizers are taken for this node's own."},

	{Name: "millrace.audit.log.path", Type: String, Default: "", ReadOnly: true, PerNode: true, Doc: "File that who was kept out and who changed what is written to, as lines of JSON; empty: this goes to the logger millrace.server.audit."},

	// Groups.
	// Kafka's own default is 3,000 and its shipped configuration says 0.
	{Name: "group.initial.rebalance.delay.ms", Type: Int, Default: "0", valid: atLeast(0), ReadOnly: true, Doc: "Time a new group waits for further members before its first rebalance."},
	{Name: "group.min.session.timeout.ms", Type: Int, Default: "6000", valid: atLeast(1), ReadOnly: true, Doc: "Shortest session timeout a member may ask for."},
	{Name: "group.max.session.timeout.ms", Type: Int, Default: "1800000", valid: atLeast(1), ReadOnly: true, Doc: "Longest session timeout a member may ask for."},
	{Name: "group.max.size", Type: Int, Default: maxInt, valid: atLeast(1), ReadOnly: true, Doc: "Members a group may have."},
	{Name: "group.coordinator.rebalance.protocols", Type: List, Default: "classic,consumer", valid: eachOneOf("classic", "consumer"), ReadOnly: true, Doc: "Group protocols that are served."},
	{Name: "group.consumer.session.timeout.ms", Type: Int, Default: "45000", valid: atLeast(1), ReadOnly: true, Doc: "Session timeout of members of a consumer group (KIP-848)."},
	{Name: "group.consumer.min.session.timeout.ms", Type: Int, Default: "45000", valid: atLeast(1), ReadOnly: true, Doc: "Shortest session timeout that may be set for a consumer group."},
	{Name: "group.consumer.max.session.timeout.ms", Type: Int, Default: "60000", valid: atLeast(1), ReadOnly: true, Doc: "Longest session timeout that may be set for a consumer group."},
	{Name: "group.consumer.heartbeat.interval.ms", Type: Int, Default: "5000", valid: atLeast(1), ReadOnly: true, Doc: "Time between heartbeats of members of a consumer group."},
	{Name: "group.consumer.min.heartbeat.interval.ms", Type: Int, Default: "5000", valid: atLeast(1), ReadOnly: true, Doc: "Shortest heartbeat interval that may be set for a consumer group."},
	{Name: "group.consumer.max.heartbeat.interval.ms", Type: Int, Default: "15000", valid: atLeast(1), ReadOnly: true, Doc: "Longest heartbeat interval that may be set for a consumer group."},
	{Name: "group.consumer.max.size", Type: Int, Default: maxInt, valid: atLeast(1), ReadOnly: true, Doc: "Members a consumer group may have."},
	{Name: "group.consumer.assignors", Type: List, Default: "uniform,range", valid: eachOneOf("uniform", "range"), ReadOnly: true, Doc: "Assignors on the server's side, the default first."},
	{Name: "group.consumer.migration.policy", Type: String, Default: "bidirectional", valid: oneOf("disabled", "downgrade", "upgrade", "bidirectional"), ReadOnly: true, Doc: "Whether a group may change between the classic and the consumer protocol while it runs."},
	{Name: "offsets.retention.minutes", Type: Int, Default: "10080", valid: atLeast(1), ReadOnly: true, Doc: "Time committed offsets are kept after their group became empty."},
	{Name: "offsets.retention.check.interval.ms", Type: Long, Default: "600000", valid: atLeast(1), ReadOnly: true, Doc: "Time between searches for offsets that have expired."},
	{Name: "offset.metadata.max.bytes", Type: Int, Default: "4096", ReadOnly: true, Doc: "Largest metadata string committed with an offset."},
	{Name: "offsets.topic.num.partitions", Type: Int, Default: "50", valid: atLeast(1), ReadOnly: true, Doc: "Partitions of the topic that holds committed offsets."},
	{Name: "offsets.topic.replication.factor", Type: Short, Default: "3", valid: replicationFactor, ReadOnly: true, Doc: "Replicas of that topic's partitions; with fewer brokers, as many as there are, growing with them."},
	{Name: "group.consumer.regex.refresh.interval.ms", Type: Int, Default: "600000", valid: atLeast(10_000), ReadOnly: true, Doc: "Time between searches for new topics that a consumer group's regular expression matches."},
	{Name: "group.coordinator.append.linger.ms", Type: Int, Default: "5", valid: atLeast(0), ReadOnly: true, Doc: "Accepted without effect: what waits for a coordinator's partition is written together."},
	{Name: "group.coordinator.threads", Type: Int, Default: "4", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "Accepted without effect: each group's requests run on those of its members."},
	{Name: "offsets.commit.timeout.ms", Type: Int, Default: "5000", valid: atLeast(1), ReadOnly: true, Doc: "Time a commit waits for the quorum."},
	{Name: "offsets.load.buffer.size", Type: Int, Default: "5242880", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "Accepted without effect: offsets are loaded as the log is read."},
	{Name: "offsets.topic.compression.codec", Type: Int, Default: "0", valid: between(0, 4), ReadOnly: true, Doc: "Codec of committed offsets: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."},
	{Name: "offsets.topic.segment.bytes", Type: Int, Default: "104857600", valid: atLeast(1), ReadOnly: true, Doc: "Segment size of that topic."},

	// Transactions and producers.
	{Name: "transaction.max.timeout.ms", Type: Int, Default: "900000", valid: atLeast(1), ReadOnly: true, Doc: noTransactions},
	{Name: "transactional.id.expiration.ms", Type: Int, Default: "604800000", valid: atLeast(1), ReadOnly: true, Doc: noTransactions},
	{Name: "transaction.state.log.num.partitions", Type: Int, Default: "50", valid: atLeast(1), ReadOnly: true, Doc: "Partitions of the topic that holds transactions."},
	{Name: "transaction.state.log.replication.factor", Type: Short, Default: "3", valid: replicationFactor, ReadOnly: true, Doc: "Replicas of that topic's partitions; with fewer brokers, as many as there are, growing with them."},
	{Name: "transaction.state.log.min.isr", Type: Int, Default: "2", valid: atLeast(1), ReadOnly: true, Doc: "Accepted without effect: a majority of the replicas acknowledges."},
	{Name: "transaction.state.log.segment.bytes", Type: Int, Default: "104857600", valid: atLeast(1), ReadOnly: true, Doc: "Segment size of that topic."},
	{Name: "producer.id.expiration.ms", Type: Int, Default: "86400000", valid: atLeast(1), PerNode: true, Doc: "Time after which a partition forgets an idle producer's sequence numbers."},

	// Cleaning.
	{Name: "log.retention.check.interval.ms", Type: Long, Default: "300000", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "Time between searches for segments to delete."},
	{Name: "log.cleaner.enable", Type: Boolean, Default: "true", ReadOnly: true, PerNode: true, Doc: "Compact logs."},
	{Name: "log.cleaner.threads", Type: Int, Default: "1", valid: atLeast(0), PerNode: true, Doc: "Accepted without effect: a node compacts one log at a time."},
	{Name: "log.cleaner.backoff.ms", Type: Long, Default: "15000", valid: atLeast(0), PerNode: true, Doc: "Pause when there is nothing to compact."},
	{Name: "log.cleaner.dedupe.buffer.size", Type: Long, Default: "134217728", PerNode: true, Doc: "Bytes of memory for the keys seen while compacting."},
	{Name: "log.cleaner.io.buffer.load.factor", Type: Double, Default: "0.9", PerNode: true, Doc: "Accepted without effect: all of the memory for keys is used, which is what log.cleaner.dedupe.buffer.size bounds."},
	{Name: "log.cleaner.io.buffer.size", Type: Int, Default: "524288", valid: atLeast(0), PerNode: true, Doc: "Accepted without effect: compaction reads batch by batch."},
	{Name: "log.cleaner.io.max.bytes.per.second", Type: Double, Default: "1.7976931348623157E308", PerNode: true, Doc: "Bytes a second compaction reads and writes at most."},

	// Defaults of topics' settings. What a value means is said there.
	{Name: "log.cleanup.policy", Type: List, Default: "delete", valid: eachOneOf("compact", "delete"), PerNode: true, Doc: topicsDefault("cleanup.policy")},
	{Name: "compression.type", Type: String, Default: "producer", valid: oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"), PerNode: true, Doc: topicsDefault("compression.type")},
	{Name: "compression.gzip.level", Type: Int, Default: "-1", valid: gzipLevel, PerNode: true, Doc: topicsDefault("compression.gzip.level")},
	{Name: "compression.lz4.level", Type: Int, Default: "9", valid: between(1, 17), PerNode: true, Doc: topicsDefault("compression.lz4.level")},
	{Name: "compression.zstd.level", Type: Int, Default: "3", valid: between(-131072, 22), PerNode: true, Doc: topicsDefault("compression.zstd.level")},
	{Name: "log.cleaner.delete.retention.ms", Type: Long, Default: "86400000", valid: atLeast(0), PerNode: true, Doc: topicsDefault("delete.retention.ms")},
	{Name: "log.segment.delete.delay.ms", Type: Long, Default: "60000", valid: atLeast(0), PerNode: true, Doc: topicsDefault("file.delete.delay.ms")},
	{Name: "log.flush.interval.messages", Type: Long, Default: "1", valid: atLeast(1), PerNode: true, Doc: topicsDefault("flush.messages")},
	{Name: "log.flush.interval.ms", Type: Long, Null: true, valid: atLeast(0), PerNode: true, Doc: topicsDefault("flush.ms")},
	{Name: "log.flush.scheduler.interval.ms", Type: Long, Default: maxLong, valid: atLeast(0), ReadOnly: true, PerNode: true, Doc: "Default of flush.ms where log.flush.interval.ms is not set."},
	{Name: "log.index.interval.bytes", Type: Int, Default: "4096", valid: atLeast(0), PerNode: true, Doc: topicsDefault("index.interval.bytes")},
	{Name: "log.index.size.max.bytes", Type: Int, Default: "10485760", valid: atLeast(4), PerNode: true, Doc: topicsDefault("segment.index.bytes")},
	{Name: "log.local.retention.bytes", Type: Long, Default: "-2", valid: atLeast(-2), PerNode: true, Doc: topicsDefault("local.retention.bytes")},
	{Name: "log.local.retention.ms", Type: Long, Default: "-2", valid: atLeast(-2), PerNode: true, Doc: topicsDefault("local.retention.ms")},
	{Name: "log.cleaner.max.compaction.lag.ms", Type: Long, Default: maxLong, valid: atLeast(1), PerNode: true, Doc: topicsDefault("max.compaction.lag.ms")},
	{Name: "log.cleaner.min.compaction.lag.ms", Type: Long, Default: "0", valid: atLeast(0), PerNode: true, Doc: topicsDefault("min.compaction.lag.ms")},
	{Name: "log.cleaner.min.cleanable.ratio", Type: Double, Default: "0.5", valid: between(0, 1), PerNode: true, Doc: topicsDefault("min.cleanable.dirty.ratio")},
	{Name: "message.max.bytes", Type: Int, Default: "1048588", valid: atLeast(0), PerNode: true, Doc: topicsDefault("max.message.bytes")},
	{Name: "log.message.timestamp.after.max.ms", Type: Long, Default: "3600000", valid: atLeast(0), PerNode: true, Doc: topicsDefault("message.timestamp.after.max.ms")},
	{Name: "log.message.timestamp.before.max.ms", Type: Long, Default: maxLong, valid: atLeast(0), PerNode: true, Doc: topicsDefault("message.timestamp.before.max.ms")},
	{Name: "log.message.timestamp.type", Type: String, Default: "CreateTime", valid: oneOf("CreateTime", "LogAppendTime"), PerNode: true, Doc: topicsDefault("message.timestamp.type")},
	{Name: "min.insync.replicas", Type: Int, Default: "1", valid: atLeast(1), PerNode: true, Doc: topicsDefault("min.insync.replicas")},
	{Name: "log.preallocate", Type: Boolean, Default: "false", PerNode: true, Doc: topicsDefault("preallocate")},
	{Name: "log.retention.bytes", Type: Long, Default: "-1", PerNode: true, Doc: topicsDefault("retention.bytes")},
	{Name: "log.retention.ms", Type: Long, Null: true, valid: atLeast(-1), PerNode: true, Doc: topicsDefault("retention.ms")},
	{Name: "log.retention.minutes", Type: Int, Null: true, ReadOnly: true, PerNode: true, Doc: "The same in minutes, where log.retention.ms is not set."},
	{Name: "log.retention.hours", Type: Int, Default: "168", ReadOnly: true, PerNode: true, Doc: "The same in hours, where neither log.retention.ms nor log.retention.minutes is set."},
	{Name: "log.segment.bytes", Type: Int, Default: "1073741824", valid: atLeast(1 << 20), PerNode: true, Doc: topicsDefault("segment.bytes")},
	{Name: "log.roll.jitter.ms", Type: Long, Null: true, valid: atLeast(0), PerNode: true, Doc: topicsDefault("segment.jitter.ms")},
	{Name: "log.roll.jitter.hours", Type: Int, Default: "0", valid: atLeast(0), ReadOnly: true, PerNode: true, Doc: "The same in hours, where log.roll.jitter.ms is not set."},
	{Name: "log.roll.ms", Type: Long, Null: true, valid: atLeast(1), PerNode: true, Doc: topicsDefault("segment.ms")},
	{Name: "log.roll.hours", Type: Int, Default: "168", valid: atLeast(1), ReadOnly: true, PerNode: true, Doc: "The same in hours, where log.roll.ms is not set."},
	{Name: "unclean.leader.election.enable", Type: Boolean, Default: "false", PerNode: true, Doc: topicsDefault("unclean.leader.election.enable")},
})

const noTransactions = "Accepted without effect: there are no transactions."

func topicsDefault(name string) string { return "Default of a topic's " + name + "." }

var replicationFactor = rule{fmt.Sprintf("1 to %d, or -1", maxReplicas), func(value string) string {
	if value == "0" {
		return "Value must be at least 1, or -1 for the default"
	}
	return between(-1, maxReplicas).wrong(value)
}}

// A Broker is the settings of a node as numbers, each in force whatever its source, by
// what they are of: those that the server and the controller act on.
type Broker struct {
	Topics         Topics
	Leaders        Leaders
	Quotas         Quotas
	Access         Access
	Connections    Connections
	Login          Login
	Groups         Groups
	ConsumerGroups ConsumerGroups
	Offsets        Offsets
	Transactions   Transactions
	Logs           Logs
	Cleaner        Cleaner
}

// Topics is how topics come and go.
type Topics struct {
	AutoCreate bool
	MayDelete  bool
	Partitions int32
	// Replication is the factor a topic gets when nobody says; Grows says that
	// it is not a number somebody chose but as many as there are brokers, up to
	// three, so that the topic is created with Grow.
	Replication int
	Grows       bool
}

// Access is who may do what, beside what is allowed and denied in the cluster's metadata.
type Access struct {
	SuperUsers    string // User:a;User:b
	AllowEveryone bool   // to do what nothing is said about
	Authorizer    string // not "": access is controlled even without users
	AuditLog      string // path of a file; "": none
}

// Leaders is who leads partitions.
type Leaders struct {
	Rebalance          bool // auto.leader.rebalance.enable
	ControlledShutdown bool
}

// Connections is what clients may have and ask for.
type Connections struct {
	Max             int32
	MaxPerIP        int32
	PerIPOverrides  map[netip.Addr]int32 // in place of MaxPerIP
	MaxRate         int32                // new ones a second
	MaxIdleMillis   int64                // negative: never
	MaxRequestBytes int32
	MaxFetchBytes   int32
	FetchSessions   int32
}

// Login is how clients say who they are: sasl.*, delegation.token.* and connections.max.reauth.ms.
type Login struct {
	Mechanisms        []string
	MaxSessionMillis  int64 // 0: no bound
	FailedDelayMillis int32
	Tokens            Tokens

	DelegationMillis    int64 // a delegation token holds for so long without being renewed
	MaxDelegationMillis int64 // and with it
}

// Tokens is how tokens of OAUTHBEARER are checked, sasl.oauthbearer.*.
type Tokens struct {
	KeysURL           string // "": no tokens are taken
	KeysRefreshMillis int64
	Issuer            string
	Audience          []string
	SkewSeconds       int32
	Subject           string
}

// Groups is what holds for groups of either protocol, and for classic ones.
type Groups struct {
	Protocols                   []string
	InitialRebalanceDelayMillis int32
	MinSessionTimeoutMillis     int32
	MaxSessionTimeoutMillis     int32
	MaxSize                     int32
}

// ConsumerGroups is what holds for groups of the consumer protocol, group.consumer.* (KIP-848).
type ConsumerGroups struct {
	SessionTimeoutMillis       int32
	MinSessionTimeoutMillis    int32
	MaxSessionTimeoutMillis    int32
	HeartbeatIntervalMillis    int32
	MinHeartbeatIntervalMillis int32
	MaxHeartbeatIntervalMillis int32
	RegexRefreshMillis         int32
	MaxSize                    int32
	Assignors                  []string // the default first
	MigrationPolicy            string   // disabled, downgrade, upgrade or bidirectional
}

// Quotas is over how long clients are held to their quotas.
type Quotas struct {
	WindowSeconds         int32
	MutationWindowSeconds int32
	MutationWindows       int32
}

// Offsets is how committed offsets are kept, and the topic that has them.
type Offsets struct {
	RetentionMillis      int64
	RetentionCheckMillis int64
	MaxMetadataBytes     int32
	CommitTimeoutMillis  int32
	Codec                int8 // as a batch's attributes number it
	TopicPartitions      int32
	TopicReplication     int // -1: the default
	TopicSegmentBytes    int32
}

// Transactions is the topic that holds transactions.
type Transactions struct {
	TopicPartitions   int32
	TopicReplication  int // -1: the default
	TopicSegmentBytes int32
}

// Logs is what a node does with its logs besides what each topic says.
type Logs struct {
	RetentionCheckMillis     int64
	ProducerExpirationMillis int64
}

// Cleaner is how logs are compacted, log.cleaner.*.
type Cleaner struct {
	Enable         bool
	BackoffMillis  int64
	DedupeBytes    int64
	BytesPerSecond float64
}

// Broker resolves the settings of a node: what was set for the broker at run time, else
// for the cluster, else in the node's own settings, else the default.
func (l Layers) Broker() Broker {
	r := resolver{broker: true, layers: l}
	s := Broker{
		Topics: Topics{
			AutoCreate:  r.truth("auto.create.topics.enable"),
			MayDelete:   r.truth("delete.topic.enable"),
			Partitions:  r.bounded("num.partitions"),
			Replication: int(r.long("default.replication.factor")),
		},
		Leaders: Leaders{
			Rebalance:          r.truth("auto.leader.rebalance.enable"),
			ControlledShutdown: r.truth("controlled.shutdown.enable"),
		},
		Connections: Connections{
			Max:             r.bounded("max.connections"),
			MaxPerIP:        r.bounded("max.connections.per.ip"),
			PerIPOverrides:  overridesOf(r.text("max.connections.per.ip.overrides")),
			MaxRate:         r.bounded("max.connection.creation.rate"),
			MaxIdleMillis:   r.long("connections.max.idle.ms"),
			MaxRequestBytes: r.bounded("socket.request.max.bytes"),
			MaxFetchBytes:   r.bounded("fetch.max.bytes"),
			FetchSessions:   r.bounded("max.incremental.fetch.session.cache.slots"),
		},
		Quotas: Quotas{
			WindowSeconds:         r.bounded("quota.window.size.seconds"),
			MutationWindowSeconds: r.bounded("controller.quota.window.size.seconds"),
			MutationWindows:       r.bounded("controller.quota.window.num"),
		},
		Access: Access{
			SuperUsers:    r.text("super.users"),
			AllowEveryone: r.truth("allow.everyone.if.no.acl.found"),
			Authorizer:    r.text("authorizer.class.name"),
			AuditLog:      r.text("millrace.audit.log.path"),
		},
		Login: Login{
			Mechanisms:        r.list("sasl.enabled.mechanisms"),
			MaxSessionMillis:  r.long("connections.max.reauth.ms"),
			FailedDelayMillis: r.bounded("connection.failed.authentication.delay.ms"),

			DelegationMillis:    r.long("delegation.token.expiry.time.ms"),
			MaxDelegationMillis: r.long("delegation.token.max.lifetime.ms"),
			Tokens: Tokens{
				KeysURL:           r.text("sasl.oauthbearer.jwks.endpoint.url"),
				KeysRefreshMillis: r.long("sasl.oauthbearer.jwks.endpoint.refresh.ms"),
				Issuer:            r.text("sasl.oauthbearer.expected.issuer"),
				Audience:          r.list("sasl.oauthbearer.expected.audience"),
				SkewSeconds:       r.bounded("sasl.oauthbearer.clock.skew.seconds"),
				Subject:           r.text("sasl.oauthbearer.sub.claim.name"),
			},
		},
		Groups: Groups{
			Protocols:                   r.list("group.coordinator.rebalance.protocols"),
			InitialRebalanceDelayMillis: r.bounded("group.initial.rebalance.delay.ms"),
			MinSessionTimeoutMillis:     r.bounded("group.min.session.timeout.ms"),
			MaxSessionTimeoutMillis:     r.bounded("group.max.session.timeout.ms"),
			MaxSize:                     r.bounded("group.max.size"),
		},
		ConsumerGroups: ConsumerGroups{
			SessionTimeoutMillis:       r.bounded("group.consumer.session.timeout.ms"),
			MinSessionTimeoutMillis:    r.bounded("group.consumer.min.session.timeout.ms"),
			MaxSessionTimeoutMillis:    r.bounded("group.consumer.max.session.timeout.ms"),
			HeartbeatIntervalMillis:    r.bounded("group.consumer.heartbeat.interval.ms"),
			MinHeartbeatIntervalMillis: r.bounded("group.consumer.min.heartbeat.interval.ms"),
			MaxHeartbeatIntervalMillis: r.bounded("group.consumer.max.heartbeat.interval.ms"),
			RegexRefreshMillis:         r.bounded("group.consumer.regex.refresh.interval.ms"),
			MaxSize:                    r.bounded("group.consumer.max.size"),
			Assignors:                  r.list("group.consumer.assignors"),
			MigrationPolicy:            r.text("group.consumer.migration.policy"),
		},
		Offsets: Offsets{
			RetentionMillis:      r.long("offsets.retention.minutes") * minute,
			RetentionCheckMillis: r.long("offsets.retention.check.interval.ms"),
			MaxMetadataBytes:     r.bounded("offset.metadata.max.bytes"),
			CommitTimeoutMillis:  r.bounded("offsets.commit.timeout.ms"),
			Codec:                int8(r.long("offsets.topic.compression.codec")),
			TopicPartitions:      r.bounded("offsets.topic.num.partitions"),
			TopicReplication:     int(r.long("offsets.topic.replication.factor")),
			TopicSegmentBytes:    r.bounded("offsets.topic.segment.bytes"),
		},
		Transactions: Transactions{
			TopicPartitions:   r.bounded("transaction.state.log.num.partitions"),
			TopicReplication:  int(r.long("transaction.state.log.replication.factor")),
			TopicSegmentBytes: r.bounded("transaction.state.log.segment.bytes"),
		},
		Logs: Logs{
			RetentionCheckMillis:     r.long("log.retention.check.interval.ms"),
			ProducerExpirationMillis: r.long("producer.id.expiration.ms"),
		},
		Cleaner: Cleaner{
			Enable:         r.truth("log.cleaner.enable"),
			BackoffMillis:  r.long("log.cleaner.backoff.ms"),
			DedupeBytes:    r.long("log.cleaner.dedupe.buffer.size"),
			BytesPerSecond: r.float("log.cleaner.io.max.bytes.per.second"),
		},
	}
	if s.Topics.Replication < 1 {
		s.Topics.Replication = max(min(replicationDefault, l.Brokers), 1)
		s.Topics.Grows = true
	}
	return s
}
