package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"millrace/cli/properties"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	urfave "github.com/urfave/cli/v2"
)

// How a cluster is reached, and as whom, is said in up to five places, of which the later
// wins: the context that is in use, the environment, a file of Kafka's tools, -X, and the
// flags. They all become properties with Kafka's names, and one function, accessOf, reads
// those. A secret is a property too; it comes from files, the environment and prompts only,
// and no error repeats a value that may be one.

// connection is the category of the flags of Flags. A command may have a flag of its own
// with the name of one of them, and is then reached by -X.
const connection = "connection"

// connectionFlags are those that say how a cluster is reached, besides --brokers.
func connectionFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "context", Category: connection, Usage: "reach the cluster as the context `NAME` says (MILLRACE_CONTEXT)", DefaultText: "the one in use"},
		&urfave.StringFlag{Name: "user", Category: connection, Usage: "log in as `USER` (MILLRACE_USER)", DefaultText: "do not log in"},
		&urfave.StringFlag{Name: "password-file", Category: connection, Usage: "`FILE` with the password (MILLRACE_PASSWORD_FILE; or the password: MILLRACE_PASSWORD)"},
		&urfave.StringFlag{Name: "tls-ca", Category: connection, Usage: "speak TLS to brokers whose certificates are signed by those in this `FILE` (MILLRACE_TLS_CA)"},
		&urfave.StringFlag{Name: "tls-cert", Category: connection, Usage: "`FILE` with a certificate to show to brokers (MILLRACE_TLS_CERT)"},
		&urfave.StringFlag{Name: "tls-key", Category: connection, Usage: "`FILE` with its key (MILLRACE_TLS_KEY)"},
		&urfave.StringSliceFlag{Name: "property", Aliases: []string{"X"}, Category: connection, Usage: "`KEY=VALUE`: a property of Kafka's clients, such as sasl.mechanism=PLAIN; may be repeated"},
		&urfave.StringFlag{Name: "command-config", Category: connection, Usage: "`FILE` of such properties, as Kafka's tools take it (MILLRACE_COMMAND_CONFIG)"},
	}
}

// IsClient reports whether a command has the flags of Flags.
func IsClient(c *urfave.Command) bool {
	return slices.ContainsFunc(c.Flags, func(f urfave.Flag) bool { return isConnection(f) })
}

func isConnection(f urfave.Flag) bool {
	d, ok := f.(urfave.CategorizableFlag)
	return ok && d.GetCategory() == connection
}

// The properties that are understood. What other clients call them is in otherNames.
const (
	propBrokers     = "bootstrap.servers"
	propProtocol    = "security.protocol"
	propMechanism   = "sasl.mechanism"
	propLogin       = "sasl.jaas.config"
	propUser        = "sasl.username"
	propPassword    = "sasl.password"
	propSecretFile  = "sasl.password.file" // ours
	propToken       = "sasl.tokenauth"     // ours: "true" of a delegation token
	propRoots       = "ssl.truststore.location"
	propRootsText   = "ssl.truststore.certificates"
	propRootsType   = "ssl.truststore.type"
	propStore       = "ssl.keystore.location" // certificate and key in one file
	propStoreType   = "ssl.keystore.type"
	propCert        = "ssl.certificate.location"
	propCertText    = "ssl.keystore.certificate.chain"
	propKey         = "ssl.key.location"
	propKeyText     = "ssl.keystore.key"
	propKeyPassword = "ssl.key.password"
	propNames       = "ssl.endpoint.identification.algorithm"
)

var known = []string{propBrokers, propProtocol, propMechanism, propLogin, propUser, propPassword, propSecretFile, propToken,
	propRoots, propRootsText, propRootsType, propStore, propStoreType, propCert, propCertText, propKey, propKeyText, propKeyPassword, propNames,
	"ssl.truststore.password", "ssl.keystore.password"}

