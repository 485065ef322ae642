package explain

import (
	"cmp"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/rewrite"
)

// conclude writes the summary of requests that are forwarded.
func (e *evaluation) conclude() {
	r := e.report
	if r.Outcome != "forward" {
		return
	}
	var parts []string
	for _, p := range r.Before {
		parts = append(parts, p.String())
	}
	for i := range r.Destinations {
		if d := &r.Destinations[i]; d.Share > 0 {
			parts = append(parts, d.fate(len(r.Destinations)+len(r.Before) > 1, r.Protocol == "http"))
		}
	}
	r.Summary = strings.Join(parts, "; ")
	if f := e.fault; f != nil {
		if f.AbortFraction == 1e6 {
			r.Outcome, r.Status, r.Flag = "respond", f.AbortStatus, "FI"
			r.Summary = "aborted by fault injection: " + strings.Join(describeFault(f), ", ")
			return
		}
		r.Summary += " (after fault injection: " + strings.Join(describeFault(f), ", ") + ")"
	}
	if len(r.Destinations) == 1 && !r.Destinations[0].works() {
		r.Outcome, r.Flag = "refuse", r.Destinations[0].flag()
		if r.Status = r.Destinations[0].status(); r.Protocol != "http" {
			r.Status = 0 // the connection is closed
		}
	}
}

// fate says what becomes of the requests of a destination, or of its connections or datagrams, which no status answers.
func (d *Destination) fate(split, http bool) string {
	name := d.Service
	if d.Subset != "" {
		name += " subset " + d.Subset
	}
	name = cmp.Or(name, d.Cluster)
	s := ""
	if split {
		s = percent(d.Share) + " "
		switch {
		case !d.works() && http:
			s += fmt.Sprintf("fail with %d: ", d.status())
		case !d.works():
			s += "fail: "
		}
	}
	switch {
	case d.Missing:
		return s + name + " does not exist"
	case len(d.Endpoints) == 0 && !d.Dynamic:
		return s + name + " has no endpoints"
	case d.flag() == "UH":
		return s + fmt.Sprintf("none of the %d endpoints of %s is ready", len(d.Endpoints), name)
	case d.Inbound != nil && d.Inbound.Refused != "":
		return s + "the proxy of " + name + " closes the connection: " + d.Inbound.Refused
	case !d.works():
		return s + name + " refuses: " + d.Inbound.Verdict.text()
	case d.Dynamic && d.Conf != nil && d.Conf.Discovery == conf.ByHost:
		return s + "to the host that it names, which the proxy looks up"
	case d.Dynamic:
		return s + "to where the client was connecting"
	}
	s += fmt.Sprintf("to %s, %d of %d endpoints ready", name, d.Ready, len(d.Endpoints))
	if n := d.used(); n < d.Ready {
		s += fmt.Sprintf(", %d used", n)
	} else if n > d.Ready {
		s += fmt.Sprintf(", %d used (too few are ready)", n)
	}
	return s
}

// used counts the endpoints that get requests.
func (d *Destination) used() (n int) {
	for i := range d.Endpoints {
		if d.Endpoints[i].Share > 0 {
			n++
		}
	}
	return n
}

// uneven reports whether something else than readiness decides which endpoint gets how much.
func (d *Destination) uneven() bool {
	share := -1.0
	for i := range d.Endpoints {
		e := &d.Endpoints[i]
		switch ready := e.State == "ready"; {
		case !ready && e.Share > 0, ready && share >= 0 && math.Abs(e.Share-share) > 1e-9:
			return true
		case ready:
			share = e.Share
		}
	}
	return false
}

// percent writes a share with at most one digit behind the point.
func percent(f float64) string { return share(math.Round(f*1000) / 1000) }

func localityName(l *conf.Locality) string {
	return strings.TrimRight(l.Region+"/"+l.Zone+"/"+l.SubZone, "/")
}

func (d *Destination) works() bool { return d.status() == 0 }

// status is the answer where it is certain that requests fail, else 0.
func (d *Destination) status() int {
	if d.flag() != "" {
		return 503
	}
	if d.Inbound != nil && !d.Inbound.Verdict.Allowed {
		return 403
	}
	return 0
}

// flag is the response flag of requests that cannot reach the workload.
func (d *Destination) flag() string {
	switch {
	case d.Missing:
		return "NC"
	case d.Dynamic:
		return ""
	case d.Ready == 0 && !d.panic || len(d.Endpoints) == 0:
		return "UH"
	case d.Inbound != nil && d.Inbound.Refused != "":
		return "UC"
	}
	return ""
}

// share writes 0.5 as "50%".
func share(f float64) string { return strconv.FormatFloat(f*100, 'f', -1, 64) + "%" }

