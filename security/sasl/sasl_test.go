package sasl

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/rsa"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/xdg-go/scram"
)

// table is users for tests, and counts who is asked for.
type table struct {
	verifiers map[string]map[Mechanism]Verifier
	stranger  map[Mechanism]Verifier
	asked     []string
}

func newTable(t testing.TB, passwords map[string]string) *table {
	all := &table{verifiers: make(map[string]map[Mechanism]Verifier)}
	of := func(password string) map[Mechanism]Verifier {
		return map[Mechanism]Verifier{
			SCRAMSHA256: NewVerifier(SCRAMSHA256, []byte(password), MinIterations),
			SCRAMSHA512: NewVerifier(SCRAMSHA512, []byte(password), MinIterations),
		}
	}
	for name, password := range passwords {
		all.verifiers[name] = of(password)
	}
	all.stranger = of(rand.Text())
	return all
}

func (u *table) Verifier(name string, m Mechanism) (Verifier, bool) {
	u.asked = append(u.asked, name)
	if m == Plain {
		m = SCRAMSHA512
	}
	if v, ok := u.verifiers[name]; ok {
		return v[m], true
	}
	return u.stranger[m], false
}

func logIn(t *testing.T, s *Server, m Mechanism, messages ...string) (answer []byte, who *Identity, err error) {
	t.Helper()
	x, err := s.Begin(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, message := range messages {
		if who != nil {
			t.Fatal("logged in before the last message")
		}
		if answer, who, err = x.Step([]byte(message)); err != nil {
			return answer, who, err
		}
	}
	return answer, who, err
}

func TestPlain(t *testing.T) {
	s := &Server{Users: newTable(t, map[string]string{"alice": "sesame", "bob": "pass,=word"})}
	for _, test := range []struct {
		message string
		who     string
		err     string
	}{
		{"\x00alice\x00sesame", "alice", ""},
		{"alice\x00alice\x00sesame", "alice", ""},
		{"\x00bob\x00pass,=word", "bob", ""},
		{"\x00alice\x00Sesame", "", "Authentication failed: Invalid username or password"},
		{"\x00nobody\x00sesame", "", "Authentication failed: Invalid username or password"},
		{"\x00alice\x00" + strings.Repeat("x", 1<<10+1), "", "Authentication failed: Invalid username or password"},
		{"bob\x00alice\x00sesame", "", "Authentication failed: Client requested an authorization id that is different from username"},
		{"bob\x00alice\x00wrong", "", "Authentication failed: Invalid username or password"},
		{"\x00\x00sesame", "", "Authentication failed: username not specified"},
		{"\x00alice\x00", "", "Authentication failed: password not specified"},
		{"alice\x00sesame", "", "Invalid SASL/PLAIN response: expected 3 tokens, got 2"},
		{"\x00alice\x00ses\x00ame", "", "Invalid SASL/PLAIN response: expected 3 tokens, got 4"},
		{"", "", "Invalid SASL/PLAIN response: expected 3 tokens, got 1"},
		{"\x00al\xffice\x00sesame", "", "malformed PLAIN message: it is not UTF-8"},
		{"\x00alice\x00" + strings.Repeat("x", 1<<20), "", "malformed PLAIN message: it is too long"},
	} {
		answer, who, err := logIn(t, s, Plain, test.message)
		switch {
		case test.err != "" && (err == nil || err.Error() != test.err || who != nil):
			t.Errorf("%.40q: %v, %v, want %s", test.message, who, err, test.err)
		case test.err == "" && (err != nil || who == nil || *who != Identity{Name: test.who} || len(answer) != 0):
			t.Errorf("%.40q: %q, %v, %v", test.message, answer, who, err)
		}
	}
}

// As long as a name takes no other way for being unknown, no clock tells them apart.
func TestUnknownUsersAreCheckedLikeOthers(t *testing.T) {
	users := newTable(t, map[string]string{"alice": "sesame"})
	s := &Server{Users: users}
	for _, m := range []Mechanism{SCRAMSHA256, SCRAMSHA512} {
		var answers [2]string
		for i, name := range []string{"alice", "nobody"} {
			x, _ := s.Begin(m)
			first, _, err := x.Step([]byte("n,,n=" + name + ",r=nonce"))
			if err != nil {
				t.Fatalf("%s, %s: %v", m, name, err)
			}
			fields := strings.Split(string(first), ",")
			nonce := strings.TrimPrefix(fields[0], "r=")
			if !strings.HasPrefix(nonce, "nonce") || len(nonce) < len("nonce")+20 {
				t.Errorf("%s: nonce %q", m, nonce)
			}
			salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[1], "s="))
			if err != nil {
				t.Fatal(err)
			}
			answers[i] = fmt.Sprint(len(salt), fields[2])
			proof := base64.StdEncoding.EncodeToString(make([]byte, hasher(m)().Size()))
			if _, who, err := x.Step([]byte("c=biws,r=" + nonce + ",p=" + proof)); who != nil || err != ErrCredentials {
				t.Errorf("%s, %s: %v, %v", m, name, who, err)
			}
		}
		if answers[0] != answers[1] {
			t.Errorf("%s: a known user's salt and iterations look like %s, others' like %s", m, answers[0], answers[1])
		}
	}
	users.asked = nil
	for _, name := range []string{"alice", "nobody"} {
		if _, _, err := logIn(t, s, Plain, "\x00"+name+"\x00wrong"); err == nil {
			t.Errorf("%s came in", name)
		}
	}
	if fmt.Sprint(users.asked) != "[alice nobody]" {
		t.Errorf("asked for %v", users.asked)
	}
}

