package metadata

import (
	"errors"
	"fmt"

	"millrace/replication/metadata/settings"
	"millrace/security/acl"
)

// An accessBody is what an image has of [access], as written.
type accessBody struct {
	Users  []userBody  `json:"users,omitempty"`
	ACLs   aclList     `json:"acls,omitempty"`
	Quotas []quotaBody `json:"quotas,omitempty"`

	Authorities []authorityBody  `json:"authorities,omitempty"`
	Secret      Secret           `json:"secret,omitempty"`
	Joins       []joinBody       `json:"joinTokens,omitempty"`
	Delegations []delegationBody `json:"delegationTokens,omitempty"`
}

func (m *access) body() accessBody {
	body := accessBody{Users: m.userBodies(), ACLs: m.acls, Secret: m.secret}
	for _, q := range m.quotas {
		body.Quotas = append(body.Quotas, quotaBody{q.User, q.ClientID, q.IP, q.Values})
	}
	for _, a := range m.authorities {
		body.Authorities = append(body.Authorities, authorityBody(a))
	}
	for _, t := range m.joins {
		body.Joins = append(body.Joins, joinBody(t))
	}
	for _, t := range m.delegations {
		body.Delegations = append(body.Delegations, delegationBody(*t))
	}
	return body
}

func (body *accessBody) empty() bool {
	return len(body.Users)+len(body.ACLs)+len(body.Quotas)+len(body.Authorities)+len(body.Secret)+len(body.Joins)+len(body.Delegations) == 0
}

// read gives m what is written, if steps could have made it.
func (body *accessBody) read(m *Image, version int) error {
	if body.empty() {
		return nil
	}
	if version < 4 {
		return fmt.Errorf("users, ACLs, quotas, authorities or tokens are in an image of version %d", version)
	}
	if m.ClusterID == "" {
		return errors.New("there are users, ACLs, quotas, authorities or tokens but no cluster id")
	}
	for _, read := range []func(*Image) error{body.users, body.acls, body.quotas, body.authorities, body.clusterSecret, body.joins, body.delegations} {
		if err := read(m); err != nil {
			return err
		}
	}
	m.size += m.userBytes + m.aclBytes + m.quotaBytes + m.delegationBytes
	return nil
}

func (body *accessBody) users(m *Image) error {
	for _, b := range body.Users {
		u := &User{Name: b.Name}
		for i, c := range b.Credentials {
			if i > 0 && c.Mechanism <= b.Credentials[i-1].Mechanism {
				return fmt.Errorf("the credentials of user %s are out of order", settings.Shown(b.Name))
			}
			u.Credentials = append(u.Credentials, Credential(c))
		}
		if err := validUser(u); err != nil {
			return err
		}
		if n := len(m.access.users); n > 0 && u.Name <= m.access.users[n-1].Name {
			return fmt.Errorf("user %s follows %s", u.Name, m.access.users[n-1].Name)
		}
		m.access.users = append(m.access.users, u)
		m.userBytes += u.size()
	}
	return nil
}

func (body *accessBody) acls(m *Image) error {
	for i := range body.ACLs {
		e := &body.ACLs[i]
		if err := validEntry(e); err != nil {
			return err
		}
		before := last(body.ACLs[:i])
		if before != nil && acl.Compare(*before, *e) >= 0 {
			return fmt.Errorf("the ACLs of %s are out of order", settings.Shown(e.Principal))
		}
		m.aclBytes += entrySize(before, e)
	}
	if len(body.ACLs) > 0 {
		m.access.acls = body.ACLs
	}
	return nil
}

func (body *accessBody) quotas(m *Image) error {
	for _, b := range body.Quotas {
		q := &Quota{QuotaEntity{b.User, b.ClientID, b.IP}, b.Values}
		if err := validEntity(q.QuotaEntity); err != nil {
			return err
		}
		if err := validQuota(q); err != nil {
			return err
		}
		if len(q.Values) == 0 {
			return fmt.Errorf("a quota for %s has no values", q.QuotaEntity)
		}
		if n := len(m.access.quotas); n > 0 && q.Compare(m.access.quotas[n-1].QuotaEntity) <= 0 {
			return fmt.Errorf("the quota for %s follows that for %s", q.QuotaEntity, m.access.quotas[n-1].QuotaEntity)
		}
		m.access.quotas = append(m.access.quotas, q)
		m.quotaBytes += q.size()
	}
	return nil
}

func (body *accessBody) clusterSecret(m *Image) error {
	if len(body.Secret) > 0 && len(body.Authorities) == 0 {
		return errors.New("there is a secret and no authority")
	}
	m.access.secret = body.Secret
	m.size += len(body.Secret)
	return validSecret(body.Secret)
}

func (body *accessBody) authorities(m *Image) error {
	if len(body.Authorities) == 0 {
		return nil
	}
	for _, a := range body.Authorities {
		m.access.authorities = append(m.access.authorities, Authority(a))
	}
	m.size += authoritiesSize(m.access.authorities)
	return validAuthorities(m.access.authorities)
}

func (body *accessBody) joins(m *Image) error {
	for _, b := range body.Joins {
		t := JoinToken(b)
		if err := validJoin(&t); err != nil {
			return err
		}
		if n := len(m.access.joins); n > 0 && t.ID <= m.access.joins[n-1].ID {
			return fmt.Errorf("join token %s follows %s", t.ID, m.access.joins[n-1].ID)
		}
		m.access.joins = append(m.access.joins, t)
		m.size += t.size()
	}
	return nil
}

func (body *accessBody) delegations(m *Image) error {
	for _, b := range body.Delegations {
		t := DelegationToken(b)
		if err := validDelegation(&t); err != nil {
			return err
		}
		if n := len(m.access.delegations); n > 0 && t.ID <= m.access.delegations[n-1].ID {
			return fmt.Errorf("delegation token %s follows %s", t.ID, m.access.delegations[n-1].ID)
		}
		m.access.delegations = append(m.access.delegations, &t)
		m.delegationBytes += t.size()
	}
	return nil
}
