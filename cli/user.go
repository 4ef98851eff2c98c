package cli

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	urfave "github.com/urfave/cli/v2"
)

func userCommand() *urfave.Command {
	password := []urfave.Flag{
		&urfave.BoolFlag{Name: "generate", Usage: "make a password and print it, once"},
		&urfave.StringFlag{Name: "new-password-file", Usage: "`FILE` with the new password; - is standard input", DefaultText: "ask twice"},
		&urfave.BoolFlag{Name: "dry-run", Usage: "say what would be done, do nothing"},
	}
	return &urfave.Command{
		Name:    "user",
		Aliases: []string{"users"},
		Usage:   "create, list and delete who may log in",
		Subcommands: []*urfave.Command{{
			Name:      "create",
			Usage:     "create users",
			ArgsUsage: "USER",
			Description: `   Asks for the password twice, or takes it from a file or standard input, or makes one. Only
   what proves the password is sent and kept, for SCRAM-SHA-512 and SCRAM-SHA-256, so that every
   mechanism takes it. Of a cluster without users the first one is its super user, and from
   then on everybody has to log in.

EXAMPLES:
   $ millrace user create alice --generate
   $ millrace user create bob --new-password-file - < secret`,
			Flags:  kafka.Flags(password),
			Action: func(c *urfave.Context) error { return setPassword(c, false) },
		}, {
			Name:      "list",
			Aliases:   []string{"ls"},
			Usage:     "list users",
			ArgsUsage: "[USER…]",
			Description: `   With the mechanisms by which they can log in, and whether super.users names them.

   JSON: a list of {user, mechanisms, super}.

EXAMPLES:
   $ millrace user list
   $ millrace user list alice -o json`,
			Flags:  kafka.Flags(term.OutputFlags(true)),
			Action: userList,
		}, {
			Name:      "passwd",
			Usage:     "give a user another password",
			ArgsUsage: "USER",
			Description: `   Takes the password as user create does. Who is logged in stays so.

EXAMPLES:
   $ millrace user passwd alice --generate
   $ millrace user passwd bob --new-password-file secret`,
			Flags:  kafka.Flags(password),
			Action: func(c *urfave.Context) error { return setPassword(c, true) },
		}, {
			Name:      "delete",
			Aliases:   []string{"rm"},
			Usage:     "delete users",
			ArgsUsage: "USER…",
			Description: `   They cannot log in any more; what ACLs say of them stays. If one of them does not exist,
   none is deleted. The last super user is not deleted without --last: unless an ACL allows
   somebody to alter the cluster, nobody could let anybody in afterwards.

EXAMPLES:
   $ millrace user delete bob --dry-run
   $ millrace user delete bob --yes`,
			Flags:  kafka.Flags(term.DestructiveFlags(), []urfave.Flag{&urfave.BoolFlag{Name: "last", Usage: "also the last super user"}}),
			Action: userDelete,
		}},
	}
}

// iterations of a password's hash: what a broker of Kafka's takes is at most twice as many.
const iterations = 8192

// scrams are the mechanisms for which a password is kept.
var scrams = []kadm.ScramMechanism{kadm.ScramSha512, kadm.ScramSha256}