// otherNames are those of librdkafka.
var otherNames = map[string]string{
	"sasl.mechanisms": propMechanism, "ssl.ca.location": propRoots, "ssl.ca.pem": propRootsText,
	"ssl.certificate.pem": propCertText, "ssl.key.pem": propKeyText, "metadata.broker.list": propBrokers,
}

// A layer is what one place says.
type layer map[string]string

// over lays one place's properties over those of weaker ones. Who names another user means
// none of the passwords that were given for the first.
func (l layer) over(below layer) layer {
	all := maps.Clone(below)
	user, password := l[propUser], l[propPassword] != "" || l[propSecretFile] != ""
	if password || user != "" && below[propUser] != "" && user != below[propUser] {
		for _, p := range []string{propPassword, propSecretFile, propToken} {
			delete(all, p)
		}
	}
	// A certificate goes with its key.
	if l[propStore]+l[propCert]+l[propCertText] != "" {
		for _, p := range []string{propStore, propCert, propCertText, propKey, propKeyText} {
			delete(all, p)
		}
	}
	if l[propRoots]+l[propRootsText] != "" {
		delete(all, propRoots)
		delete(all, propRootsText)
	}
	maps.Copy(all, l)
	return all
}

// take adds a property by any of its names, where it was found. It reports whether it is one
// that says how a cluster is reached.
func (l layer) take(where, key, value string) (bool, error) {
	if other, ok := otherNames[key]; ok {
		key = other
	}
	if !slices.Contains(known, key) {
		return false, nil
	}
	if key != propLogin {
		l[key] = value
		return true, nil
	}
	options, err := jaasOptions(value)
	if err != nil {
		return true, term.Usage("%s: sasl.jaas.config %v", where, err)
	}
	l[propUser], l[propPassword] = options["username"], options["password"]
	if options["tokenauth"] == "true" {
		l[propToken] = "true"
	}
	return true, nil
}

// flagLayer is what the flags say, and brokers by no flag of theirs.
func flagLayer(c *urfave.Context) (flags, pairs layer, err error) {
	flags, pairs = layer{}, layer{}
	for _, f := range c.Command.Flags {
		if !isConnection(f) {
			continue
		}
		name := f.Names()[0]
		switch prop := flagProperty[name]; {
		case prop != "" && c.String(name) != "":
			flags[prop] = c.String(name)
		case prop != "" && c.IsSet(name):
			return nil, nil, term.Usage("--%s is empty", name)
		}
	}
	for _, pair := range c.StringSlice("property") {
		key, value, ok := strings.Cut(pair, "=")
		if key = strings.TrimSpace(key); !ok || key == "" {
			return nil, nil, term.Usage("-X is KEY=VALUE, such as sasl.mechanism=PLAIN")
		}
		switch key {
		case propPassword, propLogin, propKeyText, propKeyPassword, "ssl.key.pem", "ssl.keystore.password":
			return nil, nil, term.Usage("-X %s: what stands in a command line everybody on the machine can read (ps); write it into a file, --password-file FILE or --command-config FILE, which only you may read", key)
		}
		if is, err := pairs.take("-X", key, value); err != nil {
			return nil, nil, err
		} else if !is {
			return nil, nil, term.Usage("-X %s: it does not say how a cluster is reached%s", key, term.DidYouMean(key, known))
		}
	}
	return flags, pairs, nil
}

// flagProperty is the property that a flag is short for.
var flagProperty = map[string]string{
	"user": propUser, "password-file": propSecretFile, "tls-ca": propRoots, "tls-cert": propCert, "tls-key": propKey,
}

// variables are properties under the names of an environment.
var variables = map[string]string{
	"MILLRACE_USER": propUser, "MILLRACE_PASSWORD": propPassword, "MILLRACE_PASSWORD_FILE": propSecretFile,
	"MILLRACE_TLS_CA": propRoots, "MILLRACE_TLS_CERT": propCert, "MILLRACE_TLS_KEY": propKey,
}

