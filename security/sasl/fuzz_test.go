package sasl

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// quick are users whose passwords cost nothing to check.
func quick() *table {
	users := &table{verifiers: make(map[string]map[Mechanism]Verifier), stranger: make(map[Mechanism]Verifier)}
	users.verifiers["alice"] = make(map[Mechanism]Verifier)
	for _, m := range []Mechanism{SCRAMSHA256, SCRAMSHA512} {
		users.verifiers["alice"][m] = NewVerifier(m, []byte("sesame"), 1)
		users.stranger[m] = NewVerifier(m, []byte("nobody's"), 1)
	}
	return users
}

// FuzzPlain: only a name and its password come in.
func FuzzPlain(f *testing.F) {
	for _, message := range []string{"\x00alice\x00sesame", "alice\x00alice\x00sesame", "bob\x00alice\x00sesame", "\x00alice\x00", "\x00\x00", "alice\x00sesame", "\x00alice\x00ses\x00ame", "\xff\x00alice\x00x"} {
		f.Add([]byte(message))
	}
	s := &Server{Users: quick()}
	f.Fuzz(func(t *testing.T, message []byte) {
		x, err := s.Begin(Plain)
		if err != nil {
			t.Fatal(err)
		}
		answer, who, err := x.Step(message)
		good := string(message) == "\x00alice\x00sesame" || string(message) == "alice\x00alice\x00sesame"
		if (who != nil) != good || (err == nil) != good || len(answer) != 0 {
			t.Fatalf("%q: %v, %v", message, who, err)
		}
	})
}

// oneToken is a delegation token that costs nothing to check.
type oneToken struct{}

func (oneToken) Delegation(id string, m Mechanism) (Delegation, bool) {
	d := Delegation{Verifier: NewVerifier(m, []byte("of the token"), 1)}
	if id != "token" {
		return d, false
	}
	d.Owner, d.Until = "alice", time.Unix(1e10, 0)
	return d, true
}

// FuzzSCRAM: whatever is sent first and last, NONCE there being the server's, nobody comes in
// who does not know a password. What is told to the client names its own nonce.
func FuzzSCRAM(f *testing.F) {
	for _, first := range []string{"n,,n=alice,r=nonce", "n,a=alice,n=alice,r=x,tokenauth=true", "y,,n=a=2Cb=3D,r=x", "p=tls-exporter,,n=alice,r=x", "n,,m=x,n=alice,r=x", "n,,n=al=ice,r=x", "n,a=bob,n=alice,r=nonce", "n,,n=token,r=x,tokenauth=true", "n,,n=token,r=x,e=f,tokenauth=TRUE", "n,,n=gone,r=x,tokenauth=true"} {
		for _, last := range []string{"c=biws,r=NONCE,p=AAAA", "c=biws,r=NONCEx,p=AAAA", "c=biws,r=nonce,p=AAAA", "c=,r=NONCE,p=", "c=biws,r=NONCE,x=y,p=" + strings.Repeat("A", 43) + "="} {
			f.Add(first, last, true)
			f.Add(first, last, false)
		}
	}
	s := &Server{Users: quick(), Delegations: oneToken{}}
	f.Fuzz(func(t *testing.T, first, last string, long bool) {
		m := SCRAMSHA256
		if long {
			m = SCRAMSHA512
		}
		x, err := s.Begin(m)
		if err != nil {
			t.Fatal(err)
		}
		answer, who, err := x.Step([]byte(first))
		if who != nil {
			t.Fatalf("%q made it %v", first, who)
		}
		if err != nil {
			return
		}
		nonce, rest, ok := strings.Cut(strings.TrimPrefix(string(answer), "r="), ",")
		if _, own, _ := strings.Cut(first, "r="); !ok || !strings.HasPrefix(rest, "s=") || own != "" && nonce == "" {
			t.Fatalf("%q is answered %q", first, answer)
		}
		if _, who, err = x.Step([]byte(strings.ReplaceAll(last, "NONCE", nonce))); who != nil || err == nil {
			t.Fatalf("%q, %q made it %v, %v", first, last, who, err)
		}
		if _, who, err = x.Step([]byte(last)); who != nil || err == nil {
			t.Fatalf("a step after the last made it %v, %v", who, err)
		}
	})
}

