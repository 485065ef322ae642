package consul

import (
	"fmt"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

// TestOddInstances: an instance that differs from the others does not decide for them, and is named.
func TestOddInstances(t *testing.T) {
	s, err := New(Options{Address: "http://127.0.0.1:1", Check: compile.Check})
	if err != nil {
		t.Fatal(err)
	}
	// in gives instances, written as ID ADDRESS PORT PROTOCOL, with - for none; an exclamation mark says that one is critical.
	in := func(text string) (all []instance) {
		for line := range strings.SplitSeq(text, ", ") {
			var i instance
			var protocol string
			i.Node.Node, i.Node.Datacenter = "n", "dc1"
			if _, err := fmt.Sscan(strings.TrimSuffix(line, "!"), &i.Service.ID, &i.Service.Address, &i.Service.Port, &protocol); err != nil {
				t.Fatal(line, err)
			}
			if protocol != "-" {
				i.Service.Meta = map[string]string{"protocol": protocol}
			}
			if strings.HasSuffix(line, "!") {
				i.Checks = append(i.Checks, struct{ Status string }{critical})
			}
			all = append(all, i)
		}
		return all
	}
	for _, test := range []struct{ instances, want, told string }{
		{"a 10.0.0.1 80 http, b 10.0.0.2 80 http", "STATIC 80 HTTP 10.0.0.1 10.0.0.2", ""},
		{"a 10.0.0.1 80 http, b 10.0.0.2 80 -", "STATIC 80 HTTP 10.0.0.1 10.0.0.2", ""},
		{"a 10.0.0.1 80 http!, b 10.0.0.2 81 grpc", "STATIC 81 GRPC 10.0.0.2", "InstancesDisagree protocol: GRPC is taken|a on node n (HTTP)"},
		{"a 10.0.0.1 80 http, b 10.0.0.2 80 grpc, c 10.0.0.3 80 grpc", "STATIC 80 GRPC 10.0.0.1 10.0.0.2 10.0.0.3",
			"InstancesDisagree protocol: GRPC is taken|a on node n (HTTP)"},
		{"a 10.0.0.1 80 http!, b 10.0.0.2 80 grpc!", "STATIC 80 GRPC", "InstancesDisagree protocol: GRPC is taken|a on node n (HTTP)"},
		{"a 10.0.0.1 79 -, b 10.0.0.2 80 -, c 10.0.0.3 80 -", "STATIC 80  10.0.0.1 10.0.0.2 10.0.0.3", "InstancesDisagree port: 80 is taken|a on node n (79)"},
		{"a 10.0.0.1 79 -, b 10.0.0.2 80 -, c 10.0.0.3 81 -", "STATIC 79  10.0.0.1 10.0.0.2 10.0.0.3", ""},
		{"a 10.0.0.1 80 -, b 10.0.0.2 80 -, c host.name.example 80 -", "STATIC 80  10.0.0.1 10.0.0.2", "InstanceWithHostName c on node n (address host.name.example)"},
		{"a 10.0.0.1 80 -, b one.example 80 -, c two.example 80 -", "DNS 80  10.0.0.1 one.example two.example", ""},
		{"a 10.0.0.1 80 -, b what? 80 -", "STATIC 80  10.0.0.1", "InstanceWithoutAddress b on node n (address \"what?\")"},
		{"a 10.0.0.1 80 -, b 010.0.0.2 80 -", "STATIC 80  10.0.0.1", "InstanceWithoutAddress b on node n (address \"010.0.0.2\")"},
		{"a 10.0.0.1 80 -, b 2130706433 80 -", "STATIC 80  10.0.0.1", "InstanceWithoutAddress b on node n (address \"2130706433\")"},
		{"a 10.0.0.1 80 -, b 0.0.0.0 80 -", "STATIC 80  10.0.0.1", "InstanceWithoutAddress b on node n (address \"0.0.0.0\")"},
		{"a fd00::1 80 -, b :: 80 -", "STATIC 80  fd00::1", "InstanceWithoutAddress b on node n (address \"::\")"},
		{"a 10.0.0.1 80 -, b 224.0.0.1 80 -", "STATIC 80  10.0.0.1", "InstanceWithoutAddress b on node n (address \"224.0.0.1\")"},
		{"a 10.0.0.1 80 -, b 1.2.3.a4 80 -, c 5.b 80 -", "DNS 80  1.2.3.a4 10.0.0.1 5.b", ""},
		{"a 10.0.0.1 80 htttp", "STATIC 80  10.0.0.1", "UnknownProtocol does not count|a on node n (\"htttp\")"},
		{"a 10.0.0.1 80 http, b 10.0.0.2 80 udp", "STATIC 80 HTTP 10.0.0.1 10.0.0.2", "UnknownProtocol does not count|b on node n (\"udp\")"},
		{"a 10.0.0.1 80 -, b 10.0.0.2 0 http", "STATIC 80  10.0.0.1", "InstanceWithoutPort b on node n (port 0)"},
	} {
		kept, findings := s.callable("web", in(test.instances))
		a, _ := s.arrival("web", kept)
		findings = append(findings, a.Findings...)
		if a.Object == nil {
			t.Errorf("%s: refused: %v", test.instances, findings)
			continue
		}
		spec := &a.Object.Kube.(*networking.ServiceEntry).Spec
		got := fmt.Sprint(spec.Resolution, " ", spec.Ports[0].Number, " ", spec.Ports[0].Protocol)
		for _, e := range spec.Endpoints {
			got += " " + e.Address
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.instances, got, test.want)
		}
		if test.told == "" {
			if len(findings) > 0 {
				t.Errorf("%s: told %v", test.instances, findings)
			}
			continue
		}
		code, words, _ := strings.Cut(test.told, " ")
		if len(findings) != 1 || findings[0].Code != code || findings[0].File != "consul:web" || findings[0].Severity != model.Warning {
			t.Errorf("%s: told %v", test.instances, findings)
			continue
		}
		what, who, _ := strings.Cut(words, "|")
		if m := findings[0].Message; !strings.Contains(m, what) || !strings.Contains(m, who) {
			t.Errorf("%s: told %s", test.instances, m)
		}
	}
}

