package group

// A Sight is what a client may know of.
type Sight interface {
	Sees(topic string) bool // it is asked by many goroutines, and after the request
}

// Topics is what the coordinator may know about topics. Its methods answer from
// one image of the cluster's metadata at a time, and images only get newer.
type Topics interface {
	Topic(name string) (id [16]byte, partitions int32, ok bool)
	TopicByID(id [16]byte) (name string, partitions int32, ok bool)
	Names() []string
	Changed() <-chan struct{} // closed when a newer image comes
}
