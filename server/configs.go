package server

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// A configs answers what is asked of settings: of topics, brokers, groups and
// subscriptions to clients' metrics, and of loggers' levels.
type configs struct {
	*broker
	levels *Levels
}

// A resource is what settings are of: a topic; a broker, where 0 is the whole
// cluster; a group or a subscription to clients' metrics, there or not; or the
// loggers of this node.
type resource struct {
	topic   *metadata.Topic // nil: none of a topic
	broker  int32
	kind    settings.ResourceKind // 0: none of these
	name    string                // of a resource of kind
	loggers bool
}

// findResource finds what a client names. Settings of a broker are known to
// that broker alone, as far as they come from its configuration; clients ask it.
func (h *configs) findResource(image *metadata.Image, kind kmsg.ConfigResourceType, name string) (resource, protocol.Code, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		t, code := findTopic(image, name, metadata.TopicID{}, false)
		if code != protocol.None {
			if err := metadata.ValidateTopicName(name); err != nil {
				return resource{}, protocol.InvalidTopic, err
			}
			return resource{}, code, sentence("This server does not host this topic-partition.")
		}
		return resource{topic: t}, protocol.None, nil
	case kmsg.ConfigResourceTypeBroker:
		if name == "" {
			return resource{}, protocol.None, nil
		}
		id, err := strconv.ParseInt(name, 10, 32)
		if err != nil || id <= 0 {
			return resource{}, protocol.InvalidRequest, sentencef("Broker id must be an integer, but it is: %q", name)
		}
		return resource{broker: int32(id)}, protocol.None, nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		// A node's loggers are known to that node alone; clients ask it.
		id, err := strconv.ParseInt(name, 10, 32)
		switch {
		case name == "":
			return resource{}, protocol.InvalidRequest, sentence("Broker id must not be empty")
		case err != nil:
			return resource{}, protocol.InvalidRequest, sentencef("Node id must be an integer, but it is: %s", name)
		case int32(id) != h.node.ID():
			return resource{}, protocol.InvalidRequest, sentencef("Unexpected broker id, expected %d but received %s", h.node.ID(), name)
		}
		return resource{loggers: true}, protocol.None, nil
	case kmsg.ConfigResourceTypeClientMetrics:
		if name == "" {
			return resource{}, protocol.InvalidRequest, sentence("Subscription name can't be empty")
		}
		return resource{kind: settings.ClientMetrics, name: name}, protocol.None, nil
	case kmsg.ConfigResourceTypeGroupConfig:
		if name == "" {
			return resource{}, protocol.InvalidRequest, sentence("Default group resources are not allowed.")
		}
		return resource{kind: settings.Group, name: name}, protocol.None, nil
	}
	return resource{}, protocol.InvalidRequest, sentencef("Unsupported resource type: %d", kind)
}

// mayFind is findResource for who may do with the resource what the request is about.
func (h *configs) mayFind(c *call, image *metadata.Image, kind kmsg.ConfigResourceType, name string) (resource, protocol.Code, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		if !c.may(acl.Topic, name) {
			return resource{}, protocol.TopicAuthorizationFailed, errTopicDenied
		}
	case kmsg.ConfigResourceTypeGroupConfig:
		if !c.may(acl.Group, name) {
			return resource{}, protocol.GroupAuthorizationFailed, errGroupDenied
		}
	case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger, kmsg.ConfigResourceTypeClientMetrics:
		if !c.may(acl.Cluster, acl.ClusterName) {
			return resource{}, protocol.ClusterAuthorizationFailed, errClusterDenied
		}
	}
	return h.findResource(image, kind, name)
}

