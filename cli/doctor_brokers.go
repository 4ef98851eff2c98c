package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/local"
	"millrace/cli/term"
)

// examineBrokers goes to the brokers that a command line names, to those that they tell
// clients of, and looks at the clusters they are, which should be one.
func (d *doctor) examineBrokers(ctx context.Context, named []string) {
	seeds := d.examineNamed(ctx, named)
	var clusters []string
	of := make(map[string][]*visit)
	for _, v := range seeds {
		if !v.reached() {
			continue
		}
		if of[v.cluster] == nil {
			clusters = append(clusters, v.cluster)
		}
		of[v.cluster] = append(of[v.cluster], v)
	}
	if len(clusters) == 0 {
		return
	}
	d.clusters = len(clusters)
	d.judgeClusters(clusters, of, len(named))
	var all []*visit
	examinations := []func(*doctor){func(d *doctor) { all = d.examineAdvertised(ctx, seeds) }}
	for _, c := range clusters {
		examinations = append(examinations, func(d *doctor) { d.examineHealth(ctx, of[c]) })
	}
	d.together(examinations...)
	for _, c := range clusters {
		d.judgeVersions(slices.DeleteFunc(slices.Clone(all), func(v *visit) bool { return v.cluster != c }))
	}
	d.judgeClocks(all)
	d.examineProcesses(all)
}

// examineNamed goes to the addresses of a command line.
func (d *doctor) examineNamed(ctx context.Context, named []string) []*visit {
	all := make([]*visit, len(named))
	var examinations []func(*doctor)
	hosts := make(map[string]bool)
	for i, address := range named {
		v := &visit{address: address, node: -1, leader: -1}
		host, _, _ := net.SplitHostPort(address)
		first := !hosts[host]
		hosts[host], all[i] = true, v
		examinations = append(examinations, func(d *doctor) {
			d.resolve(ctx, v)
			if first {
				d.judgeName(v)
			}
			conn := d.knock(ctx, v)
			d.judgeDoors(v)
			if conn != nil {
				d.interview(ctx, v, conn)
				d.judgeProtocol(v)
			}
		})
	}
	d.together(examinations...)
	return all
}

func (d *doctor) judgeName(v *visit) {
	switch {
	case v.lookup != nil:
		d.say(failed, "name", v.host, "correct it, or tell this machine of it, in DNS or /etc/hosts", "%s", unresolved(v.lookup))
	case len(v.doors) > 1 || v.doors[0].ip != v.host:
		d.say(fine, "name", v.host, "", "%s", strings.Join(v.ips(), ", "))
	}
}

func (v *visit) ips() (all []string) {
	for _, d := range v.doors {
		all = append(all, d.ip)
	}
	return all
}

// unresolved says why a name has no address.
func unresolved(err error) string {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "no such host"
	case errors.As(err, &dns):
		return "cannot be resolved: " + dns.Err
	}
	return err.Error()
}

// judgeDoors says whether somebody listens at one of an address's doors, and where not.
func (d *doctor) judgeDoors(v *visit) {
	if v.lookup != nil {
		return
	}
	open, shut := v.open()
	if open == nil {
		d.say(failed, "connect", v.address, openIt(shut), "%s", d.closed(shut.err))
		return
	}
	if first := v.doors[0]; first.err != nil {
		_, port, _ := net.SplitHostPort(v.address)
		d.say(worrying, "connect", v.address,
			fmt.Sprintf("give clients %s, or let the broker listen at %s as well", net.JoinHostPort(open.ip, port), first.ip),
			"%s is %s first, where it is %s, and then %s, which answers: a client that tries only the first does not get through",
			v.host, first.ip, d.closed(first.err), open.ip)
		return
	}
	d.say(fine, "connect", v.address, "", "in %s", fineGrained(open.took))
}

// open returns the first door that is open, nil if none is, and the last that is not.
func (v *visit) open() (open, shut *door) {
	for i := range v.doors {
		if at := &v.doors[i]; at.err != nil {
			shut = at
		} else if open == nil {
			open = at
		}
	}
	return open, shut
}

