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
}

func (m *access) body() accessBody {
	body := accessBody{Users: m.userBodies(), ACLs: m.acls}
	for _, q := range m.quotas {
		body.Quotas = append(body.Quotas, quotaBody{q.User, q.ClientID, q.IP, q.Values})
	}
	return body
}

// read gives m what is written, if steps could have made it.
func (body *accessBody) read(m *Image, version int) error {
	if len(body.Users)+len(body.ACLs)+len(body.Quotas) == 0 {
		return nil
	}
	if version < 4 {
		return fmt.Errorf("users, ACLs or quotas are in an image of version %d", version)
	}
	if m.ClusterID == "" {
		return errors.New("there are users, ACLs or quotas but no cluster id")
	}
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
		if n := len(m.users); n > 0 && u.Name <= m.users[n-1].Name {
			return fmt.Errorf("user %s follows %s", u.Name, m.users[n-1].Name)
		}
		m.users = append(m.users, u)
		m.userBytes += u.size()
	}
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
		m.acls = body.ACLs
	}
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
		if n := len(m.quotas); n > 0 && q.Compare(m.quotas[n-1].QuotaEntity) <= 0 {
			return fmt.Errorf("the quota for %s follows that for %s", q.QuotaEntity, m.quotas[n-1].QuotaEntity)
		}
		m.quotas = append(m.quotas, q)
		m.quotaBytes += q.size()
	}
	m.size += m.userBytes + m.aclBytes + m.quotaBytes
	return nil
}
