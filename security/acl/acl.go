// Package acl is Kafka's model of who may do what: a principal may or may not carry out an
// operation on resources of a name, from a host. It is values without I/O, and knows
// neither where entries are kept (package metadata) nor who asks (package server).
//
// The numbers are Kafka's, as they are in requests and on disk.
package acl

import "fmt"

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
	Literal  PatternType = 3 // the resource of this name, or with AnyName all
	Prefixed PatternType = 4 // all resources whose names begin with it
)

// An Operation is what somebody does with a resource.
type Operation int8

// The operations. Who may Read, Write, Delete or Alter may Describe; who may AlterConfigs
// may DescribeConfigs.
const (
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
)

// A Permission is whether an entry allows or denies. What any entry denies no other allows.
type Permission int8

// The permissions.
const (
	Deny  Permission = 2
	Allow Permission = 3
)

// An Entry allows or denies one operation on what one pattern means. It is comparable.
type Entry struct {
	Type       ResourceType
	Name       string // of the resource, or what it begins with
	Pattern    PatternType
	Principal  string // "User:alice"
	Host       string // an IP address, or AnyHost
	Operation  Operation
	Permission Permission
}

// A Request is one that is to be decided.
type Request struct {
	Principal string // "User:alice"
	Host      string // the client's IP address
	Operation Operation
	Type      ResourceType
	Name      string
}

func (r Request) String() string {
	return fmt.Sprintf("%s from %s: operation %d on resource type %d, %q", r.Principal, r.Host, r.Operation, r.Type, r.Name)
}
