package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/security/acl"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func aclCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "acl",
		Aliases: []string{"acls"},
		Usage:   "grant, revoke, list and check who may do what",
		Subcommands: []*urfave.Command{
			aclGrantCommand(),
			aclRevokeCommand(),
			aclListCommand(),
			aclCheckCommand(),
		},
	}
}

// whoFlags say whom entries are for.
func whoFlags(ofWhich string) []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringSliceFlag{Name: "user", Usage: ofWhich + " `USER`, * for all; may be repeated"},
		&urfave.StringSliceFlag{Name: "principal", Usage: "the same as TYPE:NAME; `PRINCIPAL` User:alice is --user alice"},
	}
}

// who are the principals that a command line names.
func who(c *urfave.Context) (principals []string, err error) {
	for _, user := range c.StringSlice("user") {
		if user == "" {
			return nil, term.Usage("--user is empty; it is a name, or * for all")
		}
		principals = append(principals, "User:"+user)
	}
	for _, p := range c.StringSlice("principal") {
		if !acl.IsPrincipal(p) {
			return nil, term.Usage("--principal %q: it is TYPE:NAME, such as User:alice", p)
		}
		principals = append(principals, p)
	}
	return principals, nil
}

// resourceFlags name resources of each type.
func resourceFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringSliceFlag{Name: "topic", Usage: "a `TOPIC`, * for all"},
		&urfave.StringSliceFlag{Name: "group", Usage: "a consumer `GROUP`, * for all"},
		&urfave.BoolFlag{Name: "cluster", Usage: "the cluster"},
		&urfave.StringSliceFlag{Name: "transactional-id", Usage: "a transactional `ID`, * for all"},
		&urfave.StringSliceFlag{Name: "delegation-token", Usage: "the `ID` of a delegation token, * for all"},
		&urfave.StringSliceFlag{Name: "user-principal", Usage: "a `PRINCIPAL` that others make tokens for, User:alice"},
	}
}

// A resource is what an entry may be about.
type resource struct {
	kind acl.ResourceType
	name string
}

// resources are those that a command line names.
func resources(c *urfave.Context) (named []resource, err error) {
	for _, of := range []struct {
		flag string
		kind acl.ResourceType
	}{{"topic", acl.Topic}, {"group", acl.Group}, {"transactional-id", acl.TransactionalID}, {"delegation-token", acl.DelegationToken}, {"user-principal", acl.User}} {
		for _, name := range c.StringSlice(of.flag) {
			if name == "" {
				return nil, term.Usage("--%s is empty; it is a name, or * for all", of.flag)
			}
			named = append(named, resource{of.kind, name})
		}
	}
	if c.Bool("cluster") {
		named = append(named, resource{acl.Cluster, acl.ClusterName})
	}
	return named, nil
}

// entryFlags are those of what is granted and revoked.
func entryFlags() []urfave.Flag {
	return slices.Concat(whoFlags("whom it is for:"), []urfave.Flag{
		&urfave.StringSliceFlag{Name: "produce", Usage: "all that a producer to a `TOPIC` needs: Write, Describe, Create"},
		&urfave.StringSliceFlag{Name: "consume", Usage: "all that a consumer of a `TOPIC` needs of it: Read, Describe; its group is given by --group"},
		&urfave.BoolFlag{Name: "idempotent", Usage: "IdempotentWrite on the cluster, for producers of releases before Kafka 2.8"},
		&urfave.StringSliceFlag{Name: "operation", Usage: "`OPERATION` on what is named: all, read, write, describe-configs, …; may be repeated"},
	}, resourceFlags(), []urfave.Flag{
		&urfave.BoolFlag{Name: "prefix", Usage: "all names that begin with those that are given"},
		&urfave.StringSliceFlag{Name: "host", Usage: "from an `ADDRESS` alone; may be repeated", DefaultText: "all"},
		&urfave.BoolFlag{Name: "deny", Usage: "entries that deny, which go before those that allow"},
		&urfave.BoolFlag{Name: "dry-run", Usage: "say what would be done, do nothing"},
	})
}

