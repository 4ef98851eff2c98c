// Package kafka is the Kafka client that commands have: franz-go's, set up in one place.
//
// newClient (client.go) makes every client of the program, whoever asks for one: Dial and
// DialBrokers, which have it wait for a cluster and outlive the deaths of brokers, and Sole,
// which asks one broker, once. Which brokers is said by the flags of Flags, which every client
// command has, and read by BrokersNamed. How a cluster is reached, and as whom,
// (access.go, contexts.go) travels in the context of a command, from where newClient takes it,
// and no command knows of it. Two open connections
// besides: `doctor`, which looks at how each one begins, and `bench consume --raw`, which
// measures brokers without a client.
//
// Around that: what brokers say, in our words (errors.go); questions asked again while an
// election goes on (settle.go); the part of a topic that is meant, in rpk's grammar
// (offsets.go), and its records (records.go); topics and their settings (topic.go); the flags
// of who produces (produce.go).
package kafka
