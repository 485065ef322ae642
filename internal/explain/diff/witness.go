package diff

import (
	"net"
	"net/http"
	"net/url"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/explain/diff/words"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/grpc"
)

// condition is one thing that a rule asks of a request, with values that may fulfil it.
type condition struct {
	slot    string // "path", "query NAME", or a field's name in lower case; pseudo-headers begin with a colon
	text    string // as people read it
	test    func(value string, present bool) bool
	samples []string
	// expression is the one that the value fulfils, or does not where not is set; "" where there is none. Where it is woven, prefixes
	// and whole values do not say which values fulfil it. A pattern is one that people wrote so.
	expression          string
	not, woven, pattern bool
}

// on takes what a condition on a string has to say.
func (c *condition) on(m *conf.StringMatch, expression string) {
	c.expression = expression
	c.pattern = m.Kind == conf.Regex
	c.woven = c.pattern || m.Kind == conf.Suffix || m.Kind == conf.Contains
}

// about names a condition and its negation alike.
func (c condition) about() string { return c.slot + "\x00" + strings.TrimPrefix(c.text, negation) }

// negation is how conditions begin that are the opposite of others.
const negation = "not "

// negated is the opposite of a condition.
func (c condition) negated() condition {
	was, text := c.test, c.text
	c.test = func(v string, present bool) bool { return !was(v, present) }
	if c.text = negation + text; strings.HasPrefix(text, negation) {
		c.text = strings.TrimPrefix(text, negation)
	}
	c.not = !c.not
	if c.samples = slices.Clip(c.samples); c.slot == pathSlot {
		c.samples = append(c.samples, "/other")
	} else {
		c.samples = append(c.samples, "other")
	}
	return c
}

// rule is a set of conditions that all hold.
type rule []condition

// The slots that are not fields, and the field that makes a request one of gRPC.
const (
	pathSlot  = "path"
	querySlot = "query "
	typeSlot  = "content-type"
)

// ofMatch gives the conditions of a route.
func ofMatch(m *conf.Match) rule {
	var r rule
	if m.Path.Kind != conf.Any && (m.Path.Kind != conf.PrefixOf || m.Path.Value != "/") {
		r = append(r, ofPath(&m.Path, m.PathSeparatedPrefix))
	}
	for i := range m.Headers {
		r = append(r, ofHeader(&m.Headers[i]))
	}
	for i := range m.Query {
		r = append(r, ofQuery(&m.Query[i]))
	}
	for i := range m.Cookies {
		r = append(r, ofCookie(&m.Cookies[i]))
	}
	if m.GRPC {
		r = append(r, condition{slot: typeSlot, text: "gRPC", samples: []string{grpc.Media}, test: func(v string, _ bool) bool { return grpc.IsMedia(v) }})
	}
	return r
}

func ofPath(m *conf.StringMatch, separated bool) condition {
	c := condition{slot: pathSlot, text: value(m), samples: samples(m)}
	if m.Kind == conf.PrefixOf {
		c.samples = append(c.samples, m.Value+"x", m.Value+"/x")
	}
	if separated && m.Kind == conf.PrefixOf {
		c.text = strings.TrimSuffix(m.Value, "/") + "[/*]"
	}
	if c.on(m, words.Expression(m)); separated && m.Kind == conf.PrefixOf {
		c.expression = "^(?:" + regexp.QuoteMeta(m.Value) + "(?:/(?s:.*))?)$"
	}
	c.test = func(v string, _ bool) bool {
		v, _, _ = strings.Cut(v, "?")
		if !m.Match(v) {
			return false
		}
		n := len(m.Value)
		return !separated || m.Kind != conf.PrefixOf || len(v) == n || v[n] == '/'
	}
	return c
}

func ofHeader(h *conf.HeaderMatch) condition {
	name := strings.ToLower(h.Name)
	c := condition{slot: name, test: h.Match, samples: samples(&h.Value)}
	if name == ":path" {
		c.slot = pathSlot
	}
	label := strings.TrimPrefix(name, ":")
	switch {
	case h.Range != nil:
		c.text = label + " from " + strconv.FormatInt(h.Range.Start, 10) + " to before " + strconv.FormatInt(h.Range.End, 10)
		c.samples = []string{strconv.FormatInt(h.Range.Start, 10)}
	case h.Value.Kind == conf.Any && h.Present != h.Invert:
		c.text, c.samples = "any "+label, []string{"x"}
	case h.Value.Kind == conf.Any:
		c.text = "no " + label
	default:
		c.text = label + ": " + value(&h.Value)
		if name == ":method" || name == ":path" {
			c.text = value(&h.Value)
		}
	}
	if h.Invert && h.Value.Kind != conf.Any {
		c.text, c.samples = label+" other than "+value(&h.Value), append([]string{"other"}, c.samples...)
	}
	if h.Range == nil {
		c.on(&h.Value, words.Expression(&h.Value))
		c.not = h.Invert
	}
	return c
}