// rights are what makes somebody a producer or consumer (kafka-acls --producer, --consumer).
var rights = []struct {
	flag       string
	kind       acl.ResourceType
	operations []acl.Operation
}{
	{"produce", acl.Topic, []acl.Operation{acl.Write, acl.Describe, acl.Create}},
	{"consume", acl.Topic, []acl.Operation{acl.Read, acl.Describe}},
	{"group", acl.Group, []acl.Operation{acl.Read}},
	{"transactional-id", acl.TransactionalID, []acl.Operation{acl.Write, acl.Describe}},
}

// entriesNamed are the entries that a command line names, each once, sorted.
func entriesNamed(c *urfave.Context) (entries []acl.Entry, err error) {
	principals, err := who(c)
	if err != nil {
		return nil, err
	}
	if len(principals) == 0 {
		return nil, term.Usage("%s whom? --user NAME says it", commandWords(c))
	}
	named, err := resources(c)
	if err != nil {
		return nil, err
	}
	operations, err := operationsNamed(c)
	if err != nil {
		return nil, err
	}
	permission := acl.Allow
	if c.Bool("deny") {
		permission = acl.Deny
	}
	add := func(r resource, operations ...acl.Operation) {
		pattern := acl.Literal
		if c.Bool("prefix") && r.kind != acl.Cluster {
			pattern = acl.Prefixed
		}
		for _, p := range principals {
			for _, host := range hostsNamed(c) {
				for _, o := range operations {
					entries = append(entries, acl.Entry{Type: r.kind, Name: r.name, Pattern: pattern, Principal: p, Host: host, Operation: o, Permission: permission})
				}
			}
		}
	}
	short := slices.Concat(c.StringSlice("produce"), c.StringSlice("consume"))
	switch {
	case c.Bool("prefix") && (slices.Contains(short, acl.AnyName) || slices.ContainsFunc(named, func(r resource) bool { return r.name == acl.AnyName })):
		return nil, term.Usage("--prefix takes * for a character of names; without it * is all names")
	case len(operations) > 0 && (len(short) > 0 || c.Bool("idempotent")):
		return nil, term.Usage("--operation goes with --topic, --group, …; --produce, --consume and --idempotent say themselves what they allow")
	case len(operations) > 0 && len(named) == 0:
		return nil, term.Usage("--operation on what? --topic, --group, --cluster, --transactional-id, --delegation-token or --user-principal names it")
	case len(operations) > 0:
		for _, r := range named {
			if wrong := without(operations, append(acl.Operations(r.kind), acl.All)); len(wrong) > 0 {
				return nil, term.Usage("there is no operation %s on a %s; there are %s and all", spelled(wrong), typeWords(r.kind), spelled(acl.Operations(r.kind)))
			}
			add(r, operations...)
		}
	case c.Bool("deny"):
		return nil, term.Usage("--deny what? --operation says it")
	default:
		for _, right := range rights {
			for _, name := range c.StringSlice(right.flag) {
				if name == "" {
					return nil, term.Usage("--%s is empty; it is a name, or * for all", right.flag)
				}
				add(resource{right.kind, name}, right.operations...)
				named = slices.DeleteFunc(named, func(r resource) bool { return r == resource{right.kind, name} })
			}
		}
		if c.Bool("idempotent") {
			add(resource{acl.Cluster, acl.ClusterName}, acl.IdempotentWrite)
		}
		if len(named) > 0 {
			return nil, term.Usage("what about %s %s? --operation says it, or use --produce and --consume", typeWords(named[0].kind), named[0].name)
		}
		if len(entries) == 0 {
			return nil, term.Usage("%s what? --produce, --consume, --group, or --operation with --topic and others; see `millrace %s --help`", commandWords(c), commandWords(c))
		}
	}
	slices.SortFunc(entries, byResource)
	return slices.Compact(entries), nil
}

// commandWords are the words of a command, without the program's name.
func commandWords(c *urfave.Context) string { return c.Command.HelpName[len("millrace "):] }

func without(all, known []acl.Operation) []acl.Operation {
	return slices.DeleteFunc(slices.Clone(all), func(o acl.Operation) bool { return slices.Contains(known, o) })
}

// hostsNamed are those that a command line names, or all.
func hostsNamed(c *urfave.Context) (hosts []string) {
	for _, h := range c.StringSlice("host") {
		hosts = append(hosts, acl.CanonicalHost(h))
	}
	if len(hosts) == 0 {
		return []string{acl.AnyHost}
	}
	return hosts
}

