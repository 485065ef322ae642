package diff

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// effect is what becomes of a request: where it goes, and what else is to be said of that, as name and text.
type effect struct {
	route  string // that decided
	result string
	facets [][2]string
	// forwarded requests reach what is in reached, which tells them apart: a subset that holds all instances is the service.
	forwarded bool
	reached   string
	redirect  string // what the route says of where to; empty for others
}

// key tells effects apart.
func (e effect) key() string {
	if e.forwarded {
		return e.reached + "\x00" + fmt.Sprint(e.facets)
	}
	return e.result + "\x00" + fmt.Sprint(e.facets)
}

// form tells apart what becomes of requests whose paths differ: a redirect leads each to another place.
func (e effect) form() string {
	if e.redirect != "" {
		return e.redirect + "\x00" + fmt.Sprint(e.facets)
	}
	return e.key()
}

// say adds to what was said under the name.
func (e *effect) say(name, text string) {
	for i := range e.facets {
		if e.facets[i][0] == name {
			e.facets[i][1] += "; " + text
			return
		}
	}
	e.facets = append(e.facets, [2]string{name, text})
}

func (e *effect) get(name string) string {
	for _, f := range e.facets {
		if f[0] == name {
			return f[1]
		}
	}
	return ""
}

// contrast writes two effects: the results, and what else differs between them.
func contrast(before, after effect) (b, a string) {
	var bs, as []string
	seen := map[string]bool{}
	for _, f := range append(slices.Clip(before.facets), after.facets...) {
		name := f[0]
		vb, va := before.get(name), after.get(name)
		if seen[name] || vb == va || name == instancesFacet && before.result != after.result || before.forwarded != after.forwarded && f[0] != "limit" && f[0] != "TLS" {
			continue
		}
		seen[name] = true
		bs, as = append(bs, facet(name, vb)), append(as, facet(name, va))
	}
	join := func(result string, list []string) string {
		list = slices.DeleteFunc(list, func(s string) bool { return s == "" })
		return strings.Join(append([]string{result}, list...), "   ")
	}
	return join(before.result, bs), join(after.result, as)
}

func facet(name, text string) string {
	switch {
	case text == "" && (name == "timeout" || name == "retries"):
		return name + " none"
	case text == "" && slices.Contains(tacit, name):
		return ""
	case text == "" && name == "hashed by":
		return "not hashed"
	case text == "":
		return "no " + strings.TrimSuffix(name, ":")
	}
	return name + " " + text
}

// tacit are the facets of which there is nothing to say where a side has none: no endpoint is known there, or all is as it is by default.
var tacit = []string{"besides:", "by", "into", "balanced by", "as", "settings:", "retry details:", instancesFacet}

const instancesFacet = "instances"

// effectOf takes from a report what clients and workloads would notice.
func effectOf(r *explain.Report, to asked) effect {
	var e effect
	if r.Route != nil {
		e.route = r.Route.Name
	}
	forwards := len(r.Destinations) > 0
	switch {
	case r.Outcome == "redirect":
		e.result = fmt.Sprintf("redirect %d to %s", r.Status, r.Location)
		if r.Route != nil && r.Route.Conf.Redirect != nil {
			e.redirect = fmt.Sprintf("%+v of %s", *r.Route.Conf.Redirect, describe(ofMatch(&r.Route.Conf.Match)))
		}
	case r.Route != nil && len(r.Route.Fault) > 0 && r.Outcome == "respond":
		e.result = "aborted with " + fmt.Sprint(r.Status)
	case r.Outcome == "respond":
		e.result = fmt.Sprintf("answered with %d by the route", r.Status)
		if c := r.Route.Conf; c.Direct != nil && len(c.Direct.Body) > 0 {
			e.say("body", fmt.Sprintf("%.60q", c.Direct.Body))
		}
	case r.Outcome == "pass through":
		e.result = "passed through: the mesh does not know it"
		if _, to, special := strings.Cut(r.Summary, "passed on to "); special {
			e.result = "passed on to " + to
		}
	case !forwards:
		e.result = refusal(r)
	default:
		e.result = destinations(r, to)
	}
	if r.Route != nil {
		e.ofRoute(r)
	}
	if r.TLS != "" {
		e.say("TLS", r.TLS)
	}
	if r.Tunnel != "" {
		e.say("tunnel", r.Tunnel)
	}
	for _, p := range r.Before {
		e.say("besides:", p.String())
	}
	for _, l := range r.Limits {
		e.say("limit", limitText(&l))
	}
	if e.forwarded = forwards && r.Outcome != "respond"; e.forwarded {
		e.ofDestinations(r, to)
		e.reached = reached(r)
	}
	return e
}