func ofQuery(q *conf.QueryMatch) condition {
	c := condition{slot: querySlot + q.Name, text: "?" + q.Name + "=" + value(&q.Value), samples: append(samples(&q.Value), "x")}
	c.on(&q.Value, words.Expression(&q.Value))
	c.test = func(v string, present bool) bool { return present && q.Value.Match(v) }
	return c
}

func ofCookie(m *conf.CookieMatch) condition {
	c := condition{slot: "cookie", text: "cookie " + m.Name + "=" + value(&m.Value), samples: []string{m.Name + "=x"}}
	if m.Invert {
		c.text = "no " + c.text
	}
	for _, s := range samples(&m.Value) {
		c.samples = append(c.samples, m.Name+"="+s)
	}
	c.test = func(v string, _ bool) bool {
		all, err := http.ParseCookie(v)
		i := slices.IndexFunc(all, func(c *http.Cookie) bool { return c.Name == m.Name })
		if err != nil || i < 0 {
			return m.Match("", false)
		}
		return m.Match(all[i].Value, true)
	}
	return c
}

// value writes what a condition on a string wants.
func value(m *conf.StringMatch) string {
	s := m.Value
	switch m.Kind {
	case conf.Any:
		return "*"
	case conf.Exact:
		if strings.Contains(s, "*") {
			s = strconv.Quote(s)
		}
	case conf.PrefixOf:
		s += "*"
	case conf.Suffix:
		s = "*" + s
	case conf.Contains:
		s = "*" + s + "*"
	case conf.Regex:
		if m.Regexp != nil && s == "" {
			s = strings.TrimSuffix(strings.TrimPrefix(m.Regexp.String(), "^(?:"), ")$")
		}
		s = plain(s)
	}
	if m.IgnoreCase {
		s += " (any case)"
	}
	return s
}

