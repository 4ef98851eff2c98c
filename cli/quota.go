package cli

import (
	"context"
	"errors"
	"math"
	"strconv"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/metadata"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func quotaCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "quota",
		Aliases: []string{"quotas"},
		Usage:   "set, list and delete how fast clients may go",
		Subcommands: []*urfave.Command{
			quotaSetCommand(),
			quotaListCommand(),
			quotaDeleteCommand(),
		},
	}
}

// entityParts are what quotas are for, by the flags that name them and by Kafka's names.
var entityParts = []struct {
	flag, kind string
	usage      string
}{
	{"user", "user", "of a `USER`"},
	{"client-id", "client-id", "of a client `ID`"},
	{"ip", "ip", "of an `ADDRESS`"},
}

// entityFlags name whom a quota is for.
func entityFlags() (flags []urfave.Flag) {
	for _, part := range entityParts {
		flags = append(flags,
			&urfave.StringFlag{Name: part.flag, Usage: part.usage},
			&urfave.BoolFlag{Name: "default-" + part.flag, Usage: "of each that has no quota of its own"})
	}
	return flags
}

// An entity is whom a quota is for, as the protocol has it.
type entity []kmsg.AlterClientQuotasRequestEntryEntity

// someEntity is the entity that a command line names, which has to name one and has no
// arguments.
func someEntity(c *urfave.Context) (entity, error) {
	if c.NArg() > 0 {
		return nil, term.Usage("quota %s takes flags alone, not %q; see `millrace quota %[1]s --help`", c.Command.Name, c.Args().First())
	}
	e, err := entityNamed(c)
	if err == nil && len(e) == 0 {
		err = term.Usage("quota %s of whom? --user, --client-id, --ip, or --default-… says it", c.Command.Name)
	}
	return e, err
}

// entityNamed is the entity that a command line names, empty if it names none.
func entityNamed(c *urfave.Context) (e entity, err error) {
	for _, part := range entityParts {
		name, isDefault := c.String(part.flag), c.Bool("default-"+part.flag)
		switch {
		case isDefault && c.IsSet(part.flag):
			return nil, term.Usage("--%s %s or --default-%s, not both", part.flag, name, part.flag)
		case isDefault:
			e = append(e, kmsg.AlterClientQuotasRequestEntryEntity{Type: part.kind})
		case c.IsSet(part.flag) && name == "":
			return nil, term.Usage("--%s is empty; --default-%s is for each that has no quota of its own", part.flag, part.flag)
		case c.IsSet(part.flag):
			e = append(e, kmsg.AlterClientQuotasRequestEntryEntity{Type: part.kind, Name: &name})
		}
	}
	if len(e) > 1 && e[len(e)-1].Type == "ip" {
		return nil, term.Usage("a quota is of users and client ids, or of addresses; not of both")
	}
	return e, nil
}

// quotaKinds are the quotas there are, by the flags that set them.
var quotaKinds = []struct {
	flag, key string
	usage     string // of the flag that sets it
	bytes     bool
}{
	{"produce", metadata.ProducerByteRate, "bytes it may produce in a second, `BYTES`: 500000, 10MB, 10MiB", true},
	{"consume", metadata.ConsumerByteRate, "bytes it may consume in a second, `BYTES`", true},
	{"requests", metadata.RequestPercentage, "time of each broker's that its requests may take, in `PERCENT` of one processor", false},
	{"mutations", metadata.ControllerMutationRate, "partitions it may create and delete in a second, `NUMBER`", false},
	{"connections", metadata.ConnectionCreationRate, "connections it may make in a second, of an address alone, `NUMBER`", false},
}

// byteUnits are what bytes may be given in, the longer first where one ends like another.
var byteUnits = []struct {
	name string
	size float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}}

// parseRate reads what a quota allows in a second.
func parseRate(flag, text string, bytes bool) (float64, error) {
	number, unit := text, 1.0
	if bytes {
		for _, u := range byteUnits {
			if n, ok := strings.CutSuffix(text, u.name); ok {
				number, unit = strings.TrimSpace(n), u.size
				break
			}
		}
	}
	rate, err := strconv.ParseFloat(number, 64)
	if err != nil || !(rate > 0) || math.IsInf(rate, 0) {
		example := "5 or 12.5"
		if bytes {
			example = "500000, 10MB or 10MiB"
		}
		return 0, term.Usage("--%s %q: it is a number above 0, such as %s", flag, text, example)
	}
	if rate *= unit; bytes {
		rate = math.Ceil(rate)
	}
	return rate, nil
}

// String is the entity in words.
func (e entity) String() string {
	var parts []string
	for _, part := range e {
		word := strings.ReplaceAll(part.Type, "-", " ")
		if part.Type == "ip" {
			word = "address"
		}
		if part.Name == nil {
			parts = append(parts, "each "+word+" without one of its own")
		} else {
			parts = append(parts, word+" "+*part.Name)
		}
	}
	return strings.Join(parts, ", ")
}

// alterQuota changes the quota of one entity.
func alterQuota(ctx context.Context, client *kgo.Client, e entity, ops []kmsg.AlterClientQuotasRequestEntryOp) error {
	req := kmsg.NewPtrAlterClientQuotasRequest()
	entry := kmsg.NewAlterClientQuotasRequestEntry()
	entry.Entity, entry.Ops = e, ops
	req.Entries = append(req.Entries, entry)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for i := range resp.Entries {
		if err := kerr.ErrorForCode(resp.Entries[i].ErrorCode); err != nil {
			return quotaError(err, resp.Entries[i].ErrorMessage)
		}
	}
	return nil
}

// quotaError explains a broker's refusal.
func quotaError(err error, detail *string) error {
	if errors.Is(err, kerr.ClusterAuthorizationFailed) {
		return term.Explain(err, "not allowed: it takes alter-configs on the cluster to change quotas, and describe-configs to see them")
	}
	said := ""
	if detail != nil {
		said = *detail
	}
	return term.Explain(err, "%s", kafka.BrokerSaid(err, said))
}
