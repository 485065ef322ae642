package explain

import (
	"cmp"
	"fmt"
	"math"
	"slices"
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
		if r.Status = r.Destinations[0].status(); r.Protocol != "http" && r.Flag != "" {
			r.Status = 0 // the connection is closed
		}
	}
}

// Absence says what is missing of a destination that is Missing: the whole service, or its port.
func (d *Destination) Absence() string {
	if d.noPort {
		return fmt.Sprintf("has no port %d", d.Port)
	}
	return "does not exist"
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
		case !d.works() && http && d.status() > 0:
			s += fmt.Sprintf("fail with %d: ", d.status())
		case !d.works():
			s += "fail: "
		}
	}
	switch {
	case d.Missing:
		return s + name + " " + d.Absence()
	case d.Conf != nil && d.Conf.Refused != "":
		return s + name + " is not connected to: " + d.Conf.Refused
	case len(d.Endpoints) == 0 && !d.Dynamic:
		return s + name + " has no endpoints"
	case d.flag() == "UH":
		return s + fmt.Sprintf("none of the %d endpoints of %s is ready", len(d.Endpoints), name)
	case !d.works() && !d.Ways[0].alike(d.Ways):
		return s + "all endpoints of " + name + " refuse: " + d.trouble()
	case !d.works() && d.Inbound.closes():
		return s + "the proxy of " + name + " closes the connection: " + d.Inbound.why()
	case !d.works():
		return s + name + " refuses: " + d.Inbound.why()
	case d.Dynamic && d.Conf != nil && d.Conf.Discovery == conf.ByHost:
		return s + "to the host that it names, which the proxy looks up"
	case d.Dynamic:
		return s + "to where the client was connecting"
	}
	s += "to " + name
	if d.named < len(d.Endpoints) {
		s += fmt.Sprintf(", %d of %d endpoints ready", d.Ready-d.named, len(d.Endpoints))
	}
	if d.named > 0 {
		s += fmt.Sprintf(", %d by names that the proxy looks up", d.named)
	}
	if n := d.used(); n < d.Ready {
		s += fmt.Sprintf(", %d used", n)
	} else if n > d.Ready {
		s += fmt.Sprintf(", %d used (too few are ready)", n)
	}
	if trouble := d.trouble(); trouble != "" {
		s += fmt.Sprintf(", allowed by %d; %s", d.lettingIn(), trouble)
	}
	return s
}

// trouble says where requests fail, which share of the destination's, and what retries make of that.
func (d *Destination) trouble() string {
	var parts []string
	for i := range d.Ways {
		if w := &d.Ways[i]; w.failure() != "" {
			parts = append(parts, fmt.Sprintf("%s %s, %s %s", percent(w.Share), w.fail(), strings.Join(w.who(), ", "), w.failure()))
		}
	}
	if text := d.AfterRetries(); text != "" {
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}

// lettingIn counts the endpoints that get requests and take them.
func (d *Destination) lettingIn() (n int) {
	for i := range d.Ways {
		if d.Ways[i].failure() == "" {
			n += d.Ways[i].Endpoints
		}
	}
	return n
}

// maxWho bounds the workloads that are named at once.
const maxWho = 5

func (w *Way) who() []string {
	if len(w.Workloads) <= maxWho {
		return w.Workloads
	}
	return append(slices.Clone(w.Workloads[:maxWho]), fmt.Sprintf("%d more", len(w.Workloads)-maxWho))
}

// failure says why requests fail on this way; empty where they do not.
func (w *Way) failure() string {
	switch {
	case w.Inbound == nil || w.Inbound.Refused == "" && w.Inbound.Verdict.Allowed:
		return ""
	case w.Inbound.closes():
		return verb("closes", "close", w) + " the connection: " + w.Inbound.why()
	}
	return verb("refuses", "refuse", w) + ": " + w.Inbound.why()
}

// fail says how final that is.
func (w *Way) fail() string {
	switch {
	case w.Retried:
		return "fail at first"
	case w.unsafe != "":
		return "fail (" + w.unsafe + " is not retried once it was sent)"
	}
	return "fail"
}

// closes reports whether the connection is closed in place of an answer, and why says for what.
func (in *Inbound) closes() bool { return in.Refused != "" || in.Relayed && !in.Verdict.Allowed }

func (in *Inbound) why() string { return cmp.Or(in.Refused, in.Verdict.text()) }

func verb(one, many string, w *Way) string {
	if len(w.Workloads) == 1 {
		return one
	}
	return many
}

// alike reports whether all ways end in the same manner.
func (w *Way) alike(all []Way) bool {
	return !slices.ContainsFunc(all, func(o Way) bool {
		return o.Inbound == nil || w.Inbound == nil || o.Inbound.closes() != w.Inbound.closes() || o.Inbound.why() != w.Inbound.why()
	})
}

// refused reports whether every request fails, however often it is tried.
func (d *Destination) refused() bool { return d.Failing > 1-1e-9 }

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
		switch ready := e.ready(); {
		case !ready && e.Share > 0, ready && share >= 0 && math.Abs(e.Share-share) > 1e-9:
			return true
		case ready:
			share = e.Share
		}
	}
	return false
}

// percent writes a share with at most one digit behind the point.
func percent(f float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(f*100, 'f', 1, 64), ".0") + "%"
}

func localityName(l *conf.Locality) string {
	return strings.TrimRight(l.Region+"/"+l.Zone+"/"+l.SubZone, "/")
}

func (d *Destination) works() bool { return d.flag() == "" && !d.refused() }

// status is the answer where it is certain that requests fail, and how; else 0.
func (d *Destination) status() int {
	if d.flag() != "" {
		return 503
	}
	if d.last != nil {
		return d.last.Status
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
	}
	if d.last != nil {
		return d.last.Flag
	}
	return ""
}

// share writes 0.5 as "50%", and what is not round in as many digits as parts per million have.
func share(f float64) string {
	s := strings.TrimRight(strings.TrimRight(strconv.FormatFloat(f*100, 'f', 4, 64), "0"), ".")
	if s == "0" && f > 0 {
		return "<0.0001%"
	}
	return s + "%"
}

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

// Failure says why requests to the destination fail; nothing where they do not, or not in the end.
func (d *Destination) Failure() string {
	switch {
	case !d.works():
		return strings.TrimPrefix(d.fate(false, true), cmp.Or(d.Service, d.Cluster)+" ")
	case d.Failing == 0:
		return ""
	}
	return d.trouble()
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
