package server

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
)

// A resource is what settings are of: a topic, or a broker, where 0 is the
// whole cluster.
type resource struct {
	topic  *metadata.Topic // nil: a broker
	broker int32
}

// findResource finds what a client names. Settings of a broker are known to
// that broker alone, as far as they come from its configuration; clients ask it.
func (s *Server) findResource(image *metadata.Image, kind kmsg.ConfigResourceType, name string) (resource, code, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		t, code := findTopic(image, name, metadata.TopicID{}, false)
		if code != none {
			if err := metadata.ValidateTopicName(name); err != nil {
				return resource{}, invalidTopic, err
			}
			return resource{}, code, sentence("This server does not host this topic-partition.")
		}
		return resource{topic: t}, none, nil
	case kmsg.ConfigResourceTypeBroker:
		if name == "" {
			return resource{}, none, nil
		}
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil || id <= 0 {
			return resource{}, invalidRequest, sentencef("Broker id must be an integer, but it is: %q", name)
		}
		return resource{broker: int32(id)}, none, nil
	}
	return resource{}, invalidRequest, sentencef("Unsupported resource type: %d", kind)
}

// DescribeConfigs, versions 1–4.
//
//   - Topics: every setting of Kafka's with source, synonyms and type, whether
//     it has an effect here or not. No names, or an empty list of them, is all.
//   - Brokers: this one; with the empty name what was set for the whole cluster.
//   - Values of secrets are null.
//
// v1 adds synonyms and sources (KIP-226), v3 types and documentation (KIP-569),
// v4 tagged fields.
func (s *Server) describeConfigs(c *call, req *kmsg.DescribeConfigsRequest) *kmsg.DescribeConfigsResponse {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	image := s.Node.Image()
	type name struct {
		kind kmsg.ConfigResourceType
		name string
	}
	seen := map[name]struct{}{}
	for i := range req.Resources {
		rr := &req.Resources[i]
		if _, ok := seen[name{rr.ResourceType, rr.ResourceName}]; ok {
			continue // Kafka's request is a map
		}
		seen[name{rr.ResourceType, rr.ResourceName}] = struct{}{}
		sr := kmsg.NewDescribeConfigsResponseResource()
		sr.ResourceType, sr.ResourceName = rr.ResourceType, rr.ResourceName
		res, code, err := s.findResource(image, rr.ResourceType, rr.ResourceName)
		if code == none && res.topic == nil && res.broker != 0 && res.broker != s.Node.ID() {
			code, err = invalidRequest, sentencef("Unexpected broker id, expected %d or empty string, but received %s", s.Node.ID(), rr.ResourceName)
		}
		if code != none {
			sr.ErrorCode, sr.ErrorMessage = int16(code), message(err)
			resp.Resources = append(resp.Resources, sr)
			continue
		}
		for _, v := range s.describe(image, res) {
			if len(rr.ConfigNames) > 0 && !slices.Contains(rr.ConfigNames, v.Name) {
				continue
			}
			sr.Configs = append(sr.Configs, describedConfig(v, res, req))
		}
		resp.Resources = append(resp.Resources, sr)
	}
	return resp
}

// describe lists a resource's settings as they stand.
func (s *Server) describe(image *metadata.Image, r resource) []metadata.Value {
	switch {
	case r.topic != nil:
		return image.DescribeTopic(r.topic, s.Node.Settings())
	case r.broker != 0:
		return image.DescribeBroker(r.broker, s.Node.Settings())
	}
	return slices.DeleteFunc(image.DescribeBroker(0, nil), func(v metadata.Value) bool {
		return v.Source != metadata.SourceCluster
	})
}

func describedConfig(v metadata.Value, r resource, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	sc := kmsg.NewDescribeConfigsResponseResourceConfig()
	secret := v.Sensitive()
	sc.Name = v.Name
	if !v.Null && !secret {
		sc.Value = &v.Value
	}
	sc.ReadOnly = r.topic == nil && v.ReadOnly
	sc.IsSensitive = secret
	sc.Source = kmsg.ConfigSource(v.Source)
	sc.ConfigType = kmsg.ConfigType(v.Type)
	if req.IncludeDocumentation {
		sc.Documentation = &v.Doc
	}
	if req.IncludeSynonyms {
		for _, o := range v.From {
			so := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			so.Name, so.Source = o.Name, kmsg.ConfigSource(o.Source)
			if !secret {
				so.Value = &o.Value
			}
			sc.ConfigSynonyms = append(sc.ConfigSynonyms, so)
		}
	}
	return sc
}

