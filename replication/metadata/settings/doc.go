// Package settings is Kafka's settings as Millrace has them: which there are, what values
// they may have, and which value is in force. It holds none: what was set for topics and at
// run time is in an image of package metadata, and what a node was started with in its configuration.
//
// A setting is a row of a table: that of topics in topic.go, of brokers in broker.go, of
// groups and clients' metrics in resource.go. DescribeConfigs, the command line and
// docs/settings.md go by the row alone. One that does something has a field as well, in
// [Topic] or [Broker], a line that fills it in [Layers.Topic] or [Layers.Broker], and
// somebody who reads the field.
//
// # To add a setting
//
// Add its row, and run the tests of this package. They say what is missing, in this order:
// a Doc that says "without effect" until there is one, a field and its line, a reader of the
// field outside of this package, a broker's setting for a topic's to take its default from
// where Synonyms names one. A setting that Kafka does not have is called millrace.something.
// Then `go test -run TestSettings . -rewrite` writes the row into docs/settings.md. A new
// setting needs no feature level: a node that does not know one stores it and passes it over.
//
// Values are texts, in the form they have on the wire, until [Layers.Topic] and
// [Layers.Broker] make them numbers. A value that is stored and not valid, because another
// release accepted it, is passed over as if it were not there.
package settings