func refusal(r *explain.Report) string {
	switch {
	case r.Policy != nil && !r.Policy.Allowed:
		return "403: refused by " + orElse(explain.PolicyName(r.Policy.Policy), "the gateway's policies")
	case r.Flag == "NR" && r.Status == 404:
		return "404: no route"
	case r.Status == 0:
		if _, why, hidden := strings.Cut(r.Summary, " does not resolve for this workload: "); hidden {
			return "the name does not resolve: " + why
		}
		return "connection closed: " + r.Summary
	}
	return fmt.Sprintf("%d: %s", r.Status, r.Summary)
}

func (e *effect) ofRoute(r *explain.Report) {
	rt := r.Route
	optional := func(name, text string) {
		if text != "" && text != "none" {
			e.say(name, text)
		}
	}
	optional("timeout", rt.Timeout)
	optional("retries", rt.Retries)
	if r.Outcome != "respond" || len(rt.Fault) == 0 {
		optional("fault", strings.Join(rt.Fault, ", "))
	} else if len(rt.Fault) > 1 {
		optional("fault", rt.Fault[0])
	}
	optional("changes:", strings.Join(rt.Changes, ", "))
	var mirrors []string
	if f := rt.Conf.Forward; f != nil {
		for _, m := range f.Mirrors {
			mirrors = append(mirrors, percent(float64(m.Fraction)/1e6)+" to "+clusterName(m.Cluster))
		}
		optional("retry details:", retryDetails(f.Retry))
		optional("hashed by", hashes(f.Hash))
	}
	optional("mirror", strings.Join(mirrors, ", "))
	optional("cross-origin", cross(rt.Conf.CORS))
}

func retryDetails(r *conf.Retry) string {
	if r == nil || r.Attempts == 0 {
		return ""
	}
	var out []string
	if r.BackOff > 0 {
		out = append(out, "back-off "+r.BackOff.String())
	}
	if r.OtherLocalities {
		out = append(out, "other localities")
	}
	if !r.OtherHosts {
		out = append(out, "the same hosts")
	}
	return strings.Join(out, ", ")
}

func hashes(list []conf.HashPolicy) string {
	var out []string
	for _, h := range list {
		switch {
		case h.Header != "":
			out = append(out, "header "+h.Header)
		case h.Query != "":
			out = append(out, "query "+h.Query)
		case h.Cookie != "":
			out = append(out, "cookie "+h.Cookie)
		default:
			out = append(out, "client address")
		}
	}
	return strings.Join(out, ", ")
}

func cross(c *conf.CORS) string {
	if c == nil {
		return ""
	}
	var origins []string
	for i := range c.Origins {
		origins = append(origins, value(&c.Origins[i]))
	}
	parts := []string{"for " + orElse(strings.Join(origins, ", "), "nobody")}
	for _, p := range [][2]string{{"methods ", c.Methods}, {"headers ", c.Headers}, {"exposing ", c.Expose}, {"kept for seconds: ", c.MaxAge}} {
		if p[1] != "" {
			parts = append(parts, p[0]+p[1])
		}
	}
	for _, p := range []struct {
		holds bool
		text  string
	}{{c.Credentials, "with credentials"}, {c.PrivateNetwork, "into private networks"}, {c.AnswerUnmatched, "preflights of others answered"},
		{c.Fraction != 1e6, "for " + percent(float64(c.Fraction)/1e6)}} {
		if p.holds {
			parts = append(parts, p.text)
		}
	}
	return strings.Join(parts, "; ")
}

// destinations writes where requests go: subsets where they are of the host that was asked for, else services.
func destinations(r *explain.Report, to asked) string {
	var parts []string
	for i := range r.Destinations {
		d := &r.Destinations[i]
		if d.Share == 0 {
			continue
		}
		parts = append(parts, nameOf(d, to)+" "+percent(d.Share)+fate(d))
	}
	return strings.Join(parts, ", ")
}

func nameOf(d *explain.Destination, to asked) string {
	name := clusterName(d.Cluster)
	if d.Service == to.host {
		if name = d.Subset; name == "" {
			name = strings.SplitN(d.Service, ".", 2)[0]
		}
	}
	if d.Port != to.port && d.Service == to.host {
		name += fmt.Sprintf(":%d", d.Port)
	}
	return name
}

// clusterName writes a cluster as people know it: "reviews.default/v2".
func clusterName(cluster string) string {
	_, port, subset, host, ok := wire.ParseCluster(cluster)
	if !ok {
		return cluster
	}
	name, rest, _ := strings.Cut(host, ".svc.")
	if rest == "" {
		name = host
	}
	if subset != "" {
		return name + "/" + subset
	}
	return fmt.Sprintf("%s:%d", name, port)
}