// closed says why a connection did not come about.
func (d *doctor) closed(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, term.ErrnoRefused):
		return "refused, nothing listens there"
	case errors.Is(err, term.ErrnoNoHost), errors.Is(err, term.ErrnoNoNet):
		return "unreachable, there is no way to it from here"
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Sprintf("unanswered for %.3g s", d.patience.Seconds())
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return err.Error()
}

// openIt says what may open a door.
func openIt(shut *door) string {
	refused := errors.Is(shut.err, term.ErrnoRefused)
	switch ip := net.ParseIP(shut.ip); {
	case refused && ip != nil && ip.IsLoopback():
		return "start a broker with `millrace serve`, or name others with -b"
	case refused:
		return "start the broker there, or let it listen at that address: --listen, or listeners; without it a broker listens on 127.0.0.1 alone"
	}
	return "let firewalls and the network between let this port through, or start the machine"
}

// short is a duration as people read it: 0.2 ms, 12 ms, 1.5 s.
func short(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

func (d *doctor) judgeProtocol(v *visit) {
	if v.stranger != "" {
		d.say(failed, "protocol", v.address, v.remedy, "%s", v.stranger)
		return
	}
	what := "a Kafka broker"
	if v.software != "" {
		what = v.software
	}
	if v.node >= 0 {
		what += fmt.Sprintf(", node %d", v.node)
	}
	d.say(fine, "protocol", v.address, "", "%s, %s", what, term.Count(len(v.apis), "API"))
}

// judgeClusters says which cluster is there, as those of so many named addresses say that
// answer.
func (d *doctor) judgeClusters(clusters []string, of map[string][]*visit, named int) {
	if len(clusters) == 1 {
		by, answer := "", len(of[clusters[0]])
		switch {
		case answer < named:
			by = fmt.Sprintf(", says %d of %d addresses; no broker answers at the rest", answer, named)
			if answer > 1 {
				by = strings.Replace(by, "says", "say", 1)
			}
		case named > 1:
			by = fmt.Sprintf(", say all %d addresses", named)
		}
		d.say(fine, "cluster", "", "", "%s%s", clusters[0], by)
		return
	}
	var parts []string
	for _, c := range clusters {
		var at []string
		for _, v := range of[c] {
			at = append(at, v.address)
		}
		parts = append(parts, fmt.Sprintf("%s at %s", c, strings.Join(at, ", ")))
	}
	d.say(failed, "cluster", "", "name the brokers of one cluster; nodes that were to be one need --join, or one controller.quorum.voters",
		"-b names %d clusters: %s", len(clusters), strings.Join(parts, "; "))
}

// An advertisement is where a cluster tells its clients that a broker is.
type advertisement struct {
	cluster string
	told
}

// examineAdvertised goes to where clients are sent, and returns one visit to each broker
// that was reached.
func (d *doctor) examineAdvertised(ctx context.Context, seeds []*visit) (all []*visit) {
	from := make(map[advertisement][]*visit) // by whom it is told
	at := make(map[string]*visit)
	for _, v := range seeds {
		at[v.address] = v
		for _, t := range v.told {
			a := advertisement{v.cluster, t}
			from[a] = append(from[a], v)
		}
	}
	sent := slices.SortedFunc(maps.Keys(from), func(a, b advertisement) int {
		return cmp.Or(cmp.Compare(a.cluster, b.cluster), cmp.Compare(a.node, b.node), cmp.Compare(a.address, b.address))
	})
	var addresses []string
	for _, a := range sent {
		if !slices.Contains(addresses, a.address) {
			addresses = append(addresses, a.address)
		}
	}
	visits := make([]*visit, len(addresses))
	var examinations []func(*doctor)
	for i, address := range addresses {
		examinations = append(examinations, func(d *doctor) {
			if visits[i] = at[address]; visits[i] == nil {
				visits[i] = d.visit(ctx, address)
			}
			for _, a := range sent {
				if a.address == address {
					d.judgeAdvertised(a, visits[i], from[a], seeds)
				}
			}
		})
	}
	d.together(examinations...)
	seen := make(map[advertisement]bool)
	for _, v := range slices.Concat(seeds, visits) {
		who := advertisement{v.cluster, told{node: v.node}}
		if v.reached() && !seen[who] {
			seen[who] = v.node >= 0 // who does not say is nobody's double
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b *visit) int { return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(a.address, b.address)) })
	return all
}

