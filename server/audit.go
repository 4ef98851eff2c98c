package server

import (
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// An Auditor is told what those who answer for a cluster want to look up afterwards: who
// was denied what, who did not get in, and who changed whose rights. It is called by many
// goroutines at once, by those that serve requests: it must return soon.
type Auditor interface {
	Audit(AuditEvent)
}

// An AuditEvent is one thing that happened. No field holds a secret.
type AuditEvent struct {
	Kind      string // AuditDenied, …
	Principal string // who it was, "User:alice"
	Host      string // from where
	Client    string // the id that the client gives itself
	Request   string // the name of the API
	Subject   string // with what: "WRITE on TOPIC orders"
	Outcome   string // AuditSucceeded, "denied", "failed", or "error 42" of one of Kafka's codes
}

// The kinds of events.
const (
	AuditDenied  = "denied"  // somebody might not do something
	AuditLogin   = "login"   // somebody logged in, or tried to
	AuditUsers   = "users"   // somebody changed who may log in
	AuditChanged = "changed" // somebody changed topics, settings, ACLs or quotas
)

// AuditSucceeded is the outcome of what was done.
const AuditSucceeded = "succeeded"

// maxAudited bounds the events of one request. A request may change 10,000 topics.
const maxAudited = 100

// auditChanges tells the auditor what a request changed, by the answer to it. What was
// denied has been told already, and what only asked what would happen is no change.
func (c *call) auditChanges(req kmsg.Request, resp kmsg.Response) {
	a := c.conn.server.Auditor
	if a == nil {
		return
	}
	told, more, failed := 0, 0, 0
	tell := func(subject, outcome string) {
		a.Audit(AuditEvent{
			Kind: AuditChanged, Principal: c.conn.principal, Host: c.conn.origin.host, Client: c.Client,
			Request: c.Key.Name(), Subject: subject, Outcome: outcome,
		})
	}
	changesIn(req, resp, func(code int16, subject string, args ...any) {
		switch protocol.Code(code) {
		case protocol.TopicAuthorizationFailed, protocol.GroupAuthorizationFailed, protocol.ClusterAuthorizationFailed:
			return
		}
		if told++; told > maxAudited {
			if more++; code != 0 {
				more, failed = more-1, failed+1
			}
			return
		}
		outcome := AuditSucceeded
		if code != 0 {
			outcome = fmt.Sprintf("error %d", code)
		}
		tell(fmt.Sprintf(subject, args...), outcome)
	})
	if more > 0 {
		tell(fmt.Sprintf("%d more of the request", more), AuditSucceeded)
	}
	if failed > 0 {
		tell(fmt.Sprintf("%d more of the request", failed), "failed")
	}
}

// changesIn finds what a request changed, or could not. Values of settings are left out:
// some are secrets.
func changesIn(req kmsg.Request, resp kmsg.Response, yield func(code int16, subject string, args ...any)) {
	switch resp := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		if !req.(*kmsg.CreateTopicsRequest).ValidateOnly {
			for i := range resp.Topics {
				yield(resp.Topics[i].ErrorCode, "create topic %s", resp.Topics[i].Topic)
			}
		}
	case *kmsg.DeleteTopicsResponse:
		for i := range resp.Topics {
			if t := &resp.Topics[i]; t.Topic != nil {
				yield(t.ErrorCode, "delete topic %s", *t.Topic)
			} else {
				yield(t.ErrorCode, "delete topic of id %x", t.TopicID)
			}
		}
	case *kmsg.CreatePartitionsResponse:
		if !req.(*kmsg.CreatePartitionsRequest).ValidateOnly {
			for i := range resp.Topics {
				yield(resp.Topics[i].ErrorCode, "create partitions of topic %s", resp.Topics[i].Topic)
			}
		}
	case *kmsg.DeleteRecordsResponse:
		for i := range resp.Topics {
			for _, p := range resp.Topics[i].Partitions {
				yield(p.ErrorCode, "delete records of topic %s, partition %d", resp.Topics[i].Topic, p.Partition)
			}
		}
	case *kmsg.AlterConfigsResponse:
		req := req.(*kmsg.AlterConfigsRequest)
		for i := range resp.Resources {
			if r := &resp.Resources[i]; !req.ValidateOnly {
				var names []string
				for _, c := range req.Resources[i].Configs {
					names = append(names, c.Name)
				}
				yield(r.ErrorCode, "replace settings of %s %q by %s", r.ResourceType, r.ResourceName, strings.Join(names, ","))
			}
		}
	case *kmsg.IncrementalAlterConfigsResponse:
		req := req.(*kmsg.IncrementalAlterConfigsRequest)
		for i := range resp.Resources {
			if r := &resp.Resources[i]; !req.ValidateOnly {
				var names []string
				for _, c := range req.Resources[i].Configs {
					names = append(names, c.Name)
				}
				yield(r.ErrorCode, "alter settings of %s %q: %s", r.ResourceType, r.ResourceName, strings.Join(names, ","))
			}
		}
	case *kmsg.CreateACLsResponse:
		for i := range resp.Results {
			e := &req.(*kmsg.CreateACLsRequest).Creations[i]
			yield(resp.Results[i].ErrorCode, "create ACL: %s %s from %s %s on %s %s %q", e.PermissionType, e.Principal, e.Host, e.Operation, e.ResourcePatternType, e.ResourceType, e.ResourceName)
		}
	case *kmsg.DeleteACLsResponse:
		for i := range resp.Results {
			r := &resp.Results[i]
			if r.ErrorCode != 0 {
				yield(r.ErrorCode, "delete ACLs")
			}
			for j := range r.MatchingACLs {
				e := &r.MatchingACLs[j]
				yield(e.ErrorCode, "delete ACL: %s %s from %s %s on %s %s %q", e.PermissionType, e.Principal, e.Host, e.Operation, e.ResourcePatternType, e.ResourceType, e.ResourceName)
			}
		}
	case *kmsg.AlterClientQuotasResponse:
		if !req.(*kmsg.AlterClientQuotasRequest).ValidateOnly {
			for i := range resp.Entries {
				var of []string
				for _, part := range resp.Entries[i].Entity {
					name := "default"
					if part.Name != nil {
						name = *part.Name
					}
					of = append(of, part.Type+" "+name)
				}
				yield(resp.Entries[i].ErrorCode, "alter quotas of %s", strings.Join(of, ", "))
			}
		}
	case *kmsg.DeleteGroupsResponse:
		for i := range resp.Groups {
			yield(resp.Groups[i].ErrorCode, "delete group %s", resp.Groups[i].Group)
		}
	case *kmsg.UnregisterBrokerResponse:
		yield(resp.ErrorCode, "unregister broker %d", req.(*kmsg.UnregisterBrokerRequest).BrokerID)
	case *kmsg.CreateDelegationTokenResponse:
		yield(resp.ErrorCode, "create delegation token of %s:%s", resp.PrincipalType, resp.PrincipalName)
	case *kmsg.RenewDelegationTokenResponse:
		yield(resp.ErrorCode, "renew delegation token")
	case *kmsg.ExpireDelegationTokenResponse:
		yield(resp.ErrorCode, "expire delegation token")
	}
}
