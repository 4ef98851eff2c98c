package server

import (
	"context"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/server/protocol"
	"millrace/server/quota"
)

// quotas answers the requests that show and change quotas (KIP-546), and knows those in force
// and what clients have used.
type quotas struct {
	*broker
	current atomic.Pointer[quotasInForce]
	mu      sync.Mutex // held while they are made
	usage   quota.Usage
}

// quotasInForce are the quotas under one image.
type quotasInForce struct {
	image   *metadata.Image
	table   *quota.Table // nil: there are none
	windows quota.Windows
}

// inForce returns the quotas that hold now, nil if there are none. It costs a request one
// look at whether the image is still the one that they were made for.
func (q *quotas) inForce() *quotasInForce {
	image := q.node.Image()
	now := q.current.Load()
	if now == nil || now.image != image {
		now = q.make()
	}
	if now.table == nil {
		return nil
	}
	return now
}

func (q *quotas) make() *quotasInForce {
	q.mu.Lock()
	defer q.mu.Unlock()
	resolved := q.settings()
	quotas := &resolved.broker.Quotas
	next := &quotasInForce{image: resolved.image, windows: quota.Windows{
		Size:            time.Duration(quotas.WindowSeconds) * time.Second,
		MutationSize:    time.Duration(quotas.MutationWindowSeconds) * time.Second,
		MutationWindows: int(quotas.MutationWindows),
	}}
	if before := q.current.Load(); before != nil && resolved.image.SameQuotas(before.image) {
		next.table = before.table
	} else {
		var all []quota.Quota
		for _, one := range resolved.image.Quotas() {
			all = append(all, quota.Quota{User: one.User, ClientID: one.ClientID, Values: one.Values})
		}
		next.table = quota.NewTable(all)
	}
	q.current.Store(next)
	return next
}

// quotaParts are Kafka's names for what an entity may be made of.
var quotaParts = []string{"user", "client-id", "ip"}

// quotaPart is where an entity has its part of a kind, nil if there is no such kind.
func quotaPart(e *metadata.QuotaEntity, kind string) **string {
	switch kind {
	case "user":
		return &e.User
	case "client-id":
		return &e.ClientID
	case "ip":
		return &e.IP
	}
	return nil
}

// DescribeClientQuotas, versions 0–1 (KIP-546).
//
//   - DescribeConfigs on the cluster is needed.
//   - A filter asks for entities that have a part by its name, as a default, or however; a
//     strict one for those that have no other part.
//   - Entities are sorted, and so are their values.
//
// v1 adds tagged fields.
func (q *quotas) describe(c *call, req *kmsg.DescribeClientQuotasRequest) *kmsg.DescribeClientQuotasResponse {
	resp := kmsg.NewPtrDescribeClientQuotasResponse()
	refuse := func(code protocol.Code, err error) *kmsg.DescribeClientQuotasResponse {
		resp.ErrorCode, resp.ErrorMessage, resp.Entries = int16(code), message(err), nil
		return resp
	}
	if code := c.admit(); code != protocol.None {
		return refuse(code, errClusterDenied)
	}
	if code, err := checkQuotaFilter(req.Components); code != protocol.None {
		return refuse(code, err)
	}
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{} // null is a null pointer in Java's client
	for _, one := range q.node.Image().Quotas() {
		c.step()
		if !quotaMatches(&one.QuotaEntity, req) {
			continue
		}
		e := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, kind := range quotaParts {
			if name := *quotaPart(&one.QuotaEntity, kind); name != nil {
				e.Entity = append(e.Entity, kmsg.DescribeClientQuotasResponseEntryEntity{Type: kind, Name: shownName(name)})
			}
		}
		for _, key := range slices.Sorted(maps.Keys(one.Values)) {
			e.Values = append(e.Values, kmsg.DescribeClientQuotasResponseEntryValue{Key: key, Value: one.Values[key]})
		}
		if !c.fits(&e) {
			return refuse(protocol.PolicyViolation, errNoPlace)
		}
		resp.Entries = append(resp.Entries, e)
	}
	return resp
}

// shownName is a part's name as the protocol has it, where null is the default.
func shownName(name *string) *string {
	if *name == "" {
		return nil
	}
	return name
}

// checkQuotaFilter refuses what ClientQuotasImage does, in its words.
func checkQuotaFilter(filter []kmsg.DescribeClientQuotasRequestComponent) (protocol.Code, error) {
	seen := map[string]bool{}
	for _, f := range filter {
		switch {
		case f.EntityType == "":
			return protocol.InvalidRequest, sentence("Invalid empty entity type.")
		case seen[f.EntityType]:
			return protocol.InvalidRequest, sentencef("Entity type %s cannot appear more than once in the filter.", f.EntityType)
		case !slices.Contains(quotaParts, f.EntityType):
			return protocol.UnsupportedVersion, sentencef("Unsupported entity type %s", f.EntityType)
		case f.MatchType < kmsg.QuotasMatchTypeExact || f.MatchType > kmsg.QuotasMatchTypeAny:
			return protocol.InvalidRequest, sentencef("Unknown match type %d", int8(f.MatchType))
		case f.MatchType == kmsg.QuotasMatchTypeExact && f.Match == nil:
			return protocol.InvalidRequest, sentence("Request specified MATCH_TYPE_EXACT, but set match string to null.")
		case f.MatchType == kmsg.QuotasMatchTypeDefault && f.Match != nil:
			return protocol.InvalidRequest, sentence("Request specified MATCH_TYPE_DEFAULT, but also specified a match string.")
		case f.MatchType == kmsg.QuotasMatchTypeAny && f.Match != nil:
			return protocol.InvalidRequest, sentence("Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.")
		}
		seen[f.EntityType] = true
	}
	if seen["ip"] && (seen["user"] || seen["client-id"]) {
		return protocol.InvalidRequest, sentence("Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.")
	}
	return protocol.None, nil
}

