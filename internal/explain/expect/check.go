package expect

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/weftmesh/weft/internal/explain"
)

// none is how the absence of something is expected.
const none = "none"

// expect reads the expectations of a test.
func (p *parser) expect(n *yaml.Node, at string) (out []check) {
	add := func(read func(*yaml.Node, string) (string, func(*explain.Report) (string, bool))) func(*yaml.Node, string) {
		return func(n *yaml.Node, at string) {
			if want, got := read(n, at); got != nil {
				out = append(out, check{at[strings.LastIndex(at, ".expect.")+len(".expect."):], want, n.Line, got})
			}
		}
	}
	text := func(get func(*explain.Report) string) func(*yaml.Node, string) {
		return add(func(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
			want := p.text(n, at)
			return want, func(r *explain.Report) (string, bool) { got := get(r); return got, got == want }
		})
	}
	truth := func(get func(*explain.Report) (bool, string)) func(*yaml.Node, string) {
		return add(func(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
			want := p.boolean(n, at)
			return strconv.FormatBool(want), func(r *explain.Report) (string, bool) {
				got, why := get(r)
				return strings.TrimSpace(strconv.FormatBool(got) + " " + why), got == want
			}
		})
	}
	p.fields(n, at, map[string]func(*yaml.Node, string){
		"outcome":  add(p.outcome),
		"to":       add(p.to),
		"status":   add(p.status),
		"timeout":  add(p.timeout),
		"retries":  add(p.retries),
		"fault":    add(p.fault),
		"mirror":   add(p.mirror),
		"limits":   add(p.limits),
		"route":    add(p.route),
		"policy":   add(p.policy),
		"reason":   add(p.reason),
		"flag":     text(func(r *explain.Report) string { return orNone(r.Flag) }),
		"location": text(func(r *explain.Report) string { return orNone(r.Location) }),
		"path":     text(sentPath),
		"authority": text(func(r *explain.Report) string {
			if s := sent(r); s != nil {
				return s.Authority
			}
			return none
		}),
		"allowed": truth(allowed),
		"mtls":    truth(mutual),
		"headers": func(n *yaml.Node, at string) { out = append(out, p.headers(n, at, requestField)...) },
		"responseHeaders": func(n *yaml.Node, at string) {
			out = append(out, p.headers(n, at, responseField)...)
		},
	})
	return out
}

func orNone(s string) string {
	if s == "" {
		return none
	}
	return s
}

var outcomes = []string{"forward", "redirect", "respond", "refuse", "pass through"}

func (p *parser) outcome(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	want := p.text(n, at)
	if !slices.Contains(outcomes, want) {
		p.fail(n, at, "want one of %s", strings.Join(outcomes, ", "))
	}
	return want, func(r *explain.Report) (string, bool) { return r.Outcome + ": " + r.Summary, r.Outcome == want }
}