// patterns are the expressions that rate limits write for a method, or a path that may end in a star.
var patterns = strings.NewReplacer(`(?:\?.*)?`, "", `[^?]*`, "*", "(?:", "", ")", "", `\`, "")

// plain writes an expression, as the simple pattern that it stands for where it does.
func plain(expression string) string {
	if inner := strings.TrimSuffix(expression, `(?:\?.*)?`); strings.HasPrefix(inner, "(?:") && strings.Count(inner, "(") == 1 {
		if s := patterns.Replace(expression); !strings.ContainsAny(s, "+[]{}^$") {
			return s
		}
	}
	return "~" + expression
}

// samples are values that fulfil a condition on a string, as far as they can be found.
func samples(m *conf.StringMatch) []string {
	switch m.Kind {
	case conf.Any:
		return nil
	case conf.Suffix:
		return []string{m.Value, "x" + m.Value}
	case conf.Contains:
		return []string{m.Value, "x" + m.Value + "x"}
	case conf.Regex:
		if s, ok := example(m); ok {
			return []string{s}
		}
		return nil
	}
	out := []string{m.Value}
	if m.Kind == conf.PrefixOf {
		out = append(out, m.Value+"x")
	}
	if m.IgnoreCase {
		out = append(out, strings.ToUpper(m.Value))
	}
	return out
}

// example gives a text that a regular expression matches.
func example(m *conf.StringMatch) (string, bool) {
	pattern := strings.TrimSuffix(strings.TrimPrefix(m.Regexp.String(), "^(?:"), ")$")
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", false
	}
	for _, more := range []int{0, 1, 2} {
		var b strings.Builder
		if spell(&b, tree.Simplify(), more); m.Match(b.String()) {
			return b.String(), true
		}
	}
	return "", false
}

// spell writes the simplest text of an expression; what may be repeated, more times.
func spell(b *strings.Builder, re *syntax.Regexp, more int) {
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		if len(re.Rune) > 0 {
			b.WriteRune(readable(re.Rune))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte('x')
	case syntax.OpCapture, syntax.OpPlus:
		spell(b, re.Sub[0], more)
	case syntax.OpStar, syntax.OpQuest:
		for range min(more, 1) {
			spell(b, re.Sub[0], more)
		}
	case syntax.OpRepeat:
		for range max(re.Min, min(more, 1)) {
			spell(b, re.Sub[0], more)
		}
	case syntax.OpConcat:
		for _, s := range re.Sub {
			spell(b, s, more)
		}
	case syntax.OpAlternate:
		spell(b, re.Sub[min(more, len(re.Sub)-1)], more)
	}
}

// readable picks a letter or digit of a class where there is one.
func readable(ranges []rune) rune {
	for _, want := range "x1aA" {
		for i := 0; i+1 < len(ranges); i += 2 {
			if ranges[i] <= want && want <= ranges[i+1] {
				return want
			}
		}
	}
	return ranges[0]
}

// asked is where requests go that are looked for, and of what kind they are unless a rule asks for another: the scheme is one of a
// question to explain.
type asked struct {
	scheme, host string
	port         uint16
	server       string // that a TLS client names there; empty for the host
	kind         string // what they are called among others that are asked for there; empty where they are all
}

// grpcScheme is that of calls.
const grpcScheme = "grpc"

func (a asked) address() string { return net.JoinHostPort(a.host, strconv.Itoa(int(a.port))) }

// filled is what a request has in a slot.
type filled struct {
	value   string
	present bool
}

// candidate is a request that stands for those that fulfil a rule.
type candidate struct {
	request explain.Request
	terms   int               // conditions that it was made of
	urgent  bool              // whether it is for what differs between the sides
	rules   []rule            // that it was made for
	values  map[string]filled // by slot, of those that the first asks for
}

// build finds a request that fulfils a rule; false where there seems to be none.
func (a asked) build(r rule, f *words.Finder) (candidate, bool) {
	c := candidate{terms: len(r), rules: []rule{r}, values: map[string]filled{}}
	bySlot := map[string]rule{}
	for _, cond := range r {
		bySlot[cond.slot] = append(bySlot[cond.slot], cond)
	}
	bySlot[pathSlot] = append(rule{}, bySlot[pathSlot]...)
	if a.scheme == grpcScheme {
		bySlot[":method"], bySlot[typeSlot] = append(rule{}, bySlot[":method"]...), append(rule{}, bySlot[typeSlot]...)
	}
	for _, slot := range sortedKeys(bySlot) {
		v, present, ok := a.fill(slot, bySlot[slot], c.values[":method"].value, f)
		if c.values[slot] = (filled{v, present}); !ok {
			return c, false
		}
	}
	c.request = a.request(c.values)
	return c, true
}

// request is one with values for slots.
func (a asked) request(values map[string]filled) explain.Request {
	req := explain.Request{Method: "GET", URL: a.scheme + "://" + a.address(), ServerName: a.server}
	path, query, media := "/", url.Values{}, ""
	for _, slot := range sortedKeys(values) {
		v := values[slot]
		switch name, isQuery := strings.CutPrefix(slot, querySlot); {
		case slot == pathSlot:
			path = v.value
		case slot == ":method":
			req.Method = v.value
		case slot == ":scheme" || !v.present:
		case slot == ":authority":
			req.Headers = append(req.Headers, explain.Field{Name: "Host", Value: v.value})
		case isQuery:
			query.Set(name, v.value)
		case slot == typeSlot && a.scheme == grpcScheme && grpc.IsMedia(v.value):
			if media = v.value; media != grpc.Media {
				req.Headers = append(req.Headers, explain.Field{Name: slot, Value: media})
			}
		default:
			req.Headers = append(req.Headers, explain.Field{Name: slot, Value: v.value})
		}
	}
	if a.scheme == grpcScheme && (media == "" || req.Method != "POST") {
		req.URL = "http://" + a.address() // a port of gRPC takes other requests, too
		if media == grpc.Media {
			req.Headers = append(req.Headers, explain.Field{Name: typeSlot, Value: media})
		}
	}
	if a.scheme != "tcp" {
		req.URL += path
		if len(query) > 0 {
			req.URL += "?" + query.Encode()
		}
	}
	return req
}

// usual are the values of a slot that requests have of which nothing is asked, the first of them before others.
func (a asked) usual(slot, method string) []filled {
	switch slot {
	case pathSlot:
		return []filled{{"/", true}}
	case ":method":
		if a.scheme == grpcScheme {
			return []filled{{"POST", true}, {"GET", true}}
		}
		return []filled{{"GET", true}, {"POST", true}}
	case typeSlot:
		if a.scheme == grpcScheme && (method == "POST" || method == "") {
			return []filled{{grpc.Media, true}, {}}
		}
	case ":authority":
		return []filled{{a.address(), true}, {a.host, true}}
	case ":scheme":
		return []filled{{a.scheme, true}}
	}
	return []filled{{}}
}

// fill finds a value for a slot with which all of its conditions hold, in a request of a method.
func (a asked) fill(slot string, conds rule, method string, f *words.Finder) (v string, present, ok bool) {
	options := a.usual(slot, method)
	if slot != ":scheme" {
		for _, c := range conds {
			for _, s := range c.samples {
				if slot != pathSlot || strings.HasPrefix(s, "/") {
					options = append(options, filled{s, true})
				}
			}
		}
	}
	holds := func(v string, present bool) bool {
		return !slices.ContainsFunc(conds, func(c condition) bool { return !c.test(v, present) })
	}
	for _, o := range options {
		if holds(o.value, o.present) {
			return o.value, o.present, true
		}
	}
	if v, ok = weave(f, slot, conds); ok && holds(v, true) {
		return v, true, true
	}
	return "", false, false
}

// weave searches a value for conditions that no sample of one of them fulfils.
func weave(f *words.Finder, slot string, conds rule) (string, bool) {
	if slot == ":scheme" || !slices.ContainsFunc(conds, func(c condition) bool { return c.woven }) {
		return "", false
	}
	fulfil, not := []string{written(slot)}, []string(nil)
	for _, c := range conds {
		switch {
		case c.expression == "":
		case c.not:
			not = append(not, c.expression)
		default:
			fulfil = append(fulfil, c.expression)
		}
	}
	return f.Text(fulfil, not)
}

// describe writes conditions: the method, the path, then the rest.
func describe(r rule) string {
	var method, path, rest []string
	for _, c := range r {
		switch {
		case c.slot == pathSlot:
			path = appendNew(path, c.text)
		case c.slot == ":method":
			method = appendNew(method, c.text)
		default:
			rest = appendNew(rest, c.text)
		}
	}
	if len(path) == 0 {
		path = []string{"/*"}
	}
	opposites := func(a, b string) int { return before(!strings.HasPrefix(a, negation), !strings.HasPrefix(b, negation)) }
	slices.SortStableFunc(path, opposites)
	slices.SortStableFunc(method, opposites)
	slices.SortStableFunc(rest, opposites)
	s := strings.Join(path, " and ")
	if len(method) > 0 {
		s = strings.Join(method, " and ") + " " + s
	}
	if len(rest) > 0 {
		s += "  with " + strings.Join(rest, ", ")
	}
	return s
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// near gives rules for requests that miss a condition narrowly: other values of a field, paths just beside a prefix.
func (c condition) near() (out []rule) {
	switch {
	case c.slot == pathSlot:
		for _, s := range c.samples {
			for _, v := range []string{s, s + "x", s + "/x", strings.TrimSuffix(s, "/")} {
				if strings.HasPrefix(v, "/") {
					out = append(out, rule{literal(pathSlot, v, v)})
				}
			}
		}
	case c.slot == ":scheme":
	case c.slot == ":method":
		out = append(out, rule{literal(c.slot, "PUT", "PUT")})
	default:
		name := strings.TrimPrefix(strings.TrimPrefix(c.slot, querySlot), ":")
		out = append(out, rule{literal(c.slot, "another-value", name+": (another value)")})
	}
	return out
}

func literal(slot, v, text string) condition {
	return condition{slot: slot, text: text, samples: []string{v}, test: func(got string, present bool) bool { return present && got == v }}
}

// written are the values that a slot of a request may have, as far as it takes to find one.
func written(slot string) string {
	switch {
	case slot == pathSlot:
		return `^/[-!$&-.0-;=@-Z_a-z~/]*$`
	case slot == ":method":
		return `^[A-Za-z][A-Za-z-]*$`
	case slot == ":authority":
		return `^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]+)?$`
	case strings.HasPrefix(slot, querySlot):
		return `^[ -~]*$`
	}
	return `^[!-~]([ -~]*[!-~])?$`
}
