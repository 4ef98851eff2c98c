package certificate

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// Versions reads ssl.enabled.protocols: the least and the newest version of TLS that it names.
// Without any both are 0, which is what crypto/tls takes for its own.
func Versions(names []string) (least, most uint16, err error) {
	for _, name := range names {
		v, ok := map[string]uint16{"TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}[name]
		if !ok {
			return 0, 0, fmt.Errorf("%s is no version of TLS that is spoken: TLSv1.2 and TLSv1.3 are", name)
		}
		if least == 0 || v < least {
			least = v
		}
		most = max(most, v)
	}
	return least, most, nil
}

// Suites reads ssl.cipher.suites, by the names of IANA, which are Java's. Those of TLS 1.3 are
// taken and mean nothing: crypto/tls has all of them, always.
func Suites(names []string) (suites []uint16, err error) {
	for _, name := range names {
		all := tls.CipherSuites()
		i := slices.IndexFunc(all, func(s *tls.CipherSuite) bool { return s.Name == name })
		if i < 0 {
			var known []string
			for _, s := range all {
				known = append(known, s.Name)
			}
			return nil, fmt.Errorf("%s is no suite that is held to be safe; there are %s", name, strings.Join(known, ", "))
		}
		suites = append(suites, all[i].ID)
	}
	return suites, nil
}