func (p *parser) status(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	want, err := strconv.Atoi(p.text(n, at))
	if err != nil || want < 100 || want > 599 {
		p.fail(n, at, "want a status from 100 to 599, of an answer that a proxy gives")
	}
	return strconv.Itoa(want), func(r *explain.Report) (string, bool) {
		if r.Status == 0 {
			return "whatever " + orElse(reachedNames(r), "the other side") + " answers", false
		}
		return fmt.Sprintf("%d: %s", r.Status, r.Summary), r.Status == want
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// wanted is a destination that requests should go to, with a share; a negative one is any.
type wanted struct {
	name, service, subset string
	port                  uint16
	share                 float64
}

// destination reads "reviews", "reviews.default/v2", "reviews:9080".
func (p *parser) destination(n *yaml.Node, at, name string) wanted {
	w := wanted{name: name, share: -1}
	service, subset, _ := strings.Cut(name, "/")
	service, port, hasPort := strings.Cut(service, ":")
	if hasPort {
		number, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			p.fail(n, at, "%q: want SERVICE, SERVICE/SUBSET or SERVICE:PORT", name)
		}
		w.port = uint16(number)
	}
	if w.service, w.subset = strings.ToLower(service), subset; service == "" {
		p.fail(n, at, "names no service")
	}
	return w
}

// is reports whether a cluster is the one that is wanted; a name stands for the hosts that begin with it.
func (w *wanted) is(service, subset string, port uint16) bool {
	return (service == w.service || strings.HasPrefix(service, w.service+".")) && (w.subset == "" || subset == w.subset) && (w.port == 0 || w.port == port)
}

func (p *parser) share(n *yaml.Node, at string) float64 {
	if n.ShortTag() == "!!null" {
		return -1
	}
	f, err := strconv.ParseFloat(strings.TrimSuffix(p.text(n, at), "%"), 64)
	if err != nil || f < 0 || f > 100 {
		p.fail(n, at, "want a share such as 90%%")
	}
	return f / 100
}

// split reads a destination, or several: with their shares, or a list of those that get some.
func (p *parser) split(n *yaml.Node, at string) (list []wanted, text string) {
	if n.Kind == yaml.ScalarNode {
		w := p.destination(n, at, p.text(n, at))
		w.share = 1
		return []wanted{w}, w.name
	}
	var parts []string
	if n.Kind == yaml.SequenceNode {
		for i, item := range n.Content {
			w := p.destination(item, at, p.text(item, index(at, i)))
			if len(n.Content) == 1 {
				w.share = 1
			}
			list, parts = append(list, w), append(parts, w.name)
		}
		if len(list) == 0 {
			p.fail(n, at, "names no service")
		}
		return list, strings.Join(parts, ", ")
	}
	for _, kv := range p.pairs(n, at) {
		w := p.destination(kv[0], at, kv[0].Value)
		w.share = p.share(kv[1], under(at, kv[0].Value))
		list = append(list, w)
		if parts = append(parts, w.name); w.share >= 0 {
			parts[len(parts)-1] += " " + percent(w.share)
		}
	}
	return list, strings.Join(parts, ", ")
}

func percent(f float64) string {
	return strconv.FormatFloat(math.Round(f*1e6)/1e4, 'f', -1, 64) + "%"
}

func (p *parser) to(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	list, text := p.split(n, at)
	return text, func(r *explain.Report) (string, bool) {
		got := reached(r)
		if r.Outcome != "forward" || slices.ContainsFunc(got, func(g part) bool { return g.why != "" }) {
			if len(got) == 0 {
				return r.Outcome + ": " + r.Summary, false
			}
			return write(got), false
		}
		return write(got), fits(list, got)
	}
}

// part is a destination that requests go to.
type part struct {
	service, subset string
	port            uint16
	share           float64
	why             string // they fail
}

func reached(r *explain.Report) (out []part) {
	for i := range r.Destinations {
		d := &r.Destinations[i]
		if d.Share > 0 {
			out = append(out, part{orElse(d.Service, d.Cluster), d.Subset, d.Port, d.Share, d.Failure()})
		}
	}
	return out
}

func reachedNames(r *explain.Report) string { return write(reached(r)) }

// write names parts as a file of tests may.
func write(list []part) string {
	var out []string
	for _, g := range list {
		name := g.service
		if short, _, ok := strings.Cut(name, ".svc."); ok {
			name = short
		}
		if g.subset != "" {
			name += "/" + g.subset
		}
		if name += " " + percent(g.share); g.why != "" {
			name += " (" + g.why + ")"
		}
		out = append(out, name)
	}
	return strings.Join(out, ", ")
}

// fits reports whether everything goes where it is wanted, in the shares that are wanted.
func fits(list []wanted, got []part) bool {
	sums := make([]float64, len(list))
	for _, g := range got {
		i := slices.IndexFunc(list, func(w wanted) bool { return w.is(g.service, g.subset, g.port) })
		if i < 0 {
			return false
		}
		sums[i] += g.share
	}
	for i, w := range list {
		if w.share >= 0 && math.Abs(sums[i]-w.share) > 0.0005 || w.share < 0 && sums[i] == 0 {
			return false
		}
	}
	return true
}

func (p *parser) timeout(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	want := p.duration(n, at)
	return want, func(r *explain.Report) (string, bool) {
		got := none
		if r.Route != nil {
			got = orNone(r.Route.Timeout)
		}
		return got, got == want
	}
}

// duration reads a duration, or none, and writes it as reports do.
func (p *parser) duration(n *yaml.Node, at string) string {
	s := p.text(n, at)
	if s == none {
		return none
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		p.fail(n, at, "want a duration such as 3s, or none")
	}
	return d.String()
}

func (p *parser) retries(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	want := p.text(n, at)
	if want == "0" {
		want = none
	}
	if _, err := strconv.ParseUint(want, 10, 32); err != nil && want != none {
		p.fail(n, at, "want how often a request is tried again, or none")
	}
	return want, func(r *explain.Report) (string, bool) {
		if r.Route == nil || r.Route.Retries == "" || r.Route.Retries == none {
			return none, want == none
		}
		number, _, _ := strings.Cut(r.Route.Retries, " ")
		return r.Route.Retries, number == want
	}
}

func (p *parser) mirror(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	var list []wanted
	text := none
	if n.Value != none {
		list, text = p.split(n, at)
	}
	return text, func(r *explain.Report) (string, bool) {
		got := mirrors(r)
		if len(got) == 0 {
			return none, text == none
		}
		return write(got), fits(list, got)
	}
}

func (p *parser) limits(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	var want []string
	if n.Value != none {
		for i, item := range p.list(n, at) {
			want = append(want, p.text(item, index(at, i)))
		}
	}
	slices.Sort(want)
	return orNone(strings.Join(want, ", ")), func(r *explain.Report) (string, bool) {
		var got []string
		for _, l := range limitsOf(r) {
			name := strings.TrimPrefix(l.Object, "RateLimit/")
			if name == "" {
				name = l.Text
			} else if l.Rule != "" {
				name += "/" + l.Rule
			}
			got = append(got, name)
		}
		slices.Sort(got)
		got = slices.Compact(got)
		return orNone(strings.Join(got, ", ")), slices.EqualFunc(want, got, func(w, g string) bool { return g == w || strings.HasPrefix(g, w+"/") || strings.HasSuffix(g, "/"+w) })
	}
}

func (p *parser) route(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	want := p.text(n, at)
	return want, func(r *explain.Report) (string, bool) {
		if r.Route == nil {
			return "no route", want == none
		}
		got := strings.TrimSpace(r.Route.Object + " " + r.Route.Field)
		return fmt.Sprintf("%s (%s)", r.Route.Name, orElse(got, "made by the mesh")), want == r.Route.Name || want == r.Route.Object || want == got
	}
}

func (p *parser) policy(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	want := p.text(n, at)
	return want, func(r *explain.Report) (string, bool) {
		got := policies(r)
		if len(got) == 0 {
			return none, want == none
		}
		return strings.Join(got, ", "), slices.ContainsFunc(got, func(g string) bool { return g == want || strings.HasSuffix(g, "/"+want) })
	}
}

func (p *parser) reason(n *yaml.Node, at string) (string, func(*explain.Report) (string, bool)) {
	want := p.text(n, at)
	return "a summary with " + strconv.Quote(want), func(r *explain.Report) (string, bool) { return r.Summary, strings.Contains(r.Summary, want) }
}

// headers reads fields with their values; null stands for a field that is not there.
func (p *parser) headers(n *yaml.Node, at string, get func(*explain.Report, string) (string, bool)) (out []check) {
	for _, kv := range p.pairs(n, at) {
		name := kv[0].Value
		field := under(at[strings.LastIndex(at, ".expect.")+len(".expect."):], name)
		absent := kv[1].ShortTag() == "!!null"
		want := "absent"
		if !absent {
			want = strconv.Quote(p.text(kv[1], under(at, name)))
		}
		out = append(out, check{field, want, kv[0].Line, func(r *explain.Report) (string, bool) {
			v, there := get(r, name)
			if !there {
				return "absent", absent
			}
			return strconv.Quote(v), !absent && strconv.Quote(v) == want
		}})
	}
	return out
}
