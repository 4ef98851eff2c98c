package cli

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

func contextCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "context",
		Aliases: []string{"contexts"},
		Usage:   "keep how clusters are reached, under names",
		Subcommands: []*urfave.Command{{
			Name:      "add",
			Usage:     "keep how a cluster is reached",
			ArgsUsage: "NAME",
			Description: `   Commands reach the cluster of the context in use, unless flags or the environment say
   otherwise; the first context is in use at once. Of a user without --password-file the
   password is asked for by each command; --keep-password asks for it now. The file of the
   contexts, contexts.json, is in your folder for configuration and for your eyes alone.

EXAMPLES:
   $ millrace context add local --brokers 127.0.0.1:9092
   $ millrace context add shop --brokers 10.0.0.1:9092,10.0.0.2:9092 --user alice --password-file alice.secret --tls-ca ca.pem
   $ millrace context add shop --replace --brokers 10.0.0.1:9092 --user alice -X sasl.mechanism=SCRAM-SHA-256`,
			Flags: []urfave.Flag{
				&urfave.StringFlag{Name: "brokers", Aliases: []string{"b"}, Usage: "brokers to ask first, `HOST:PORT,…`"},
				&urfave.StringFlag{Name: "user", Usage: "log in as `USER`", DefaultText: "do not log in"},
				&urfave.StringFlag{Name: "password-file", Usage: "`FILE` with the password"},
				&urfave.BoolFlag{Name: "keep-password", Usage: "ask for the password, and keep it in the file of the contexts"},
				&urfave.StringFlag{Name: "tls-ca", Usage: "speak TLS to brokers whose certificates are signed by those in this `FILE`"},
				&urfave.StringFlag{Name: "tls-cert", Usage: "`FILE` with a certificate to show to brokers"},
				&urfave.StringFlag{Name: "tls-key", Usage: "`FILE` with its key"},
				&urfave.StringSliceFlag{Name: "property", Aliases: []string{"X"}, Usage: "`KEY=VALUE`: a property of Kafka's clients, such as sasl.mechanism=PLAIN; may be repeated"},
				&urfave.BoolFlag{Name: "replace", Usage: "instead of the context of this name"},
			},
			Action: contextAdd,
		}, {
			Name:      "use",
			Usage:     "say which context is in use",
			ArgsUsage: "NAME",
			Description: `   For all commands from now on that neither name another with --context or
   MILLRACE_CONTEXT, nor brokers.

EXAMPLES:
   $ millrace context use local`,
			Flags:  []urfave.Flag{&urfave.BoolFlag{Name: "none", Usage: "from now on none is in use"}},
			Action: contextUse,
		}, {
			Name:    "list",
			Aliases: []string{"ls"},
			Usage:   "list the contexts",
			Description: `   JSON: a list of {context, brokers, user, in_use}.

EXAMPLES:
   $ millrace context list`,
			Flags:  term.OutputFlags(true),
			Action: contextList,
		}, {
			Name:      "show",
			Usage:     "show a context",
			ArgsUsage: "[NAME]",
			Description: `   Without a name the one in use. A password that is kept is not shown.

   JSON: {context, brokers, user, password, tls_ca, tls_cert, tls_key, properties, in_use}.

EXAMPLES:
   $ millrace context show
   $ millrace context show local -o json`,
			Flags:  term.OutputFlags(true),
			Action: contextShow,
		}, {
			Name:      "delete",
			Aliases:   []string{"rm"},
			Usage:     "forget contexts",
			ArgsUsage: "NAME…",
			Description: `   With the passwords that are kept with them. Clusters are not asked.

EXAMPLES:
   $ millrace context delete local --dry-run
   $ millrace context delete local --yes`,
			Flags:  term.DestructiveFlags(),
			Action: contextDelete,
		}},
	}
}

// contextNamed is the one context that a command line names.
func contextNamed(c *urfave.Context) (string, error) {
	name := c.Args().First()
	switch {
	case c.NArg() != 1:
		return "", term.Usage("%s takes the name of one context; see `millrace %[1]s --help`", commandWords(c))
	case name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", term.Usage("%q cannot be the name of a context: it has 1 to 255 bytes and no line break", name)
	}
	return name, nil
}

func contextAdd(c *urfave.Context) error {
	name, err := contextNamed(c)
	if err != nil {
		return err
	}
	all, err := kafka.ReadContexts()
	if err != nil {
		return err
	}
	if _, is := all.Notes[name]; is && !c.Bool("replace") {
		return term.Fail(term.StatusFailed, "context %q exists already; --replace puts this in its place", name)
	}
	if c.String("brokers") == "" {
		return term.Usage("context add: where is the cluster? say --brokers HOST:PORT,…")
	}
	n := kafka.Note{Brokers: c.String("brokers"), User: c.String("user")}
	for flag, path := range map[string]*string{"password-file": &n.PasswordFile, "tls-ca": &n.TLSCA, "tls-cert": &n.TLSCert, "tls-key": &n.TLSKey} {
		if *path, err = absolute(c.String(flag)); err != nil {
			return err
		}
	}
	if n.Properties, err = kafka.ParseProperties(c.StringSlice("property")); err != nil {
		return err
	}
	switch kept := c.Bool("keep-password"); {
	case kept && n.PasswordFile != "":
		return term.Usage("--keep-password and --password-file exclude each other")
	case n.User == "" && (kept || n.PasswordFile != ""):
		return term.Usage("the password of whom? say --user NAME")
	}
	// What is asked for comes last: nobody types a password for a line that is wrong.
	if err := n.Check(); err != nil {
		return err
	}
	if c.Bool("keep-password") {
		if n.Password, err = term.Password(c, fmt.Sprintf("Password of user %s: ", n.User)); err != nil {
			return err
		}
	}
	all.Notes[name] = n
	if len(all.Notes) == 1 {
		all.Current = name
	}
	if err := all.Write(); err != nil {
		return err
	}
	use := "; `millrace context use " + name + "` puts it in use"
	if all.Current == name {
		use = ", which is in use"
	}
	_, err = fmt.Fprintf(c.App.Writer, "kept context %s%s\n", name, use)
	return err
}

