package authz_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/filter/authz"
	"github.com/weftmesh/weft/internal/proxy/message"
)

func exact(s string) *conf.StringMatch { return &conf.StringMatch{Kind: conf.Exact, Value: s} }

func prefix(s string) *netip.Prefix {
	p := netip.MustParsePrefix(s)
	return &p
}

var anything = []*conf.Rule{{Any: true}}

func policy(name string, permission, principal *conf.Rule) conf.RBACPolicy {
	return conf.RBACPolicy{Name: name, Permissions: []*conf.Rule{permission}, Principals: []*conf.Rule{principal}}
}

const reviews = "spiffe://cluster.local/ns/default/sa/reviews"

func input(method, path string) *authz.Input {
	r := &message.Request{Method: method, Path: path, Authority: "ratings:9080", Scheme: "http"}
	r.Header.Add("X-Role", "admin")
	return &authz.Input{Peer: reviews, Request: r, Source: netip.MustParseAddr("10.0.0.1"), Remote: netip.MustParseAddr("192.168.0.1"),
		Destination: netip.MustParseAddr("10.0.0.2"), Port: 9080, SNI: "outbound_.9080_._.ratings"}
}

func TestRules(t *testing.T) {
	plain := input("GET", "/")
	plain.Peer = ""
	tcp := input("GET", "/")
	tcp.Request = nil
	get := &conf.Rule{Header: &conf.HeaderMatch{Name: ":method", Value: *exact("GET")}}
	tests := []struct {
		name string
		rule *conf.Rule
		in   *authz.Input
		want bool
	}{
		{"any", &conf.Rule{Any: true}, tcp, true},
		{"nothing", &conf.Rule{}, tcp, false},
		{"principal", &conf.Rule{Principal: exact(reviews)}, tcp, true},
		{"another principal", &conf.Rule{Principal: exact(reviews + "x")}, tcp, false},
		{"principal of plaintext", &conf.Rule{Principal: &conf.StringMatch{}}, plain, false},
		{"authenticated", &conf.Rule{Authenticated: true}, tcp, true},
		{"not authenticated", &conf.Rule{Authenticated: true}, plain, false},
		{"header", &conf.Rule{Header: &conf.HeaderMatch{Name: "x-role", Value: *exact("admin")}}, plain, true},
		{"method", get, plain, true},
		{"method on TCP", get, tcp, false},
		{"path without query", &conf.Rule{Path: exact("/a")}, input("GET", "/a?b"), true},
		{"source", &conf.Rule{SourceIP: prefix("10.0.0.0/8")}, tcp, true},
		{"remote", &conf.Rule{RemoteIP: prefix("10.0.0.0/8")}, tcp, false},
		{"destination", &conf.Rule{DestinationIP: prefix("10.0.0.2/32")}, tcp, true},
		{"port", &conf.Rule{Port: 9080}, tcp, true},
		{"another port", &conf.Rule{Port: 9081}, tcp, false},
		{"server name", &conf.Rule{SNI: &conf.StringMatch{Kind: conf.Suffix, Value: "ratings"}}, tcp, true},
		{"and", &conf.Rule{And: []*conf.Rule{{Port: 9080}, {Authenticated: true}}}, plain, false},
		{"or", &conf.Rule{Or: []*conf.Rule{{Port: 9080}, {Authenticated: true}}}, plain, true},
		{"or of nothing", &conf.Rule{Or: []*conf.Rule{}}, plain, false},
		{"not", &conf.Rule{Not: &conf.Rule{Port: 9080}}, plain, false},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			set := &conf.RBAC{Policies: []conf.RBACPolicy{policy("p", c.rule, &conf.Rule{Any: true})}}
			if got := authz.Evaluate([]*conf.RBAC{set}, c.in).Allowed; got != c.want {
				t.Errorf("as permission: %v", got)
			}
			set.Policies[0] = policy("p", &conf.Rule{Any: true}, c.rule)
			if got := authz.Evaluate([]*conf.RBAC{set}, c.in).Allowed; got != c.want {
				t.Errorf("as principal: %v", got)
			}
		})
	}
}