// TestProtocols: what Check takes as the protocol of a port is what counts of the meta.
func TestProtocols(t *testing.T) {
	entry := func(protocol string) bool {
		text := `{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, namespace: default}, spec: {hosts: [a.example],` +
			`ports: [{number: 80, name: x, protocol: "` + protocol + `"}], resolution: STATIC, endpoints: [{address: 10.0.0.1}]}}`
		k := source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: "a"}
		return source.DecodeArrival(k, source.Origin{Layer: Layer}, []byte(text), compile.Check).Object != nil
	}
	for _, p := range append([]string{"UDP", "SCTP", "MONGODB", "kubernetes.io/h2c", "HTTP/1.1", "HTTP1", "GRPC_WEB", "THRIFT", "POSTGRES"}, protocols...) {
		var in instance
		in.Service.Meta = map[string]string{"protocol": strings.ToLower(p)}
		if taken := in.protocol() != ""; taken != entry(p) {
			t.Errorf("%s: counts %v, accepted %v", p, taken, entry(p))
		}
	}
}

// TestNameless: a service whose name no host can have is left out by that name, with what to do in Consul; it is told again when it is gone.
func TestNameless(t *testing.T) {
	s := start(t)
	names := []string{"*", "*.a", "a b", "UPPER_case.x/y", "a..b", "-a"}
	for i, name := range names {
		s.register(t, fmt.Sprint("odd", i), name, "1", "passing")
	}
	s.register(t, "a", "a", "1", "passing")
	l := sourcetest.Listen(t, s.place(t))
	l.Await(t, "a=1")
	awaitTold(t, l, strings.TrimSpace(strings.Repeat("InvalidName ", len(names))))
	told := map[string]model.Finding{}
	for _, f := range l.Last().Findings {
		told[f.Object.Name] = f
	}
	for _, name := range names {
		f := told[name]
		if f.File != "consul:"+name || !strings.Contains(f.Message, fmt.Sprintf("%q", name)) || !strings.Contains(f.Hint, "in Consul") || f.Severity != model.Error {
			t.Errorf("%s: got %v", name, f)
		}
		if l.Get(source.Key{Group: source.GroupNetworking, Kind: "ServiceEntry", Namespace: "default", Name: name}) != nil {
			t.Errorf("%s has a ServiceEntry", name)
		}
	}
	for i := range names {
		s.put(t, fmt.Sprint("/v1/agent/service/deregister/odd", i), nil)
	}
	awaitTold(t, l, "")
}

// TestNameable: what Check says of a host is what is said of the name.
func TestNameable(t *testing.T) {
	s, err := New(Options{Address: "http://127.0.0.1:1", Check: compile.Check})
	if err != nil {
		t.Fatal(err)
	}
	var in instance
	in.Service.Address, in.Service.Port = "10.0.0.1", 80
	for _, name := range []string{"a", "A", "my_api", "x_", "a.b", "1.2", "a--b", "", "-", "_", "a-", "a/b", "ü", ".a", "a.", "a:b", "a\n", "a_.b",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a.", 118) + "a", strings.Repeat("a.", 119) + "a", strings.Repeat("a.", 125) + "a"} {
		a, _ := s.arrival(name, []instance{in})
		if want, got := a.Object != nil, nameable(name); got && !want || want && !got && len(name) != 64 {
			t.Errorf("%q: nameable %v, accepted %v", name, got, want)
		}
	}
}