// setPassword gives a user, who exists or is new, a password.
func setPassword(c *urfave.Context, exists bool) error {
	if c.NArg() != 1 {
		return term.Usage("%s takes the name of one user; see `millrace %[1]s --help`", strings.TrimPrefix(c.Command.HelpName, "millrace "))
	}
	name := c.Args().First()
	if strings.ContainsAny(name, ",:;=\r\n\x00") || len(name) > 255 {
		return term.Usage("%q cannot be the name of a user: it has no comma, colon, semicolon, = or line break, and 255 bytes at most", name)
	}
	if c.Bool("generate") && c.IsSet("new-password-file") {
		return term.Usage("--generate and --new-password-file exclude each other")
	}
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		all, err := describeUsers(ctx, admin)
		if err != nil {
			return err
		}
		is := slices.ContainsFunc(all, func(u user) bool { return u.User == name })
		switch {
		case exists && !is:
			return noUser(name)
		case !exists && is:
			return term.Fail(term.StatusFailed, "user %q exists already; `millrace user passwd %s` gives another password", name, name)
		}
		did := map[bool]string{false: "create user " + name, true: "give user " + name + " another password"}[exists]
		if !exists && len(all) == 0 {
			did += ", the cluster's first: a super user; from then on everybody has to log in"
		}
		if c.Bool("dry-run") {
			_, err := fmt.Fprintln(c.App.Writer, "would", did)
			return err
		}
		password, err := newPassword(c, name)
		if err != nil {
			return err
		}
		var upsert []kadm.UpsertSCRAM
		for _, m := range scrams {
			upsert = append(upsert, kadm.UpsertSCRAM{User: name, Mechanism: m, Iterations: iterations, Password: password})
		}
		// Asking a person may have taken longer than the time for the request.
		if err := alterUser(context.WithoutCancel(ctx), admin, name, nil, upsert); err != nil {
			return err
		}
		if c.Bool("generate") {
			fmt.Fprintln(c.App.Writer, password)
		}
		fmt.Fprintln(c.App.ErrWriter, "done:", did)
		if brokers, err := kafka.BrokersNamed(c); err == nil && !exists && len(all) == 0 {
			fmt.Fprintf(c.App.ErrWriter, "From now on say --user %s --password-file FILE, or keep both: millrace context add NAME --brokers %s --user %[1]s --password-file FILE\n", name, strings.Join(brokers, ","))
		}
		return nil
	})
}

// newPassword returns the password that a user is to have.
func newPassword(c *urfave.Context, name string) (string, error) {
	switch from := c.String("new-password-file"); {
	case c.Bool("generate"):
		return rand.Text(), nil // 130 bits
	case from == "-":
		line, err := bufio.NewReader(io.LimitReader(c.App.Reader, 4096)).ReadString('\n')
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			return "", term.Usage("no password on standard input")
		}
		if err != nil && err != io.EOF {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return line, nil
	case from != "":
		return kafka.ReadSecret("--new-password-file", from)
	}
	if !term.IsTerminal(c.App.Reader) || !term.IsTerminal(c.App.ErrWriter) {
		return "", term.Usage("no terminal to ask for the password: say --new-password-file FILE, - for standard input, or --generate")
	}
	return term.NewPassword(c, "of user "+name)
}

// alterUser changes the credentials of one user, all at once: the first user that a cluster
// gets has to log in for the next request. A broker that takes one of a user at a time is
// given one at a time.
func alterUser(ctx context.Context, admin *kadm.Client, name string, gone []kadm.DeleteSCRAM, upsert []kadm.UpsertSCRAM) error {
	alter := func(gone []kadm.DeleteSCRAM, upsert []kadm.UpsertSCRAM) (detail string, err error) {
		answers, err := admin.AlterUserSCRAMs(ctx, gone, upsert)
		if err == nil {
			err = answers[name].Err
		}
		return answers[name].ErrMessage, err
	}
	detail, err := alter(gone, upsert)
	if errors.Is(err, kerr.DuplicateResource) {
		err = nil
		for i := 0; err == nil && i < len(gone); i++ {
			detail, err = alter(gone[i:i+1], nil)
		}
		for i := 0; err == nil && i < len(upsert); i++ {
			upsert[i].Password = "" // it is salted
			detail, err = alter(nil, upsert[i:i+1])
		}
	}
	return userError(name, err, detail)
}

// A user is one who may log in.
type user struct {
	User       string   `json:"user"`
	Mechanisms []string `json:"mechanisms"`
	Super      bool     `json:"super"`
}

// describeUsers returns all users, by name.
func describeUsers(ctx context.Context, admin *kadm.Client) ([]user, error) {
	described, err := admin.DescribeUserSCRAMs(ctx)
	if err != nil {
		return nil, err
	}
	all := []user{}
	for _, d := range described.Sorted() {
		if d.Err != nil {
			return nil, userError(d.User, d.Err, d.ErrMessage)
		}
		u := user{User: d.User, Mechanisms: []string{}}
		for _, i := range d.CredInfos {
			u.Mechanisms = append(u.Mechanisms, i.Mechanism.String())
		}
		slices.Sort(u.Mechanisms)
		all = append(all, u)
	}
	return all, nil
}

