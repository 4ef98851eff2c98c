package local

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"millrace"
	"millrace/cli/term"
	"millrace/replication"
	"millrace/replication/identity"
	"millrace/replication/metadata/settings"
	"millrace/security/certificate"

	urfave "github.com/urfave/cli/v2"
)

// The variables that name the first user of a cluster that a node founds. Commands log in by
// the same.
const (
	userVariable     = "MILLRACE_USER"
	passwordVariable = "MILLRACE_PASSWORD"
)

// secureFlags are those of serve that say who may come in.
func secureFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "users", Usage: "`FILE` of NAME:PASSWORD lines: users of a new cluster, the first a super user; MILLRACE_USER and MILLRACE_PASSWORD name one"},
		&urfave.StringFlag{Name: "tls", Usage: "auto: show clients a certificate of the cluster's own authority, which millrace cluster ca prints"},
		&urfave.StringFlag{Name: "tls-cert", Usage: "`FILE` of the certificate that clients are shown, PEM"},
		&urfave.StringFlag{Name: "tls-key", Usage: "`FILE` of its key", DefaultText: "in --tls-cert"},
		&urfave.StringFlag{Name: "tls-client-ca", Usage: "`FILE` of the authority of clients' certificates, by which they may log in"},
		&urfave.BoolFlag{Name: "insecure", Usage: "let clients in who do not log in, and take passwords without TLS"},
	}
}

// listenerSetting takes the name of a setting for one listener apart: listener.name.NAME.REST.
func listenerSetting(key string) (name, rest string, ok bool) {
	key, ok = strings.CutPrefix(key, "listener.name.")
	if !ok {
		return "", "", false
	}
	name, rest, ok = strings.Cut(key, ".")
	return strings.ToUpper(name), rest, ok && (strings.HasPrefix(rest, "ssl.") || rest == mechanismsKey)
}

// unreadable refuses what is to be PEM, or a file of it, and is neither. Its text is not
// repeated as the name of a file: it may be a key whose first line is missing.
func unreadable(c *configuration, p property) bool {
	if p.value == "" || strings.Contains(p.value, "-----BEGIN ") {
		return false
	}
	if _, err := os.Stat(p.value); err == nil {
		return false
	}
	p.value = "…"
	c.mistaken(p, "it is neither PEM, which begins with -----BEGIN, nor a file that is there")
	return true
}

// checkProtocols refuses what no listener could be, also of those that this node has not.
func (b *broker) checkProtocols(c *configuration) {
	p := c.at[protocolsKey]
	for pair := range list(p.value) {
		name, protocol, ok := strings.Cut(pair, ":")
		name, protocol = strings.ToUpper(strings.TrimSpace(name)), strings.ToUpper(strings.TrimSpace(protocol))
		if slices.ContainsFunc(b.listeners, func(l listener) bool { return l.name == name }) {
			continue // which has been said
		}
		switch millrace.Protocol(protocol) {
		case millrace.Plaintext, millrace.SSL, millrace.SASLPlaintext, millrace.SASLSSL:
		default:
			ok = false
		}
		if !ok {
			c.mistaken(p, "%q is not NAME:PROTOCOL; there are PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL", pair)
		}
	}
}

