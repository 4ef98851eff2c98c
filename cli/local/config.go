package local

import (
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"millrace"
	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/metadata/settings"
	"millrace/security/certificate"
)

// The settings that say what a node is, rather than what it does; see broker.configure.
const (
	nodeIDKey         = "node.id"
	brokerIDKey       = "broker.id"
	logDirsKey        = "log.dirs"
	logDirKey         = "log.dir"
	listenersKey      = "listeners"
	advertisedKey     = "advertised.listeners"
	rackKey           = "broker.rack"
	bootstrapKey      = "controller.quorum.bootstrap.servers"
	votersKey         = "controller.quorum.voters"
	controllersKey    = "controller.listener.names"
	protocolsKey      = "listener.security.protocol.map"
	interBrokerKey    = "inter.broker.listener.name"
	processRolesKey   = "process.roles"
	interProtocolKey  = "security.inter.broker.protocol"
	clientAuthKey     = "ssl.client.auth"
	keyStoreKey       = "ssl.keystore.location"
	chainKey          = "ssl.keystore.certificate.chain"
	privateKeyKey     = "ssl.keystore.key"
	trustStoreKey     = "ssl.truststore.location"
	trustedKey        = "ssl.truststore.certificates"
	rulesKey          = "ssl.principal.mapping.rules"
	versionsKey       = "ssl.enabled.protocols"
	suitesKey         = "ssl.cipher.suites"
	mechanismsKey     = "sasl.enabled.mechanisms"
	zookeeperKey      = "zookeeper.connect"
	plaintextProtocol = "PLAINTEXT"
)

// The names that the releases before listeners had for them, in files that are
// older than Kafka 3.
const (
	hostKey           = "host.name"
	portKey           = "port"
	advertisedHostKey = "advertised.host.name"
	advertisedPortKey = "advertised.port"
)

// forbidding are settings that ask for something to be forbidden, with the values
// that do not. A node that cannot honour one must not serve: its operator believes
// that others are kept out.
var forbidding = map[string][]string{
	"create.topic.policy.class.name": {""},
	"alter.config.policy.class.name": {""},
	"client.quota.callback.class":    {""},
}

// A configuration is what a file and the environment say, the last word of each key,
// and what is wrong with it.
type configuration struct {
	all      []property // in the order in which they were given
	at       map[string]property
	mistakes []wrongLine // that end the start, all told at once
	warnings []string    // what has no effect
}

// mistaken ends the start for what a property says.
func (c *configuration) mistaken(p property, format string, args ...any) {
	text := fmt.Sprintf("%s: %s=%s: %s", p.where, p.written, p.shown(), fmt.Sprintf(format, args...))
	c.mistakes = append(c.mistakes, wrongLine{p.line, text})
}

// warn says that a property has no effect, or another than was meant.
func (c *configuration) warn(p property, format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf("%s: %s", p.where, fmt.Sprintf(format, args...)))
}

// take adds properties, which win over those that were taken before.
func (c *configuration) take(all []property) {
	if c.at == nil {
		c.at = make(map[string]property)
	}
	for _, p := range all {
		p.value = strings.TrimSpace(p.value)
		if _, before := c.at[p.key]; before {
			c.all = slices.DeleteFunc(c.all, func(q property) bool { return q.key == p.key })
		}
		c.at[p.key] = p
		c.all = append(c.all, p)
	}
}

// takeFile takes a file. As in Java the last line of a key wins.
func (c *configuration) takeFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	all, wrong, err := readProperties(f)
	if err != nil {
		return term.Usage("--config %s: %v", name, err)
	}
	for _, w := range wrong {
		c.mistakes = append(c.mistakes, wrongLine{w.line, fmt.Sprintf("%s:%d: %s", name, w.line, w.text)})
	}
	before := make(map[string]property)
	for i := range all {
		p := &all[i]
		p.where = fmt.Sprintf("%s:%d", name, p.line)
		if first, twice := before[p.key]; twice && first.value != p.value {
			c.warn(first, "%s=%s is given again in line %d, which wins", p.key, first.shown(), p.line)
		}
		before[p.key] = *p
	}
	c.take(all)
	return nil
}

