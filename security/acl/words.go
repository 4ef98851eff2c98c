package acl

import (
	"fmt"
	"slices"
	"strings"
)

// What Kafka's tools call the numbers, by number.
var (
	typeWords       = []string{"UNKNOWN", "ANY", "TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID", "DELEGATION_TOKEN", "USER"}
	patternWords    = []string{"UNKNOWN", "ANY", "MATCH", "LITERAL", "PREFIXED"}
	permissionWords = []string{"UNKNOWN", "ANY", "DENY", "ALLOW"}
	operationWords  = []string{"UNKNOWN", "ANY", "ALL", "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE",
		"CLUSTER_ACTION", "DESCRIBE_CONFIGS", "ALTER_CONFIGS", "IDEMPOTENT_WRITE", "CREATE_TOKENS", "DESCRIBE_TOKENS", "TWO_PHASE_COMMIT"}
)

// word is the word for a number; one that has none is unknown.
func word(words []string, n int8) string {
	if n < 0 || int(n) >= len(words) {
		return words[0]
	}
	return words[n]
}

func (t ResourceType) String() string { return word(typeWords, int8(t)) }
func (t PatternType) String() string  { return word(patternWords, int8(t)) }
func (o Operation) String() string    { return word(operationWords, int8(o)) }
func (p Permission) String() string   { return word(permissionWords, int8(p)) }

// ParseOperation reads an operation as any of Kafka's tools writes it: describe-configs,
// DescribeConfigs and DESCRIBE_CONFIGS are one.
func ParseOperation(s string) (Operation, error) {
	plain := strings.NewReplacer("-", "", "_", "").Replace(strings.ToUpper(s))
	n := slices.IndexFunc(operationWords, func(w string) bool { return strings.ReplaceAll(w, "_", "") == plain })
	if n < int(All) {
		return 0, fmt.Errorf("acl: no operation is called %q", s)
	}
	return Operation(n), nil
}

// Operations are all operations that a resource of a type knows (AclEntry.supportedOperations),
// without All.
func Operations(t ResourceType) []Operation {
	switch t {
	case Topic:
		return []Operation{Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs}
	case Group:
		return []Operation{Read, Delete, Describe, DescribeConfigs, AlterConfigs}
	case Cluster:
		return []Operation{Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite}
	case TransactionalID:
		return []Operation{Write, Describe, TwoPhaseCommit}
	case DelegationToken:
		return []Operation{Describe}
	case User:
		return []Operation{CreateTokens, DescribeTokens}
	}
	return nil
}
