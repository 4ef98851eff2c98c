package certificate

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// A ClientAuth says whether clients have to show a certificate: ssl.client.auth.
type ClientAuth string

// The kinds of client authentication, under Kafka's names.
const (
	ClientAuthNone      ClientAuth = "none"
	ClientAuthRequested ClientAuth = "requested" // one that is shown has to be good
	ClientAuthRequired  ClientAuth = "required"
)

// A Config says where certificates are. Each is a file's name, or PEM itself.
type Config struct {
	Certificate string // the broker's, and behind it those of the authorities between; the key may be in the same file
	Key         string // "": in Certificate
	ClientCA    string // authorities of clients' certificates
	ClientAuth  ClientAuth
	// Rules make principals of subjects: ssl.principal.mapping.rules. nil: the subject itself.
	Rules Rules
	// What TLS may be: ssl.enabled.protocols and ssl.cipher.suites. 0 and nil: 1.2 or newer, by
	// whatever crypto/tls holds to be safe.
	MinVersion, MaxVersion uint16
	CipherSuites           []uint16

	Logger *slog.Logger     // takes what is wrong with files that changed
	Now    func() time.Time // nil: time.Now
}

const (
	lookEvery = time.Second         // files are looked at no more often
	endsSoon  = 30 * 24 * time.Hour // who answers for a broker wants to hear of it
	warnEvery = 24 * time.Hour
)

// A Source hands certificates to a server's handshakes. It is safe for concurrent use.
type Source struct {
	cfg Config
	now func() time.Time

	mu     sync.Mutex
	config *tls.Config
	leaf   *x509.Certificate
	state  []fileState // of the files that config came of
	looked time.Time
	reads  bool      // a handshake is reading the files
	warned time.Time // when that it ends was last said
}

// A fileState tells one content of a file from another.
type fileState struct {
	name    string
	size    int64
	changed time.Time
}

// New reads what a Config names. Its error says what is wrong with which, and what to do.
func New(cfg Config) (*Source, error) {
	s := &Source{cfg: cfg, now: cfg.Now}
	if s.now == nil {
		s.now = time.Now
	}
	if s.cfg.Logger == nil {
		s.cfg.Logger = slog.New(slog.DiscardHandler)
	}
	state := s.states()
	config, leaf, err := s.load()
	if err != nil {
		return nil, err
	}
	s.config, s.leaf, s.state, s.looked = config, leaf, state, s.now()
	s.warnLocked()
	return s, nil
}

// TLS is the configuration of a server whose handshakes take what is there at the time.
func (s *Source) TLS() *tls.Config {
	return &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current(), nil }}
}

// Principal is who a client is by the certificate that it has shown; "" if it has shown none.
func (s *Source) Principal(state tls.ConnectionState) (string, error) {
	if len(state.VerifiedChains) == 0 {
		return "", nil
	}
	return s.cfg.Rules.Principal(state.VerifiedChains[0][0])
}

// NotAfter is when the certificate ends.
func (s *Source) NotAfter() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaf.NotAfter
}

// current returns what handshakes go by now. Files that have changed are read; if something is
// wrong with them what was read before stays. One handshake reads and the others go on with
// what there is: a disk may take its time.
func (s *Source) current() *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.reads || now.Sub(s.looked) < lookEvery {
		return s.config
	}
	s.reads, s.looked = true, now
	before := s.state
	s.mu.Unlock()
	state := s.states()
	var (
		config *tls.Config
		leaf   *x509.Certificate
		err    error
	)
	changed := !same(state, before)
	if changed {
		config, leaf, err = s.load()
	}
	s.mu.Lock()
	s.reads, s.state = false, state
	switch {
	case err != nil:
		s.cfg.Logger.Error("the files of the certificate have changed and cannot be used: clients are shown the one from before", "error", err)
	case changed:
		s.config, s.leaf = config, leaf
		s.cfg.Logger.Info("clients are shown another certificate", "subject", leaf.Subject, "until", leaf.NotAfter)
	}
	s.warnLocked()
	return s.config
}

// warnLocked says once a day that the certificate ends soon.
func (s *Source) warnLocked() {
	now := s.now()
	if left := s.leaf.NotAfter.Sub(now); left < endsSoon && (s.warned.IsZero() || now.Sub(s.warned) >= warnEvery) {
		s.warned = now
		s.cfg.Logger.Warn("the certificate for clients ends soon: renew it, and put it in the place of the old files", "until", s.leaf.NotAfter, "days", int(left.Hours()/24))
	}
}

// isPEM reports whether a text is PEM itself, and no file's name.
func isPEM(text string) bool { return strings.Contains(text, "-----BEGIN ") }

// shown is how a file, or a text in the place of one, is named.
func shown(text string) string {
	if isPEM(text) {
		return "the PEM text"
	}
	return text
}

