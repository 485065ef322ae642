package explain

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/headers"
	"github.com/weftmesh/weft/internal/proxy/filter/ratelimit"
	"github.com/weftmesh/weft/internal/proxy/filter/rewrite"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// forwarded is the request as the destination's proxy sees it: with all rewrites and header changes made.
func (e *evaluation) forwarded() *message.Request {
	r := *e.talk.request
	r.Header = message.Header{}
	r.Header.CopyFrom(&e.talk.request.Header)
	if e.route == nil || e.route.Forward == nil {
		return &r
	}
	for _, c := range e.changes(e.split) {
		headers.Apply(&r.Header, c, operators(e.talk.request))
		if c.Host != "" {
			r.Authority = c.Host
		}
	}
	rewrite.Forward(&r, e.route.Forward, &e.route.Match, !e.discreet)
	return &r
}

// changes are those of the request's fields, in the order in which they are made; split may be nil.
func (e *evaluation) changes(split *conf.WeightedCluster) []*conf.HeaderChange {
	list := []*conf.HeaderChange{&e.route.Request, &e.host.HeaderChange, &e.table.Request}
	if split != nil {
		list = slices.Insert(list, 0, &split.HeaderChange)
	}
	if e.table.SpecificLast {
		slices.Reverse(list)
	}
	return list
}

// responseChanges are those of the response's.
func (e *evaluation) responseChanges(split *conf.WeightedCluster) []*conf.HeaderChange {
	list := []*conf.HeaderChange{&e.route.Response, &e.host.Response, &e.table.Response}
	if split != nil {
		list = slices.Insert(list, 0, &split.Response)
	}
	if e.table.SpecificLast {
		slices.Reverse(list)
	}
	return list
}

// operators gives the values of those operators that the request alone decides; the others stay as they are written.
func operators(r *message.Request) headers.Lookup {
	return func(name, argument string) (string, bool) {
		if name != "REQ" {
			return "", false
		}
		v, _ := r.Lookup(strings.ToLower(argument))
		return v, true
	}
}

// limits are the rate limits of a proxy that count the request. rt is the route where limits may be replaced by its own; nil for none.
func (e *evaluation) limits(h *conf.HTTP, rt *conf.Route, r *message.Request, remote netip.Addr) (out []Limit) {
	asked := &ratelimit.Request{Request: r, Remote: remote}
	if remote.IsValid() {
		asked.RemoteText = remote.String()
	}
	for _, l := range h.Limits {
		if rt != nil && rt.Limits != nil {
			if own, replaced := rt.Limits[l.Filter]; replaced {
				l = own
			}
		}
		if l != nil && l.Enabled > 0 {
			out = append(out, localLimits(l, asked)...)
		}
	}
	for _, l := range h.GlobalLimits {
		if text := globalLimit(l, asked); text != "" {
			out = append(out, Limit{Text: text})
		}
	}
	return out
}

// localLimits are the buckets that a limit counts the request in.
func localLimits(l *conf.LocalLimit, r *ratelimit.Request) (out []Limit) {
	say := func(b *conf.TokenBucket, each []Field) {
		out = append(out, Limit{Object: limitObject(l.Filter), Rule: limitRule(l.Filter), DryRun: l.Enforced == 0, Each: each,
			Text: bucketText(b) + ", then " + strconv.Itoa(l.Status)})
	}
	named := false
	for i := range l.Rules {
		entries := ratelimit.Describe(nil, &l.Rules[i], r)
		for j := range l.Descriptors {
			if d := &l.Descriptors[j]; len(entries) > 0 && describes(d.Entries, entries) {
				named = true
				say(&d.Bucket, openEntries(d.Entries, entries))
				break
			}
		}
	}
	if l.Bucket != nil && (!named || l.AlwaysBucket) {
		say(l.Bucket, nil)
	}
	return out
}

// describes reports whether a bucket is for requests with these entries.
func describes(want, got []conf.LimitEntry) bool {
	return slices.EqualFunc(want, got, func(w, g conf.LimitEntry) bool { return w.Key == g.Key && (w.Value == "" || w.Value == g.Value) })
}

// openEntries names what gives each value a bucket of its own.
func openEntries(want, got []conf.LimitEntry) (each []Field) {
	for i, w := range want {
		if w.Value != "" {
			continue
		}
		name := strings.Replace(w.Key, ":", " ", 1)
		switch w.Key {
		case "remote_address":
			name = "client address"
		case "masked_remote_address":
			name = "client network"
		}
		each = append(each, Field{name, got[i].Value})
	}
	return each
}

func bucketText(b *conf.TokenBucket) string {
	s := strconv.Itoa(int(b.Fill)) + " requests in " + b.Interval.Round(time.Millisecond).String()
	if b.Max != b.Fill {
		s += ", " + strconv.Itoa(int(b.Max)) + " at once"
	}
	return s
}

// globalLimit says what a service is asked; empty where it is asked nothing.
func globalLimit(l *conf.GlobalLimit, r *ratelimit.Request) string {
	if l.Enabled == 0 {
		return ""
	}
	var asked []string
	for i := range l.Rules {
		var parts []string
		for _, e := range ratelimit.Describe(nil, &l.Rules[i], r) {
			parts = append(parts, e.Key+"="+e.Value)
		}
		if len(parts) > 0 {
			asked = append(asked, strings.Join(parts, " "))
		}
	}
	if len(asked) == 0 {
		return ""
	}
	return "as " + l.Cluster + " says of domain " + l.Domain + ": " + strings.Join(asked, "; ")
}

// limitObject and limitRule take the name of a filter apart, which is "ratelimit/NAMESPACE/NAME/RULE" where an object of ours made it.
func limitObject(filter string) string {
	if p := strings.SplitN(filter, "/", 4); len(p) == 4 && p[0] == "ratelimit" {
		return "RateLimit/" + p[1] + "/" + p[2]
	}
	return filter
}

func limitRule(filter string) string {
	if p := strings.SplitN(filter, "/", 4); len(p) == 4 && p[0] == "ratelimit" {
		return p[3]
	}
	return ""
}