func describeFault(f *conf.Fault) (out []string) {
	if f.Delay > 0 && f.DelayFraction > 0 {
		out = append(out, fmt.Sprintf("delay of %s for %s of requests", f.Delay, share(float64(f.DelayFraction)/1e6)))
	}
	if f.AbortFraction > 0 {
		what := fmt.Sprintf("status %d", f.AbortStatus)
		if f.AbortStatus == 0 {
			what = fmt.Sprintf("gRPC status %d", f.AbortGRPC)
		}
		out = append(out, fmt.Sprintf("abort with %s for %s of requests", what, share(float64(f.AbortFraction)/1e6)))
	}
	return out
}

// conditionNames are the conditions of a retry in the order of their bits.
var conditionNames = []string{"5xx", "gateway-error", "reset", "connect-failure", "refused-stream", "retriable-4xx",
	"retriable-status-codes", "reset-before-request", "cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
	"retriable-headers", "envoy-ratelimited", "safe-reset"}

func describeRetry(r *conf.Retry) string {
	if r == nil || r.Attempts == 0 {
		return "none"
	}
	var on []string
	for i, n := range conditionNames {
		if r.On&(1<<i) != 0 {
			on = append(on, n)
		}
	}
	s := fmt.Sprintf("%d on %s", r.Attempts, strings.Join(on, ","))
	for _, c := range r.StatusCodes {
		s += fmt.Sprintf(",%d", c)
	}
	if r.PerTry > 0 {
		s += fmt.Sprintf(", %s each", r.PerTry)
		if r.Hedge {
			s += ", overlapping"
		}
	}
	return s
}

func headerChanges(what string, h conf.HeaderChange) (out []string) {
	for _, n := range h.Remove {
		out = append(out, what+"header "+n+" removed")
	}
	for _, v := range h.Set {
		out = append(out, fmt.Sprintf("%sheader %s set to %q", what, v.Name, v.Value))
	}
	for _, v := range h.Add {
		out = append(out, fmt.Sprintf("%sheader %s added: %q", what, v.Name, v.Value))
	}
	for _, v := range h.Default {
		out = append(out, fmt.Sprintf("%sheader %s set to %q where it is absent", what, v.Name, v.Value))
	}
	for _, v := range h.Replace {
		out = append(out, fmt.Sprintf("%sheader %s set to %q where it is present", what, v.Name, v.Value))
	}
	if h.Host != "" {
		out = append(out, "authority becomes "+h.Host)
	}
	return out
}

func rewrites(f *conf.Forward) (out []string) {
	if f.PrefixRewrite != "" {
		out = append(out, fmt.Sprintf("matched path replaced by %q", f.PrefixRewrite))
	}
	if f.PathRewrite != "" {
		out = append(out, fmt.Sprintf("path becomes %q", f.PathRewrite))
	}
	if f.RegexRewrite != nil {
		out = append(out, fmt.Sprintf("path: %s replaced by %s", f.RegexRewrite.Pattern.Value, f.RegexRewrite.Substitution))
	}
	switch {
	case f.HostRewrite != "":
		out = append(out, "authority becomes "+f.HostRewrite)
	case f.HostRewriteHeader != "":
		out = append(out, "authority becomes the value of header "+f.HostRewriteHeader)
	case f.HostRewriteRegex != nil:
		out = append(out, fmt.Sprintf("authority becomes the path with %s replaced by %s", f.HostRewriteRegex.Pattern.Value, f.HostRewriteRegex.Substitution))
	}
	return out
}

// location is where a redirect leads.
func (e *evaluation) location(rt *conf.Route) string {
	return rewrite.Location(e.talk.request, rt.Redirect, &rt.Match, e.talk.request.Scheme)
}

// Failure says why requests to the destination fail; nothing where they do not.
func (d *Destination) Failure() string {
	if !d.works() {
		return strings.TrimPrefix(d.fate(false, true), cmp.Or(d.Service, d.Cluster)+" ")
	}
	for _, in := range d.Others {
		switch {
		case in.Refused != "":
			return "the proxy of " + in.Party.Workload + " closes the connection: " + in.Refused
		case !in.Verdict.Allowed:
			return in.Party.Workload + " refuses: " + in.Verdict.text()
		}
	}
	return ""
}

// PolicyName gives the policy that a verdict names: "ns[default]-policy[x]-rule[0]" as "default/x".
func PolicyName(s string) string {
	namespace, rest, ok := strings.Cut(strings.TrimPrefix(s, "ns["), "]-policy[")
	name, _, closed := strings.Cut(rest, "]")
	if !ok || !closed {
		return s
	}
	return namespace + "/" + name
}