// states looks at the files.
func (s *Source) states() (all []fileState) {
	for _, name := range []string{s.cfg.Certificate, s.cfg.Key, s.cfg.ClientCA} {
		if name == "" || isPEM(name) {
			continue
		}
		state := fileState{name: name}
		if info, err := os.Stat(name); err == nil {
			state.size, state.changed = info.Size(), info.ModTime()
		}
		all = append(all, state)
	}
	return all
}

func same(a, b []fileState) bool {
	for i := range a {
		if i >= len(b) || a[i].name != b[i].name || a[i].size != b[i].size || !a[i].changed.Equal(b[i].changed) {
			return false
		}
	}
	return len(a) == len(b)
}

// load reads everything.
func (s *Source) load() (*tls.Config, *x509.Certificate, error) {
	chain, err := read(s.cfg.Certificate)
	if err != nil {
		return nil, nil, err
	}
	key := chain
	if s.cfg.Key != "" {
		if key, err = readKey(s.cfg.Key); err != nil {
			return nil, nil, err
		}
	} else if !isPEM(s.cfg.Certificate) {
		if err := private(s.cfg.Certificate); err != nil {
			return nil, nil, err
		}
	}
	if bytes.Contains(key, []byte("ENCRYPTED")) {
		return nil, nil, fmt.Errorf("%s: the key is encrypted, which is not read: openssl pkey -in KEY -out PLAIN-KEY writes it without a password, for a file of mode 0600", shown(s.cfg.Key))
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", shown(s.cfg.Certificate), err)
	}
	if s.now().After(pair.Leaf.NotAfter) {
		return nil, nil, fmt.Errorf("the certificate of %s ended at %s: every client would refuse it", shown(s.cfg.Certificate), pair.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: max(s.cfg.MinVersion, tls.VersionTLS12), MaxVersion: s.cfg.MaxVersion, CipherSuites: s.cfg.CipherSuites,
	}
	if s.cfg.ClientCA != "" {
		if config.ClientCAs, err = authorities(s.cfg.ClientCA); err != nil {
			return nil, nil, err
		}
	}
	switch s.cfg.ClientAuth {
	case ClientAuthRequested:
		config.ClientAuth = tls.VerifyClientCertIfGiven
	case ClientAuthRequired:
		config.ClientAuth = tls.RequireAndVerifyClientCert
	case "", ClientAuthNone:
	default:
		return nil, nil, fmt.Errorf("ssl.client.auth=%s: it is none, requested or required", s.cfg.ClientAuth)
	}
	if config.ClientAuth != tls.NoClientCert && config.ClientCAs == nil {
		return nil, nil, errors.New("clients are to show certificates, and no authority is named that these are to be of: ssl.truststore.location, or --tls-client-ca")
	}
	return config, pair.Leaf, nil
}

// read returns a file's PEM, or the text that is PEM itself.
func read(text string) ([]byte, error) {
	if isPEM(text) {
		return []byte(strings.ReplaceAll(text, `\n`, "\n")), nil
	}
	p, err := os.ReadFile(text)
	if err != nil {
		return nil, err
	}
	switch {
	case len(p) > 4 && p[0] == 0xfe && p[1] == 0xed:
		return nil, fmt.Errorf("%s is a Java key store; what is read is PEM: keytool -importkeystore -srckeystore %s -destkeystore store.p12 -deststoretype pkcs12, then openssl pkcs12 -in store.p12 -nodes -out store.pem", text, text)
	case len(p) > 1 && p[0] == 0x30:
		return nil, fmt.Errorf("%s is no PEM; of a PKCS 12 store it is made by openssl pkcs12 -in %s -nodes -out store.pem", text, text)
	case !isPEM(string(p)):
		return nil, fmt.Errorf("%s holds no PEM", text)
	}
	return p, nil
}

func readKey(text string) ([]byte, error) {
	if !isPEM(text) {
		if err := private(text); err != nil {
			return nil, err
		}
	}
	return read(text)
}

// private refuses a key that everybody on the machine may read.
func private(name string) error {
	info, err := os.Stat(name)
	if err == nil && info.Mode().Perm()&0o007 != 0 {
		return fmt.Errorf("%s, which holds a key, may be read by everybody on this machine (mode %04o): chmod 600 %s", name, info.Mode().Perm(), name)
	}
	return err
}

// authorities reads certificates that others are to be signed by.
func authorities(text string) (*x509.CertPool, error) {
	p, err := read(text)
	if err != nil {
		return nil, err
	}
	pool, n := x509.NewCertPool(), 0
	for {
		var block *pem.Block
		if block, p = pem.Decode(p); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shown(text), err)
		}
		pool.AddCert(cert)
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%s holds no certificate", shown(text))
	}
	return pool, nil
}