// judgeAdvertised says whether clients that are sent to a broker get to it.
func (d *doctor) judgeAdvertised(a advertisement, v *visit, by, seeds []*visit) {
	subject := fmt.Sprintf("broker %d%s", a.node, d.of(a.cluster))
	what := ""
	open, shut := v.open()
	loopback := isLoopback(v)
	switch {
	case local.UnreachableAddress(a.address) != "":
		what = "which is no address that can be reached"
	case v.lookup != nil:
		what = "which does not resolve here: " + unresolved(v.lookup)
	case open == nil:
		what = "which is " + d.closed(shut.err)
	case v.silent():
		what = "which takes the connection and " + quiet(d.patience)
	case v.stranger != "":
		what = "where no broker is: " + v.stranger
	case v.cluster != a.cluster:
		what = fmt.Sprintf("where a broker of another cluster answers, %s", v.cluster)
	case v.node >= 0 && v.node != a.node:
		what = fmt.Sprintf("where broker %d answers", v.node)
	case loopback && !slices.ContainsFunc(by, isLoopback):
		d.say(worrying, "advertised", subject, advertise(a, v, seeds),
			"clients are told %s, which is reached from this machine only: any other would look for the broker on itself", a.address)
		return
	case v.node < 0:
		d.say(fine, "advertised", subject, "", "%s, in %s; who answers there is not told", a.address, fineGrained(open.took))
		return
	default:
		d.say(fine, "advertised", subject, "", "%s, in %s", a.address, fineGrained(open.took))
		return
	}
	if loopback && !slices.ContainsFunc(by, isLoopback) {
		what += ", and which is this machine itself"
	}
	d.say(failed, "advertised", subject, advertise(a, v, seeds), "clients are told %s, %s", a.address, what)
}

// isLoopback reports whether an address is of the machine that uses it, whichever that is.
func isLoopback(v *visit) bool {
	ip := net.ParseIP(v.host)
	if ip == nil && len(v.doors) > 0 {
		ip = net.ParseIP(v.doors[0].ip)
	}
	return ip != nil && ip.IsLoopback()
}

// advertise says what leads clients to a broker, of which v is a visit to where they are
// told that it is. The broker may be down, or a setting be wrong; then it says which, and
// the value it should have: the address by which the broker was reached, if it was, under
// the name of its listener.
func advertise(a advertisement, v *visit, seeds []*visit) string {
	const key = "advertised.listeners"
	i := slices.IndexFunc(seeds, func(s *visit) bool { return s.cluster == a.cluster && s.node == a.node })
	if i < 0 {
		open, shut := v.open()
		reach := fmt.Sprintf("%s of broker %d to the HOST:PORT by which this machine reaches it; named with -b, it is checked", key, a.node)
		switch named := slices.ContainsFunc(seeds, v.sameDoor); { // somebody believes that it is there
		case v.silent() && named:
			return fmt.Sprintf("%s; if that is not broker %d, set its %s to the address it listens on", v.remedy, a.node, key)
		case v.silent():
			return v.remedy + "; if that is not broker " + fmt.Sprint(a.node) + ", set " + reach
		case open != nil || shut == nil:
			return "set " + reach
		case named:
			return fmt.Sprintf("start broker %d; if it runs, set its %s to the address it listens on", a.node, key)
		}
		return fmt.Sprintf("start broker %d, if it is down; else set %s", a.node, reach)
	}
	own := seeds[i]
	now := own.settings[key]
	if now == "" {
		now = own.settings["listeners"]
	}
	listeners, found := strings.Split(now, ","), false
	for i, l := range listeners {
		if name, address, ok := strings.Cut(strings.TrimSpace(l), "://"); ok && (address == a.address || len(listeners) == 1) {
			listeners[i], found = name+"://"+own.address, true
		}
	}
	value := strings.Join(listeners, ",")
	if !found {
		value = "PLAINTEXT://" + own.address
	}
	text := fmt.Sprintf("set %s=%s on broker %d", key, value, a.node)
	if own.software != "" && len(listeners) == 1 {
		text += fmt.Sprintf(" (--advertise %s)", own.address)
	}
	if host, _, _ := net.SplitHostPort(a.address); !isLoopback(&visit{host: host}) {
		text += fmt.Sprintf("; if others use %s, add a second listener with that address", a.address)
	}
	return text
}