// Variables are the names of all variables by which a command that asks brokers reaches them.
func Variables() []string {
	return append(slices.Sorted(maps.Keys(variables)), "MILLRACE_BROKERS", "MILLRACE_CONTEXT", "MILLRACE_COMMAND_CONFIG")
}

// environmentLayer is what variables say.
func environmentLayer() layer {
	l := layer{}
	for name, prop := range variables {
		if v := os.Getenv(name); v != "" {
			l[prop] = v
		}
	}
	return l
}

// fileLayer reads a file of Kafka's tools. They share it with consumers and producers, so
// what does not say how a cluster is reached is left alone.
func fileLayer(name string) (layer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("--command-config: %w", err)
	}
	defer f.Close()
	all, wrong, err := properties.Read(f)
	if err != nil {
		return nil, term.Usage("--command-config %s: %v", name, err)
	}
	if len(wrong) > 0 {
		return nil, term.Usage("%s:%d: it is no KEY=VALUE", name, wrong[0].Line)
	}
	l := layer{}
	for _, p := range all {
		if _, err := l.take(fmt.Sprintf("%s:%d", name, p.Line), p.Key, p.Value); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// An access is how a command reaches its cluster.
type access struct {
	brokers   string // if --brokers does not name them
	user      string // "": nobody
	mechanism sasl.Mechanism
	secure    *tls.Config // nil: no TLS
}

// accessKey is the key of an access in a context.
type accessKey struct{}

// accessIn returns the access of a context: everybody's, in the open, if it has none.
func accessIn(ctx context.Context) *access {
	if a, ok := ctx.Value(accessKey{}).(*access); ok {
		return a
	}
	return &access{}
}

// WithAccess returns a command's context with how its flags, the environment and the
// context of their user's choice say that the cluster is reached: every client that is made
// with it is one of that.
func WithAccess(c *urfave.Context) (context.Context, error) {
	flags, pairs, err := flagLayer(c)
	if err != nil {
		return nil, err
	}
	file := layer{}
	if name := firstOf(connectionString(c, "command-config"), os.Getenv("MILLRACE_COMMAND_CONFIG")); name != "" {
		if file, err = fileLayer(name); err != nil {
			return nil, err
		}
	}
	all := flags.over(pairs.over(file.over(environmentLayer())))
	brokersNamed := brokersFlagged(c) || os.Getenv("MILLRACE_BROKERS") != "" || all[propBrokers] != ""
	noted, err := noteFor(firstOf(connectionString(c, "context"), os.Getenv("MILLRACE_CONTEXT")), !brokersNamed)
	if err != nil {
		return nil, err
	}
	all = all.over(noted)
	if pairs[propBrokers]+file[propBrokers] == "" && os.Getenv("MILLRACE_BROKERS") != "" {
		delete(all, propBrokers) // a variable is stronger than a context
	}
	a, err := accessOf(all, func(user string) (string, error) {
		return term.Password(c, fmt.Sprintf("Password of user %s: ", user))
	})
	if err != nil {
		return nil, err
	}
	return context.WithValue(c.Context, accessKey{}, a), nil
}

// firstOf returns the first text that is not empty.
func firstOf(all ...string) string {
	for _, s := range all {
		if s != "" {
			return s
		}
	}
	return ""
}

// connectionString is the value of a flag, if the command has not one of its own by that name.
func connectionString(c *urfave.Context, name string) string {
	if f := term.Lookup(c.Command, name); f != nil && isConnection(f) {
		return c.String(name)
	}
	return ""
}

// brokersFlagged reports whether the command line names brokers, and not the environment.
func brokersFlagged(c *urfave.Context) bool {
	return c.IsSet("brokers") && c.String("brokers") != os.Getenv("MILLRACE_BROKERS")
}

// accessOf reads the properties. ask is called for the password of a user who has given none.
func accessOf(p layer, ask func(user string) (string, error)) (*access, error) {
	a := &access{brokers: p[propBrokers], user: p[propUser]}
	protocol := strings.ToUpper(p[propProtocol])
	logsIn := a.user != "" || p[propMechanism] != "" || p[propPassword]+p[propSecretFile] != ""
	secured := p[propRoots]+p[propRootsText]+p[propStore]+p[propCert]+p[propCertText]+p[propKey]+p[propKeyText] != ""
	switch protocol {
	case "":
	case "PLAINTEXT", "SASL_PLAINTEXT":
		secured = false
	case "SSL", "SASL_SSL":
		secured = true
	default:
		return nil, term.Usage("security.protocol is PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
	}
	switch {
	case strings.HasPrefix(protocol, "SASL_"):
		logsIn = true
	case protocol != "":
		logsIn, a.user = false, ""
	}
	if secured {
		config, err := tlsOf(p)
		if err != nil {
			return nil, err
		}
		a.secure = config
	}
	if !logsIn {
		return a, nil
	}
	if a.user == "" && !strings.EqualFold(p[propMechanism], "OAUTHBEARER") {
		return nil, term.Usage("log in as whom? say --user NAME, MILLRACE_USER or sasl.username")
	}
	password, err := passwordOf(p, ask)
	if err != nil {
		return nil, err
	}
	if a.mechanism, err = mechanismOf(p, password); err != nil {
		return nil, err
	}
	if name := a.mechanism.Name(); (name == "PLAIN" || name == "OAUTHBEARER") && a.secure == nil && protocol == "" {
		return nil, term.Usage("sasl.mechanism %s sends the secret as it is: say --tls-ca FILE, or -X security.protocol=SASL_PLAINTEXT where nobody listens", name)
	}
	return a, nil
}

// mechanismOf returns how to log in with a password.
func mechanismOf(p layer, password string) (sasl.Mechanism, error) {
	login := scram.Auth{User: p[propUser], Pass: password, IsToken: p[propToken] == "true"}
	switch strings.ToUpper(p[propMechanism]) {
	case "", "SCRAM-SHA-512":
		return login.AsSha512Mechanism(), nil
	case "SCRAM-SHA-256":
		return login.AsSha256Mechanism(), nil
	case "PLAIN":
		return plain.Auth{User: p[propUser], Pass: password}.AsMechanism(), nil
	case "OAUTHBEARER":
		return oauth.Auth{Token: password}.AsMechanism(), nil
	}
	return nil, term.Usage("sasl.mechanism is SCRAM-SHA-512, SCRAM-SHA-256, PLAIN or OAUTHBEARER, whose token stands for the password")
}

// passwordOf finds the password of the user.
func passwordOf(p layer, ask func(user string) (string, error)) (string, error) {
	if name := p[propSecretFile]; name != "" {
		return ReadSecret("--password-file", name)
	}
	if p[propPassword] != "" {
		return p[propPassword], nil
	}
	return ask(p[propUser])
}

// ReadSecret reads a file with one secret, whose last line may end.
func ReadSecret(flag, name string) (string, error) {
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission), err != nil:
		return "", fmt.Errorf("%s: %w", flag, err)
	}
	secret := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case secret == "":
		return "", term.Usage("%s %s: it is empty", flag, name)
	case strings.ContainsAny(secret, "\n\r\x00"):
		return "", term.Usage("%s %s: it has several lines; the password stands there alone", flag, name)
	}
	return secret, nil
}

