// Package identity is how the nodes of a cluster prove to each other who they are: the
// cluster's own certificate authority, the certificates that it issues, the handshake that
// shows them, and the token that lets a new node in.
//
// # Names
//
// A certificate names one incarnation of one node of one cluster, in a URI among its
// alternative names:
//
//	millrace:CLUSTER/NODE/INCARNATION
//
// It is good for either side of a connection. One without such a name (a broker's for its
// clients, or a client's) is no node's, whoever issued it.
//
// # Format
//
// Nodes speak TLS 1.3 on the port that clients use, without session tickets, and say by
// ALPN what they want:
//
//	millrace/1       both sides show a certificate, everything is encrypted
//	millrace-bare/1  both sides show a certificate, and go on without TLS; where both ends of
//	                 the connection are loopback addresses, and nowhere else
//	millrace-join/1  the server alone shows one: the other side has a token, or nothing yet
//
// # The handshake
//
// After a handshake of millrace-bare/1 the server sends one byte inside TLS, 0x01. What
// follows it in both directions is sent on the connection itself. Neither side has a byte of
// that in the buffers of its tls.Conn, for two reasons, each of which would do: the client
// sends nothing between its Finished and that byte, and the server nothing between that byte
// and what the client sends next; and both read through Records, which gives a tls.Conn no
// byte of the record behind the one that it waits for.
package identity