// The environment's names of settings: KAFKA_LOG_RETENTION_HOURS as the images of
// Apache and Confluent have them, KAFKA_CFG_… as Bitnami's, and MILLRACE_CFG_…, which
// wins.
const (
	ownPrefix   = "MILLRACE_"
	ownSettings = "MILLRACE_CFG_"
	kafkaPrefix = "KAFKA_"
)

// notSettings are variables of Kafka's scripts and images that begin like settings and
// concern its Java process.
var notSettings = []string{
	"KAFKA_HOME", "KAFKA_VERSION", "KAFKA_OPTS", "KAFKA_HEAP_OPTS", "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_GC_LOG_OPTS", "KAFKA_DEBUG",
	"KAFKA_JMX_OPTS", "KAFKA_JMX_PORT", "KAFKA_JMX_HOSTNAME", "KAFKA_LOG4J_OPTS", "KAFKA_LOG4J_ROOT_LOGLEVEL", "KAFKA_LOG4J_LOGGERS",
	"KAFKA_TOOLS_LOG4J_LOGLEVEL", "KAFKA_CLUSTER_ID", "KAFKA_KRAFT_CLUSTER_ID", "KAFKA_ENABLE_KRAFT", "KAFKA_DOWNLOAD_URL", "KAFKA_BROKERS",
	"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_BROKER", "KAFKA_URL", "KAFKA_TOPIC", "KAFKA_TOPICS", "KAFKA_GROUP_ID",
}

// takeEnvironment takes the variables that name settings, and warns of those of our
// own that name nothing. flags are the variables of flags.
func (c *configuration) takeEnvironment(environ []string, flags []string) {
	var kafkas, own []property
	for _, variable := range slices.Sorted(slices.Values(environ)) {
		name, value, _ := strings.Cut(variable, "=")
		p := property{key: settingOf(name), written: name, value: value, where: "environment"}
		switch {
		case value == "" || ofKubernetes(name, value):
		case strings.HasPrefix(name, ownSettings):
			own = append(own, p)
		case strings.HasPrefix(name, kafkaPrefix) && !slices.Contains(notSettings, name):
			kafkas = append(kafkas, p)
		case strings.HasPrefix(name, ownPrefix) && !slices.Contains(flags, name):
			near, least := "", len(name)/4+1
			for _, f := range flags {
				if d := term.Edits(name, f); d < least {
					near, least = "; is "+f+" meant?", d
				}
			}
			c.warn(p, "%s is nobody's variable and has no effect%s", name, near)
		}
	}
	c.take(kafkas)
	c.take(own)
}

// ofOneNode reports whether a variable says which of several nodes one is, or concerns
// one command line.
func ofOneNode(name string) bool {
	if flag := term.Lookup(ServeCommand(), flagOf(name)); flag != nil {
		return flag.Names()[0] != "log-level"
	}
	if !strings.HasPrefix(name, ownSettings) && !strings.HasPrefix(name, kafkaPrefix) {
		return false
	}
	switch settingOf(name) {
	case nodeIDKey, brokerIDKey, logDirsKey, logDirKey, listenersKey, advertisedKey, rackKey, bootstrapKey, votersKey, controllersKey,
		protocolsKey, interBrokerKey, processRolesKey, hostKey, portKey, advertisedHostKey, advertisedPortKey:
		return true
	}
	return false
}

// flagOf is the flag that a variable of ours would set, "" for others.
func flagOf(variable string) string {
	rest, own := strings.CutPrefix(variable, ownPrefix)
	if !own {
		return ""
	}
	return strings.ToLower(strings.ReplaceAll(rest, "_", "-"))
}

// withoutSettings is an environment without what configures a node.
func withoutSettings(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		return strings.HasPrefix(variable, ownPrefix) || strings.HasPrefix(variable, kafkaPrefix)
	})
}

// settingOf is the setting that a variable names: _ is a dot, __ a _ and ___ a dash, as
// in the image of Apache's.
func settingOf(variable string) string {
	for _, prefix := range []string{ownSettings, "KAFKA_CFG_", kafkaPrefix} {
		if rest, ok := strings.CutPrefix(variable, prefix); ok {
			variable = rest
			break
		}
	}
	return strings.NewReplacer("___", "-", "__", "_", "_", ".").Replace(strings.ToLower(variable))
}