// superUsers are those that the setting super.users names; who may not see it sees none.
func superUsers(ctx context.Context, admin *kadm.Client) map[string]bool {
	super := make(map[string]bool)
	brokers, err := admin.ListBrokers(ctx)
	if err != nil || len(brokers) == 0 {
		return super
	}
	resources, _ := admin.DescribeBrokerConfigs(ctx, brokers[0].NodeID)
	for _, r := range resources {
		for _, s := range r.Configs {
			if s.Key == "super.users" && s.Value != nil {
				for principal := range strings.SplitSeq(*s.Value, ";") {
					super[strings.TrimPrefix(strings.TrimSpace(principal), "User:")] = true
				}
			}
		}
	}
	return super
}

func userList(c *urfave.Context) error {
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		all, err := describeUsers(ctx, admin)
		if err != nil {
			return err
		}
		super := superUsers(ctx, admin)
		for i := range all {
			all[i].Super = super[all[i].User]
		}
		if wanted := c.Args().Slice(); len(wanted) > 0 {
			for _, name := range wanted {
				if !slices.ContainsFunc(all, func(u user) bool { return u.User == name }) {
					return noUser(name)
				}
			}
			all = slices.DeleteFunc(all, func(u user) bool { return !slices.Contains(wanted, u.User) })
		}
		return term.PrintList(c, all, []term.Column[user]{
			{Header: "USER", Cell: func(u user) string { return u.User }},
			{Header: "MECHANISMS", Cell: func(u user) string { return strings.Join(u.Mechanisms, ",") }},
			{Header: "SUPER", Cell: func(u user) string { return map[bool]string{true: "yes", false: "no"}[u.Super] }},
		})
	})
}

func userDelete(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("user delete which user? see `millrace user delete --help`")
	}
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		all, err := describeUsers(ctx, admin)
		if err != nil {
			return err
		}
		gone := make(map[string][]kadm.DeleteSCRAM)
		for _, name := range c.Args().Slice() {
			i := slices.IndexFunc(all, func(u user) bool { return u.User == name })
			if i < 0 {
				return noUser(name)
			}
			for _, m := range scrams {
				if slices.Contains(all[i].Mechanisms, m.String()) {
					gone[name] = append(gone[name], kadm.DeleteSCRAM{User: name, Mechanism: m})
				}
			}
		}
		names := strings.Join(c.Args().Slice(), ", ")
		super := superUsers(ctx, admin)
		left := slices.ContainsFunc(all, func(u user) bool { return super[u.User] && gone[u.User] == nil })
		if last := slices.IndexFunc(c.Args().Slice(), func(name string) bool { return super[name] }); last >= 0 && !left && !c.Bool("last") {
			return term.Fail(term.StatusFailed, "%s is the last super user, and nothing was deleted: nobody could let anybody in afterwards, unless an ACL allows somebody to alter the cluster; then say --last", c.Args().Get(last))
		}
		if c.Bool("dry-run") {
			_, err := fmt.Fprintln(c.App.Writer, "would delete", names)
			return err
		}
		if err := term.Confirm(c, "delete "+names); err != nil {
			return err
		}
		for _, name := range c.Args().Slice() {
			if err := alterUser(context.WithoutCancel(ctx), admin, name, gone[name], nil); err != nil {
				return err
			}
			fmt.Fprintln(c.App.Writer, "deleted user", name)
		}
		return nil
	})
}

func noUser(name string) error {
	return term.Fail(term.StatusNotFound, "user %q does not exist; see `millrace user list`", name)
}

// userError explains a broker's refusal concerning a user; nil is none.
func userError(name string, err error, detail string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.ResourceNotFound):
		return noUser(name)
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		return err
	}
	return term.Explain(err, "user %q: %s", name, kafka.BrokerSaid(err, detail))
}