// takeCertificates finds what clients of each listener are shown.
func (b *broker) takeCertificates(c *configuration) {
	own := make(map[string]map[string]property) // by listener and setting
	for _, p := range c.all {
		name, rest, ok := listenerSetting(p.key)
		if !ok {
			continue
		}
		if own[name] == nil {
			own[name] = make(map[string]property)
		}
		own[name][rest] = p
	}
	for name, all := range own {
		if !slices.ContainsFunc(b.listeners, func(l listener) bool { return l.name == name }) {
			for _, p := range all {
				c.mistaken(p, "there is no listener called %s", name)
			}
		}
	}
	for i := range b.listeners {
		l := &b.listeners[i]
		if l.only {
			continue
		}
		value := func(key string) (string, property) {
			if p, ok := own[l.name][key]; ok {
				return p.value, p
			}
			return c.at[key].value, c.at[key]
		}
		if p, ok := own[l.name][mechanismsKey]; ok {
			d, _ := settings.BrokerDefinition(mechanismsKey)
			if _, err := d.Validate(p.value); err != nil || p.value == "" {
				c.mistaken(p, "it is %s", d.Allowed())
			}
			l.mechanisms = p.value
		}
		location, at := value(keyStoreKey)
		chain, chainAt := value(chainKey)
		key, keyAt := value(privateKeyKey)
		trusted, trustedAt := value(trustStoreKey)
		certificates, _ := value(trustedKey)
		auth, authAt := value(clientAuthKey)
		text, rulesAt := value(rulesKey)
		rules, err := certificate.ParseRules(text)
		if err != nil {
			c.mistaken(rulesAt, "%v", err)
		}
		versions, versionsAt := value(versionsKey)
		least, most, err := certificate.Versions(slices.Collect(list(versions)))
		if err != nil {
			c.mistaken(versionsAt, "%v", err)
		}
		names, suitesAt := value(suitesKey)
		suites, err := certificate.Suites(slices.Collect(list(names)))
		if err != nil {
			c.mistaken(suitesAt, "%v", err)
		}
		switch {
		case location != "" && chain != "":
			chainAt.value = "…"
			c.mistaken(chainAt, "ssl.keystore.location names a file for it as well; leave one of them out")
		case chain != "" && key == "":
			chainAt.value = "…" // the key may be in it
			c.mistaken(chainAt, "there is no key to it: ssl.keystore.key")
		case key != "" && chain == "" && location == "":
			c.mistaken(keyAt, "there is no certificate to it: ssl.keystore.certificate.chain")
			continue
		}
		if unreadable(c, keyAt) || location == "" && unreadable(c, chainAt) {
			continue
		}
		switch {
		case location == "" && chain == "":
			if auth != "" && auth != string(certificate.ClientAuthNone) {
				c.mistaken(authAt, "there is no TLS by which clients could show a certificate: ssl.keystore.location names the broker's")
			} else if trusted != "" {
				c.mistaken(trustedAt, "there is no TLS by which clients could show a certificate: ssl.keystore.location names the broker's")
			}
			continue
		}
		if l.protocol == millrace.Plaintext || l.protocol == millrace.SASLPlaintext {
			continue // the settings are for other listeners
		}
		if trusted != "" && certificates != "" {
			c.mistaken(trustedAt, "ssl.truststore.certificates holds them as well; leave one of them out")
		}
		l.certificate = &certificate.Config{
			Certificate: cmp.Or(location, chain), Key: key, ClientCA: cmp.Or(trusted, certificates), ClientAuth: certificate.ClientAuth(auth), Rules: rules,
			MinVersion: least, MaxVersion: most, CipherSuites: suites,
		}
		if _, err := certificate.New(*l.certificate); err != nil {
			if at.key == "" {
				at = chainAt
			}
			at.value = "…" // it may be long, and a key
			c.mistaken(at, "%v", err)
		}
	}
}

// secure takes the flags of secureFlags over, and refuses to listen where anybody may come in
// and nobody knows who.
func (b *broker) secure(c *urfave.Context) error {
	cert, key, ca, auto := c.String("tls-cert"), c.String("tls-key"), c.String("tls-client-ca"), c.String("tls")
	switch {
	case auto != "" && auto != "auto":
		return term.Usage("--tls %s: it is auto; certificates of your own are --tls-cert and --tls-key", auto)
	case auto != "" && cert != "":
		return term.Usage("--tls auto and --tls-cert exclude each other: one certificate is shown")
	case key != "" && cert == "":
		return term.Usage("--tls-key is without --tls-cert, the certificate that it is the key of")
	case ca != "" && cert == "":
		return term.Usage("--tls-client-ca is without --tls-cert: clients show certificates to who shows one")
	}
	versions, suites := b.settings[versionsKey], b.settings[suitesKey]
	if auto != "" && versions+suites != "" {
		return term.Usage("--tls auto: %s and %s hold for certificates of your own, and would have no effect here", versionsKey, suitesKey)
	}
	if cert != "" {
		cfg := certificate.Config{Certificate: cert, Key: key, ClientCA: ca}
		cfg.MinVersion, cfg.MaxVersion, _ = certificate.Versions(slices.Collect(list(versions))) // they have been read before
		cfg.CipherSuites, _ = certificate.Suites(slices.Collect(list(suites)))
		if ca != "" {
			cfg.ClientAuth = certificate.ClientAuthRequested
		}
		if _, err := certificate.New(cfg); err != nil {
			return term.Usage("--tls-cert: %v", err)
		}
		for i := range b.listeners {
			b.listeners[i].certificate = &cfg
		}
	}
	for i := range b.listeners {
		l := &b.listeners[i]
		l.auto, l.insecure = auto != "" && l.certificate == nil, c.Bool("insecure")
		if (l.protocol == millrace.SSL || l.protocol == millrace.SASLSSL) && l.certificate == nil && !l.auto && !l.only {
			return term.Usage("listener %s speaks %s, and has no certificate to show: --tls auto, --tls-cert FILE, or ssl.keystore.location", l.name, l.protocol)
		}
	}
	if err := b.takeUsers(c.String("users")); err != nil {
		return err
	}
	return b.exposed()
}