// ofKubernetes reports whether a variable is one of those that Kubernetes sets for a
// service called kafka or millrace: KAFKA_PORT=tcp://10.0.0.1:9092.
func ofKubernetes(name, value string) bool {
	return strings.HasPrefix(value, "tcp://") || strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") || strings.Contains(name, "_TCP_")
}

// configure takes a configuration file (none with "") and the environment over, save
// for what isSet says flags have set. What they ask for and cannot be had ends the
// start, all of it told at once; what has no effect is put into b.warnings.
func (b *broker) configure(file string, environ, flags []string, isSet func(string) bool) error {
	c := &configuration{at: make(map[string]property)}
	if file != "" {
		if err := c.takeFile(file); err != nil {
			return err
		}
	}
	c.takeEnvironment(environ, flags)
	if b.settings == nil {
		b.settings = make(map[string]string)
	}
	for _, p := range c.all {
		b.takeProperty(c, p, isSet)
	}
	b.takeQuorum(c, b.takeListeners(c, file != "", isSet), isSet)
	b.checkProtocols(c)
	b.takeCertificates(c)
	b.warnings = append(b.warnings, c.warnings...)
	if len(c.mistakes) == 0 {
		return nil
	}
	slices.SortStableFunc(c.mistakes, func(a, b wrongLine) int { return a.line - b.line })
	var all term.Mistakes
	for _, m := range c.mistakes {
		all = append(all, m.text)
	}
	return &term.Failure{Status: term.StatusUsage, Err: all}
}

// takeProperty takes what a property says by itself.
func (b *broker) takeProperty(c *configuration, p property, isSet func(string) bool) {
	if why := forbids(p); why != "" {
		c.mistaken(p, "%s; leave it out if everybody who reaches the node may use it", why)
		return
	}
	d, known := settings.BrokerDefinition(p.key)
	if known {
		plain := d.Plain(p.value)
		if _, err := d.Validate(plain); err != nil {
			c.mistaken(p, "it is %s", d.Allowed())
			return
		}
		p.value = plain
		b.settings[p.key] = p.value
	}
	switch p.key {
	case nodeIDKey, brokerIDKey:
		b.takeID(c, p)
	case logDirsKey, logDirKey:
		switch {
		case strings.Contains(strings.Trim(p.value, ", "), ","):
			c.mistaken(p, "a node keeps its data in one folder; name one of these, or serve each as a node of its own")
		case !isSet("data-dir") && p.value != "" && (p.key == logDirsKey || c.at[logDirsKey].value == ""):
			b.dataDir = strings.Trim(p.value, ", ")
		}
	case rackKey:
		b.rack = p.value
	case processRolesKey:
		if !slices.Contains(slices.Collect(list(p.value)), "broker") && p.value != "" {
			c.mistaken(p, "every node is a broker, and some are controllers as well; it is broker or broker,controller")
		}
	case interProtocolKey, "sasl.mechanism.inter.broker.protocol", "sasl.mechanism.controller.protocol":
		if p.value != "" && p.value != plaintextProtocol {
			c.warn(p, "%s has no effect: nodes know each other by certificates of the cluster's own authority", p.key)
		}
	case hostKey, portKey, advertisedHostKey, advertisedPortKey: // below, or harmless
	case zookeeperKey:
		c.warn(p, "%s has no effect: there is no ZooKeeper here, and a node with an empty folder founds a cluster unless --join or %s name nodes of one", p.key, bootstrapKey)
	default:
		if _, _, ofListener := listenerSetting(p.key); known || ofListener {
			return // takeCertificates
		}
		if _, harmless := forbidding[p.key]; !harmless {
			c.warn(p, "%s", c.unknown(p))
		}
	}
}

// unknown says that a setting has no effect, and which may have been meant.
func (c *configuration) unknown(p property) string {
	s := p.written + " is not a setting of this release and has no effect"
	if near := nearestSetting(p.key); near != "" {
		s += "; is " + near + " meant?"
	}
	return s
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
	return "this release runs no plug-ins and could not hold anybody to the policy"
}

