package istio

import (
	"math/big"
	"slices"
	"strings"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// LoadBalancerAnnotation of a DestinationRule asks for a policy that Istio's field has no name for.
const LoadBalancerAnnotation = "networking.weft.dev/load-balancer"

var ownBalancings = []string{"PEAK_EWMA", "PROBING"}

// ownBalancing takes the policy that the annotation names.
func (p converter) ownBalancing(annotations map[string]string, d *model.Destination) {
	name, ok := annotations[LoadBalancerAnnotation]
	if !ok {
		return
	}
	const field = `metadata.annotations["` + LoadBalancerAnnotation + `"]`
	if !slices.Contains(ownBalancings, name) {
		p.Err("InvalidValue", field, "", "%q is none of %s", name, strings.Join(ownBalancings, ", "))
		return
	}
	if d.Policy.Balancing == nil {
		d.Policy.Balancing = &model.Balancing{}
	}
	if b := d.Policy.Balancing; b.Simple != "" || b.Hash != nil {
		p.Err("ConflictingFields", field, "remove spec.trafficPolicy.loadBalancer or the annotation", "spec.trafficPolicy.loadBalancer names another policy")
		return
	}
	d.Policy.Balancing.Simple = name
}

// HealthCheckAnnotation of a DestinationRule asks for active health checks: "http PATH", "grpc", "grpc SERVICE" or "tcp", each of
// which may be followed by "every DURATION".
const HealthCheckAnnotation = "networking.weft.dev/health-check"

const checkInterval = 10 * time.Second

func (p converter) healthCheck(annotations map[string]string, d *model.Destination) {
	text, ok := annotations[HealthCheckAnnotation]
	if !ok {
		return
	}
	h := &model.HealthCheck{Interval: checkInterval}
	words, every, timed := strings.Cut(text, " every ")
	if timed {
		var err error
		if h.Interval, err = time.ParseDuration(every); err != nil || h.Interval < 100*time.Millisecond {
			ok = false
		}
	}
	kind, rest, _ := strings.Cut(strings.TrimSpace(words), " ")
	switch kind {
	case "http":
		h.Path = rest
		ok = ok && strings.HasPrefix(rest, "/") && !strings.ContainsAny(rest, " \t\r\n")
	case "grpc":
		h.GRPC, h.Service = true, rest
	case "tcp":
		ok = ok && rest == ""
	default:
		ok = false
	}
	if !ok {
		p.Err("InvalidValue", `metadata.annotations["`+HealthCheckAnnotation+`"]`, "",
			"%q is not \"http PATH\", \"grpc [SERVICE]\" or \"tcp\", with \"every DURATION\" of at least 100ms or without", text)
		return
	}
	d.HealthCheck = h
}

func (p converter) balancing(lb *networkingapi.LoadBalancerSettings, field string) *model.Balancing {
	if lb == nil {
		return nil
	}
	p.Only(lb, field, "simple", "consistentHash", "localityLbSetting", "warmup", "warmupDurationSecs")
	b := &model.Balancing{}
	switch policy := lb.LbPolicy.(type) {
	case *networkingapi.LoadBalancerSettings_Simple:
		switch name := policy.Simple.String(); name {
		case "UNSPECIFIED":
		case "LEAST_CONN": // its old name
			b.Simple = "LEAST_REQUEST"
		default:
			b.Simple = name
		}
	case *networkingapi.LoadBalancerSettings_ConsistentHash:
		b.Hash = p.consistentHash(policy.ConsistentHash, field+".consistentHash")
	}
	b.Locality = p.localitySetting(lb.LocalityLbSetting, field+".localityLbSetting")
	b.Warmup = p.warmup(lb, field)
	if b.Warmup != nil && (b.Hash != nil || b.Simple == "RANDOM" || b.Simple == "PASSTHROUGH") {
		p.Err("ConflictingFields", field+".warmup", "", "goes only with LEAST_REQUEST and ROUND_ROBIN")
	}
	return b
}

func (p converter) warmup(lb *networkingapi.LoadBalancerSettings, field string) *model.Warmup {
	w := lb.Warmup
	if w == nil {
		if lb.WarmupDurationSecs == nil {
			return nil
		}
		return &model.Warmup{Duration: p.Timeout(lb.WarmupDurationSecs, field+".warmupDurationSecs"), MinimumPercent: 10, Aggression: 1}
	}
	if lb.WarmupDurationSecs != nil {
		p.Err("ConflictingFields", field+".warmupDurationSecs", "", "warmup says it already")
	}
	field += ".warmup"
	out := &model.Warmup{Duration: p.Timeout(w.Duration, field+".duration"), MinimumPercent: 10, Aggression: 1}
	if w.Duration == nil {
		p.Err("MissingField", field+".duration", "", "a duration is missing")
	}
	if m := w.MinimumPercent; m != nil {
		out.MinimumPercent = p.Percent(m.Value, field+".minimumPercent")
	}
	if a := w.Aggression; a != nil {
		if out.Aggression = a.Value; a.Value <= 0 {
			p.Err("InvalidValue", field+".aggression", "", "%g is not above 0", a.Value)
		}
	}
	return out
}

func (p converter) consistentHash(h *networkingapi.LoadBalancerSettings_ConsistentHashLB, field string) *model.ConsistentHash {
	out := &model.ConsistentHash{RingSize: h.MinimumRingSize}
	switch key := h.HashKey.(type) {
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		if out.Header = key.HttpHeaderName; out.Header == "" {
			p.Err("MissingField", field+".httpHeaderName", "", "a name is missing")
		}
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		if out.Query = key.HttpQueryParameterName; out.Query == "" {
			p.Err("MissingField", field+".httpQueryParameterName", "", "a name is missing")
		}
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		out.SourceIP = key.UseSourceIp
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		p.hashCookie(key.HttpCookie, out, field+".httpCookie")
	}
	if source, ok := h.HashKey.(*networkingapi.LoadBalancerSettings_ConsistentHashLB_UseSourceIp); h.HashKey == nil || ok && !source.UseSourceIp {
		p.Err("MissingField", field, "", "one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName is needed")
	}
	switch a := h.HashAlgorithm.(type) {
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_RingHash_:
		out.RingSize = a.RingHash.GetMinimumRingSize()
	case *networkingapi.LoadBalancerSettings_ConsistentHashLB_Maglev:
		out.Maglev, out.TableSize = true, a.Maglev.GetTableSize()
		if out.RingSize > 0 {
			p.Err("ConflictingFields", field+".minimumRingSize", "", "maglev has no ring")
		}
		if n := out.TableSize; n > 0 && (n > maglevMost || !new(big.Int).SetUint64(n).ProbablyPrime(0)) {
			p.Err("InvalidValue", field+".maglev.tableSize", "the default is 65537", "%d is no prime number of at most %d", n, maglevMost)
		}
	}
	if out.RingSize > ringMost {
		p.Err("InvalidValue", field+".minimumRingSize", "", "%d is more than %d", out.RingSize, ringMost)
	}
	return out
}

// Envoy's bounds.
const (
	maglevMost = 5_000_011
	ringMost   = 8 << 20
)

func (p converter) hashCookie(c *networkingapi.LoadBalancerSettings_ConsistentHashLB_HTTPCookie, out *model.ConsistentHash, field string) {
	if out.Cookie = c.GetName(); out.Cookie == "" {
		p.Err("MissingField", field+".name", "", "a name is missing")
	}
	if out.CookiePath = c.GetPath(); strings.ContainsAny(out.CookiePath, ";\r\n") {
		p.Err("InvalidValue", field+".path", "", "%q does not fit into a cookie", out.CookiePath)
	}
	if c.GetTtl() != nil {
		ttl := p.TimeoutOrZero(c.GetTtl(), field+".ttl")
		out.CookieTTL = &ttl
	}
	for i, a := range c.GetAttributes() {
		for _, other := range c.GetAttributes()[:i] {
			if other.Name == a.Name && a.Name != "" {
				p.Err("DuplicateValue", parts.At(field+".attributes", i)+".name", "", "attribute %q is there already", a.Name)
			}
		}
		if a.Name == "" || strings.ContainsAny(a.Name+a.Value, "; \r\n") {
			p.Err("InvalidValue", parts.At(field+".attributes", i), "", "%q does not fit into a cookie", a.Name+"="+a.Value)
		}
		out.CookieAttributes = append(out.CookieAttributes, [2]string{a.Name, a.Value})
	}
}

func (p converter) localitySetting(l *networkingapi.LocalityLoadBalancerSetting, field string) *model.LocalitySetting {
	if l == nil {
		return nil
	}
	out := &model.LocalitySetting{Disabled: l.Enabled != nil && !l.Enabled.Value, FailoverPriority: l.FailoverPriority}
	if len(l.Distribute) > 0 && (len(l.Failover) > 0 || len(l.FailoverPriority) > 0) || len(l.Failover) > 0 && len(l.FailoverPriority) > 0 {
		p.Err("ConflictingFields", field, "", "only one of distribute, failover and failoverPriority can be set")
	}
	for i, d := range l.Distribute {
		f := parts.At(field+".distribute", i)
		p.localityPattern(d.From, f+".from")
		sum := uint32(0)
		for _, to := range parts.SortedKeys(d.To) {
			p.localityPattern(to, parts.Key(f+".to", to))
			if d.To[to] == 0 {
				p.Err("InvalidWeight", parts.Key(f+".to", to), "", "a weight is at least 1")
			}
			sum += d.To[to]
			for _, other := range parts.SortedKeys(d.To) {
				if to != other && model.LocalityMatches(to, other) {
					p.Err("OverlappingLocality", parts.Key(f+".to", other), "", "is a part of %q", to)
				}
			}
		}
		if sum != 100 {
			p.Err("InvalidWeight", f+".to", "", "the weights add up to %d, not to 100", sum)
		}
		out.Distribute = append(out.Distribute, model.Distribution{From: d.From, To: d.To})
	}
	for i, o := range l.Failover {
		f := parts.At(field+".failover", i)
		switch {
		case o.From == "" || o.To == "":
			p.Err("MissingField", f, "", "from and to are needed")
		case o.From == o.To:
			p.Err("InvalidValue", f+".to", "", "%q is the region itself", o.To)
		case strings.ContainsAny(o.From+o.To, "/*"):
			p.Err("InvalidValue", f, "", "failover is from region to region")
		}
		out.Failover = append(out.Failover, [2]string{o.From, o.To})
	}
	for i, key := range l.FailoverPriority {
		if key == "" || strings.HasPrefix(key, "=") {
			p.Err("MissingField", parts.At(field+".failoverPriority", i), "", "a label is missing")
		}
	}
	return out
}

// localityPattern checks "region/zone/subzone", of which the last part may be a star.
func (p converter) localityPattern(s, field string) {
	parts := strings.Split(s, "/")
	for i, part := range parts {
		if part == "" || strings.Contains(part, "*") && (part != "*" || i != len(parts)-1) || len(parts) > 3 {
			p.Err("InvalidValue", field, "", "%q is no locality: region/zone/subzone, where a star may stand last", s)
			return
		}
	}
}
