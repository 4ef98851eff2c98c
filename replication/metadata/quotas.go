package metadata

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"

	"millrace/replication/metadata/settings"
)

// The keys of quotas, by Kafka's names.
const (
	ProducerByteRate       = "producer_byte_rate"
	ConsumerByteRate       = "consumer_byte_rate"
	RequestPercentage      = "request_percentage"
	ControllerMutationRate = "controller_mutation_rate"
	ConnectionCreationRate = "connection_creation_rate" // of an address, and no other is
)

// A QuotaEntity is whom a quota is for: a user, a client id, both, or an address. nil: that
// is not part of it; "": whoever has no quota of its own.
type QuotaEntity struct {
	User     *string `json:",omitempty"`
	ClientID *string `json:",omitempty"`
	IP       *string `json:",omitempty"`
}

// Compare orders entities; two that it calls equal are the same.
func (e QuotaEntity) Compare(o QuotaEntity) int {
	return cmp.Or(comparePart(e.User, o.User), comparePart(e.ClientID, o.ClientID), comparePart(e.IP, o.IP))
}

func comparePart(a, b *string) int {
	switch {
	case a == nil || b == nil:
		return cmp.Compare(partSet(a), partSet(b))
	}
	return cmp.Compare(*a, *b)
}

func partSet(p *string) int {
	if p == nil {
		return 0
	}
	return 1
}

// String is the entity as Kafka's tools show it.
func (e QuotaEntity) String() string {
	s := ""
	for _, p := range []struct {
		what string
		name *string
	}{{"user-principal", e.User}, {"client-id", e.ClientID}, {"ip", e.IP}} {
		if p.name == nil {
			continue
		}
		if s != "" {
			s += ", "
		}
		if *p.name == "" {
			s += "the default " + p.what
		} else {
			s += fmt.Sprintf("%s '%s'", p.what, settings.Shown(*p.name))
		}
	}
	return s
}

// A Quota says how much an entity may do.
type Quota struct {
	QuotaEntity
	Values map[string]float64 // by key; there is one at least
}

// A QuotaChange sets some values of an entity's quota and takes out others.
type QuotaChange struct {
	QuotaEntity
	Set    map[string]float64 `json:",omitempty"`
	Delete []string           `json:",omitempty"` // before Set; keys that are not set are no error
}

// AlterQuotas changes quotas. One that has no values left is forgotten.
//
// Errors: ErrNoCluster, ErrLevel, ErrInvalidQuota, ErrLimit.
type AlterQuotas struct {
	Quotas []QuotaChange
}

func (AlterQuotas) kind() string { return "AlterQuotas" }
func (AlterQuotas) level() int32 { return 4 }

func (c AlterQuotas) apply(next *Image) error {
	if err := next.needsLevel4("quotas"); err != nil {
		return err
	}
	quotas, more := next.quotas, 0
	for _, one := range c.Quotas {
		if err := validEntity(one.QuotaEntity); err != nil {
			return err
		}
		i, known := quotaAt(quotas, one.QuotaEntity)
		values := make(map[string]float64)
		if known {
			maps.Copy(values, quotas[i].Values)
		}
		for _, key := range one.Delete {
			delete(values, key)
		}
		maps.Copy(values, one.Set)
		if known && maps.Equal(values, quotas[i].Values) || !known && len(values) == 0 {
			continue
		}
		q := &Quota{one.clone(), values}
		if err := validQuota(q); err != nil {
			return err
		}
		if known {
			more -= quotas[i].size()
		}
		switch {
		case len(values) == 0:
			quotas = removed(quotas, i)
			continue
		case known:
			quotas = replaced(quotas, i, q)
		default:
			quotas = inserted(quotas, i, q)
		}
		more += q.size()
	}
	if len(quotas) > MaxQuotas && len(quotas) > len(next.quotas) {
		return refuse(ErrLimit, "There would be %d quotas; there may be at most %d.", len(quotas), MaxQuotas)
	}
	next.quotas = quotas
	if next.quotaBytes += more; more > 0 && next.quotaBytes > MaxQuotaBytes {
		return refuse(ErrLimit, "All quotas would take %d bytes; they may take at most %d.", next.quotaBytes, MaxQuotaBytes)
	}
	return next.grow(more)
}

