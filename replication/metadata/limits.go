package metadata

// Bounds of what the metadata may hold. They are rules of Apply and so part of
// the format: raising one is a new version of the changes it concerns.
const (
	// MaxTopicPartitions bounds one topic. A partition is a Raft group on each
	// of its replicas, and an idle group costs about 0.03 % of a core: 10,000
	// are three cores of a cluster doing nothing. It also keeps the change that
	// creates the topic near 300 KB, one entry of the controller's log.
	MaxTopicPartitions = 10_000

	// MaxReplicas bounds the members of a partition's group. The leader sends
	// every byte to every other member, and beyond seven members durability
	// gains nothing a disk would notice; twice that leaves room.
	MaxReplicas = 15

	// MaxBrokerReplicas bounds the replicas of the cluster to this many for
	// each broker, what is commonly advised for Kafka. A hosted group is
	// estimated at 100 KB with its goroutines, so this is 400 MB; idle, by the
	// number above, 1.4 cores.
	MaxBrokerReplicas = 4_000

	// MaxBrokers bounds the brokers. Every node keeps a connection to every
	// other and places replicas by looking at all of them.
	MaxBrokers = 1_000

	// MaxImageBytes bounds the encoded topics and settings. The image is the
	// controller group's snapshot, and a snapshot travels whole in one message
	// of at most 16 MiB; the rest of that is for brokers, 1 MiB at most, and
	// for the server ids partitions began with.
	MaxImageBytes = 12 << 20

	// MaxChangeBytes bounds an encoded change, which travels whole in one
	// request between nodes.
	MaxChangeBytes = 2 << 20

	// MaxConfigBytes bounds the names and values of one topic's or one broker's
	// settings. All of Kafka's with their defaults are 2 KB; lists of throttled
	// replicas are what grows.
	MaxConfigBytes = 64 << 10

	// MaxResources bounds the groups and subscriptions to clients' metrics that have
	// settings, and MaxResourceBytes those settings with their names, as Encode writes
	// them. Names are free, and what is set for one may take MaxConfigBytes, so without
	// both one client could fill the image, and no topic could be created any more.
	// 10,000 of them take 2 MiB as people set them.
	MaxResources     = 10_000
	MaxResourceBytes = 3 << 20

	// MaxUsers bounds the users, and MaxUserBytes them as Encode writes them: one with both
	// of SCRAM's mechanisms takes about 500 bytes.
	MaxUsers     = 10_000
	MaxUserBytes = 4 << 20

	// MaxACLs bounds the entries that say who may do what, and MaxACLBytes them as Encode
	// writes them. Kafka has no bound, and clusters of tens of thousands are known. A node
	// keeps some 20 MB for 100,000, and a change copies a table of 7 MB.
	MaxACLs     = 100_000
	MaxACLBytes = 8 << 20

	// MaxQuotas bounds the entities that have a quota, and MaxQuotaBytes them as Encode writes them.
	MaxQuotas     = 10_000
	MaxQuotaBytes = 2 << 20

	// MaxDelegationTokens bounds the delegation tokens, and MaxDelegationTokenBytes them as
	// Encode writes them: who may log in may ask for one.
	MaxDelegationTokens     = 10_000
	MaxDelegationTokenBytes = 3 << 20

	// MaxAuthorities bounds the cluster's authorities: one, and while it is changed two.
	// MaxJoinTokens bounds the join tokens that have not expired.
	MaxAuthorities = 4
	MaxJoinTokens  = 100

	// MaxBlock bounds a block of producer ids. Kafka hands out 1,000 at a time;
	// this is enough for any rate and leaves 2⁴³ blocks.
	MaxBlock = 1_000_000

	// maxText bounds a broker's host and rack, a cluster id and the name of a setting.
	maxText = 255

	// maxListeners bounds the names and addresses a broker registers for clients.
	maxListeners = 4 << 10

	// maxSalt bounds the salt of a credential, maxACLName the resource and the principal of
	// an ACL and the names in a quota, and maxQuotaKeys a quota's values, of which there are
	// five kinds today.
	maxSalt      = 256
	maxACLName   = 1 << 10
	maxQuotaKeys = 16

	// maxTokenID bounds the id of a token, maxHash a HMAC or the hash of a secret,
	// maxRenewers the renewers of one delegation token, and maxPEM a certificate or key.
	maxTokenID  = 64
	maxHash     = 64
	maxRenewers = 100
	maxPEM      = 16 << 10

	// maxIncarnation bounds an incarnation, which is repeated wherever a server id is.
	maxIncarnation = 64
)