// Whoever guesses an unknown user's made-up password is no user for it.
func TestNobodyIsNeverLetIn(t *testing.T) {
	users := newTable(t, nil)
	v := NewVerifier(SCRAMSHA512, []byte("guessed"), MinIterations)
	users.stranger[SCRAMSHA512] = v
	s := &Server{Users: users}
	if _, who, err := logIn(t, s, Plain, "\x00nobody\x00guessed"); who != nil || err == nil {
		t.Errorf("PLAIN: %v, %v", who, err)
	}
	if who, err := scramClient(t, s, SCRAMSHA512, "nobody", "guessed", "", nil); who != nil || err == nil {
		t.Errorf("SCRAM: %v, %v", who, err)
	}
}

// scramClient logs in as a library's client does; edit changes what it sends.
func scramClient(t testing.TB, s *Server, m Mechanism, name, password, authorize string, edit func(step int, message string) string) (*Identity, error) {
	client, err := scram.HashGeneratorFcn(hasher(m)).NewClient(name, password, authorize)
	if err != nil {
		t.Fatal(err)
	}
	c := client.NewConversation()
	x, err := s.Begin(m)
	if err != nil {
		t.Fatal(err)
	}
	var answer []byte
	var who *Identity
	for step := 0; step < 2; step++ {
		message, err := c.Step(string(answer))
		if err != nil {
			t.Fatal(err)
		}
		if edit != nil {
			message = edit(step, message)
		}
		if answer, who, err = x.Step([]byte(message)); err != nil {
			return nil, err
		}
	}
	if edit != nil {
		return who, nil // what it is told last is about other messages than it knows of
	}
	if _, err := c.Step(string(answer)); err != nil {
		t.Errorf("the server does not show that it knows the password: %v", err)
	}
	return who, nil
}