// takeUsers takes the users of a new cluster from a file or from the environment.
func (b *broker) takeUsers(file string) error {
	name, password := os.Getenv(userVariable), os.Getenv(passwordVariable)
	switch {
	case name == "" && password != "":
		return term.Usage("environment: %s is set, and %s, whose password it is, is not", passwordVariable, userVariable)
	case name != "" && password == "":
		return term.Usage("environment: %s is set, and %s is not", userVariable, passwordVariable)
	case name != "":
		b.users = append(b.users, millrace.UserSecret{Name: name, Password: password})
	}
	if file == "" {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return term.Usage("--users: %v", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o007 != 0 {
		return term.Usage("--users %s: it may be read by everybody on this machine (mode %04o): chmod 600 %s", file, info.Mode().Perm(), file)
	}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, password, ok := strings.Cut(line, ":")
		if !ok || name == "" || password == "" {
			return term.Usage("--users %s: line %d is not NAME:PASSWORD", file, n)
		}
		b.users = append(b.users, millrace.UserSecret{Name: name, Password: password})
	}
	if err := lines.Err(); err != nil {
		return term.Usage("--users %s: %v", file, err)
	}
	if len(b.users) == 0 {
		return term.Usage("--users %s: it names nobody", file)
	}
	return nil
}

// exposed refuses a listener that other machines reach while there is no way to know who
// calls, and a way to log in that nobody has.
func (b *broker) exposed() error {
	known := len(b.users) > 0
	for _, j := range b.join {
		known = known || identity.IsToken(j) // whom the cluster lets in it decides by its users
	}
	image, err := replication.LastImage(b.dataDir)
	switch {
	case err == nil && image != nil:
		known = known || len(image.Users()) > 0
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil // the node itself says what is wrong with its folder
	}
	if b.settings["authorizer.class.name"] != "" && b.settings["super.users"] == "" && !known && len(b.join) == 0 && image == nil {
		return term.Usage("authorizer.class.name: the cluster would begin with nobody who may do anything, and so for good: name the first user by --users FILE, or by %s and %s, or say super.users=User:NAME", userVariable, passwordVariable)
	}
	tokens := b.settings["sasl.oauthbearer.jwks.endpoint.url"] != ""
	for _, l := range b.listeners {
		host, _, _ := net.SplitHostPort(l.listen)
		byCertificate := l.certificate != nil && (l.certificate.ClientAuth == certificate.ClientAuthRequired || l.protocol == "" && l.certificate.ClientCA != "")
		switch {
		case (l.protocol == millrace.SASLPlaintext || l.protocol == millrace.SASLSSL) && !known && !tokens && len(b.join) == 0:
			return term.Usage("listener %s asks clients to log in (%s), and there is nobody who could: name the first user by --users FILE, or by %s and %s", l.name, l.protocol, userVariable, passwordVariable)
		case l.only, l.insecure, byCertificate, identity.LoopbackHost(host):
		case l.protocol == millrace.SASLPlaintext, l.protocol == millrace.SASLSSL, l.protocol == "" && (known || tokens):
		default:
			return term.Usage("%s", fmt.Sprintf(openDoor, l.listen))
		}
		if !l.only && !l.auto && l.certificate == nil && !identity.LoopbackHost(host) {
			b.warnings = append(b.warnings, fmt.Sprintf("what clients and this node send each other at %s can be read on the way: --tls auto, or --tls-cert, encrypts it", l.listen))
		}
	}
	return nil
}

// openDoor is what a node says that would let in whoever reaches it.
const openDoor = `--listen %[1]s: other machines reach that address, and nothing says who may come in; begin the cluster with a user, "MILLRACE_USER=admin MILLRACE_PASSWORD=… millrace serve --listen %[1]s --tls auto", and let further nodes join it by what "millrace cluster token" prints, "millrace serve --listen HOST:9092 --tls auto --join TOKEN"; or say --insecure, if everybody who reaches it may read, write and delete everything`
