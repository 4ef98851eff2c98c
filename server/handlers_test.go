package server

import (
	"context"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/acl"
	"millrace/server/protocol"
	"millrace/server/protocol/protocoltest"
)

// Every handler in every version with fields set to anything, by somebody who may do
// everything and by somebody who may do with some names what with others they may not. None
// may panic; what they refuse they answer.
func TestHandlersSurviveAnything(t *testing.T) {
	t.Run("open", func(t *testing.T) { surviveAnything(t, false) })
	t.Run("guarded", func(t *testing.T) { surviveAnything(t, true) })
}

func surviveAnything(t *testing.T, guarded bool) {
	b := startBroker(t, map[string]string{"auto.create.topics.enable": "false", "offsets.topic.num.partitions": "3"})
	rules := b.guard()
	rules.rules.Store(nil)
	b.create("t", 1, nil)
	b.coordinates("g")
	if guarded {
		var some []acl.Entry
		for first := byte(1); first < 128; first += 2 {
			for _, on := range []acl.ResourceType{acl.Topic, acl.Group, acl.TransactionalID} {
				e := let(acl.Anonymous, acl.All, on, string(rune(first)))
				e.Pattern = acl.Prefixed
				some = append(some, e)
			}
		}
		rules.set(append(some, let(acl.Anonymous, acl.All, acl.Cluster, acl.ClusterName))...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nothing is waited for
	for _, a := range b.server.handlers.apis {
		t.Run(a.key.Name(), func(t *testing.T) {
			for version := a.min; version <= a.max; version++ {
				c := newConnection(b.server, nowhere{})
				for seed := range uint64(50) {
					body := protocoltest.NewFiller(seed).Request(a.key, version).AppendTo(nil)
					header := protocol.Header{Key: a.key, Version: version, Correlation: 1}
					if _, err := b.server.handlers.guard.Check(header, body); err != nil {
						t.Fatalf("the guard refuses it: %v", err)
					}
					cl := &call{Header: header, ctx: ctx, conn: c, body: body, size: len(body)}
					err := a.serve(cl)
					c.settle(0)
					// Null where something must be is all that may still be wrong;
					// acks=0 has no other way to say that something went wrong.
					if err != nil && !errors.Is(err, protocol.ErrMalformed) && a.key != kmsg.Produce {
						t.Fatalf("version %d, seed %d: %v", version, seed, err)
					}
				}
				c.close()
			}
		})
	}
}
