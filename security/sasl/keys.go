package sasl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// What is read of an issuer's keys.
const (
	defaultRefresh = time.Hour        // Kafka's sasl.oauthbearer.jwks.endpoint.refresh.ms
	keysPause      = 10 * time.Second // between two times that somebody is asked, whatever makes it so
	keysTimeout    = 10 * time.Second
	maxKeysBytes   = 1 << 20
)

// Keys are an issuer's public keys, a JSON Web Key Set at a URL: file:, http: or https:. They
// are read when the first token is checked, again when they are old, and once in a while when a
// token names a key that is not among them. Those that were read stay until others are, and
// tokens that they signed are not kept waiting meanwhile. Keys are safe for concurrent use.
type Keys struct {
	url     string
	refresh time.Duration
	client  *http.Client

	mu      sync.Mutex
	set     jose.JSONWebKeySet
	read    time.Time     // when set was
	asked   time.Time     // when that was last tried
	failed  error         // why it did not work then
	reading chan struct{} // closed once it is over; nil: nobody reads
}

// NewKeys returns the keys at a URL. refresh is how old they may become; 0: an hour.
func NewKeys(address string, refresh time.Duration) (*Keys, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return nil, errors.New("it is no URL")
	case u.Scheme == "file" && u.Path != "", (u.Scheme == "http" || u.Scheme == "https") && u.Host != "":
	default:
		return nil, errors.New("it is neither a file:, an http: nor an https: URL")
	}
	if refresh <= 0 {
		refresh = defaultRefresh
	}
	return &Keys{url: address, refresh: refresh, client: &http.Client{Timeout: keysTimeout}}, nil
}

// verify checks a token's signature, and fills claims in.
func (k *Keys) verify(token *jwt.JSONWebToken, now time.Time, claims ...any) error {
	id := token.Headers[0].KeyID
	set, err := k.current(now, id)
	if err != nil {
		return err
	}
	var candidates []jose.JSONWebKey
	for _, key := range set.Keys {
		if id == "" || key.KeyID == id {
			candidates = append(candidates, key)
		}
	}
	for _, key := range candidates {
		if signs(&key, token.Headers[0].Algorithm) && token.Claims(key, claims...) == nil {
			return nil
		}
	}
	if len(candidates) == 0 {
		return errors.New("the issuer has no key of the id that it names")
	}
	return errors.New("no key of the issuer signed it")
}

// signs reports whether a key is one for signatures of an algorithm.
func signs(key *jose.JSONWebKey, algorithm string) bool {
	return key.IsPublic() && (key.Use == "" || key.Use == "sig") && (key.Algorithm == "" || key.Algorithm == algorithm)
}

// current returns the keys, and has them read again if they are old or lack one that is asked
// for. Only who can do nothing without waits for that.
func (k *Keys) current(now time.Time, id string) (jose.JSONWebKeySet, error) {
	k.mu.Lock()
	old := now.Sub(k.read) >= k.refresh
	missing := id != "" && len(k.set.Key(id)) == 0
	if (old || missing) && k.reading == nil && (k.asked.IsZero() || now.Sub(k.asked) >= keysPause) {
		k.asked, k.reading = now, make(chan struct{})
		go k.readAgain(now)
	}
	if reading := k.reading; reading != nil && (k.read.IsZero() || missing) {
		k.mu.Unlock()
		<-reading // keysTimeout at most
		k.mu.Lock()
	}
	defer k.mu.Unlock()
	if k.read.IsZero() {
		return k.set, fmt.Errorf("the issuer's keys cannot be read: %w", k.failed)
	}
	return k.set, nil
}

// readAgain is the goroutine "issuer": it reads the keys once.
func (k *Keys) readAgain(now time.Time) {
	set, err := k.load()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed = err; err == nil {
		k.set, k.read = set, now
	}
	close(k.reading)
	k.reading = nil
}

// load reads the keys. What is no good in them ends no process.
func (k *Keys) load() (set jose.JSONWebKeySet, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	r, err := k.open()
	if err != nil {
		return set, err
	}
	defer r.Close()
	p, err := io.ReadAll(io.LimitReader(r, maxKeysBytes))
	if err != nil {
		return set, err
	}
	if err := json.Unmarshal(p, &set); err != nil {
		return set, fmt.Errorf("no JSON Web Key Set: %w", err)
	}
	if len(set.Keys) == 0 {
		return set, errors.New("a JSON Web Key Set without keys")
	}
	return set, nil
}

// open opens what the URL is of.
func (k *Keys) open() (io.ReadCloser, error) {
	u, err := url.Parse(k.url)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "file" {
		return os.Open(u.Path)
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, k.url, nil) // the client has a timeout
	if err != nil {
		return nil, err
	}
	resp, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	return resp.Body, nil
}