// sameDoor reports whether two addresses lead to one place, whatever they call it.
func (v *visit) sameDoor(o *visit) bool {
	_, port, _ := net.SplitHostPort(v.address)
	_, others, _ := net.SplitHostPort(o.address)
	return port == others && slices.ContainsFunc(v.ips(), func(ip string) bool { return slices.Contains(o.ips(), ip) })
}

// judgeVersions compares what brokers of one cluster say of their programs, or else what they serve.
func (d *doctor) judgeVersions(all []*visit) {
	var versions []string
	of := make(map[string][]string)
	own := true
	for _, v := range all {
		own = own && v.software != ""
	}
	for _, v := range all {
		version := v.software
		if !own {
			version = ""
			for _, api := range slices.Sorted(maps.Keys(v.apis)) {
				version += fmt.Sprintf("%d:%d ", api, v.apis[api])
			}
		}
		if of[version] == nil {
			versions = append(versions, version)
		}
		of[version] = append(of[version], d.who(v))
	}
	subject := strings.TrimPrefix(d.of(all[0].cluster), " of ")
	if len(versions) == 1 {
		if !own {
			d.say(fine, "version", subject, "", "all serve the same versions of the same APIs")
			return
		}
		d.say(fine, "version", subject, "", "%s", versions[0])
		return
	}
	var parts []string
	for _, version := range versions {
		what := "others"
		if own {
			what = version
		}
		parts = append(parts, strings.Join(of[version], ", ")+": "+what)
	}
	found := strings.Join(parts, "; ")
	if !own {
		found = "the APIs differ between " + strings.Join(groups(versions, of), " and ")
	}
	d.say(worrying, "version", subject, "finish the upgrade: what is new begins when the last broker has it", "%s", found)
}

// groups are the brokers of each version.
func groups(versions []string, of map[string][]string) (all []string) {
	for _, version := range versions {
		all = append(all, strings.Join(of[version], ", "))
	}
	return all
}

// who names the broker that was visited.
func (d *doctor) who(v *visit) string {
	switch {
	case v.node < 0:
		return v.address
	case d.clusters > 1:
		return fmt.Sprintf("broker %d at %s", v.node, v.address)
	}
	return fmt.Sprintf("broker %d", v.node)
}

// of names a cluster behind the number of a node, if that number alone could be of several.
func (d *doctor) of(cluster string) string {
	if d.clusters > 1 {
		return " of " + cluster
	}
	return ""
}

// Clocks that are further apart than tolerable are named: what is read from a time, and
// what retention deletes, is that much off. With an hour a broker takes no records any
// more: message.timestamp.after.max.ms.
const (
	tolerable   = time.Second
	intolerable = time.Hour
)

func (d *doctor) judgeClocks(all []*visit) {
	const change = "let every machine follow one clock, by chrony or systemd-timesyncd"
	type reading struct {
		who string
		clock
	}
	var readings []reading
	others := false // are there, whose time is not known
	for _, v := range all {
		switch {
		case v.clock.known:
			readings = append(readings, reading{d.who(v), v.clock})
		case v.leaderClock.known && v.leader == v.node:
			readings = append(readings, reading{d.who(v), v.leaderClock})
		default:
			others = true
		}
	}
	for _, v := range all {
		if len(readings) == 0 && v.leaderClock.known { // the leader is a controller alone, or was not reached
			readings = append(readings, reading{fmt.Sprintf("controller %d%s", v.leader, d.of(v.cluster)), v.leaderClock})
		}
	}
	if len(readings) == 0 {
		d.say(untold, "clock", "", "", "none of them tells its time")
		return
	}
	within, wrong := time.Duration(0), 0
	for _, r := range readings {
		within = max(within, r.ahead.Abs()+r.slack)
		apart := r.ahead.Abs() - r.slack
		if apart <= tolerable {
			continue
		}
		wrong++
		verdict, direction := worrying, "ahead of"
		if apart > intolerable {
			verdict = failed
		}
		if r.ahead < 0 {
			direction = "behind"
		}
		d.say(verdict, "clock", r.who, change, "its clock is %s %s this machine's", lasting(r.ahead.Abs().Seconds()), direction)
	}
	if wrong > 0 {
		return
	}
	var names []string
	for _, r := range readings {
		names = append(names, r.who)
	}
	rest := ""
	if others {
		rest = "; the others do not tell theirs"
	}
	d.say(fine, "clock", "", "", "%s: within %s of this machine's%s", strings.Join(names, ", "), short(within), rest)
}

