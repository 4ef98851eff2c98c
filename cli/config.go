package cli

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"millrace/replication/metadata"
)

// The settings of a configuration file that say what a node is, rather than what
// it does; see readConfig.
const (
	nodeIDKey         = "node.id"
	brokerIDKey       = "broker.id"
	logDirsKey        = "log.dirs"
	logDirKey         = "log.dir"
	listenersKey      = "listeners"
	advertisedKey     = "advertised.listeners"
	rackKey           = "broker.rack"
	bootstrapKey      = "controller.quorum.bootstrap.servers"
	controllersKey    = "controller.listener.names"
	protocolsKey      = "listener.security.protocol.map"
	interBrokerKey    = "inter.broker.listener.name"
	interProtocolKey  = "security.inter.broker.protocol"
	processRolesKey   = "process.roles"
	everyoneKey       = "allow.everyone.if.no.acl.found"
	clientAuthKey     = "ssl.client.auth"
	plaintextProtocol = "PLAINTEXT"
)

// forbidding are settings that ask for something to be forbidden, with the values
// that do not. A node that cannot honour one must not serve: its operator believes
// that others are kept out.
var forbidding = map[string][]string{
	"authorizer.class.name":                {""},
	"super.users":                          {""},
	everyoneKey:                            {"true", ""},
	"sasl.enabled.mechanisms":              {""},
	"sasl.mechanism.inter.broker.protocol": {""},
	clientAuthKey:                          {"none", ""},
	interProtocolKey:                       {plaintextProtocol, ""},
	"create.topic.policy.class.name":       {""},
	"alter.config.policy.class.name":       {""},
	"client.quota.callback.class":          {""},
}

// readConfig takes a config file over, save for what isSet says flags have set.
// What the file asks for and cannot be had ends the start; what has no effect is
// put into b.warnings.
func (b *broker) readConfig(name string, isSet func(string) bool) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	all, err := readProperties(f)
	if err != nil {
		return usage("%s: %v", name, err)
	}
	c := configFile{name: name, at: make(map[string]property, len(all))}
	for i := range all {
		all[i].value = strings.TrimSpace(all[i].value)
		c.at[all[i].key] = all[i]
	}
	if b.settings == nil {
		b.settings = make(map[string]string)
	}
	for _, p := range all {
		if why := forbids(p); why != "" {
			return c.wrong(p, "%s; leave it out if everybody who reaches the node may use it", why)
		}
		d, known := metadata.BrokerDefinition(p.key)
		if known {
			if _, err := d.Validate(p.value); err != nil {
				return usage("%s:%d: %s=%s: %s", name, p.line, p.key, p.value, withoutName(err))
			}
		}
		switch p.key {
		case nodeIDKey, brokerIDKey:
			if err := b.takeID(c, p); err != nil {
				return err
			}
		case logDirsKey, logDirKey:
			if strings.Contains(p.value, ",") {
				return c.wrong(p, "a node keeps its data in one folder")
			}
			if !isSet("data-dir") {
				b.dataDir = p.value
			}
		case rackKey:
			b.rack = p.value
		case listenersKey, advertisedKey, bootstrapKey, controllersKey, protocolsKey, interBrokerKey, interProtocolKey:
			// Together, below.
		case processRolesKey:
			if !slices.Contains(strings.Split(strings.ReplaceAll(p.value, " ", ""), ","), "broker") && p.value != "" {
				return c.wrong(p, "every node is a broker, and some are controllers as well; it is broker or broker,controller")
			}
		default:
			if !known {
				b.warnings = append(b.warnings, c.unknown(p))
				continue
			}
			b.settings[p.key] = p.value
		}
	}
	return b.takeListeners(c, isSet)
}

// A configFile is a config file's name and lines, by key.
type configFile struct {
	name string
	at   map[string]property
}

// wrong is the end of the start, for what a line says.
func (c configFile) wrong(p property, format string, args ...any) error {
	return usage("%s:%d: %s=%s: %s", c.name, p.line, p.key, p.value, fmt.Sprintf(format, args...))
}

// unknown says that a setting has no effect, and which may have been meant.
func (c configFile) unknown(p property) string {
	s := fmt.Sprintf("%s:%d: %s is not a setting of this release and has no effect", c.name, p.line, p.key)
	if near := nearestSetting(p.key); near != "" {
		s += "; is " + near + " meant?"
	}
	return s
}

// withoutName is what is wrong with a value, without the setting's name, which
// stands before it.
func withoutName(err error) string {
	if _, what, ok := strings.Cut(err.Error(), ": "); ok {
		return what
	}
	return err.Error()
}

// forbids says what a line asks to be forbidden that this node cannot forbid, "" for nothing.
func forbids(p property) string {
	key := p.key
	if rest, ok := strings.CutPrefix(key, "listener.name."); ok { // listener.name.NAME.SETTING
		_, key, _ = strings.Cut(rest, ".")
	}
	harmless, asks := forbidding[key]
	if !asks || slices.Contains(harmless, p.value) {
		return ""
	}
	switch key {
	case "create.topic.policy.class.name", "alter.config.policy.class.name", "client.quota.callback.class":
		return "this release runs no plug-ins and could not hold anybody to the policy"
	case interProtocolKey:
		return "connections between nodes are PLAINTEXT in this release"
	}
	return "this release has neither authentication nor access control and would let everybody in"
}

