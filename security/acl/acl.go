// Package acl is Kafka's model of who may do what: a principal may or may not carry out an
// operation on resources of a name, from a host. It is values without I/O, and knows
// neither where entries are kept (package metadata) nor who asks (package server).
//
// A Set is made of entries, Rules are a Set and the settings beside it, and decide as
// Kafka's StandardAuthorizer does.
//
// The numbers are Kafka's, as they are in requests and on disk.
package acl

import (
	"cmp"
	"fmt"
	"net/netip"
)

// Anonymous is the principal of a client that did not say who it is, where that is allowed.
const Anonymous = "User:ANONYMOUS"

// AnyPrincipal, AnyHost and AnyName are what an entry holds for all of them. An entry of
// AnyName is for all resources of its type.
const (
	AnyPrincipal = "User:*"
	AnyHost      = "*"
	AnyName      = "*"
)

// ClusterName is the name of the only resource of type Cluster.
const ClusterName = "kafka-cluster"

// A ResourceType is what an entry is about.
type ResourceType int8

// The types of resources.
const (
	AnyType         ResourceType = 1 // in a Filter
	Topic           ResourceType = 2
	Group           ResourceType = 3
	Cluster         ResourceType = 4 // of the name ClusterName alone
	TransactionalID ResourceType = 5
	DelegationToken ResourceType = 6
	User            ResourceType = 7
)

// A PatternType says how an entry's name means resources.
type PatternType int8

// The types of patterns.
const (
	AnyPattern PatternType = 1 // in a Filter: of both types
	Match      PatternType = 2 // in a Filter: all that mean the resource of the name
	Literal    PatternType = 3 // the resource of this name, or with AnyName all
	Prefixed   PatternType = 4 // all resources whose names begin with it
)

// An Operation is what somebody does with a resource.
type Operation int8

// The operations. Who may Read, Write, Delete or Alter may Describe; who may AlterConfigs
// may DescribeConfigs.
const (
	AnyOperation    Operation = 1 // in a Filter
	All             Operation = 2
	Read            Operation = 3
	Write           Operation = 4
	Create          Operation = 5
	Delete          Operation = 6
	Alter           Operation = 7
	Describe        Operation = 8
	ClusterAction   Operation = 9
	DescribeConfigs Operation = 10
	AlterConfigs    Operation = 11
	IdempotentWrite Operation = 12
	CreateTokens    Operation = 13
	DescribeTokens  Operation = 14
	TwoPhaseCommit  Operation = 15
)

// A Permission is whether an entry allows or denies. What any entry denies no other allows.
type Permission int8

// The permissions.
const (
	AnyPermission Permission = 1 // in a Filter
	Deny          Permission = 2
	Allow         Permission = 3
)

// An Entry allows or denies one operation on what one pattern means. It is comparable.
type Entry struct {
	Type       ResourceType
	Name       string // of the resource, or what it begins with
	Pattern    PatternType
	Principal  string // "User:alice"
	Host       string // an IP address as CanonicalHost has it, or AnyHost
	Operation  Operation
	Permission Permission
}

// Compare orders entries as a Set keeps them: all of one principal and host together, and
// of these all of one resource type and pattern type, by name.
func Compare(a, b Entry) int {
	x, y := keyOf(&a), keyOf(&b)
	if c := compareKeys(&x, &y); c != 0 {
		return c
	}
	if c := cmp.Compare(a.Operation, b.Operation); c != 0 {
		return c
	}
	return cmp.Compare(a.Permission, b.Permission)
}

// CanonicalHost is how an entry names a host: IPv6 addresses have many spellings, Java's
// among them, and hosts are compared as strings. What is no address stays as it is.
func CanonicalHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().WithZone("").String()
	}
	return host
}

// A Request is one that is to be decided.
type Request struct {
	Principal string // "User:alice"
	Host      string // the client's IP address, as CanonicalHost has it
	Operation Operation
	Type      ResourceType
	Name      string
}

func (r Request) String() string {
	return fmt.Sprintf("%s from %s: %s on %s %q", r.Principal, r.Host, r.Operation, r.Type, r.Name)
}