// examineHealth says what `cluster health` would of the cluster of some visits, and how
// full the disks are.
func (d *doctor) examineHealth(ctx context.Context, reached []*visit) {
	of := d.of(reached[0].cluster)
	subject := strings.TrimPrefix(of, " of ")
	var addresses []string
	for _, v := range reached {
		addresses = append(addresses, v.address)
	}
	metadata, err := metadataOf(ctx, addresses)
	if err != nil {
		d.say(failed, "health", subject, "look into the brokers' logs", "no broker tells which topics there are: %s", kafka.WhyNoAnswer(err))
		return
	}
	state := clusterOf(ctx, metadata)
	if troubles := state.troubles(); len(troubles) > 0 {
		change := strings.Join(append(state.remedies(reached), "`millrace cluster status` shows more"), "; ")
		d.say(failed, "health", subject, change, "%s", strings.Join(troubles, "; "))
	} else {
		d.say(fine, "health", subject, "", "%s, %s, %s", term.Count(len(state.Brokers), "broker"), term.Count(state.Topics-state.internalTopics, "topic"), term.Count(state.Partitions-state.Internal, "partition"))
	}
	for _, b := range state.Brokers {
		broker := fmt.Sprintf("broker %d%s", b.Node, of)
		if b.Up && b.DiskBytes > 0 {
			d.judgeRoom("disk", broker, " below "+b.dataDir, b.DiskBytes, b.DiskFree, b.diskFull())
		} else if b.Up {
			d.say(untold, "disk", broker, "", "it does not tell")
		}
	}
}

// remedies says what to do about brokers that do not answer at their addresses, some of
// which may have been reached at others.
func (s *clusterState) remedies(reached []*visit) (all []string) {
	var down, elsewhere []string
	for _, b := range s.Brokers {
		switch name := fmt.Sprintf("broker %d", b.Node); {
		case b.Up || b.stranger != "":
		case slices.ContainsFunc(reached, func(v *visit) bool { return v.node == b.Node }):
			elsewhere = append(elsewhere, name)
		default:
			down = append(down, name)
		}
	}
	if len(down) > 0 {
		all = append(all, "bring back "+strings.Join(down, ", "))
	}
	if len(elsewhere) > 0 {
		all = append(all, "correct the address of "+strings.Join(elsewhere, ", ")+", as advertised says")
	}
	return all
}

// scarce is room that is little for any broker, however large a part of the disk it is:
// sixty busy partitions take it before they hold a record, 16 MiB each.
const scarce = 1_000_000_000

// judgeRoom says how much room is left on a disk, and where. With a tenth of it there is
// time to act.
func (d *doctor) judgeRoom(check, subject, where string, total, free int64, full bool) {
	verdict, change := fine, ""
	switch {
	case total == 0:
		verdict, change = failed, "choose a folder on a disk"
	case full:
		verdict, change = failed, "delete or trim topics, or make room: a broker refuses to write"
	case free < total/10:
		verdict, change = worrying, "shorten retention.ms or set retention.bytes, or make room"
	case free < scarce:
		verdict, change = worrying, "make room, or choose a larger disk: less than 1 GB is little, since a busy partition takes 16 MiB at a time"
	}
	d.say(verdict, check, subject, change, "%s of %s free%s", term.Size(free), term.Size(total), where)
}