func quotaMatches(e *metadata.QuotaEntity, req *kmsg.DescribeClientQuotasRequest) bool {
	matched := 0
	for _, f := range req.Components {
		name := *quotaPart(e, f.EntityType)
		switch {
		case name == nil:
			return false
		case f.MatchType == kmsg.QuotasMatchTypeExact && (*name == "" || *name != *f.Match),
			f.MatchType == kmsg.QuotasMatchTypeDefault && *name != "":
			return false
		}
		matched++
	}
	parts := 0
	for _, kind := range quotaParts {
		if *quotaPart(e, kind) != nil {
			parts++
		}
	}
	return !req.Strict || matched == parts
}

// AlterClientQuotas, versions 0–1 (KIP-546).
//
//   - AlterConfigs on the cluster is needed.
//   - Each entity is answered by itself, INVALID_REQUEST where it means nothing. Those that
//     do become one change, so that none of them holds without the others.
//   - An address is kept in one spelling; names of hosts are not looked up.
//   - Validate-only says what would be wrong.
//
// v1 adds tagged fields.
func (q *quotas) alter(c *call, req *kmsg.AlterClientQuotasRequest) *kmsg.AlterClientQuotasResponse {
	resp := kmsg.NewPtrAlterClientQuotasResponse()
	code := c.admit()
	var change metadata.AlterQuotas
	var valid []int
	seen := map[string]bool{} // entities, as they are shown
	for i := range req.Entries {
		c.step()
		re := &req.Entries[i]
		e := kmsg.NewAlterClientQuotasResponseEntry()
		for _, part := range re.Entity {
			e.Entity = append(e.Entity, kmsg.AlterClientQuotasResponseEntryEntity{Type: part.Type, Name: part.Name})
		}
		if code != protocol.None {
			e.ErrorCode, e.ErrorMessage = int16(code), message(errClusterDenied)
		} else if one, err := quotaChange(re); err != nil {
			e.ErrorCode, e.ErrorMessage = int16(protocol.InvalidRequest), message(err)
		} else if entity := one.QuotaEntity.String(); seen[entity] {
			e.ErrorCode, e.ErrorMessage = int16(protocol.InvalidRequest), message(sentencef("Ignoring duplicate entity %s", entity))
		} else {
			seen[entity] = true
			valid = append(valid, i)
			change.Quotas = append(change.Quotas, one)
		}
		resp.Entries = append(resp.Entries, e)
	}
	if len(valid) == 0 || req.ValidateOnly {
		return resp
	}
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	if err := q.node.Change(ctx, change); err != nil {
		for _, i := range valid {
			resp.Entries[i].ErrorCode, resp.Entries[i].ErrorMessage = int16(adminCodeOf(err)), message(err)
		}
	}
	return resp
}

// quotaChange translates one entry, and refuses what ClientQuotaControlManager does.
func quotaChange(re *kmsg.AlterClientQuotasRequestEntry) (one metadata.QuotaChange, err error) {
	if len(re.Entity) == 0 {
		return one, sentence("Invalid empty client quota entity")
	}
	for _, part := range re.Entity {
		at := quotaPart(&one.QuotaEntity, part.Type)
		if at == nil {
			return one, sentencef("Unhandled client quota entity type: %s", part.Type)
		}
		if *at != nil {
			return one, sentencef("Invalid client quota entity, duplicate entity entry %s", part.Type)
		}
		name := ""
		if part.Name != nil {
			if name = *part.Name; name == "" {
				return one, sentencef("Empty %s not supported", part.Type)
			}
		}
		*at = &name
	}
	if one.IP != nil {
		if one.User != nil || one.ClientID != nil {
			return one, sentence("Invalid quota entity combination, IP entity should not be combined with User or ClientId")
		}
		if *one.IP != "" {
			ip, err := netip.ParseAddr(*one.IP)
			if err != nil {
				return one, sentencef("%s is not a valid IP.", *one.IP)
			}
			canonical := ip.Unmap().WithZone("").String()
			one.IP = &canonical
		}
	}
	named := map[string]bool{}
	for _, op := range re.Ops {
		if named[op.Key] {
			return one, sentencef("Duplicate quota key %s not updating quota for this entity %s", op.Key, one.QuotaEntity)
		}
		named[op.Key] = true
		if !slices.Contains(one.Keys(), op.Key) {
			return one, sentencef("Invalid configuration key %s", op.Key)
		}
		if op.Remove {
			one.Delete = append(one.Delete, op.Key)
			continue
		}
		if !(op.Value > 0) {
			return one, sentencef("Quota %s must be greater than 0", op.Key)
		}
		switch op.Key {
		case metadata.ConnectionCreationRate:
			if op.Value > math.MaxInt32 {
				return one, sentencef("Proposed value for %s is too large for a INT.", op.Key)
			}
			err = wholeQuota(op.Key, op.Value)
		case metadata.ProducerByteRate, metadata.ConsumerByteRate:
			if op.Value > 1<<62 {
				return one, sentencef("Proposed value for %s is too large for a LONG.", op.Key)
			}
			err = wholeQuota(op.Key, op.Value)
		default:
			if math.IsInf(op.Value, 0) {
				err = sentencef("Quota %s must be finite", op.Key)
			}
		}
		if err != nil {
			return one, err
		}
		if one.Set == nil {
			one.Set = map[string]float64{}
		}
		one.Set[op.Key] = op.Value
	}
	return one, nil
}

func wholeQuota(key string, value float64) error {
	if math.Abs(value-math.Trunc(value)) > 1e-6 {
		return sentencef("%s cannot be a fractional value.", key)
	}
	return nil
}
