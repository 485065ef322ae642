package security

import (
	"time"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/weftapi"
)

// limitService converts a reference to a rate-limit service; whether there is one is looked up later.
func (p converter) limitService(s *weftapi.RateLimitService, field string) *model.RateLimitService {
	out := &model.RateLimitService{Port: p.ValidPort(s.Port, field+".port"), Domain: s.Domain}
	if p.ValidHost(s.Host, field+".host", false) {
		out.Host = p.FullHost(s.Host)
	}
	if s.Domain == "" {
		p.Err("MissingField", field+".domain", "", "the service keeps limits by domain")
	}
	if s.Timeout != "" {
		t, err := time.ParseDuration(s.Timeout)
		if err != nil || t < time.Millisecond || t > time.Minute {
			p.Err("InvalidDuration", field+".timeout", `write it like "50ms"`, "%q is not a duration between 1ms and 1m", s.Timeout)
		}
		out.Timeout = t
	}
	switch s.OnFailure {
	case "", "Allow":
	case "Deny":
		out.Deny = true
	default:
		p.Err("InvalidValue", field+".onFailure", "", "%q is neither Allow nor Deny", s.OnFailure)
	}
	return out
}

// limitEntries converts the description of a rule for a service. What the rule matches is told by the first entry that has a value.
func (p converter) limitEntries(r *weftapi.RateLimitRule, field string, out *model.RateLimitRule) {
	if len(r.Each) > 0 || r.Limit != (weftapi.RateLimitValue{}) {
		p.Err("ConflictingFields", field, "configure the limit in the service", "a rule for a service has a descriptor, and neither each nor limit")
	}
	p.Refuse(field+".dryRun", r.DryRun)
	if len(r.Descriptor) == 0 {
		p.Err("MissingField", field+".descriptor", "", "the service is told nothing about requests")
	}
	named := false
	for i := range r.Descriptor {
		e, f := &r.Descriptor[i], parts.At(field+".descriptor", i)
		entry := model.RateLimitEntry{Key: e.Key, Value: e.Value}
		address := e.ClientAddress != nil
		switch {
		case e.Value == "":
			entry.From = p.limitKey(&e.RateLimitKey, f)
		case e.Header != "" || e.Query != "" || address:
			p.Err("ConflictingFields", f, "", "exactly one of value, header, query and clientAddress is needed")
		default:
			named = true
		}
		switch {
		case address && e.Key != "":
			p.Err("ConflictingFields", f+".key", "leave it out", "a client's address is told as remote_address, with prefix lengths as masked_remote_address")
		case !address && e.Key == "":
			p.Err("MissingField", f+".key", "", "an entry needs a key")
		}
		out.Entries = append(out.Entries, entry)
	}
	if r.Match != nil && !named {
		p.Err("MissingField", field+".descriptor", "add an entry with a value that tells what is matched", "a rule with a match needs an entry with a value")
	}
}