func operationsNamed(c *urfave.Context) (operations []acl.Operation, err error) {
	for _, list := range c.StringSlice("operation") {
		o, err := acl.ParseOperation(list)
		if err != nil {
			return nil, term.Usage("--operation %q: it is one of all, %s", list, spelled(everyOperation))
		}
		operations = append(operations, o)
	}
	return operations, nil
}

var everyOperation = []acl.Operation{acl.Read, acl.Write, acl.Create, acl.Delete, acl.Alter, acl.Describe, acl.ClusterAction,
	acl.DescribeConfigs, acl.AlterConfigs, acl.IdempotentWrite, acl.CreateTokens, acl.DescribeTokens, acl.TwoPhaseCommit}

// spelled are operations as the command line has them.
func spelled(operations []acl.Operation) string {
	var words []string
	for _, o := range operations {
		words = append(words, lower(o))
	}
	return strings.Join(words, ", ")
}

func lower(word fmt.Stringer) string {
	return strings.ReplaceAll(strings.ToLower(word.String()), "_", "-")
}

func typeWords(kind acl.ResourceType) string { return strings.ReplaceAll(lower(kind), "-", " ") }

// byResource orders entries as people look for them: by what they are about.
func byResource(a, b acl.Entry) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name), cmp.Compare(a.Pattern, b.Pattern), acl.Compare(a, b))
}

// sentenceOf says what an entry does.
func sentenceOf(e *acl.Entry) string {
	verb := "may"
	if e.Permission == acl.Deny {
		verb = "may not"
	}
	return fmt.Sprintf("%s %s %s %s%s", e.Principal, verb, lower(e.Operation), patternOf(e), from(e.Host))
}

// patternOf says in words what an entry is about.
func patternOf(e *acl.Entry) string {
	switch kind := typeWords(e.Type); {
	case e.Type == acl.Cluster:
		return "the cluster"
	case e.Pattern == acl.Prefixed:
		return kind + "s " + e.Name + "…"
	case e.Name == acl.AnyName:
		return "all " + kind + "s"
	default:
		return kind + " " + e.Name
	}
}

func from(host string) string {
	if host == acl.AnyHost {
		return ""
	}
	return " from " + host
}

// describeACLs asks for the entries that a filter is for, sorted by what they are about.
func describeACLs(ctx context.Context, client *kgo.Client, f acl.Filter) (entries []acl.Entry, err error) {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourceName, req.ResourcePatternType = kmsg.ACLResourceType(f.Type), f.Name, kmsg.ACLResourcePatternType(f.Pattern)
	req.Principal, req.Host, req.Operation, req.PermissionType = f.Principal, f.Host, kmsg.ACLOperation(f.Operation), kmsg.ACLPermissionType(f.Permission)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, aclError(err, resp.ErrorMessage)
	}
	for i := range resp.Resources {
		r := &resp.Resources[i]
		for j := range r.ACLs {
			e := &r.ACLs[j]
			entries = append(entries, acl.Entry{
				Type: acl.ResourceType(r.ResourceType), Name: r.ResourceName, Pattern: acl.PatternType(r.ResourcePatternType),
				Principal: e.Principal, Host: e.Host, Operation: acl.Operation(e.Operation), Permission: acl.Permission(e.PermissionType),
			})
		}
	}
	slices.SortFunc(entries, byResource)
	return entries, nil
}

// everything is a filter that is for all entries.
var everything = acl.Filter{Type: acl.AnyType, Pattern: acl.AnyPattern, Operation: acl.AnyOperation, Permission: acl.AnyPermission}

// aclError explains a broker's refusal.
func aclError(err error, detail *string) error {
	said := ""
	if detail != nil {
		said = *detail
	}
	switch {
	case errors.Is(err, kerr.SecurityDisabled):
		return term.Explain(err, "access is not controlled here, everybody may do everything; it is as soon as there is a user: `millrace user create` makes one")
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return term.Explain(err, "not allowed: it takes alter on the cluster to change who may do what, and describe to see it")
	}
	return term.Explain(err, "%s", kafka.BrokerSaid(err, said))
}
