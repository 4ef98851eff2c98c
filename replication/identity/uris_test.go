package identity

import (
	"net/url"
	"testing"
)

func parseURIs(text string) []*url.URL {
	u, err := url.Parse(text)
	if err != nil {
		return nil
	}
	return []*url.URL{u}
}

func mustURIs(t *testing.T, text string) []*url.URL {
	t.Helper()
	uris := parseURIs(text)
	if uris == nil {
		t.Fatalf("%q is no URI", text)
	}
	return uris
}