// DescribeConfigs, versions 1–4.
//
//   - Topics: every setting of Kafka's with source, synonyms and type, whether
//     it has an effect here or not. No names, or an empty list of them, is all.
//   - Brokers: this one; with the empty name what was set for the whole cluster.
//   - Groups and subscriptions to clients' metrics: any name, whether anything is
//     known by it or not, with the defaults.
//   - Loggers: those of this node, each with the level in force.
//   - Values of secrets are null.
//
// v1 adds synonyms and sources (KIP-226), v3 types and documentation (KIP-569),
// v4 tagged fields.
func (h *configs) describeConfigs(c *call, req *kmsg.DescribeConfigsRequest) *kmsg.DescribeConfigsResponse {
	resp := kmsg.NewPtrDescribeConfigsResponse()
	image := h.node.Image()
	type name struct {
		kind kmsg.ConfigResourceType
		name string
	}
	seen := map[name]struct{}{}
	resp.Resources = make([]kmsg.DescribeConfigsResponseResource, 0, len(req.Resources))
	for i := range req.Resources {
		c.step()
		rr := &req.Resources[i]
		if _, ok := seen[name{rr.ResourceType, rr.ResourceName}]; ok {
			continue // Kafka's request is a map
		}
		seen[name{rr.ResourceType, rr.ResourceName}] = struct{}{}
		sr := kmsg.NewDescribeConfigsResponseResource()
		sr.ResourceType, sr.ResourceName = rr.ResourceType, rr.ResourceName
		res, code, err := h.mayFind(c, image, rr.ResourceType, rr.ResourceName)
		if code == protocol.None && res.broker != 0 && res.broker != h.node.ID() {
			code, err = protocol.InvalidRequest, sentencef("Unexpected broker id, expected %d or empty string, but received %s", h.node.ID(), rr.ResourceName)
		}
		if code != protocol.None {
			sr.ErrorCode, sr.ErrorMessage = int16(code), message(err)
			resp.Resources = append(resp.Resources, sr)
			continue
		}
		for _, v := range h.describe(image, res) {
			if len(rr.ConfigNames) > 0 && !slices.Contains(rr.ConfigNames, v.Name) {
				continue
			}
			sr.Configs = append(sr.Configs, describedConfig(v, res, req))
		}
		if !c.fits(&sr) {
			sr.Configs, sr.ErrorCode, sr.ErrorMessage = nil, int16(protocol.MessageTooLarge), message(errNoPlace)
		}
		resp.Resources = append(resp.Resources, sr)
	}
	return resp
}

// describe lists a resource's settings as they stand.
func (h *configs) describe(image *metadata.Image, r resource) []settings.Value {
	layers := h.layers(image)
	switch {
	case r.topic != nil:
		return layers.DescribeTopic(r.topic.Config)
	case r.kind != 0:
		return layers.DescribeResource(r.kind, image.ResourceConfig(r.kind, r.name))
	case r.loggers:
		return h.describeLoggers()
	case r.broker != 0:
		return image.Settings(r.broker, h.settings().layers.Static).DescribeBroker()
	}
	return slices.DeleteFunc(image.Settings(0, nil).DescribeBroker(), func(v settings.Value) bool {
		return v.Source != settings.SourceCluster
	})
}

