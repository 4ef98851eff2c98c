package server

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
	"millrace/server/quota"
)

// A throttle holds one connection to its client's quotas (KIP-219): a request beyond them
// is answered at once, with how long the client should wait, and for so long nothing is
// read from the connection. It waits between two requests, in the goroutine that it has
// anyway and with no memory for any; what it produced before is acknowledged meanwhile,
// and Shutdown does not wait for the end. It belongs to the connection's goroutine.
type throttle struct {
	quotas *quotas        // of the server, while by is set
	until  time.Time      // nothing is read before; zero: it may be
	by     *quotasInForce // for the request under way; nil: nothing is counted
	client quota.Client
	timed  bool          // there is a quota of time
	began  time.Time     // the request, where timed
	waited time.Duration // of that for others, which is not the client's
	owed   time.Duration // for what its handler found
}

// begin looks up by which quotas a request of a principal is held.
func (t *throttle) begin(q *quotas, principal string, h protocol.Header) {
	if t.quotas, t.by = q, q.inForce(); t.by == nil {
		return
	}
	switch h.Key {
	case kmsg.SASLHandshake, kmsg.SASLAuthenticate:
		t.by = nil // nobody's yet
		return
	}
	t.client = quota.Client{User: userOf(principal), ID: h.Client}
	t.owed, t.waited = 0, 0
	if t.timed = t.by.table.Limited(quota.Request, t.client); t.timed {
		t.began = time.Now()
	}
}

// unhurried are the kinds of requests that wait for others, a majority of brokers or a
// group's members. Of these only decoding and encoding counts as the client's time.
var unhurried = map[kmsg.Key]bool{
	kmsg.Metadata: true, kmsg.FindCoordinator: true, kmsg.ListOffsets: true, kmsg.OffsetForLeaderEpoch: true, // ask a majority
	kmsg.OffsetCommit: true, kmsg.OffsetFetch: true, kmsg.OffsetDelete: true, kmsg.InitProducerID: true,
	kmsg.JoinGroup: true, kmsg.SyncGroup: true, kmsg.LeaveGroup: true, kmsg.Heartbeat: true, kmsg.ConsumerGroupHeartbeat: true, kmsg.DeleteGroups: true,
	kmsg.CreateTopics: true, kmsg.DeleteTopics: true, kmsg.CreatePartitions: true, kmsg.DeleteRecords: true,
	kmsg.AlterConfigs: true, kmsg.IncrementalAlterConfigs: true, kmsg.CreateACLs: true, kmsg.DeleteACLs: true,
	kmsg.AlterClientQuotas: true, kmsg.AlterUserSCRAMCredentials: true, kmsg.ElectLeaders: true, kmsg.UnregisterBroker: true,
	kmsg.CreateDelegationToken: true, kmsg.RenewDelegationToken: true, kmsg.ExpireDelegationToken: true,
}

// pause stops the clock for a request that waits, and returns what resume goes on from.
func (t *throttle) pause(key kmsg.Key) (since time.Time) {
	if t.timed && t.by != nil && unhurried[key] {
		return time.Now()
	}
	return since
}

func (t *throttle) resume(since time.Time) {
	if !since.IsZero() {
		t.waited += time.Since(since)
	}
}

// userOf is the name that quotas know a principal by.
func userOf(principal string) string {
	_, name, _ := strings.Cut(principal, ":")
	return name
}

// use counts what the request under way used of one kind. It returns how long the client is
// to be left alone, also for the time that was spent on it so far.
func (t *throttle) use(kind quota.Kind, amount int) time.Duration {
	if t.by == nil {
		return 0
	}
	return max(t.quotas.usage.Take(t.by.table, &t.by.windows, time.Now(), kind, t.client, float64(amount)), t.useTime())
}

// useTime counts the time that was spent on the request since it began, or since the last
// call. It returns what use does.
func (t *throttle) useTime() time.Duration {
	if t.by == nil {
		return 0
	}
	wait := t.owed
	if t.timed {
		now := time.Now()
		spent := max(0, now.Sub(t.began)-t.waited)
		t.began, t.waited = now, 0
		wait = max(wait, t.quotas.usage.Take(t.by.table, &t.by.windows, now, quota.Request, t.client, 100*spent.Seconds()))
	}
	return wait
}

// owes is how long the client must wait for what was used of one kind before.
func (t *throttle) owes(kind quota.Kind) time.Duration {
	if t.by == nil {
		return 0
	}
	wait, _ := t.quotas.usage.TakeIfFree(t.by.table, &t.by.windows, time.Now(), kind, t.client, 0)
	return wait
}

// mostRecords is how many bytes of records one answer may have for the client's quota.
func (t *throttle) mostRecords() int {
	if t.by == nil {
		return math.MaxInt
	}
	most, ok := t.by.table.Most(&t.by.windows, quota.Consume, t.client)
	if !ok || most > math.MaxInt32 {
		return math.MaxInt
	}
	return int(most)
}

// mute has nothing read from the connection for so long, and returns what its client is told.
func (t *throttle) mute(wait time.Duration) (millis int32) {
	if wait <= 0 {
		return 0
	}
	if until := time.Now().Add(wait); until.After(t.until) {
		t.until = until
	}
	return int32(wait.Milliseconds())
}

// await waits until the connection may be read from again, or it ends.
func (t *throttle) await(ctx context.Context) {
	if t.until.IsZero() {
		return
	}
	if wait := time.Until(t.until); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	t.until = time.Time{}
}

// tell puts into an answer how long the client must wait, and mutes the connection.
func (t *throttle) tell(resp kmsg.Response) {
	if t.by == nil {
		return
	}
	millis := t.mute(t.useTime())
	if r, ok := resp.(kmsg.SetThrottleResponse); ok && millis > 0 {
		r.SetThrottle(millis)
	}
}

// errMutations is Kafka's message of THROTTLING_QUOTA_EXCEEDED.
const errMutations = sentence("The throttling quota has been exceeded.")

// mutate counts partitions that the request creates or deletes (KIP-599). It is false
// where they are beyond the quota: from a version on a request is refused what it asks
// for while more was done before than the quota allows. Earlier versions do it, and wait
// afterwards.
func (c *call) mutate(partitions int, strictSince int16) bool {
	t := &c.conn.throttle
	if t.by == nil {
		return true
	}
	usage := &t.quotas.usage
	if c.Version < strictSince {
		t.owed = max(t.owed, usage.Take(t.by.table, &t.by.windows, time.Now(), quota.Mutation, t.client, float64(partitions)))
		return true
	}
	wait, ok := usage.TakeIfFree(t.by.table, &t.by.windows, time.Now(), quota.Mutation, t.client, float64(partitions))
	if !ok {
		t.owed = max(t.owed, wait)
	}
	return ok
}
