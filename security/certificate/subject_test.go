package certificate

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"strings"
	"testing"
)

// Subjects are written as Java does, for which Kafka's rules and ACLs are: the names are what
// OpenJDK 17's X500Principal.getName returns for the same bytes. Text that can be read in more
// ways than one, of which Java garbles some, is its bytes.
func TestSubjectsAreJavas(t *testing.T) {
	for _, test := range []struct{ what, der, want string }{
		{"plain", "302f310b30090603550406130244453110300e060355040a0c074578616d706c65310e300c06035504030c05616c696365", `CN=alice,O=Example,C=DE`},
		{"all keywords", "3062310b3009060355040613024445310f300d06035504080c0642617965726e310c300a06035504070c03556c6d310e300c06035504090c055765672031310a3008060355040a0c016f310b3009060355040b0c026f75310b300906035504030c02636e", `CN=cn,OU=ou,O=o,STREET=Weg 1,L=Ulm,ST=Bayern,C=DE`},
		{"DC and UID", "304531133011060a0992268993f22c6401191603636f6d31173015060a0992268993f22c64011916076578616d706c6531153013060a0992268993f22c6401010c05616c696365", `UID=alice,DC=example,DC=com`},
		{"email", "3022310a300806035504030c01613114301206092a864886f70d01090116056140622e63", `1.2.840.113549.1.9.1=#16056140622e63,CN=a`},
		{"serial number", "3019310a300806035504030c0161310b3009060355040513023432", `2.5.4.5=#13023432,CN=a`},
		{"title", "300d310b3009060355040c0c024472", `2.5.4.12=#0c024472`},
		{"postal code", "3010310e300c06035504110c053839303733", `2.5.4.17=#0c053839303733`},
		{"given, surname, qualifier", "3024310a3008060355042a0c0167310a300806035504040c0173310a3008060355042e130171", `2.5.4.46=#130171,2.5.4.4=#0c0173,2.5.4.42=#0c0167`},
		{"two in one", "30263118300c06035504030c05616c6963653008060355040b0c0178310a3008060355040a0c016f", `O=o,CN=alice+OU=x`},
		{"two in one, other order", "301a31183008060355040b0c0178300c06035504030c05616c696365", `OU=x+CN=alice`},
		{"escapes", "301e311c301a06035504030c13612c622b6322645c653c663e673b683d69236a", `CN=a\,b\+c\"d\\e\<f\>g\;h\=i\#j`},
		{"spaces", "30133111300f06035504030c082020612020622020", `CN=\ \ a  b\ \ `},
		{"only spaces", "300e310c300a06035504030c03202020", `CN=\ \ \ `},
		{"hash first", "300d310b300906035504030c022361", `CN=\#a`},
		{"empty", "300b3109300706035504030c00", `CN=`},
		{"utf8", "301b3119301706035504030c105a6fc3ab20e697a5e69cac20f09f9880", `CN=Zoë 日本 😀`},
		{"universal", "300f310d300b06035504031c0400000061", `CN=#1c0400000061`},
		{"numeric", "300f310d300b0603550403120431322033", `CN=#120431322033`},
		{"NUL", "300e310c300a06035504030c03610062", `CN=a\00b`},
		{"printable with others", "3010310e300c060355040313056140622a63", `CN=a@b*c`},
		{"ia5", "300e310c300a06035504031603614062", `CN=a@b`},
		{"octets", "300e310c300a06035504030403616263", `CN=#0403616263`},
		{"integer", "300c310a30080603550403020105", `CN=#020105`},
		{"unknown oid", "300c310a300806032a03040c0176", `1.2.3.4=#0c0176`},
		{"visible", "300e310c300a06035504031a03616263", `CN=#1a03616263`},
		{"general", "300e310c300a06035504031b03616263", `CN=abc`},
		{"comma space", "302f31163014060355040a0c0d4578616d706c652c20496e632e3115301306035504030c0c613d622c434e3d61646d696e", `CN=a\=b\,CN\=admin,O=Example\, Inc.`},
		// Not Java's.
		{"latin letters", "300e310c300a060355040314035a6feb", `CN=#14035a6feb`},
		{"letters of two bytes", "30133111300f06035504031e08005a006f00eb65e5", `CN=#1e08005a006f00eb65e5`},
		{"no UTF-8", "300e310c300a06035504030c0361ff62", `CN=#0c0361ff62`},
		{"no ASCII", "300d310b30090603550403160261e9", `CN=#160261e9`},
	} {
		der, err := hex.DecodeString(test.der)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Subject(&x509.Certificate{RawSubject: der}); err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", test.what, got, err, test.want)
		}
	}
	for what, raw := range map[string]string{"none": "3000", "nothing": "", "one that is cut": "300d310b300906035504030c02", "more behind": "3000ff"} {
		der, err := hex.DecodeString(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Subject(&x509.Certificate{RawSubject: der}); err == nil {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// Whatever a subject holds, it is one line of parts as whoever wrote it meant them: no value
// ends one and begins another.
func FuzzSubject(f *testing.F) {
	for _, seed := range []string{"a", "a,CN=admin", "a+OU=b", `a\,b`, " a ", "#a", "\x00", "Zoë"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		raw, err := asn1.Marshal([]subjectPartSET{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(value)}}}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := Subject(&x509.Certificate{RawSubject: raw})
		if err != nil {
			t.Fatal(err)
		}
		rest, ok := strings.CutPrefix(got, "CN=")
		if !ok {
			t.Fatalf("%q", got)
		}
		for i := 0; i < len(rest); i++ {
			switch rest[i] {
			case '\\':
				i++
			case ',', '+', '=', '"', ';', '<', '>':
				t.Fatalf("%q of %q: byte %d ends the value", got, value, i)
			}
		}
	})
}