// tlsOf reads the certificates that are believed and the one that is shown.
func tlsOf(p layer) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	for _, kind := range []string{propRootsType, propStoreType} {
		if t := p[kind]; t != "" && !strings.EqualFold(t, "PEM") {
			return nil, term.Usage("%s=%s is Java's own: convert it to PEM with `keytool -exportcert -rfc` or `openssl pkcs12`", kind, t)
		}
	}
	roots, where := []byte(p[propRootsText]), propRootsText
	if name := p[propRoots]; name != "" {
		var err error
		if roots, err = os.ReadFile(name); err != nil {
			return nil, fmt.Errorf("--tls-ca: %w", err)
		}
		where = name
	}
	if len(roots) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(roots) {
			return nil, term.Usage("%s holds no certificate in PEM: it begins with -----BEGIN CERTIFICATE-----, as `millrace cluster ca` prints it", where)
		}
	}
	if _, set := p[propNames]; set && p[propNames] == "" {
		believeAnyName(config)
	}
	cert, key, err := pairOf(p)
	switch {
	case err != nil:
		return nil, err
	case len(cert) == 0 && len(key) == 0:
		return config, nil
	case len(cert) == 0:
		return nil, term.Usage("a key without its certificate: say --tls-cert FILE as well")
	case len(key) == 0:
		return nil, term.Usage("a certificate without its key: say --tls-key FILE as well")
	case p[propKeyPassword] != "" || encrypted(key):
		return nil, term.Usage("the key is encrypted, which this command does not read; `openssl pkey` writes it out, into a file that only you may read")
	}
	own, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, term.Usage("the certificate and its key: %v", err)
	}
	config.Certificates = []tls.Certificate{own}
	return config, nil
}