func TestMappedAddressesMatch(t *testing.T) {
	in := input("GET", "/")
	in.Source = netip.MustParseAddr("::ffff:10.0.0.1")
	set := &conf.RBAC{Policies: []conf.RBACPolicy{policy("p", &conf.Rule{Any: true}, &conf.Rule{SourceIP: prefix("10.0.0.0/8")})}}
	if !authz.Evaluate([]*conf.RBAC{set}, in).Allowed {
		t.Error("an IPv4 client on an IPv6 socket does not match")
	}
}

func TestSets(t *testing.T) {
	all := policy("all", anything[0], anything[0])
	none := policy("none", &conf.Rule{Port: 1}, anything[0])
	set := func(a conf.Action, shadow bool, ps ...conf.RBACPolicy) *conf.RBAC {
		return &conf.RBAC{Action: a, Policies: ps, Shadow: shadow}
	}
	tests := []struct {
		name string
		sets []*conf.RBAC
		want authz.Verdict
	}{
		{"no policies", nil, authz.Verdict{Allowed: true, Rule: authz.NoPolicies}},
		{"deny matches", []*conf.RBAC{set(conf.Deny, false, none, all)}, authz.Verdict{Policy: "all", Rule: authz.DenyMatched}},
		{"deny misses", []*conf.RBAC{set(conf.Deny, false, none)}, authz.Verdict{Allowed: true, Rule: authz.NothingDenies}},
		{"allow matches", []*conf.RBAC{set(conf.Allow, false, none, all)}, authz.Verdict{Allowed: true, Policy: "all", Rule: authz.AllowMatched}},
		{"allow misses", []*conf.RBAC{set(conf.Allow, false, none)}, authz.Verdict{Rule: authz.AllowMissed}},
		{"allow of nothing", []*conf.RBAC{set(conf.Allow, false)}, authz.Verdict{Rule: authz.AllowMissed}},
		{"deny goes first", []*conf.RBAC{set(conf.Deny, false, all), set(conf.Allow, false, all)}, authz.Verdict{Policy: "all", Rule: authz.DenyMatched}},
		{"deny misses, allow matches", []*conf.RBAC{set(conf.Deny, false, none), set(conf.Allow, false, all)}, authz.Verdict{Allowed: true, Policy: "all", Rule: authz.AllowMatched}},
		{"log", []*conf.RBAC{set(conf.LogOnly, false, all), set(conf.LogOnly, false)}, authz.Verdict{Allowed: true, Rule: authz.NoPolicies}},
		{"dry run denies", []*conf.RBAC{set(conf.Deny, true, all)}, authz.Verdict{Allowed: true, Rule: authz.NoPolicies, ShadowDenied: true, ShadowPolicy: "all"}},
		{"dry run allows nothing", []*conf.RBAC{set(conf.Allow, true, none)}, authz.Verdict{Allowed: true, Rule: authz.NoPolicies, ShadowDenied: true}},
		{"dry run agrees", []*conf.RBAC{set(conf.Allow, true, all)}, authz.Verdict{Allowed: true, Rule: authz.NoPolicies}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			if got := authz.Evaluate(c.sets, input("GET", "/")); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

func TestEvaluateAllocatesNothing(t *testing.T) {
	sets := []*conf.RBAC{
		{Action: conf.Deny, Policies: []conf.RBACPolicy{policy("d", &conf.Rule{Path: exact("/admin")}, anything[0])}},
		{Policies: []conf.RBACPolicy{policy("a", &conf.Rule{And: []*conf.Rule{{Header: &conf.HeaderMatch{Name: ":method", Value: *exact("GET")}}}}, &conf.Rule{Principal: exact(reviews)})}},
	}
	in := input("GET", "/ratings/0?x")
	if n := testing.AllocsPerRun(100, func() {
		if !authz.Evaluate(sets, in).Allowed {
			t.Fatal("denied")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTraceSaysWhy(t *testing.T) {
	get := &conf.Rule{Or: []*conf.Rule{{Header: &conf.HeaderMatch{Name: ":method", Value: *exact("GET")}}, {Header: &conf.HeaderMatch{Name: ":method", Value: *exact("HEAD")}}}}
	plain := input("POST", "/a")
	plain.Peer = ""
	sets := []*conf.RBAC{
		{Action: conf.Deny, Policies: []conf.RBACPolicy{policy("deny", &conf.Rule{Path: exact("/admin")}, anything[0])}},
		{Shadow: true, Policies: []conf.RBACPolicy{policy("dry", anything[0], anything[0])}},
		{Policies: []conf.RBACPolicy{
			policy("method", &conf.Rule{And: []*conf.Rule{anything[0], get}}, anything[0]),
			policy("who", anything[0], &conf.Rule{Principal: exact(reviews)}),
			policy("not", &conf.Rule{Not: &conf.Rule{Port: 9080}}, anything[0]),
			policy("yes", anything[0], anything[0]),
		}},
	}
	want := []authz.Attempt{
		{Policy: "deny", Action: conf.Deny, Why: `path: want exact "/admin", got "/a"`},
		{Policy: "method", Why: `method: want exact "GET", got "POST"; method: want exact "HEAD", got "POST"`},
		{Policy: "who", Why: `principal: want exact "` + reviews + `", got none (no client certificate)`},
		{Policy: "not", Why: "excluded: port: want 9080"},
		{Policy: "yes", Matched: true},
	}
	if got := authz.Trace(sets, plain); !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

// TestRepeatedFields: a field that occurs twice evades no denial and earns no permission, whichever of its values the application
// takes.
func TestRepeatedFields(t *testing.T) {
	role := func(invert bool) *conf.Rule {
		return &conf.Rule{Header: &conf.HeaderMatch{Name: "x-role", Value: *exact("admin"), Invert: invert}}
	}
	for _, c := range []struct {
		name   string
		rule   *conf.Rule
		values []string
		denied bool // by a DENY
		passes bool // an ALLOW
	}{
		{"one", role(false), []string{"admin"}, true, true},
		{"another", role(false), []string{"user"}, false, false},
		{"two, the first", role(false), []string{"admin", "user"}, true, false},
		{"two, the second", role(false), []string{"user", "admin"}, true, false},
		{"two, neither", role(false), []string{"user", "guest"}, false, false},
		{"not, of one", &conf.Rule{Not: role(false)}, []string{"user"}, true, true},
		{"not, of two", &conf.Rule{Not: role(false)}, []string{"user", "admin"}, true, false},
		{"not, of two alike", &conf.Rule{Not: role(false)}, []string{"admin"}, false, false},
		{"inverted, of one", role(true), []string{"user"}, true, true},
		{"inverted, of two", role(true), []string{"user", "admin"}, true, false},
		{"inverted, of the same", role(true), []string{"admin"}, false, false},
		{"not inverted, of two", &conf.Rule{Not: role(true)}, []string{"user", "admin"}, true, false},
		{"absent", role(false), nil, false, false},
	} {
		in := input("GET", "/")
		in.Request.Header.Del("X-Role")
		for _, v := range c.values {
			in.Request.Header.Add("X-Role", v)
		}
		for _, action := range []conf.Action{conf.Deny, conf.Allow} {
			set := &conf.RBAC{Action: action, Policies: []conf.RBACPolicy{policy("p", c.rule, anything[0])}}
			want := c.passes
			if action == conf.Deny {
				want = !c.denied
			}
			if v := authz.Evaluate([]*conf.RBAC{set}, in); v.Allowed != want {
				t.Errorf("%s: allowed %v, want %v (action %v)", c.name, v.Allowed, want, action)
			}
		}
	}
}