// fate says why requests to a destination fail; nothing where they do not.
func fate(d *explain.Destination) string {
	switch {
	case d.Missing:
		return " (503: " + d.Absence() + ")"
	case d.Dynamic:
		return ""
	case d.Conf != nil && d.Conf.Refused != "":
		return " (503: not connected to: " + d.Conf.Refused + ")"
	case len(d.Endpoints) == 0:
		return " (503: no endpoints)"
	case d.Ready == 0:
		return " (503: no endpoint is ready)"
	}
	var bad []string
	for i := range d.Ways {
		w := &d.Ways[i]
		if w.Inbound == nil {
			continue
		}
		why := denial(w.Inbound)
		switch {
		case why == "":
			continue
		case len(d.Ways) > 1:
			why = strings.Join(w.Workloads[:min(len(w.Workloads), maxNames)], ", ") + " " + why
		}
		bad = append(bad, why)
	}
	if whys := denials(d.Ways); len(whys) == 1 && whys[0] != "" {
		bad = whys
	}
	if len(bad) == 0 {
		return ""
	}
	slices.Sort(bad)
	if text := d.AfterRetries(); text != "" {
		bad = append(bad, text)
	}
	return " (" + strings.Join(bad, "; ") + ")"
}

// denials are the reasons for which endpoints refuse, each once; empty for those that do not.
func denials(ways []explain.Way) (whys []string) {
	for i := range ways {
		why := ""
		if in := ways[i].Inbound; in != nil {
			why = denial(in)
		}
		whys = appendNew(whys, why)
	}
	return whys
}

