// Package server speaks the Kafka protocol: it reads requests from connections
// and answers them from the replicas and the metadata of one node.
//
// A Server is shaped like net/http's: Serve accepts connections of Kafka's clients
// from a listener until Shutdown. One address serves everyone: Mux cuts its listener
// into that of clients and that of other nodes, and package mux counts the
// connections and bounds them.
//
// # How it is built
//
//	Server      listeners, connections, Shutdown                           server.go
//	shared      what connections share out: memory, turns, buffers         budget.go, turn.go
//	connection  reads requests and writes answers, in order                connection.go
//	call        one request under way: all a handler knows of who asks     connection.go
//	origin      the listener and the addresses that a connection came by   origin.go
//
//	handlers    all that answer, and the table of requests they answer     apis.go
//	  cluster   brokers, and where partitions are                          metadata.go, cluster.go
//	  configs   settings                                                   configs.go
//	  fetches   Fetch and its sessions                                     fetch.go, session.go
//	  groups    consumer groups; runs package group                        groups.go, consumergroups.go, coordinator.go
//	  positions offsets by time or epoch                                   offsets.go
//	  producers Produce and producer ids                                   produce.go, producers.go
//	  security  what is answered where nothing is secured                  security.go
//	  topics    creates, grows and deletes topics                          topics.go
//	broker      what all handlers answer from: node, settings, clock, log  broker.go, settings.go
//
// What the wire looks like is package protocol's. errors.go alone turns errors of
// other packages into Kafka's codes; what a handler judges by itself has its code there.
//
// # The life of a connection
//
// Package mux accepts it and finds out by its first bytes that it is a client's. From
// then on one goroutine, "connection", does this again and again (connection.serveOne):
//
//	read     the frame. The first byte may take connections.max.idle.ms, each further one
//	         StallTimeout, and all of them as long as 64 KiB/s take and StallTimeout more
//	header   a key or a version that is not served closes the connection, ApiVersions'
//	         aside (KIP-511)
//	check    protocol.Guard walks the body before kmsg decodes it
//	settle   unless it is a Produce: all earlier ones are answered first
//	image    right after a start it waits until this node knows again what it knew
//	         when it ended, unless the request's row says that it need not (imageGate)
//	turn     with more than 10,000 elements it waits for one of few places (turns)
//	serve    the handler of its row in the table, which decodes, answers and writes
//
// What a client sends is never trusted, and whatever goes wrong on one connection ends
// that connection and nothing else: every goroutine that parses recovers, closes its
// connection and counts it. There is no answer to what cannot be read; the log says why
// a connection was closed, once a second for each reason.
//
// It ends when the client leaves, when what it sent is refused, when it is too slow for
// others (budget), or with Shutdown, which lets what was read be answered.
//
// # Who answers in which order
//
// Answers leave in the order of the requests. Each is written before the next request is
// read, but for Produce: its batches are handed to the partitions in order, and while a
// quorum takes them the next Produce is read, 64 of them at most. A second goroutine,
// "acknowledger", writes those answers, again in order. The drawing is at connection.
// So a client that sends five batches has them in the log in that order, and waits for
// one round of the quorum and not for five.
//
// # Memory
//
// Memory follows the bytes that have arrived, not a length that was declared: a frame
// begins with 4 KiB, or with as much as the largest one that this connection has sent
// whole, and doubles as it fills. What a request holds is counted from its first byte
// until its answer is written, in its connection's share of a budget: the frame, 320
// bytes for each element of its lists, and an answer that does not fit the connection's
// own 8 KiB. While less than MaxHeldBytes (24 MiB) is held by all together nobody waits.
// Beyond it the oldest go first, and who is slow makes room: see budget.
//
// A Fetch's records are not counted. They are lent by the log, mapped and not copied,
// and written from where they are.
//
// # Where limits are
//
//	connections, one address's      bounds.go (max.connections, max.connections.per.ip), held by mux.Quotas
//	new connections in a second     bounds.go (max.connection.creation.rate, quotas), held by mux.Quotas
//	bytes of a request              socket.request.max.bytes
//	elements, tagged fields         protocol/guard.go
//	elements without a turn         turn.go
//	bytes of all requests           Server.MaxHeldBytes, budget.go
//	Produce requests in flight      connection.go
//	what a long answer may take     answer.go
//	partitions of fetch sessions    Server.MaxSessionPartitions, session.go
//	partitions created at once      topics.go, metadata.go
//	quorums asked at a time         claims.go
//	how long anything may wait      Server.StallTimeout; maxWait in connection.go; changeTimeout in topics.go
//
// # How a request is added
//
//   - Its body goes into protocol/layouts.go, in every version of Kafka's schema. The
//     tests of package protocol hold it against kmsg's encoders.
//   - A row goes into handlers.table, with the versions of Kafka 4.1:
//     TestTableIsThatOfKafka41. The row says whether the request may be answered before
//     the image is there.
//   - Its handler is a method of the group that it belongs to, in that group's file. Its
//     comment says which versions there are, what it honours, and what each version adds.
//     It takes the call and the decoded request and returns the answer. What belongs to
//     one client is on the call or on its connection: a group of handlers is one for all.
//   - It calls call.step for each element of a list, so that a long one leaves others
//     the processor; asks call.fits before it answers much to a few bytes; answers what is
//     named twice once; and makes the list of its answer as long as it becomes at once.
//   - An error becomes a code by codeOf, and a sentence by message. An error of ours that
//     clients can cause has a row in errors.go: TestClientsAreToldNothingOfOurInsides.
//
// TestHandlersSurviveAnything and TestAbsurdRequestsOverTheWire then find it in the table,
// and send it what no client does, in every version.
package server