// FuzzProof: of one who knows the password, but whose last message has another bit, nobody comes
// in, unless what its proof says is the same.
func FuzzProof(f *testing.F) {
	for at := range uint16(80) {
		f.Add(at, byte(0), at%2 == 0)
		f.Add(at, byte(1)<<(at%8), at%2 == 1)
	}
	s := &Server{Users: newTable(f, map[string]string{"alice": "sesame"})}
	f.Fuzz(func(t *testing.T, at uint16, with byte, long bool) {
		m := SCRAMSHA256
		if long {
			m = SCRAMSHA512
		}
		same := true
		who, err := scramClient(t, s, m, "alice", "sesame", "", func(step int, message string) string {
			if step != 1 {
				return message
			}
			b := []byte(message)
			b[int(at)%len(b)] ^= with
			before, proof, _ := strings.Cut(message, ",p=")
			changed, other, _ := strings.Cut(string(b), ",p=")
			was, _ := base64.StdEncoding.DecodeString(proof)
			is, err := base64.StdEncoding.DecodeString(other)
			same = before == changed && err == nil && bytes.Equal(was, is)
			return string(b)
		})
		if in := err == nil && who != nil; in != same {
			t.Fatalf("byte %d with %#x: %v, %v", at, with, who, err)
		}
	})
}

// FuzzBearer: a message is what comes of putting together again what was taken from it, or
// something longer that says the same.
func FuzzBearer(f *testing.F) {
	for _, message := range []string{bearerMessage("e30.e30.e30"), "n,a=al=2Cice,\x01k=v\x01auth=bearer  x\x01\x01", "n,,\x01auth=Basic x\x01\x01", "n,,\x01\x01", "\x01", "n,a=x", "n,,\x01auth=Bearer x\x01auth=Bearer y\x01\x01"} {
		f.Add([]byte(message))
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		authorize, token, err := parseBearer(message)
		if err != nil {
			return
		}
		if token == "" || strings.ContainsRune(token, 1) || !bytes.Contains(message, []byte(token)) {
			t.Fatalf("%q: token %q", message, token)
		}
		header := ""
		if authorize != "" {
			header = "a=" + strings.NewReplacer(",", "=2C", "=", "=3D").Replace(authorize)
		}
		again, same, err := parseBearer([]byte("n," + header + ",\x01auth=Bearer " + token + "\x01\x01"))
		if err != nil || again != authorize || same != token {
			t.Fatalf("%q: %q, %q; put together again %q, %q, %v", message, authorize, token, again, same, err)
		}
	})
}

// edIssuer publishes a key whose signatures are quick to make, and returns what signs.
func edIssuer(f *testing.F) (jose.Signer, *Keys) {
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	p, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: private.Public()}}})
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "keys.json")
	if err := os.WriteFile(path, p, 0o600); err != nil {
		f.Fatal(err)
	}
	keys, err := NewKeys("file://"+path, 0)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: private}, nil)
	if err != nil {
		f.Fatal(err)
	}
	return signer, keys
}