// takeID takes the node's id over. Ids begin with 1 here: 0 breaks clients, and
// is what "none" is between nodes. A configuration that says 0 is not refused, because
// many do; the node gets another id.
func (b *broker) takeID(c *configuration, p property) {
	n, err := strconv.ParseInt(p.value, 10, 32)
	switch other, ok := c.at[nodeIDKey]; {
	case err != nil || n < -1 || n > 1<<30:
		c.mistaken(p, "it is a number from 0 to %d", 1<<30)
		return
	case ok && p.key == brokerIDKey && other.value != p.value:
		c.mistaken(p, "%s says %s", nodeIDKey, other.value)
		return
	case ok && p.key == brokerIDKey:
		return
	}
	if n == 0 {
		b.nodeID = aboveVoters(c)
		as := "this node keeps the one it has or gets one from the cluster"
		if b.nodeID != 0 {
			as = fmt.Sprintf("this node is %d", b.nodeID)
		}
		c.warn(p, "%s=0: ids of nodes begin with 1; %s", p.written, as)
		return
	}
	b.nodeID = int32(max(n, 0))
}

// aboveVoters is the first id above those of the voters, which the node that is 0 among
// several gets, so that it has the id of none of them. 0: there are no others.
func aboveVoters(c *configuration) int32 {
	most := int64(0)
	for one := range list(c.at[votersKey].value) {
		id, _, _ := strings.Cut(one, "@")
		if n, err := strconv.ParseInt(id, 10, 32); err == nil && n <= 1<<30 {
			most = max(most, n)
		}
	}
	if most == 0 {
		return 0
	}
	return int32(most) + 1
}

// A listener is an address that a node listens on, under a name of Kafka's.
type listener struct {
	name      string
	listen    string // HOST:PORT
	advertise string // HOST:PORT that others are told; "": where they came in
	only      bool   // for nodes: Kafka's listener of a controller

	protocol    millrace.Protocol
	certificate *certificate.Config // nil: none, or auto
	auto        bool                // by the cluster's authority
	insecure    bool
	mechanisms  string // NAME,…; "": those of the broker
}