// AlterConfigs, versions 0–2.
//
//   - What is given replaces all that was set for the resource; a null value is
//     refused.
//   - Validate-only says what would be refused.
//
// v2 adds tagged fields.
func (s *Server) alterConfigs(c *call, req *kmsg.AlterConfigsRequest) *kmsg.AlterConfigsResponse {
	resp := kmsg.NewPtrAlterConfigsResponse()
	resp.Resources = make([]kmsg.AlterConfigsResponseResource, len(req.Resources))
	count := countResources{}
	for i := range req.Resources {
		count[countedResource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	s.together(len(req.Resources), func(i int) {
		rr, sr := &req.Resources[i], &resp.Resources[i]
		sr.Default()
		sr.ResourceType, sr.ResourceName = rr.ResourceType, rr.ResourceName
		image := s.Node.Image()
		res, code, err := s.findResource(image, rr.ResourceType, rr.ResourceName)
		set := make(map[string]string, len(rr.Configs))
		for _, rc := range rr.Configs {
			switch _, again := set[rc.Name]; {
			case code != none:
			case rc.Value == nil:
				code, err = invalidRequest, sentencef("Null value not supported for : %s", rc.Name)
			case again:
				code, err = invalidRequest, sentencef("Error due to duplicate config keys: %s", rc.Name)
			default:
				set[rc.Name] = *rc.Value
			}
		}
		if code == none && count[countedResource{rr.ResourceType, rr.ResourceName}] > 1 {
			code, err = invalidRequest, errDuplicateResource
		}
		if code == none {
			err = s.change(c.ctx, image, res.change(set, nil, true, nil), req.ValidateOnly)
			code = res.codeOf(err)
		}
		sr.ErrorCode, sr.ErrorMessage = int16(code), message(err)
	})
	return resp
}

// codeOf is adminCodeOf for changes of a resource's settings. A bad value is
// INVALID_CONFIG for topics and INVALID_REQUEST for brokers, as Kafka has kept
// it for compatibility (KAFKA-13609).
func (r resource) codeOf(err error) code {
	c := adminCodeOf(err)
	if c == invalidConfig && r.topic == nil {
		return invalidRequest
	}
	return c
}

var errDuplicateResource = sentence("Each resource must appear at most once.")

// countResources finds resources named more than once in a request.
type countResources map[countedResource]int

type countedResource struct {
	kind kmsg.ConfigResourceType
	name string
}

// change returns the change of a resource's settings; was is what it begins with,
// nil if that does not matter.
func (r resource) change(set map[string]string, remove []string, replace bool, was map[string]*string) metadata.Change {
	if r.topic != nil {
		return metadata.SetTopicConfig{Topic: r.topic.ID, Set: set, Delete: remove, Replace: replace, Was: was}
	}
	return metadata.SetBrokerConfig{Broker: r.broker, Set: set, Delete: remove, Replace: replace, Was: was}
}

// change commits a change, or only says whether it would be refused.
func (s *Server) change(ctx context.Context, image *metadata.Image, c metadata.Change, validateOnly bool) error {
	if validateOnly {
		return image.Check(c)
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	return s.Node.Change(ctx, c)
}

// IncrementalAlterConfigs, versions 0–1 (KIP-339).
//
//   - Each setting is set, deleted, appended to or subtracted from; the last two
//     only if it is a list, beginning with the value in force.
//   - A resource, or a setting of one, named twice is INVALID_REQUEST.
//   - Lists that are appended to or subtracted from never lose what others do to
//     them, through whichever broker: what is committed are values, and the
//     controller refuses them if they were computed from others than it has.
//
// v1 adds tagged fields.
func (s *Server) incrementalAlterConfigs(c *call, req *kmsg.IncrementalAlterConfigsRequest) *kmsg.IncrementalAlterConfigsResponse {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	resp.Resources = make([]kmsg.IncrementalAlterConfigsResponseResource, len(req.Resources))
	count := countResources{}
	for i := range req.Resources {
		count[countedResource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	s.together(len(req.Resources), func(i int) {
		rr, sr := &req.Resources[i], &resp.Resources[i]
		sr.Default()
		sr.ResourceType, sr.ResourceName = rr.ResourceType, rr.ResourceName
		image := s.Node.Image()
		res, code, err := s.findResource(image, rr.ResourceType, rr.ResourceName)
		if code == none && count[countedResource{rr.ResourceType, rr.ResourceName}] > 1 {
			code, err = invalidRequest, errDuplicateResource
		}
		if code == none {
			code, err = s.alterIncrementally(c.ctx, res, rr.Configs, req.ValidateOnly)
		}
		sr.ErrorCode, sr.ErrorMessage = int16(code), message(err)
	})
	return resp
}

// alterIncrementally changes one resource. This node's image may be behind what
// another has just answered a client; where it matters, that is found out and
// the newer image waited for.
func (s *Server) alterIncrementally(ctx context.Context, res resource, configs []kmsg.IncrementalAlterConfigsRequestResourceConfig, validateOnly bool) (code, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for {
		changed := s.Node.Changed()
		image := s.Node.Image()
		if res.topic != nil {
			var ok bool
			if res.topic, ok = image.TopicByID(res.topic.ID); !ok {
				return unknownTopicOrPartition, sentence("This server does not host this topic-partition.")
			}
		}
		c, code, err := s.increment(image, res, configs)
		if code != none {
			return code, err
		}
		err = s.change(ctx, image, c, validateOnly)
		if !errors.Is(err, metadata.ErrConfigChanged) {
			return res.codeOf(err), err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return requestTimedOut, err
		}
	}
}

// increment computes the change that configs ask for from the settings in an image.
func (s *Server) increment(image *metadata.Image, res resource, configs []kmsg.IncrementalAlterConfigsRequestResourceConfig) (metadata.Change, code, error) {
	set, was := map[string]string{}, map[string]*string{}
	var remove []string
	seen := map[string]struct{}{}
	for _, rc := range configs {
		if _, again := seen[rc.Name]; again {
			return nil, invalidRequest, sentencef("Error due to duplicate config keys: %s", rc.Name)
		}
		seen[rc.Name] = struct{}{}
		if rc.Op == kmsg.IncrementalAlterConfigOpDelete {
			remove = append(remove, rc.Name)
			continue
		}
		if rc.Value == nil {
			return nil, invalidRequest, sentencef("Null value not supported for : %s", rc.Name)
		}
		if rc.Op == kmsg.IncrementalAlterConfigOpSet {
			set[rc.Name] = *rc.Value
			continue
		}
		d, ok := metadata.TopicDefinition(rc.Name)
		if res.topic == nil {
			d, ok = metadata.BrokerDefinition(rc.Name)
		}
		if !ok {
			return nil, invalidConfig, sentencef("Unknown config name: %s", rc.Name)
		}
		current := s.inForce(image, res, rc.Name)
		var value string
		var err error
		switch rc.Op {
		case kmsg.IncrementalAlterConfigOpAppend:
			value, err = d.Append(current, *rc.Value)
		case kmsg.IncrementalAlterConfigOpSubtract:
			value, err = d.Subtract(current, *rc.Value)
		default:
			return nil, invalidRequest, sentencef("Unknown operation %d for config %s", rc.Op, rc.Name)
		}
		if err != nil {
			return nil, codeOf(err), err
		}
		set[rc.Name] = value
		was[rc.Name] = nil
		if explicit, ok := res.explicit(image)[rc.Name]; ok {
			was[rc.Name] = &explicit
		}
	}
	return res.change(set, remove, false, was), none, nil
}

// explicit returns what is set for a resource.
func (r resource) explicit(image *metadata.Image) map[string]string {
	if r.topic != nil {
		return r.topic.Config
	}
	return image.BrokerConfig(r.broker)
}

// inForce returns the value of a setting as it stands, "" for none.
func (s *Server) inForce(image *metadata.Image, res resource, name string) string {
	var values []metadata.Value
	if res.topic != nil {
		values = image.DescribeTopic(res.topic, s.Node.Settings())
	} else {
		values = image.DescribeBroker(res.broker, s.Node.Settings())
	}
	for _, v := range values {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}
