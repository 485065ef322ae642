package wire

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestListenerNamesRoundTrip(t *testing.T) {
	for _, c := range []struct {
		host string
		port uint16
		want string
	}{
		{"Reviews", 9080, "reviews:9080"},
		{"reviews.default.svc.cluster.local", 80, "reviews.default.svc.cluster.local:80"},
		{"10.78.1.2", 65535, "10.78.1.2:65535"},
		{"fd00::1", 443, "[fd00::1]:443"},
	} {
		name := ListenerName(c.host, c.port)
		if name != c.want {
			t.Errorf("ListenerName(%q, %d) = %q", c.host, c.port, name)
		}
		host, port, err := SplitListenerName(name)
		if err != nil || host != strings.ToLower(c.host) || port != c.port {
			t.Errorf("SplitListenerName(%q) = %q, %d, %v", name, host, port, err)
		}
	}
	for _, bad := range []string{"", "reviews", ":9080", "reviews:0", "reviews:65536", "reviews:http", "a:b:1"} {
		if _, _, err := SplitListenerName(bad); err == nil {
			t.Errorf("SplitListenerName(%q) succeeded", bad)
		}
	}
}

func TestClusterNamesAreIstios(t *testing.T) {
	if got := OutboundCluster(9080, "v1", "reviews.default.svc.cluster.local"); got != "outbound|9080|v1|reviews.default.svc.cluster.local" {
		t.Error(got)
	}
	dir, port, subset, host, ok := ParseCluster(InboundCluster(9080))
	if !ok || dir != "inbound" || port != 9080 || subset != "" || host != "" {
		t.Error(dir, port, subset, host, ok)
	}
	for _, bad := range []string{PassthroughCluster, "outbound|x||h", "outbound|1|h"} {
		if _, _, _, _, ok := ParseCluster(bad); ok {
			t.Errorf("ParseCluster(%q) succeeded", bad)
		}
	}
}

func TestNodeIDIsIstios(t *testing.T) {
	n := Node{Role: Sidecar, Name: "reviews-v1-x", Namespace: "default", IP: "10.77.0.4"}
	if got := n.ID(); got != "sidecar~10.77.0.4~reviews-v1-x.default~default.svc.cluster.local" {
		t.Error(got)
	}
}

func TestBootstrapNamesTheFieldThatIsWrong(t *testing.T) {
	good := Bootstrap{Node: Node{Role: Sidecar, Name: "a", Namespace: "b", ServiceAccount: "c"}, Control: "unix:///x", TrustDomain: "t", Roots: "r"}
	for _, c := range []struct {
		name   string
		change func(*Bootstrap)
		want   string
	}{
		{"good", func(*Bootstrap) {}, ""},
		{"no name", func(b *Bootstrap) { b.Node.Name = "" }, "node: name"},
		{"role", func(b *Bootstrap) { b.Node.Role = "x" }, "node.role"},
		{"roots", func(b *Bootstrap) { b.Roots = "" }, "roots"},
		{"address", func(b *Bootstrap) { b.Inbound = "localhost" }, "inbound"},
		{"dns", func(b *Bootstrap) { b.DNS = "1.2.3.4" }, "dns"},
		{"limit", func(b *Bootstrap) { b.MaxRequests = -1 }, "maxRequests: -1"},
		{"sidecar's forward proxy", func(b *Bootstrap) { b.ForwardProxy = "127.0.0.1:3128" }, ""},
		{"gateway's forward proxy", func(b *Bootstrap) { b.Node.Role, b.ForwardProxy = Gateway, "127.0.0.1:3128" }, "forwardProxy: is for sidecars"},
		{"gateway's outbound port", func(b *Bootstrap) { b.Node.Role, b.OutboundPorts = Gateway, []PortMap{{}} }, "outboundPorts: is for sidecars"},
	} {
		b := good
		c.change(&b)
		raw, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "bootstrap.json")
		if err := os.WriteFile(file, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err = ReadBootstrap(file)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := ReadBootstrap(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file was read")
	}
}

// TestDrainSecondsOfFiles tells a file that says nothing of draining from one that wants none.
func TestDrainSecondsOfFiles(t *testing.T) {
	none, err := json.Marshal(Bootstrap{Node: Node{Role: Sidecar, Name: "a", Namespace: "b", ServiceAccount: "c"}, Control: "a:1", TrustDomain: "d", Roots: "e"})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{string(none): 0, strings.Replace(string(none), `,"drainSeconds":0`, "", 1): DefaultDrainSeconds} {
		file := filepath.Join(t.TempDir(), "bootstrap.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadBootstrap(file); err != nil || b.DrainSeconds != want {
			t.Errorf("%s: %v, %v, want %d", text, b, err, want)
		}
	}
}

func TestBootstrapNamesTheLineThatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"{\n\"node\": {\n\"nam\": \"a\"}}": `line 3: unknown field "nam"`,
		"{\n\"maxConnection\": 5}":         `unknown field "maxConnection"`,
		"{\"mark\": \"x\"}":                "mark",
		"{\"mark\": 1,\n\n]":               "line 3: invalid character",
		"{}\n{}":                           "line 2: something follows the object",
		"":                                 "line 1: EOF",
	} {
		file := filepath.Join(t.TempDir(), "bootstrap.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBootstrap(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
