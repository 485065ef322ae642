package expect

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// sent is the request as it leaves for the destination that gets the most; nil where none does.
func sent(r *explain.Report) *explain.Sent {
	var best *explain.Destination
	for i := range r.Destinations {
		if d := &r.Destinations[i]; d.Sent != nil && (best == nil || d.Share > best.Share) {
			best = d
		}
	}
	if best == nil {
		return nil
	}
	return best.Sent
}

func sentPath(r *explain.Report) string {
	if s := sent(r); s != nil {
		return s.Path
	}
	return none
}

func requestField(r *explain.Report, name string) (value string, there bool) {
	s := sent(r)
	if s == nil {
		return "", false
	}
	for _, f := range s.Headers {
		if strings.EqualFold(f.Name, name) {
			if there {
				value += ","
			}
			value, there = value+f.Value, true
		}
	}
	return value, there
}

// responseField is what the route makes of a field of an answer that does not have it.
func responseField(r *explain.Report, name string) (value string, there bool) {
	if r.Route == nil {
		return "", false
	}
	changes := []*conf.HeaderChange{&r.Route.Conf.Response}
	if f := r.Route.Conf.Forward; f != nil && len(f.Clusters) == 1 {
		changes = append([]*conf.HeaderChange{&f.Clusters[0].Response}, changes...)
	}
	for _, c := range changes {
		for _, v := range append(append([]conf.HeaderValue{}, c.Set...), append(c.Add, c.Default...)...) {
			if strings.EqualFold(v.Name, name) {
				value, there = v.Value, true
			}
		}
	}
	return value, there
}

// allowed says whether policies let the request in, everywhere that it may go.
func allowed(r *explain.Report) (bool, string) {
	if r.Policy != nil && !r.Policy.Allowed {
		return false, "(" + r.Policy.Rule + ")"
	}
	for _, in := range inbounds(r) {
		if in.Refused != "" {
			return false, "(" + in.Party.Workload + ": " + in.Refused + ")"
		}
		if !in.Verdict.Allowed {
			return false, strings.TrimSuffix(fmt.Sprintf("(%s: %s %s", in.Party.Workload, in.Verdict.Rule, explain.PolicyName(in.Verdict.Policy)), " ") + ")"
		}
	}
	return true, ""
}

func inbounds(r *explain.Report) (out []*explain.Inbound) {
	for i := range r.Destinations {
		d := &r.Destinations[i]
		for j := range d.Ways {
			if in := d.Ways[j].Inbound; d.Share > 0 && in != nil {
				out = append(out, in)
			}
		}
	}
	return out
}

// policies are those that decided.
func policies(r *explain.Report) (out []string) {
	if r.Policy != nil && r.Policy.Policy != "" {
		out = append(out, explain.PolicyName(r.Policy.Policy))
	}
	for _, in := range inbounds(r) {
		if in.Verdict.Policy != "" {
			out = append(out, explain.PolicyName(in.Verdict.Policy))
		}
	}
	return out
}

// mutual says whether all that is sent goes by the mesh's mutual TLS.
func mutual(r *explain.Report) (bool, string) {
	found := false
	for i := range r.Destinations {
		if d := &r.Destinations[i]; d.Share > 0 {
			if found = true; !d.MTLS {
				return false, "(" + orElse(d.Transport, "nothing is sent") + ")"
			}
		}
	}
	return found, ""
}

func limitsOf(r *explain.Report) []explain.Limit {
	all := r.Limits
	for _, in := range inbounds(r) {
		all = append(all, in.Limits...)
	}
	return all
}

func mirrors(r *explain.Report) (out []part) {
	if r.Route == nil || r.Route.Conf.Forward == nil {
		return nil
	}
	for _, m := range r.Route.Conf.Forward.Mirrors {
		_, port, subset, service, _ := wire.ParseCluster(m.Cluster)
		out = append(out, part{orElse(service, m.Cluster), subset, port, float64(m.Fraction) / 1e6, ""})
	}
	return out
}

// fault reads none, or delay and abort with their shares.
func (p *parser) fault(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	if n.Kind == yaml.ScalarNode && n.Value == none {
		return none, func(r *explain.Report) (string, bool) { got := faults(r); return got, got == none }
	}
	delay, abort, delayed, aborted := none, none, 1.0, 1.0
	p.fields(n, at, map[string]func(*yaml.Node, string){
		"delay":      func(n *yaml.Node, at string) { delay = p.duration(n, at) },
		"abort":      func(n *yaml.Node, at string) { abort = p.text(n, at) },
		"delayShare": func(n *yaml.Node, at string) { delayed = p.share(n, at) },
		"abortShare": func(n *yaml.Node, at string) { aborted = p.share(n, at) },
	})
	want := faultText(delay, delayed, abort, aborted)
	return want, func(r *explain.Report) (string, bool) { got := faults(r); return got, got == want }
}

func faultText(delay string, delayed float64, abort string, aborted float64) string {
	var out []string
	if delay != none {
		out = append(out, fmt.Sprintf("delay %s for %s", delay, percent(delayed)))
	}
	if abort != none {
		out = append(out, fmt.Sprintf("abort %s for %s", abort, percent(aborted)))
	}
	return orNone(strings.Join(out, ", "))
}

func faults(r *explain.Report) string {
	if r.Route == nil || r.Route.Conf.Fault == nil || len(r.Route.Fault) == 0 {
		return none
	}
	f := r.Route.Conf.Fault
	delay, abort := none, none
	if f.Delay > 0 && f.DelayFraction > 0 {
		delay = f.Delay.String()
	}
	if f.AbortFraction > 0 {
		if abort = fmt.Sprint(f.AbortStatus); f.AbortStatus == 0 {
			abort = fmt.Sprintf("gRPC %d", f.AbortGRPC)
		}
	}
	return faultText(delay, float64(f.DelayFraction)/1e6, abort, float64(f.AbortFraction)/1e6)
}