// endpoints reads NAME://HOST:PORT,… of a setting. Names are compared in capitals, as
// Kafka does; a port alone, which old files have, is PLAINTEXT.
func (c *configuration) endpoints(key string) (all []listener) {
	p := c.at[key]
	for one := range list(p.value) {
		l := listener{name: plaintextProtocol, listen: one}
		if name, address, ok := strings.Cut(one, "://"); ok {
			l.name, l.listen = strings.ToUpper(name), address
		}
		_, port, err := net.SplitHostPort(l.listen)
		if err != nil {
			c.mistaken(p, "%q is not NAME://HOST:PORT", one)
			continue
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 && key == advertisedKey {
			c.mistaken(p, "%q is not a port", port)
			continue
		}
		if slices.ContainsFunc(all, func(o listener) bool { return o.name == l.name }) {
			c.mistaken(p, "there are two listeners called %s", l.name)
			continue
		}
		all = append(all, l)
	}
	return all
}

// protocolOf finds what clients of a listener have to do: what listener.security.protocol.map
// says, or the name itself where that is a protocol's. A listener called PLAINTEXT says nothing
// by that, and the entry of Kafka's own file that maps it to itself no more. It is a mistake if
// there is none.
func (c *configuration) protocolOf(p property, name string) millrace.Protocol {
	protocol := millrace.Protocol(name)
	switch protocol {
	case millrace.Plaintext:
		protocol = ""
	case millrace.SSL, millrace.SASLPlaintext, millrace.SASLSSL:
	default:
		if protocol = ""; !c.controllers()[name] && !c.mapped(name) {
			c.mistaken(p, "%s has no protocol in %s", name, protocolsKey)
		}
	}
	for pair := range list(c.at[protocolsKey].value) {
		if of, is, ok := strings.Cut(pair, ":"); ok && strings.EqualFold(strings.TrimSpace(of), name) {
			protocol = millrace.Protocol(strings.ToUpper(strings.TrimSpace(is)))
		}
	}
	if name == plaintextProtocol && protocol == millrace.Plaintext {
		protocol = ""
	}
	switch protocol {
	case "", millrace.Plaintext, millrace.SSL, millrace.SASLPlaintext, millrace.SASLSSL:
	default:
		c.mistaken(p, "%s is of the protocol %s; there are PLAINTEXT, SSL, SASL_PLAINTEXT and SASL_SSL", name, protocol)
	}
	return protocol
}

// mapped reports whether listener.security.protocol.map names a listener.
func (c *configuration) mapped(name string) bool {
	for pair := range list(c.at[protocolsKey].value) {
		if of, _, ok := strings.Cut(pair, ":"); ok && strings.EqualFold(strings.TrimSpace(of), name) {
			return true
		}
	}
	return false
}

// controllers are the names of listeners that are for controllers.
func (c *configuration) controllers() map[string]bool {
	names := make(map[string]bool)
	for name := range list(c.at[controllersKey].value) {
		names[strings.ToUpper(name)] = true
	}
	return names
}

// takeListeners finds where the node listens and what others are told. The listeners of
// controllers are there for nodes that were told to join at them. It returns all that
// the configuration says the node is at, whether a flag says otherwise or not.
func (b *broker) takeListeners(c *configuration, file bool, isSet func(string) bool) (all []listener) {
	for pair := range list(c.at[protocolsKey].value) {
		if !strings.Contains(pair, ":") {
			c.mistaken(c.at[protocolsKey], "%q is not NAME:PROTOCOL", pair)
		}
	}
	c.oldNames(listenersKey, hostKey, portKey)
	c.oldNames(advertisedKey, advertisedHostKey, advertisedPortKey)
	before := len(c.mistakes)
	listens, told := c.endpoints(listenersKey), c.endpoints(advertisedKey)
	if len(c.mistakes) > before {
		return nil
	}
	all = append(slices.Clone(listens), told...)
	at, advertisedAt := c.at[listenersKey], c.at[advertisedKey]
	ofControllers := c.controllers()
	var own, controllers []listener
	for _, l := range listens {
		l.protocol = c.protocolOf(at, l.name)
		if l.only = ofControllers[l.name]; l.only {
			controllers = append(controllers, l)
			continue
		}
		own = append(own, l)
	}
	if len(listens) > 0 && len(own) == 0 {
		c.mistaken(at, "all of these are listeners of controllers; a node needs one for clients")
		return all
	}
	if len(own) > 1 && isSet("listen") {
		c.warn(at, "%s has no effect: --listen, or its variable, names the only one", at.written)
	}
	if len(own) == 0 || isSet("listen") {
		one := listener{name: plaintextProtocol, listen: b.listeners[0].listen}
		if inter := strings.ToUpper(c.at[interBrokerKey].value); inter != "" {
			one.name = inter
		} else if len(own) == 0 && len(told) > 0 && !slices.ContainsFunc(told, func(l listener) bool { return l.name == plaintextProtocol }) {
			one.name = told[0].name
		}
		switch {
		case isSet("listen"):
		case len(told) > 0:
			one.listen = ":9092" // as in Kafka: who says what others are told means others
		case file:
			c.warnings = append(c.warnings, fmt.Sprintf("%s is not set: this node listens on %s alone, where Kafka would on every address; %s=PLAINTEXT://:9092 says so", listenersKey, one.listen, listenersKey))
		}
		own, controllers = []listener{one}, nil
	}
	for _, l := range told {
		i := slices.IndexFunc(own, func(o listener) bool { return o.name == l.name })
		switch {
		case ofControllers[l.name]:
		case i < 0 && isSet("listen"):
		case i < 0 && c.protocolMissing(l.name):
			c.protocolOf(advertisedAt, l.name)
		case i < 0:
			c.mistaken(advertisedAt, "there is no listener called %s in %s", l.name, listenersKey)
		default:
			if len(listens) == 0 {
				own[i].protocol = c.protocolOf(advertisedAt, l.name)
			}
			own[i].advertise = l.listen
			if host, port, _ := net.SplitHostPort(l.listen); host == "" {
				if name, err := os.Hostname(); err == nil { // as in Kafka
					own[i].advertise = net.JoinHostPort(name, port)
				}
			}
			if why := UnreachableAddress(own[i].advertise); why != "" {
				c.mistaken(advertisedAt, "%s", why)
			}
		}
	}
	b.nodes = max(slices.IndexFunc(own, func(l listener) bool { return l.name == plaintextProtocol }), 0)
	if inter := c.at[interBrokerKey]; inter.value != "" {
		i := slices.IndexFunc(own, func(l listener) bool { return l.name == strings.ToUpper(inter.value) })
		if i < 0 {
			c.mistaken(inter, "there is no such listener in %s", listenersKey)
		}
		b.nodes = max(i, 0)
	}
	b.listeners = append(own, controllers...)
	return all
}

// protocolMissing reports whether a listener's name has no protocol at all, or not the
// one there is.
func (c *configuration) protocolMissing(name string) bool {
	probe := &configuration{at: c.at}
	probe.protocolOf(property{}, name)
	return len(probe.mistakes) > 0
}

// oldNames makes a setting of listeners of the two that files older than Kafka 3 have.
func (c *configuration) oldNames(key, hostKey, portKey string) {
	host, hosts := c.at[hostKey]
	port, ports := c.at[portKey]
	if _, given := c.at[key]; given || !hosts && !ports {
		return
	}
	p := host
	if !hosts {
		p = port
	}
	if port.value == "" {
		if port.value = "9092"; key == advertisedKey {
			for _, l := range c.endpoints(listenersKey) {
				_, port.value, _ = net.SplitHostPort(l.listen)
				break
			}
		}
	}
	p.key, p.value = key, plaintextProtocol+"://"+net.JoinHostPort(host.value, port.value)
	c.at[key] = p
}

// UnreachableAddress says why others cannot reach an advertised HOST:PORT, "" if they may.
func UnreachableAddress(address string) string {
	host, port, err := net.SplitHostPort(address)
	if n, e := strconv.ParseUint(port, 10, 16); err != nil || e != nil || host == "" || n == 0 {
		return "it is HOST:PORT, as others reach this node"
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		return host + " is every address of a machine, at which nobody can be reached; name the one that others reach this node by"
	}
	return ""
}

// takeQuorum takes the nodes to join over. Kafka's nodes name themselves there as well;
// of several that do, the one with the lowest id founds the cluster, or the first
// where none has an id.
func (b *broker) takeQuorum(c *configuration, own []listener, isSet func(string) bool) {
	type voter struct {
		id      int64
		address string
	}
	var all []voter
	p, given := c.at[votersKey]
	if given && p.value != "" {
		for one := range list(p.value) {
			text, address, ok := strings.Cut(one, "@")
			id, err := strconv.ParseInt(text, 10, 32)
			if _, _, e := net.SplitHostPort(address); !ok || err != nil || e != nil {
				c.mistaken(p, "%q is not ID@HOST:PORT", one)
				return
			}
			all = append(all, voter{id, address})
		}
		slices.SortStableFunc(all, func(a, b voter) int { return int(a.id - b.id) })
	} else if p, given = c.at[bootstrapKey]; given && p.value != "" {
		addresses, err := kafka.ParseBrokers(bootstrapKey, p.value)
		if err != nil {
			c.mistaken(p, "it is HOST:PORT,…")
			return
		}
		for _, address := range addresses {
			all = append(all, voter{-1, address})
		}
	}
	if len(all) == 0 || isSet("join") {
		return
	}
	self := int64(-2)
	for _, key := range []string{brokerIDKey, nodeIDKey} {
		if n, err := strconv.ParseInt(c.at[key].value, 10, 32); err == nil {
			self = n
		}
	}
	for i, v := range all {
		if v.id >= 0 && v.id == self || v.id < 0 && isOwn(v.address, own) {
			b.founds = b.founds || i == 0
			continue
		}
		b.join = append(b.join, v.address)
	}
}

// isOwn reports whether an address is of a node that is at these: at one of their ports,
// under a name that the node has.
func isOwn(address string, at []listener) bool {
	host, port, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	named := host == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
	if name, err := os.Hostname(); err == nil && strings.EqualFold(name, host) {
		named = true
	}
	listens := false
	for _, l := range at {
		ownHost, ownPort, _ := net.SplitHostPort(l.listen)
		named = named || ownHost != "" && strings.EqualFold(ownHost, host)
		listens = listens || port == ownPort
	}
	return named && listens
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
		if d := term.Edits(name, other); d < least {
			best, least = other, d
		}
	}
	for _, d := range settings.BrokerDefinitions() {
		consider(d.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(forbidding)) {
		consider(name)
	}
	return best
}
