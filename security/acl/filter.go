package acl

import "strings"

// A Filter is for entries, as Kafka's AclBindingFilter is: what is nil, or Any…, is for all.
type Filter struct {
	Type       ResourceType
	Name       *string
	Pattern    PatternType // Match: entries that mean the resource Name, whatever their pattern
	Principal  *string
	Host       *string // an IP address as CanonicalHost has it, or AnyHost
	Operation  Operation
	Permission Permission
}

// Matches says whether the filter is for an entry.
func (f *Filter) Matches(e *Entry) bool {
	switch {
	case f.Type != AnyType && f.Type != e.Type,
		f.Pattern != AnyPattern && f.Pattern != Match && f.Pattern != e.Pattern,
		f.Principal != nil && *f.Principal != e.Principal,
		f.Host != nil && *f.Host != e.Host,
		f.Operation != AnyOperation && f.Operation != e.Operation,
		f.Permission != AnyPermission && f.Permission != e.Permission:
		return false
	case f.Name == nil:
		return true
	case f.Pattern != Match:
		return *f.Name == e.Name
	case e.Pattern == Prefixed:
		return strings.HasPrefix(*f.Name, e.Name)
	}
	return *f.Name == e.Name || e.Name == AnyName
}