// absolute is a path that is right from wherever it is read.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("context add: %w", err)
	}
	return path, nil
}

func contextUse(c *urfave.Context) error {
	name := ""
	all, err := kafka.ReadContexts()
	if err != nil {
		return err
	}
	if !c.Bool("none") {
		if name, err = contextNamed(c); err != nil {
			return err
		}
		if _, err := all.Find(name); err != nil {
			return err
		}
	} else if c.NArg() > 0 {
		return term.Usage("context use takes a name or --none, not both")
	}
	all.Current = name
	if err := all.Write(); err != nil {
		return err
	}
	if name == "" {
		_, err = fmt.Fprintln(c.App.Writer, "no context is in use")
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "context %s is in use: %s\n", name, all.Notes[name].Brokers)
	return err
}

// A shownContext is a context without its secret.
type shownContext struct {
	Context string `json:"context"`
	Brokers string `json:"brokers"`
	User    string `json:"user,omitempty"`
	InUse   bool   `json:"in_use"`
}

func contextList(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("context list takes no arguments; `millrace context show NAME` shows one")
	}
	all, err := kafka.ReadContexts()
	if err != nil {
		return err
	}
	shown := []shownContext{}
	for _, name := range all.Names() {
		shown = append(shown, shownContext{name, all.Notes[name].Brokers, all.Notes[name].User, name == all.Current})
	}
	return term.PrintList(c, shown, []term.Column[shownContext]{
		{Header: "CONTEXT", Cell: func(s shownContext) string { return s.Context }},
		{Header: "BROKERS", Cell: func(s shownContext) string { return s.Brokers }},
		{Header: "USER", Cell: func(s shownContext) string { return s.User }},
		{Header: "IN USE", Cell: func(s shownContext) string { return map[bool]string{true: "yes"}[s.InUse] }},
	})
}

func contextShow(c *urfave.Context) error {
	all, err := kafka.ReadContexts()
	if err != nil {
		return err
	}
	name := all.Current
	switch {
	case c.NArg() > 0:
		if name, err = contextNamed(c); err != nil {
			return err
		}
	case name == "":
		return term.Fail(term.StatusNotFound, "no context is in use; `millrace context list` lists them")
	}
	n, err := all.Find(name)
	if err != nil {
		return err
	}
	password := ""
	switch {
	case n.Password != "":
		password = "kept, not shown"
	case n.PasswordFile != "":
		password = "in " + n.PasswordFile
	case n.User != "":
		password = "asked for each time"
	}
	object := struct {
		shownContext
		Password   string            `json:"password,omitempty"`
		TLSCA      string            `json:"tls_ca,omitempty"`
		TLSCert    string            `json:"tls_cert,omitempty"`
		TLSKey     string            `json:"tls_key,omitempty"`
		Properties map[string]string `json:"properties,omitempty"`
	}{shownContext{name, n.Brokers, n.User, name == all.Current}, password, n.TLSCA, n.TLSCert, n.TLSKey, n.Properties}
	return term.PrintObject(c, object, name, func() error {
		lines := [][2]string{
			{"context", name}, {"in use", map[bool]string{true: "yes", false: "no"}[name == all.Current]}, {"brokers", n.Brokers}, {"user", n.User}, {"password", password},
			{"TLS authority", n.TLSCA}, {"TLS certificate", n.TLSCert}, {"TLS key", n.TLSKey},
		}
		for _, key := range slices.Sorted(maps.Keys(n.Properties)) {
			lines = append(lines, [2]string{key, n.Properties[key]})
		}
		for _, line := range lines {
			if line[1] == "" {
				continue
			}
			if _, err := fmt.Fprintf(c.App.Writer, "%-16s %s\n", line[0], line[1]); err != nil {
				return err
			}
		}
		return nil
	})
}

func contextDelete(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("context delete which context? see `millrace context delete --help`")
	}
	all, err := kafka.ReadContexts()
	if err != nil {
		return err
	}
	for _, name := range c.Args().Slice() {
		if _, err := all.Find(name); err != nil {
			return err
		}
		delete(all.Notes, name)
	}
	names := strings.Join(c.Args().Slice(), ", ")
	inUse := slices.Contains(c.Args().Slice(), all.Current)
	if inUse {
		all.Current = ""
		names += " (in use)"
	}
	if c.Bool("dry-run") {
		_, err := fmt.Fprintln(c.App.Writer, "would forget", names)
		return err
	}
	if err := term.Confirm(c, "forget "+names); err != nil {
		return err
	}
	if err := all.Write(); err != nil {
		return err
	}
	said := ""
	if inUse {
		said = "; none is in use now: `millrace context use NAME`"
	}
	_, err = fmt.Fprintf(c.App.Writer, "forgot %s%s\n", strings.TrimSuffix(names, " (in use)"), said)
	return err
}