// takeID takes the node's id over. Ids begin with 1 here: 0 breaks clients, and
// is what "none" is between nodes. A file that says 0 is not refused, because many
// do; the node gets an id from its cluster.
func (b *broker) takeID(c configFile, p property) error {
	n, err := strconv.ParseInt(p.value, 10, 32)
	if err != nil || n < -1 || n > 1<<30 {
		return c.wrong(p, "it is a number from 0 to %d", 1<<30)
	}
	if other, ok := c.at[nodeIDKey]; ok && p.key == brokerIDKey && other.value != p.value {
		return c.wrong(p, "%s says %s", nodeIDKey, other.value)
	}
	if n == 0 {
		b.warnings = append(b.warnings, fmt.Sprintf("%s:%d: %s=0: ids of nodes begin with 1; this node keeps the one it has or gets one from the cluster", c.name, p.line, p.key))
	}
	b.nodeID = int32(max(n, 0))
	return nil
}

// A listener is one of Kafka's, NAME://HOST:PORT.
type listener struct {
	name, protocol, address string
}

// takeListeners finds the one listener this node has, under its name in the map of
// protocols; those of controllers are left out.
func (b *broker) takeListeners(c configFile, isSet func(string) bool) error {
	protocols := map[string]string{"PLAINTEXT": "PLAINTEXT", "SSL": "SSL", "SASL_PLAINTEXT": "SASL_PLAINTEXT", "SASL_SSL": "SASL_SSL"}
	for pair := range list(c.at[protocolsKey].value) {
		name, protocol, ok := strings.Cut(pair, ":")
		if !ok {
			return c.wrong(c.at[protocolsKey], "%q is not NAME:PROTOCOL", pair)
		}
		protocols[strings.TrimSpace(name)] = strings.TrimSpace(protocol)
	}
	controllers := make(map[string]bool)
	for name := range list(c.at[controllersKey].value) {
		controllers[name] = true
	}
	var own []listener // of controllers
	find := func(key string) (string, error) {
		p, given := c.at[key]
		if !given || p.value == "" {
			return "", nil
		}
		var clients []listener
		for one := range list(p.value) {
			l := listener{name: plaintextProtocol, address: one}
			if name, address, ok := strings.Cut(one, "://"); ok {
				l.name, l.address = name, address
			}
			if l.protocol = protocols[l.name]; l.protocol == "" {
				l.protocol = l.name
			}
			if _, port, err := net.SplitHostPort(l.address); err != nil {
				return "", c.wrong(p, "%v", err)
			} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && key == advertisedKey {
				return "", c.wrong(p, "%q is not a port", port)
			}
			if controllers[l.name] {
				own = append(own, l)
				if key == listenersKey {
					b.warnings = append(b.warnings, fmt.Sprintf("%s:%d: %s://%s is left out: nodes speak with each other where clients do, and are joined there", c.name, p.line, l.name, l.address))
				}
				continue
			}
			clients = append(clients, l)
		}
		switch {
		case len(clients) == 0:
			return "", c.wrong(p, "all of these are listeners of controllers; a node needs one for clients")
		case len(clients) > 1:
			return "", c.wrong(p, "a node has one listener for clients, other nodes and HTTP, these are %d", len(clients))
		case protocols[clients[0].name] == "" && clients[0].name != plaintextProtocol:
			return "", c.wrong(p, "%s has no protocol in %s", clients[0].name, protocolsKey)
		case clients[0].protocol != plaintextProtocol:
			return "", c.wrong(p, "%s is of the protocol %s, and this release has PLAINTEXT only", clients[0].name, clients[0].protocol)
		}
		if inter := c.at[interBrokerKey]; inter.value != "" && inter.value != clients[0].name {
			return "", c.wrong(inter, "there is no such listener in %s", key)
		}
		return clients[0].address, nil
	}
	listen, err := find(listenersKey)
	if err != nil {
		return err
	}
	if listen != "" && !isSet("listen") {
		b.listen = listen
	}
	if b.advertise, err = find(advertisedKey); err != nil {
		return err
	}
	return b.takeBootstrap(c, own)
}

// takeBootstrap takes the nodes to join over. A node of Kafka's that is broker and
// controller names its own controller's listener here; such an entry is left out,
// so that the file of a single node founds a cluster.
func (b *broker) takeBootstrap(c configFile, own []listener) error {
	p, given := c.at[bootstrapKey]
	if !given {
		return nil
	}
	join, err := brokersOf(p.value)
	if err != nil {
		return c.wrong(p, "%v", err)
	}
	b.join = slices.DeleteFunc(join, func(address string) bool {
		for _, l := range own {
			host, port, _ := net.SplitHostPort(address)
			ownHost, ownPort, _ := net.SplitHostPort(l.address)
			if port == ownPort && (host == ownHost || host == "localhost" || net.ParseIP(host).IsLoopback()) {
				b.warnings = append(b.warnings, fmt.Sprintf("%s:%d: %s is left out of %s: it is this node's own", c.name, p.line, address, bootstrapKey))
				return true
			}
		}
		return false
	})
	return nil
}

// list yields the elements of a comma-separated list, trimmed, empty ones left out.
func list(s string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for e := range strings.SplitSeq(s, ",") {
			if e = strings.TrimSpace(e); e != "" && !yield(e) {
				return
			}
		}
	}
}

// nearestSetting finds the known setting that is least away from a name, "" if
// none is within a quarter of its length: then nothing was misspelt.
func nearestSetting(name string) string {
	best, least := "", len(name)/4+1
	consider := func(other string) {
		if d := distance(name, other, least); d < least {
			best, least = other, d
		}
	}
	for _, d := range metadata.BrokerDefinitions() {
		consider(d.Name)
	}
	for _, key := range []string{bootstrapKey, controllersKey, protocolsKey, interBrokerKey, processRolesKey} {
		consider(key)
	}
	return best
}

// distance counts the characters to insert, delete or change to get from a to b
// (Levenshtein), or says at least most.
func distance(a, b string, most int) int {
	if len(a)-len(b) >= most || len(b)-len(a) >= most {
		return most
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