// pairOf reads the certificate and the key that are shown to brokers.
func pairOf(p layer) (cert, key []byte, err error) {
	cert, key = []byte(p[propCertText]), []byte(p[propKeyText])
	read := func(prop, flag string, into ...*[]byte) {
		name := p[prop]
		if name == "" || err != nil {
			return
		}
		b, failed := os.ReadFile(name)
		if failed != nil {
			err = fmt.Errorf("%s: %w", flag, failed)
		}
		for _, to := range into {
			*to = b
		}
	}
	read(propStore, propStore, &cert, &key)
	read(propCert, "--tls-cert", &cert)
	read(propKey, "--tls-key", &key)
	return cert, key, err
}

// encrypted reports whether a key in PEM is.
func encrypted(key []byte) bool {
	for {
		var block *pem.Block
		if block, key = pem.Decode(key); block == nil {
			return false
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return true
		}
	}
}

// believeAnyName has a certificate checked for who signed it and not for whom it names, as
// Kafka's clients do it with an empty ssl.endpoint.identification.algorithm.
func believeAnyName(config *tls.Config) {
	roots := config.RootCAs
	config.InsecureSkipVerify = true // of crypto/tls: what it would check is checked below, but for the name
	config.VerifyConnection = func(s tls.ConnectionState) error {
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, c := range s.PeerCertificates[1:] {
			options.Intermediates.AddCert(c)
		}
		_, err := s.PeerCertificates[0].Verify(options)
		return err
	}
}

// Dialer returns how connections to brokers are opened, and how long that may take: with
// TLS where the context says so.
func Dialer(ctx context.Context, timeout time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	bare := &net.Dialer{Timeout: timeout}
	config := accessIn(ctx).secure
	if config == nil {
		return bare.DialContext
	}
	return (&tls.Dialer{NetDialer: bare, Config: config}).DialContext
}

// Login returns how a context's clients log in, nil if they do not.
func Login(ctx context.Context) sasl.Mechanism { return accessIn(ctx).mechanism }

// Secure returns how a context's clients speak TLS, nil if they do not. It is the caller's.
func Secure(ctx context.Context) *tls.Config { return accessIn(ctx).secure.Clone() }

// options are those of a client that reaches its cluster so.
func (a *access) options(ctx context.Context) (all []kgo.Opt) {
	if a.secure != nil {
		all = append(all, kgo.Dialer(Dialer(ctx, 3*time.Second)))
	}
	if a.mechanism != nil {
		all = append(all, kgo.SASL(a.mechanism))
	}
	return all
}

// Reach returns an action whose clients reach the cluster as its flags say, and which ends
// when every broker knows what it changed.
func Reach(action urfave.ActionFunc) urfave.ActionFunc {
	action = Everywhere(action)
	return func(c *urfave.Context) error {
		ctx, err := WithAccess(c)
		if err != nil {
			return err
		}
		c.Context = ctx
		return deniedTo(accessIn(ctx).user, action(c))
	}
}