func TestSCRAM(t *testing.T) {
	s := &Server{Users: newTable(t, map[string]string{"alice": "sesame", "a=b,c": "ünïcode ✓"})}
	for _, m := range []Mechanism{SCRAMSHA256, SCRAMSHA512} {
		for name, password := range map[string]string{"alice": "sesame", "a=b,c": "ünïcode ✓"} {
			if who, err := scramClient(t, s, m, name, password, "", nil); err != nil || who == nil || who.Name != name {
				t.Errorf("%s: %s: %v, %v", m, name, who, err)
			}
			if who, err := scramClient(t, s, m, name, password, name, nil); err != nil || who == nil {
				t.Errorf("%s: %s as itself: %v, %v", m, name, who, err)
			}
			if _, err := scramClient(t, s, m, name, password+"x", "", nil); !errors.Is(err, ErrCredentials) {
				t.Errorf("%s: %s with another password: %v", m, name, err)
			}
			var refusal *RefusedError
			if _, err := scramClient(t, s, m, name, password, "root", nil); !errors.As(err, &refusal) {
				t.Errorf("%s: %s as somebody else: %v", m, name, err)
			}
		}
		for what, edit := range map[string]func(int, string) string{
			"a foreign nonce": func(step int, message string) string {
				if step == 1 {
					return strings.Replace(message, "r=", "r=x", 1)
				}
				return message
			},
			"a proof that is cut": func(step int, message string) string {
				if at := strings.Index(message, "p="); step == 1 {
					return message[:at+2+4]
				}
				return message
			},
			"an unknown mandatory extension": func(step int, message string) string {
				if step == 0 {
					return strings.Replace(message, "n,,", "n,,m=x,", 1)
				}
				return message
			},
			"channel binding": func(step int, message string) string {
				if step == 0 {
					return strings.Replace(message, "n,,", "p=tls-unique,,", 1)
				}
				return message
			},
			"the first message twice": func(step int, message string) string {
				if step == 1 {
					return "n,,n=alice,r=again"
				}
				return message
			},
			"a NUL":           func(int, string) string { return "n,,n=al\x00ice,r=x" },
			"nobody's name":   func(int, string) string { return "n,,n=,r=x" },
			"no nonce":        func(int, string) string { return "n,,n=alice" },
			"a megabyte":      func(int, string) string { return "n,,n=" + strings.Repeat("a", 1<<20) + ",r=x" },
			"nothing":         func(int, string) string { return "" },
			"another's proof": func(step int, message string) string { return strings.Replace(message, "n=alice", "n=a=3Db=2Cc", 1) },
		} {
			if who, err := scramClient(t, s, m, "alice", "sesame", "", edit); err == nil {
				t.Errorf("%s with %s: %v came in", m, what, who)
			}
		}
	}
}

// What was recorded of one log-in is of no use in another: the nonce is not the same.
func TestSCRAMReplay(t *testing.T) {
	s := &Server{Users: newTable(t, map[string]string{"alice": "sesame"})}
	var recorded []string
	record := func(_ int, message string) string {
		recorded = append(recorded, message)
		return message
	}
	if _, err := scramClient(t, s, SCRAMSHA512, "alice", "sesame", "", record); err != nil {
		t.Fatal(err)
	}
	if _, who, err := logIn(t, s, SCRAMSHA512, recorded...); who != nil || err == nil {
		t.Errorf("a replay came in: %v, %v", who, err)
	}
}

// An issuer of tokens.
type issuer struct {
	key *rsa.PrivateKey
	url string
}

func newIssuer(t testing.TB) *issuer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key, url: filepath.Join(t.TempDir(), "keys.json")}
	i.publish(t, "one")
	return i
}