// FuzzClaims: of what the issuer signed, nothing comes in without a name, nor once it has
// ended, nor for somebody else.
func FuzzClaims(f *testing.F) {
	for _, claims := range []string{
		`{"sub":"alice","exp":1800000060,"iss":"i","aud":"kafka"}`, `{"sub":"alice","exp":1800000060,"iss":"i","aud":["x","kafka"]}`, `{"sub":7,"exp":"1"}`,
		`{"sub":"alice","exp":1e400}`, `{"sub":"alice","exp":1.8e9,"nbf":-1,"iss":"i","aud":[]}`, `[]`, `{"sub":"a","sub":"b","exp":9223372036854775807,"iss":"i","aud":"kafka"}`, `{"exp":18446744073709551616}`, ``,
	} {
		f.Add([]byte(claims))
	}
	signer, keys := edIssuer(f)
	now := time.Unix(1_800_000_000, 0)
	tokens := &Tokens{Keys: keys, Issuer: "i", Audience: []string{"kafka"}, Skew: 30 * time.Second, Now: func() time.Time { return now }}
	f.Fuzz(func(t *testing.T, claims []byte) {
		signed, err := signer.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		token, err := signed.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		who, err := tokens.Check(token)
		if err != nil {
			if who != nil || strings.Contains(err.Error(), token) {
				t.Fatalf("%q: %v, %v", claims, who, err)
			}
			return
		}
		var said struct{ jwt.Claims }
		if err := json.Unmarshal(claims, &said); err != nil {
			t.Fatalf("%q is no JSON for Go, and let in %v: %v", claims, who, err)
		}
		if who.Name == "" || who.Until.Before(now.Add(-31*time.Second)) || said.Issuer != "i" || !said.Audience.Contains("kafka") {
			t.Fatalf("%q let in %v", claims, who)
		}
	})
}

// FuzzToken: nobody comes in by claims that the issuer did not sign, written as they were or
// with other bits after the last that count in base64.
func FuzzToken(f *testing.F) {
	signer, keys := edIssuer(f)
	signed, err := jwt.Signed(signer).Claims(map[string]any{"sub": "alice", "exp": 1_800_000_060}).Serialize()
	if err != nil {
		f.Fatal(err)
	}
	for _, token := range []string{signed, signed[:len(signed)-1], "e30.e30.e30", "eyJhbGciOiJub25lIn0.e30.", "..", "x", "eyJhbGciOiJFZERTQSIsImNyaXQiOlsiYjY0Il0sImI2NCI6ZmFsc2V9.e30.AAAA", `{"payload":"e30","signatures":[]}`} {
		f.Add(token)
	}
	now := time.Unix(1_800_000_000, 0)
	tokens := &Tokens{Keys: keys, Now: func() time.Time { return now }}
	f.Fuzz(func(t *testing.T, token string) {
		who, err := tokens.Check(token)
		if who != nil && (err != nil || *who != Identity{Name: "alice", Until: time.Unix(1_800_000_060, 0)}) {
			t.Fatalf("%q let in %v, %v", token, who, err)
		}
	})
}

// FuzzKeySet: whatever the issuer's address answers, none but who has a key of it comes in,
// and no more than an error comes of it.
func FuzzKeySet(f *testing.F) {
	signer, _ := edIssuer(f)
	token, err := jwt.Signed(signer).Claims(map[string]any{"sub": "alice", "exp": 1_800_000_060}).Serialize()
	if err != nil {
		f.Fatal(err)
	}
	for _, set := range []string{
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"}]}`, `{"keys":[{"kty":"oct","k":"AAAA"}]}`,
		`{"keys":[{"kty":"RSA","n":"AQ","e":"AQ"}]}`, `{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`, `{"keys":[]}`, `{"keys":null}`, `[]`, `{"keys":[{}]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`,
	} {
		f.Add([]byte(set))
	}
	path := filepath.Join(f.TempDir(), "keys.json")
	now := time.Unix(1_800_000_000, 0)
	f.Fuzz(func(t *testing.T, set []byte) {
		if err := os.WriteFile(path, set, 0o600); err != nil {
			t.Fatal(err)
		}
		keys, err := NewKeys("file://"+path, 0)
		if err != nil {
			t.Fatal(err)
		}
		who, err := (&Tokens{Keys: keys, Now: func() time.Time { return now }}).Check(token)
		if who != nil && (err != nil || !bytes.Contains(set, []byte("O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2i"))) {
			t.Fatalf("%q let in %v, %v", set, who, err)
		}
	})
}
