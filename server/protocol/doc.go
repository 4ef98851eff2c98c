// Package protocol is the Kafka protocol apart from what requests mean: how a request's
// header and body look on the wire, which bodies kmsg may be given to decode, and the
// codes of errors. It knows no broker, and kmsg alone of all modules.
//
// A request is read in this order:
//
//	ReadHeader       who asks for what, in which version
//	Check            the body is what its layout says, and nothing more
//	kmsg's ReadFrom  or DecodeInPieces, for a request of many elements
//
// and an answer written with AppendHeader, kmsg's AppendTo or EncodeInPieces, and Finish.
//
// layouts.go repeats Kafka's schemas for the guard. A new version of a request, or a new
// request, needs its row there; a test holds every row against kmsg's encoders.
package protocol