func (i *issuer) publish(t testing.TB, id string) {
	p, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: id, Algorithm: "RS256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.url, p, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (i *issuer) token(t testing.TB, id string, claims map[string]any) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: i.key}, (&jose.SignerOptions{}).WithHeader("kid", id))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func bearerMessage(token string) string { return "n,,\x01auth=Bearer " + token + "\x01\x01" }

func TestBearer(t *testing.T) {
	i := newIssuer(t)
	keys, err := NewKeys("file://"+i.url, 0)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	s := &Server{Tokens: &Tokens{Keys: keys, Issuer: "https://issuer", Audience: []string{"kafka", "other"}, Skew: 30 * time.Second, Now: func() time.Time { return now }}}
	with := func(edits map[string]any) map[string]any {
		claims := map[string]any{"sub": "alice", "iss": "https://issuer", "aud": "kafka", "exp": now.Unix() + 60}
		for name, value := range edits {
			if claims[name] = value; value == nil {
				delete(claims, name)
			}
		}
		return claims
	}
	good := i.token(t, "one", with(nil))
	for _, message := range []string{bearerMessage(good), "n,a=alice,\x01auth=Bearer " + good + "\x01\x01", "n,,\x01logicalCluster=x\x01auth=bearer " + good + "\x01\x01"} {
		answer, who, err := logIn(t, s, OAuthBearer, message)
		if err != nil || who == nil || len(answer) != 0 || who.Name != "alice" || !who.Until.Equal(now.Add(time.Minute)) {
			t.Errorf("a good token: %q, %v, %v", answer, who, err)
		}
	}
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(good, ".")[1] + "."
	shared, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: bytes.Repeat([]byte("k"), 32)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	symmetric, err := jwt.Signed(shared).Claims(with(nil)).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	for what, token := range map[string]string{
		"an unsigned one":         unsigned,
		"one of a shared secret":  symmetric,
		"a changed one":           parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"root","iss":"https://issuer","aud":"kafka","exp":1900000000}`)) + "." + parts[2],
		"another issuer's key":    newIssuer(t).token(t, "one", with(nil)),
		"a key that is not there": i.token(t, "two", with(nil)),
		"another issuer":          i.token(t, "one", with(map[string]any{"iss": "https://elsewhere"})),
		"another audience":        i.token(t, "one", with(map[string]any{"aud": "mail"})),
		"none":                    i.token(t, "one", with(map[string]any{"aud": nil})),
		"one that has ended":      i.token(t, "one", with(map[string]any{"exp": now.Unix() - 31})),
		"one that never ends":     i.token(t, "one", with(map[string]any{"exp": nil})),
		"one of tomorrow":         i.token(t, "one", with(map[string]any{"nbf": now.Unix() + 31})),
		"nobody's":                i.token(t, "one", with(map[string]any{"sub": nil})),
		"a number's":              i.token(t, "one", with(map[string]any{"sub": 7})),
		"no token":                "x",
	} {
		x, err := s.Begin(OAuthBearer)
		if err != nil {
			t.Fatal(err)
		}
		answer, who, err := x.Step([]byte(bearerMessage(token)))
		if err != nil || who != nil || string(answer) != `{"status":"invalid_token"}` {
			t.Errorf("%s: %q, %v, %v", what, answer, who, err)
			continue
		}
		var bad *BadTokenError
		if _, who, err := x.Step([]byte{1}); who != nil || !errors.As(err, &bad) || strings.Contains(err.Error(), token) && len(token) > 1 {
			t.Errorf("%s: then %v, %v", what, who, err)
		}
	}
	if _, who, err := logIn(t, s, OAuthBearer, "n,a=root,\x01auth=Bearer "+good+"\x01\x01"); who != nil || err == nil {
		t.Errorf("as somebody else: %v, %v", who, err)
	}
	for _, message := range []string{
		"", "n,,", "n,,\x01", "n,,\x01\x01", "y,,\x01auth=Bearer " + good + "\x01\x01", "n,b=x,\x01auth=Bearer " + good + "\x01\x01", "n,,\x01auth=Bearer " + good,
		"n,,\x01auth=Basic " + good + "\x01\x01", "n,,\x01auth=Bearer \x01\x01", "n,,\x01x\x01\x01", "n,,\x01x=y\x01\x01", bearerMessage(good)[:20] + "\xff\x01\x01",
		"n,,\x01auth=Bearer " + good + "\x01auth=Bearer " + good + "\x01\x01", bearerMessage(strings.Repeat("x", 1<<20)),
	} {
		if _, who, err := logIn(t, s, OAuthBearer, message); who != nil || err == nil {
			t.Errorf("%.30q came in", message)
		}
	}

	// Skew lets both in, and a new key is found once somebody has not asked just now.
	for _, claims := range []map[string]any{{"exp": now.Unix() - 29}, {"nbf": now.Unix() + 29}} {
		if _, who, err := logIn(t, s, OAuthBearer, bearerMessage(i.token(t, "one", with(claims)))); who == nil {
			t.Errorf("within the skew, %v: %v", claims, err)
		}
	}
	i.publish(t, "three")
	turned := i.token(t, "three", with(nil))
	if _, who, _ := logIn(t, s, OAuthBearer, bearerMessage(turned)); who != nil {
		t.Error("keys were read again at once: whoever sends tokens makes the broker ask its issuer as often")
	}
	now = now.Add(keysPause)
	if _, who, err := logIn(t, s, OAuthBearer, bearerMessage(turned)); who == nil {
		t.Errorf("a new key of the issuer's: %v", err)
	}
	// Keys that cannot be read do not take those away that were.
	os.Remove(i.url)
	now = now.Add(defaultRefresh)
	again := i.token(t, "three", with(map[string]any{"exp": now.Unix() + 60}))
	if _, who, err := logIn(t, s, OAuthBearer, bearerMessage(again)); who == nil {
		t.Errorf("while the issuer is away: %v", err)
	}
}

func TestKeysAreAtAnAddress(t *testing.T) {
	for _, address := range []string{"", "x", "file:", "http://", "ftp://host/x", "https:///x", "::"} {
		if _, err := NewKeys(address, 0); err == nil {
			t.Errorf("%q was taken", address)
		}
	}
}

// An issuer that does not answer keeps nobody waiting whose key is known.
func TestAnIssuerThatHangsStopsNobody(t *testing.T) {
	i := newIssuer(t)
	set, err := os.ReadFile(i.url)
	if err != nil {
		t.Fatal(err)
	}
	entered, release := make(chan struct{}, 10), make(chan struct{})
	answered := 0
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		if answered++; answered > 1 {
			<-release
		}
		w.Write(set)
	}))
	defer web.Close()
	keys, err := NewKeys(web.URL, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	s := &Server{Tokens: &Tokens{Keys: keys, Now: func() time.Time { return now }}}
	token := bearerMessage(i.token(t, "one", map[string]any{"sub": "alice", "exp": now.Unix() + 3600}))
	for _, what := range []string{"with keys that nobody has read", "with old ones, which are being read"} {
		if _, who, err := logIn(t, s, OAuthBearer, token); who == nil {
			t.Errorf("%s: %v", what, err)
		}
		<-entered
		now = now.Add(time.Hour / 2)
	}
	keys.mu.Lock()
	if keys.reading == nil || keys.failed != nil {
		t.Errorf("a log-in waited until nobody read any more: %v", keys.failed)
	}
	keys.mu.Unlock()
	close(release)
}

// A key is for what it says it is for.
func TestKeysAreForSomething(t *testing.T) {
	i := newIssuer(t)
	now := time.Unix(1_800_000_000, 0)
	token := bearerMessage(i.token(t, "one", map[string]any{"sub": "alice", "exp": now.Unix() + 60}))
	for want, keys := range map[bool][]jose.JSONWebKey{
		true:  {{Use: "sig", Algorithm: "RS256"}, {}, {Algorithm: "RS256"}},
		false: {{Use: "enc"}, {Algorithm: "PS256"}, {Algorithm: "RSA-OAEP", Use: "enc"}},
	} {
		for _, key := range keys {
			key.Key, key.KeyID = i.key.Public(), "one"
			p, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key}})
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(i.url, p, 0o600); err != nil {
				t.Fatal(err)
			}
			read, err := NewKeys("file://"+i.url, 0)
			if err != nil {
				t.Fatal(err)
			}
			s := &Server{Tokens: &Tokens{Keys: read, Now: func() time.Time { return now }}}
			if _, who, _ := logIn(t, s, OAuthBearer, token); (who != nil) != want {
				t.Errorf("a key with use %q, algorithm %q: let in: %v", key.Use, key.Algorithm, who)
			}
		}
	}
}

// BenchmarkRefusal shows that it is the same work for a name that there is and for one that
// there is not.
func BenchmarkRefusal(b *testing.B) {
	s := &Server{Users: newTable(b, map[string]string{"alice": "sesame"})}
	for _, name := range []string{"alice", "nobody"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				x, _ := s.Begin(Plain)
				x.Step([]byte("\x00" + name + "\x00wrong"))
			}
		})
	}
}

// librdkafka up to 2.6.0, which kcat of many distributions is built with, repeats its own nonce
// before the whole one, and Kafka lets it in. What is let in thus must end in this log-in's
// nonce, begin with the client's part of it, and have been made by who knows the password.
func TestANonceThatLibrdkafkaDoubles(t *testing.T) {
	s := &Server{Users: newTable(t, map[string]string{"alice": "sesame"})}
	for _, m := range []Mechanism{SCRAMSHA256, SCRAMSHA512} {
		h := hasher(m)
		for name, test := range map[string]struct {
			user, password, header string
			nonce                  func(own, whole string) string
			in                     bool
		}{
			"as it does":              {"alice", "sesame", "n,,", func(own, whole string) string { return own + whole }, true},
			"as the RFC says":         {"alice", "sesame", "n,,", func(own, whole string) string { return whole }, true},
			"a wrong password":        {"alice", "Sesame", "n,,", func(own, whole string) string { return own + whole }, false},
			"nobody":                  {"nobody", "sesame", "n,,", func(own, whole string) string { return own + whole }, false},
			"another's nonce":         {"alice", "sesame", "n,,", func(own, whole string) string { return "another" + whole }, false},
			"only its own":            {"alice", "sesame", "n,,", func(own, whole string) string { return own + own }, false},
			"another header":          {"alice", "sesame", "y,,", func(own, whole string) string { return own + whole }, false},
			"another end":             {"alice", "sesame", "n,,", func(own, whole string) string { return own + whole + "x" }, false},
			"three times":             {"alice", "sesame", "n,,", func(own, whole string) string { return own + own + whole }, false},
			"the broker's part, only": {"alice", "sesame", "n,,", func(own, whole string) string { return strings.TrimPrefix(whole, own) }, false},
		} {
			x, err := s.Begin(m)
			if err != nil {
				t.Fatal(err)
			}
			const own = "fyko+d2lbbFgONRv9qkxdawL"
			bare := "n=" + test.user + ",r=" + own
			first, _, err := x.Step([]byte(test.header + bare))
			if err != nil {
				t.Fatal(err)
			}
			fields := strings.Split(string(first), ",")
			salt, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[1], "s="))
			if err != nil {
				t.Fatal(err)
			}
			salted, err := pbkdf2.Key(h, test.password, salt, MinIterations, h().Size())
			if err != nil {
				t.Fatal(err)
			}
			last := "c=biws,r=" + test.nonce(own, strings.TrimPrefix(fields[0], "r="))
			signed := bare + "," + string(first) + "," + last
			key, sum := mac(h, salted, "Client Key"), h()
			sum.Write(key)
			proof := make([]byte, len(key))
			subtle.XORBytes(proof, key, mac(h, sum.Sum(nil), signed))
			answer, who, err := x.Step([]byte(last + ",p=" + base64.StdEncoding.EncodeToString(proof)))
			want := "v=" + base64.StdEncoding.EncodeToString(mac(h, mac(h, salted, "Server Key"), signed))
			switch {
			case test.in && (err != nil || who == nil || who.Name != "alice" || string(answer) != want):
				t.Errorf("%s, %s: %q, %v, %v", m, name, answer, who, err)
			case !test.in && (err != ErrCredentials || who != nil):
				t.Errorf("%s, %s: %q, %v, %v; want %v", m, name, answer, who, err, ErrCredentials)
			}
		}
	}
}