func denial(in *explain.Inbound) string {
	switch {
	case in.Refused != "":
		return "closes the connection: " + in.Refused
	case in.Verdict.Allowed:
		return ""
	}
	how, why := "403: ", "no ALLOW policy lets it in"
	if in.Relayed {
		how = "closes the connection: "
	}
	if in.Verdict.Policy != "" {
		why = "refused by " + explain.PolicyName(in.Verdict.Policy)
	}
	return how + why
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// directEffect is what a workload's own proxy makes of a request in plaintext.
func directEffect(in *explain.Inbound) effect {
	e := effect{result: "let in"}
	if in == nil {
		return e
	}
	if why := denial(in); why != "" {
		e.result = why
	}
	for _, l := range in.Limits {
		e.say("limit", limitText(&l))
	}
	return e
}

// ofDestinations says how destinations are reached; where all are reached alike it says so once.
func (e *effect) ofDestinations(r *explain.Report, to asked) {
	each := func(name string, text func(*explain.Destination) string) {
		var all []string
		var parts []string
		for i := range r.Destinations {
			d := &r.Destinations[i]
			if d.Share == 0 || d.Missing {
				continue
			}
			t := text(d)
			all = append(all, t)
			if t != "" {
				parts = append(parts, nameOf(d, to)+": "+t)
			}
		}
		switch same := slices.Compact(slices.Clone(all)); {
		case len(same) == 1 && same[0] != "":
			e.say(name, same[0])
		case len(same) > 1:
			e.say(name, strings.Join(parts, "; "))
		}
	}
	each("by", transport)
	each("into", ports)
	each("balanced by", func(d *explain.Destination) string { return d.Policy })
	each("as", func(d *explain.Destination) string { return d.HTTP })
	each("changes there:", func(d *explain.Destination) string { return strings.Join(d.Changes, ", ") })
	each("settings:", func(d *explain.Destination) string { return settings(d.Conf) })
	each("limit there", limits)
	each(instancesFacet, instances)
}

// transport leaves out the identities that are expected, unless they are not those that answer.
func transport(d *explain.Destination) string {
	var texts []string
	shares := map[string]float64{}
	for i := range d.Ways {
		w := &d.Ways[i]
		how := w.Transport
		if bare, _, _ := strings.Cut(w.Transport, ", expecting "); w.MTLS && w.Inbound != nil {
			how = bare
			if id := w.Inbound.Party.Identity; !strings.Contains(w.Transport, id) && !strings.HasSuffix(w.Transport, "any identity of the mesh") {
				how = w.Transport + " (it is " + id + ")"
			}
		}
		texts = appendNew(texts, how)
		shares[how] += w.Share
	}
	if len(texts) == 1 {
		return texts[0]
	}
	slices.Sort(texts)
	for i, t := range texts {
		texts[i] = fmt.Sprintf("%.0f%% %s", shares[t]*100, t)
	}
	return orElse(strings.Join(texts, "; "), d.Transport)
}

// ports are those of the instances, and where their proxies take requests if that is another.
func ports(d *explain.Destination) string {
	var out []string
	for i := range d.Ways {
		if in := d.Ways[i].Inbound; in != nil {
			out = appendNew(out, orElse(in.To, fmt.Sprint("port ", in.Port)))
		}
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// reached gives the share of each workload, or of a destination where no endpoint is known, and what becomes of it there.
func reached(r *explain.Report) string {
	shares := map[string]float64{}
	for i := range r.Destinations {
		d := &r.Destinations[i]
		if len(d.Endpoints) == 0 || d.Ready == 0 {
			shares[d.Cluster+fate(d)] += d.Share
		}
		_, port, _, _, _ := wire.ParseCluster(d.Cluster)
		for _, ep := range d.Endpoints {
			shares[fmt.Sprint(orElse(ep.Workload, ep.Address), " of ", d.Service, port, fate(d))] += d.Share * ep.Share
		}
	}
	var out []string
	for _, name := range sortedKeys(shares) {
		if shares[name] > 0 {
			out = append(out, fmt.Sprintf("%s %.2f%%", name, shares[name]*100))
		}
	}
	return strings.Join(out, ", ")
}

func limits(d *explain.Destination) string {
	var out []string
	for i := range d.Ways {
		if d.Ways[i].Inbound == nil {
			continue
		}
		for _, l := range d.Ways[i].Inbound.Limits {
			out = appendNew(out, limitText(&l))
		}
	}
	return strings.Join(out, "; ")
}

func limitText(l *explain.Limit) string {
	s := l.Text
	for i, f := range l.Each {
		s += map[bool]string{true: ", for each ", false: " and "}[i == 0] + f.Name
	}
	if l.DryRun {
		s += " (dry run)"
	}
	return s
}

// instances gives the share of each workload.
func instances(d *explain.Destination) string {
	shares := map[string]float64{}
	for _, ep := range d.Endpoints {
		shares[orElse(ep.Workload, ep.Address)] += ep.Share
	}
	if len(shares) > 20 {
		return fmt.Sprintf("of %d workloads", len(shares))
	}
	var out []string
	for _, name := range sortedKeys(shares) {
		if shares[name] > 0 {
			out = append(out, fmt.Sprintf("%s %.0f%%", name, shares[name]*100))
		}
	}
	return strings.Join(out, ", ")
}

// settings are those of a cluster that requests are subject to.
func settings(c *conf.Cluster) string {
	if c == nil {
		return ""
	}
	var out []string
	number := func(name string, n uint32) {
		if n > 0 {
			out = append(out, fmt.Sprintf("%s %d", name, n))
		}
	}
	length := func(name string, d time.Duration) {
		if d != 0 {
			out = append(out, name+" "+d.String())
		}
	}
	number("connections at most", c.MaxConnections)
	number("waiting at most", c.MaxPending)
	number("requests at most", c.MaxRequests)
	number("retries at most", c.MaxRetries)
	number("requests per connection", c.MaxRequestsPerConnection)
	number("streams at most", c.HTTP2.MaxStreams)
	length("connect within", c.ConnectTimeout)
	length("idle for", c.IdleTimeout)
	length("connections live", c.MaxConnectionDuration)
	if c.RetryBudget != nil {
		out = append(out, fmt.Sprintf("retry budget %s, at least %d", percent(c.RetryBudget.Share), c.RetryBudget.Min))
	}
	if o := c.Outlier; o != nil {
		out = append(out, fmt.Sprintf("outliers: 5xx %d, gateway errors %d, local %d in a row, every %s out for %s, at most %d%%",
			o.Consecutive5xx.Count, o.ConsecutiveGatewayError.Count, o.ConsecutiveLocalOrigin.Count, o.Interval, o.BaseEjection, o.MaxEjectionPercent))
	}
	if len(c.ErrorCodes) > 0 {
		out = append(out, fmt.Sprintf("errors are %v", c.ErrorCodes))
	}
	for _, h := range c.HealthChecks {
		out = append(out, "health asked every "+h.Interval.String())
	}
	if c.SlowStart != nil {
		out = append(out, "slow start "+c.SlowStart.Window.String())
	}
	if c.KeepAlive != nil {
		out = append(out, fmt.Sprintf("keep-alive %+v", *c.KeepAlive))
	}
	return strings.Join(out, ", ")
}

// percent writes 0.5 as "50%".
func percent(f float64) string {
	return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.4f", f*100), "0"), ".") + "%"
}