// check looks at keys and values as Kafka does (ClientQuotaControlManager).
func (c AlterQuotas) check(_, _ *Image) error {
	for _, one := range c.Quotas {
		if one.IP != nil && *one.IP != "" {
			ip, err := netip.ParseAddr(*one.IP)
			if err != nil || ip.Unmap().WithZone("").String() != *one.IP {
				return refuse(ErrInvalidQuota, "%s is not a valid IP, or not as it is written here", settings.Shown(*one.IP))
			}
		}
		for _, key := range slices.Sorted(maps.Keys(one.Set)) {
			if !slices.Contains(one.Keys(), key) {
				return refuse(ErrInvalidQuota, "Invalid configuration key %s", settings.Shown(key))
			}
			switch value := one.Set[key]; key {
			case ProducerByteRate, ConsumerByteRate, ConnectionCreationRate:
				most := float64(math.MaxInt32) // what Kafka counts in
				if key != ConnectionCreationRate {
					most = 1 << 62
				}
				if math.Abs(value-math.Round(value)) > 1e-6 || value > most {
					return refuse(ErrInvalidQuota, "Configuration %s must be a whole number of at most %.0f, not %v", key, most, value)
				}
			}
		}
		for _, key := range one.Delete {
			if !slices.Contains(one.Keys(), key) {
				return refuse(ErrInvalidQuota, "Invalid configuration key %s", settings.Shown(key))
			}
		}
	}
	return nil
}

// Keys are those that a quota of the entity may have.
func (e QuotaEntity) Keys() []string {
	if e.IP != nil {
		return []string{ConnectionCreationRate}
	}
	return []string{ProducerByteRate, ConsumerByteRate, RequestPercentage, ControllerMutationRate}
}

func validEntity(e QuotaEntity) error {
	if e.User == nil && e.ClientID == nil && e.IP == nil {
		return refuse(ErrInvalidQuota, "Invalid empty client quota entity")
	}
	if e.IP != nil && (e.User != nil || e.ClientID != nil) {
		return refuse(ErrInvalidQuota, "Invalid quota entity combination: an ip, and a user or client id beside it")
	}
	for _, p := range []*string{e.User, e.ClientID, e.IP} {
		if p != nil && !shown(*p, maxACLName) {
			return refuse(ErrInvalidQuota, "%q is not a text of at most %d bytes without control characters.", settings.Shown(*p), maxACLName)
		}
	}
	return nil
}

func validQuota(q *Quota) error {
	for _, key := range slices.Sorted(maps.Keys(q.Values)) { // sorted: the message must be the same everywhere
		value := q.Values[key]
		if key == "" || !text(key) {
			return refuse(ErrInvalidQuota, "The key of a quota must be a text of 1 to %d bytes.", maxText)
		}
		if !(value > 0) || math.IsInf(value, 0) {
			return refuse(ErrInvalidQuota, "Quota %s must be greater than 0, and finite", settings.Shown(key))
		}
	}
	if len(q.Values) > maxQuotaKeys {
		return refuse(ErrInvalidQuota, "A quota of %d keys; it may have at most %d.", len(q.Values), maxQuotaKeys)
	}
	return nil
}

func (e QuotaEntity) clone() QuotaEntity {
	for _, p := range []**string{&e.User, &e.ClientID, &e.IP} {
		if *p != nil {
			name := **p
			*p = &name
		}
	}
	return e
}

// size bounds what Encode writes for a quota.
func (q *Quota) size() int {
	size := 40
	for _, p := range []*string{q.User, q.ClientID, q.IP} {
		if p != nil {
			size += 12 + jsonLen(*p)
		}
	}
	for key := range q.Values {
		size += jsonLen(key) + 26 // no float64 is longer than 24 characters
	}
	return size
}

func quotaAt(quotas []*Quota, e QuotaEntity) (int, bool) {
	return slices.BinarySearchFunc(quotas, e, func(q *Quota, e QuotaEntity) int { return q.Compare(e) })
}

// Quota finds an entity's quota.
func (m *access) Quota(e QuotaEntity) (*Quota, bool) {
	i, ok := quotaAt(m.quotas, e)
	if !ok {
		return nil, false
	}
	return m.quotas[i], true
}

type quotaBody struct {
	User     *string            `json:"user,omitempty"`
	ClientID *string            `json:"client,omitempty"`
	IP       *string            `json:"ip,omitempty"`
	Values   map[string]float64 `json:"values"`
}
