package kafka

import "testing"

// A password is read as Java reads it: whoever has a file that works with Kafka's tools has one
// that works here.
func TestJAASIsReadAsJavaReadsIt(t *testing.T) {
	const class = "org.apache.kafka.common.security.scram.ScramLoginModule "
	for text, want := range map[string]string{
		class + `required username="a" password="p";`:                                "p",
		class + `required username='a' password='p q';`:                              "p q",
		class + `required username="a" password="it's";`:                             "it's",
		class + `required username="a" password="a\"b\\c";`:                          `a"b\c`,
		class + `required username="a" password="a\tb\n";`:                           "a\tb\n",
		class + "\trequired\n username = \"a\"\n password = \"p\" ;\n":               "p",
		class + `REQUIRED username=a password=c2VjcmV0==;`:                           "c2VjcmV0==",
		class + `required /* who */ username="a" password="p//q"; // and no more`:    "p//q",
		class + `required username="a" password="p" tokenauth="true" debug="false";`: "p",
		"ScramLoginModule required username=\"ü\" password=\"ü\";":                   "ü",
	} {
		if got, err := jaasOptions(text); err != nil || got["password"] != want {
			t.Errorf("%s: %q, %v; want %q", text, got["password"], err, want)
		}
	}
	for _, text := range []string{
		"", "ScramLoginModule", class, class + "required", class + `required username="a" password="p"`, class + `required username="a" password="p;`,
		class + `username="a" password="p";`, class + `required username="a";`, class + `required username="a" password="";`, class + `required username="a" password "p";`,
		class + `required username="a" password="p"; more`, class + `required username="a" password=;`, "com.example.OwnLoginModule required username=\"a\" password=\"p\";",
	} {
		if got, err := jaasOptions(text); err == nil {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func FuzzJAAS(f *testing.F) {
	for _, text := range []string{`ScramLoginModule required username="a" password="p";`, `PlainLoginModule optional username='a' password=p; // x`, `ScramLoginModule required /* username="a"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		options, err := jaasOptions(text)
		if err == nil && (options["username"] == "" || options["password"] == "") {
			t.Fatalf("%q: %v", text, options)
		}
		// What is read of it is read of it again, in quotes.
		quoted := func(s string) string {
			var b []byte
			for i := range len(s) {
				b = append(b, '\\', s[i])
				if at := s[i]; at == 'a' || at == 'b' || at == 'f' || at == 'n' || at == 'r' || at == 't' || at == 'v' {
					b = append(b[:len(b)-2], s[i])
				}
			}
			return string(b)
		}
		if err != nil {
			return
		}
		again, err := jaasOptions(`ScramLoginModule required username="` + quoted(options["username"]) + `" password="` + quoted(options["password"]) + `";`)
		if err != nil || again["username"] != options["username"] || again["password"] != options["password"] {
			t.Fatalf("%q: %q, and again %q, %v", text, options, again, err)
		}
	})
}