func describedConfig(v settings.Value, r resource, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	sc := kmsg.NewDescribeConfigsResponseResourceConfig()
	secret := v.Sensitive()
	sc.Name = v.Name
	if !v.Null && !secret {
		sc.Value = &v.Value
	}
	sc.ReadOnly = v.ReadOnly // of topics none is
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
//     refused, and so are loggers, as in Kafka: they are altered one by one.
//   - Validate-only says what would be refused.
//
// v2 adds tagged fields.
func (h *configs) alterConfigs(c *call, req *kmsg.AlterConfigsRequest) *kmsg.AlterConfigsResponse {
	resp := kmsg.NewPtrAlterConfigsResponse()
	resp.Resources = make([]kmsg.AlterConfigsResponseResource, len(req.Resources))
	count := countResources{}
	for i := range req.Resources {
		c.step()
		count[countedResource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	together(len(req.Resources), func(i int) {
		rr, sr := &req.Resources[i], &resp.Resources[i]
		sr.Default()
		sr.ResourceType, sr.ResourceName = rr.ResourceType, rr.ResourceName
		image := h.node.Image()
		res, code, err := h.mayFind(c, image, rr.ResourceType, rr.ResourceName)
		set := make(map[string]string, len(rr.Configs))
		for _, rc := range rr.Configs {
			switch _, again := set[rc.Name]; {
			case code != protocol.None:
			case rc.Value == nil:
				code, err = protocol.InvalidRequest, sentencef("Null value not supported for : %s", rc.Name)
			case again:
				code, err = protocol.InvalidRequest, sentencef("Error due to duplicate config keys: %s", rc.Name)
			default:
				set[rc.Name] = *rc.Value
			}
		}
		if code == protocol.None && count[countedResource{rr.ResourceType, rr.ResourceName}] > 1 {
			code, err = protocol.InvalidRequest, errDuplicateResource
		}
		if code == protocol.None && res.loggers {
			code, err = protocol.InvalidRequest, sentencef("Unknown resource type %d", rr.ResourceType)
		}
		if code == protocol.None && rr.ResourceType == kmsg.ConfigResourceTypeBroker && res.broker == 0 && altersAccess(image.BrokerConfig(0), set) {
			code, err = c.mayAlterAccess()
		}
		if code == protocol.None {
			code, err = h.fits(res, set)
		}
		if code == protocol.None {
			err = h.change(c.ctx, image, res.change(set, nil, true, nil), req.ValidateOnly)
			code = res.codeOf(err)
		}
		sr.ErrorCode, sr.ErrorMessage = int16(code), message(err)
	})
	return resp
}

// codeOf is adminCodeOf for changes of a resource's settings. A bad value is
// INVALID_CONFIG, and for brokers INVALID_REQUEST, as Kafka has kept it for
// compatibility (KAFKA-13609).
func (r resource) codeOf(err error) protocol.Code {
	c := adminCodeOf(err)
	if c == protocol.InvalidConfig && r.topic == nil && r.kind == 0 {
		return protocol.InvalidRequest
	}
	return c
}

// fits reports whether a resource may have these settings and no others, as far as
// this node's own settings bound them. Of what it lacks metadata speaks.
func (h *configs) fits(r resource, values map[string]string) (protocol.Code, error) {
	switch r.kind {
	case settings.Group:
		err := h.settings().broker.ConsumerGroups.Validate(values)
		return codeOf(err), err
	case settings.ClientMetrics:
		for name, value := range values {
			d, ok := settings.ResourceDefinition(r.kind, name)
			if !ok {
				return protocol.InvalidRequest, sentencef("Unknown client metrics configuration: %s", name)
			}
			// Kafka's codes: a number out of bounds is a bad request, anything else a bad setting.
			if n, err := strconv.ParseInt(value, 10, 32); name == "interval.ms" && err == nil {
				if _, err := d.Validate(value); err != nil {
					return protocol.InvalidRequest, sentencef("Invalid value %d for interval.ms, interval must be between 100 and 3600000 (1 hour)", n)
				}
			}
		}
	}
	return protocol.None, nil
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
	switch {
	case r.topic != nil:
		return metadata.SetTopicConfig{Topic: r.topic.ID, Set: set, Delete: remove, Replace: replace, Was: was}
	case r.kind != 0:
		return metadata.SetResourceConfig{Kind: r.kind, Name: r.name, Set: set, Delete: remove, Replace: replace, Was: was}
	}
	return metadata.SetBrokerConfig{Broker: r.broker, Set: set, Delete: remove, Replace: replace, Was: was}
}

// change commits a change, or only says whether it would be refused. Settings of
// brokers that nobody knows are taken, as in Kafka, and the log says so: most are
// misspelt.
func (h *configs) change(ctx context.Context, image *metadata.Image, c metadata.Change, validateOnly bool) error {
	if validateOnly {
		return image.Check(c)
	}
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	err := h.node.Change(ctx, c)
	if set, ok := c.(metadata.SetBrokerConfig); ok && err == nil {
		for name := range set.Set {
			if _, known := settings.BrokerDefinition(name); !known {
				h.logger.Warn("a setting was set that has no effect: this release does not know it", "setting", name, "broker", set.Broker)
			}
		}
	}
	return err
}

// IncrementalAlterConfigs, versions 0–1 (KIP-339).
//
//   - Each setting is set, deleted, appended to or subtracted from; the last two
//     only if it is a list, beginning with the value in force.
//   - A resource, or a setting of one, named twice is INVALID_REQUEST.
//   - Lists that are appended to or subtracted from never lose what others do to
//     them, through whichever broker: what is committed are values, and the
//     controller refuses them if they were computed from others than it has.
//   - Levels of loggers (KIP-412) are set or deleted, on the node that is named
//     and as long as it runs.
//   - Whoever only asks whether a topic's could be changed is told what that would
//     delete, in a tagged field of our own: see RetainedTag.
//
// v1 adds tagged fields.
func (h *configs) incrementalAlterConfigs(c *call, req *kmsg.IncrementalAlterConfigsRequest) *kmsg.IncrementalAlterConfigsResponse {
	resp := kmsg.NewPtrIncrementalAlterConfigsResponse()
	resp.Resources = make([]kmsg.IncrementalAlterConfigsResponseResource, len(req.Resources))
	count := countResources{}
	for i := range req.Resources {
		c.step()
		count[countedResource{req.Resources[i].ResourceType, req.Resources[i].ResourceName}]++
	}
	together(len(req.Resources), func(i int) {
		rr, sr := &req.Resources[i], &resp.Resources[i]
		sr.Default()
		sr.ResourceType, sr.ResourceName = rr.ResourceType, rr.ResourceName
		image := h.node.Image()
		res, code, err := h.mayFind(c, image, rr.ResourceType, rr.ResourceName)
		if code == protocol.None && count[countedResource{rr.ResourceType, rr.ResourceName}] > 1 {
			code, err = protocol.InvalidRequest, errDuplicateResource
		}
		if code == protocol.None && rr.ResourceType == kmsg.ConfigResourceTypeBroker && slices.ContainsFunc(rr.Configs, func(rc kmsg.IncrementalAlterConfigsRequestResourceConfig) bool {
			return slices.Contains(accessSettings, rc.Name)
		}) {
			code, err = c.mayAlterAccess()
		}
		switch {
		case code != protocol.None:
		case res.loggers:
			code, err = h.alterLoggers(rr.Configs, req.ValidateOnly)
		default:
			code, err = h.alterIncrementally(c.ctx, res, rr.Configs, req.ValidateOnly)
			if code == protocol.None && res.topic != nil && req.ValidateOnly {
				sr.UnknownTags.Set(RetainedTag, h.retained(image, res, rr.Configs))
			}
		}
		sr.ErrorCode, sr.ErrorMessage = int16(code), message(err)
	})
	return resp
}

// RetainedTag is the tagged field of a topic in IncrementalAlterConfigs' answers to
// requests that only validate. For each partition that the broker leads it has 36
// bytes: the partition; where its log would start with the settings as they are, and
// where with those that were asked about, both after file.delete.delay.ms; up to where
// it is deleted next with those that it has, and when, in milliseconds since 1970, 0 for
// never. Records between the first two are what the change would delete. Compaction is
// not in it: what it would delete, only reading everything tells.
const (
	RetainedTag   = 10_001
	RetainedBytes = 36
)

// retained says what RetainedTag does.
func (h *configs) retained(image *metadata.Image, res resource, configs []kmsg.IncrementalAlterConfigsRequestResourceConfig) (b []byte) {
	change, c, _ := h.increment(image, res, configs)
	set, ok := change.(metadata.SetTopicConfig)
	if c != protocol.None || !ok {
		return nil
	}
	altered := maps.Clone(res.topic.Config)
	for _, name := range set.Delete {
		delete(altered, name)
	}
	if altered == nil {
		altered = map[string]string{}
	}
	maps.Copy(altered, set.Set)
	layers := h.layers(image)
	before, after := layers.Topic(res.topic.Config), layers.Topic(altered)
	at := h.clock.Now().Add(time.Duration(min(after.FileDeleteDelayMillis, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond)
	for i := range res.topic.Partitions {
		if p, _, c := h.leading(res.topic, int32(i), -1); c == protocol.None {
			b = binary.BigEndian.AppendUint32(b, uint32(i))
			b = binary.BigEndian.AppendUint64(b, uint64(p.Retained(&before, at)))
			b = binary.BigEndian.AppendUint64(b, uint64(p.Retained(&after, at)))
			next, when, ok := p.NextDeletion()
			if !ok {
				when = time.UnixMilli(0)
			}
			b = binary.BigEndian.AppendUint64(b, uint64(next))
			b = binary.BigEndian.AppendUint64(b, uint64(when.UnixMilli()))
		}
	}
	return b
}

// alterIncrementally changes one resource. This node's image may be behind what
// another has just answered a client; where it matters, that is found out and
// the newer image waited for.
func (h *configs) alterIncrementally(ctx context.Context, res resource, configs []kmsg.IncrementalAlterConfigsRequestResourceConfig, validateOnly bool) (protocol.Code, error) {
	ctx, cancel := context.WithTimeout(ctx, changeTimeout)
	defer cancel()
	for {
		changed := h.node.Changed()
		image := h.node.Image()
		if res.topic != nil {
			var ok bool
			if res.topic, ok = image.TopicByID(res.topic.ID); !ok {
				return protocol.UnknownTopicOrPartition, sentence("This server does not host this topic-partition.")
			}
		}
		c, code, err := h.increment(image, res, configs)
		if code != protocol.None {
			return code, err
		}
		err = h.change(ctx, image, c, validateOnly)
		if !errors.Is(err, metadata.ErrConfigChanged) {
			return res.codeOf(err), err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return protocol.RequestTimedOut, err
		}
	}
}

// increment computes the change that configs ask for from the settings in an image.
func (h *configs) increment(image *metadata.Image, res resource, configs []kmsg.IncrementalAlterConfigsRequestResourceConfig) (metadata.Change, protocol.Code, error) {
	set, was := map[string]string{}, map[string]*string{}
	var remove []string
	seen := map[string]struct{}{}
	for _, rc := range configs {
		if _, again := seen[rc.Name]; again {
			return nil, protocol.InvalidRequest, sentencef("Error due to duplicate config keys: %s", rc.Name)
		}
		seen[rc.Name] = struct{}{}
		if rc.Op == kmsg.IncrementalAlterConfigOpDelete {
			remove = append(remove, rc.Name)
			continue
		}
		if rc.Value == nil {
			return nil, protocol.InvalidRequest, sentencef("Null value not supported for : %s", rc.Name)
		}
		if rc.Op == kmsg.IncrementalAlterConfigOpSet {
			set[rc.Name] = *rc.Value
			continue
		}
		d, ok := res.definition(rc.Name)
		if !ok {
			return nil, protocol.InvalidConfig, sentencef("Unknown config name: %s", rc.Name)
		}
		current := h.inForce(image, res, rc.Name)
		var value string
		var err error
		switch rc.Op {
		case kmsg.IncrementalAlterConfigOpAppend:
			value, err = d.Append(current, *rc.Value)
		case kmsg.IncrementalAlterConfigOpSubtract:
			value, err = d.Subtract(current, *rc.Value)
		default:
			return nil, protocol.InvalidRequest, sentencef("Unknown operation %d for config %s", rc.Op, rc.Name)
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
	if res.kind != 0 {
		after := maps.Clone(res.explicit(image))
		for _, name := range remove {
			delete(after, name)
		}
		if after == nil {
			after = map[string]string{}
		}
		maps.Copy(after, set)
		if code, err := h.fits(res, after); code != protocol.None {
			return nil, code, err
		}
	}
	return res.change(set, remove, false, was), protocol.None, nil
}

// definition finds what a setting of a resource is.
func (r resource) definition(name string) (*settings.Definition, bool) {
	switch {
	case r.topic != nil:
		return settings.TopicDefinition(name)
	case r.kind != 0:
		return settings.ResourceDefinition(r.kind, name)
	}
	return settings.BrokerDefinition(name)
}

// explicit returns what is set for a resource.
func (r resource) explicit(image *metadata.Image) map[string]string {
	switch {
	case r.topic != nil:
		return r.topic.Config
	case r.kind != 0:
		return image.ResourceConfig(r.kind, r.name)
	}
	return image.BrokerConfig(r.broker)
}

// inForce returns the value of a setting as it stands, "" for none.
func (h *configs) inForce(image *metadata.Image, res resource, name string) string {
	values := h.describe(image, res)
	if res.topic == nil && res.kind == 0 && res.broker == 0 { // not only what was set
		values = image.Settings(0, h.settings().layers.Static).DescribeBroker()
	}
	for _, v := range values {
		if v.Name == name {
			return v.Value
		}
	}
	return ""
}

// describeLoggers lists the loggers as settings.
func (h *configs) describeLoggers() []settings.Value {
	var all []settings.Value
	for _, name := range loggers {
		all = append(all, settings.Value{
			Definition: &settings.Definition{Name: name, Type: settings.String, PerNode: true, Doc: "Level from which on this logger writes."},
			Value:      nameOf(h.levels.level(name)), Source: settings.SourceLogger,
		})
	}
	return all
}

// alterLoggers changes levels, all or, if one is not possible, none, with the
// refusals of Kafka's RuntimeLoggerManager.
func (h *configs) alterLoggers(configs []kmsg.IncrementalAlterConfigsRequestResourceConfig, validateOnly bool) (protocol.Code, error) {
	set := map[string]slog.Level{}
	var unset []string
	seen := map[string]struct{}{}
	for _, rc := range configs {
		if _, again := seen[rc.Name]; again {
			return protocol.InvalidRequest, sentence("Error due to duplicate config keys")
		}
		seen[rc.Name] = struct{}{}
		switch {
		case rc.Op == kmsg.IncrementalAlterConfigOpAppend:
			return protocol.InvalidRequest, sentence("APPEND operation is not allowed for the BROKER_LOGGER resource")
		case rc.Op == kmsg.IncrementalAlterConfigOpSubtract:
			return protocol.InvalidRequest, sentence("SUBTRACT operation is not allowed for the BROKER_LOGGER resource")
		case rc.Op != kmsg.IncrementalAlterConfigOpSet && rc.Op != kmsg.IncrementalAlterConfigOpDelete:
			return protocol.InvalidRequest, sentencef("Unknown operation type %d is not allowed for the BROKER_LOGGER resource", rc.Op)
		case rc.Op == kmsg.IncrementalAlterConfigOpSet && rc.Value == nil:
			return protocol.InvalidRequest, sentencef("Null value not supported for : %s", rc.Name)
		case !slices.Contains(loggers, rc.Name):
			return protocol.InvalidConfig, sentencef("Logger %s does not exist!", rc.Name)
		case rc.Op == kmsg.IncrementalAlterConfigOpDelete && rc.Name == rootLogger:
			return protocol.InvalidRequest, sentencef("Removing the log level of the %s logger is not allowed", rootLogger)
		case rc.Op == kmsg.IncrementalAlterConfigOpDelete:
			unset = append(unset, rc.Name)
		default:
			level, ok := levelOf(*rc.Value)
			if !ok {
				return protocol.InvalidConfig, sentencef("Cannot set the log level of %s to %s as it is not a supported log level. Valid log levels are %s", rc.Name, *rc.Value, validLevels())
			}
			set[rc.Name] = level
		}
	}
	if validateOnly {
		return protocol.None, nil
	}
	h.levels.alter(set, unset)
	for name, level := range set {
		h.logger.Warn("log level changed", "logger", name, "level", nameOf(level))
	}
	for _, name := range unset {
		h.logger.Warn("log level unset", "logger", name)
	}
	return protocol.None, nil
}

// ListConfigResources, versions 0–1 (KIP-1000, KIP-1142).
//
//   - Everything that settings are of: groups and subscriptions to clients'
//     metrics where some are set, brokers, their loggers, and topics; in the order
//     of Kafka's.
//   - Version 0 knows subscriptions to clients' metrics only. A type that is not
//     known is UNSUPPORTED_VERSION.
//
// v1 adds types both ways.
func (h *configs) listConfigResources(c *call, req *kmsg.ListConfigResourcesRequest) *kmsg.ListConfigResourcesResponse {
	resp := kmsg.NewPtrListConfigResourcesResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode = int16(code)
		return resp
	}
	types := []kmsg.ConfigResourceType{kmsg.ConfigResourceTypeClientMetrics}
	if c.Version >= 1 {
		types = []kmsg.ConfigResourceType{
			kmsg.ConfigResourceTypeGroupConfig, kmsg.ConfigResourceTypeClientMetrics, kmsg.ConfigResourceTypeBrokerLogger,
			kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeTopic,
		}
	}
	wanted := map[kmsg.ConfigResourceType]bool{}
	for _, t := range req.ResourceTypes {
		if !slices.Contains(types, kmsg.ConfigResourceType(t)) {
			resp.ErrorCode = int16(protocol.UnsupportedVersion)
			return resp
		}
		wanted[kmsg.ConfigResourceType(t)] = true
	}
	image := h.node.Image()
	for _, t := range types {
		if len(wanted) > 0 && !wanted[t] {
			continue
		}
		var names []string
		switch t {
		case kmsg.ConfigResourceTypeGroupConfig:
			names = image.Resources(settings.Group)
		case kmsg.ConfigResourceTypeClientMetrics:
			names = image.Resources(settings.ClientMetrics)
		case kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger:
			for _, b := range image.Brokers() {
				names = append(names, strconv.Itoa(int(b.ID)))
			}
		case kmsg.ConfigResourceTypeTopic:
			for _, topic := range image.Topics() {
				names = append(names, topic.Name)
			}
		}
		for _, name := range names {
			r := kmsg.NewListConfigResourcesResponseConfigResource()
			r.Name, r.Type = name, int8(t)
			resp.ConfigResources = append(resp.ConfigResources, r)
		}
	}
	return resp
}
