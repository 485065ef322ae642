package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/live"
	"github.com/weftmesh/weft/internal/telemetry"
	"github.com/weftmesh/weft/internal/wire"
)

// facts of a proxy that has one cluster with two endpoints, and resources with secrets.
func facts() *Facts {
	const prefix = "type.googleapis.com/envoy.config."
	return &Facts{
		Version: "v1", Node: wire.Node{Role: wire.Sidecar, Name: "web-1", Namespace: "shop", Workload: "web"}, Log: slog.New(slog.DiscardHandler),
		Started: time.Now(), Epoch: 2, Level: new(slog.LevelVar),
		Unready: func() string { return "" }, Unbound: func() map[string]string { return nil },
		Snapshot: func() *conf.Snapshot { return &conf.Snapshot{} },
		Live:     func() live.Status { return live.Status{Connected: true} },
		Resources: func() []live.Resource {
			return []live.Resource{
				{Type: prefix + "cluster.v3.Cluster", Name: "a", Version: "7", Body: json.RawMessage(`{"@type":"c","name":"a"}`)},
				{Type: prefix + "listener.v3.Listener", Name: "l", Version: "8", Body: json.RawMessage(
					`{"name":"l","tls_certificates":[{"certificate_chain":{"inline_string":"PUBLIC"},"private_key":{"inline_string":"HIDDEN"},"password":{"inline_string":"HIDDEN"}}]}`)},
			}
		},
		Clusters: func() []Cluster {
			return []Cluster{{Name: "a", Limits: Limits{MaxRequests: 5}, Endpoints: []Endpoint{
				{Address: "10.0.0.1:80", Healthy: true, Condition: "healthy", Weight: 1, Open: 3, Active: 2, Zone: "z"},
				{Address: "10.0.0.2:80", Ejected: true, Condition: "ejected", LastFailure: "refused", FailedAt: time.Unix(0, 0)},
			}}}
		},
		Listeners: func() []Listener { return []Listener{{"virtualInbound", "[::1]:15006"}} },
		Identity:  func() *identity.Material { return nil },
		Stats: func() []telemetry.Stat {
			return []telemetry.Stat{{Scope: "cluster", Instance: "a", Name: "upstream_rq_total", Value: 4}, {Scope: "server", Name: "live", Value: 1},
				{Scope: "cluster", Instance: "a", Name: "upstream_cx_total", Value: 0}}
		},
		Metrics: func(w io.Writer) (int64, error) {
			n, err := io.WriteString(w, "# TYPE one counter\none{a=\"b\"} 1\n# TYPE two counter\ntwo 2\n")
			return int64(n), err
		},
		Lacking: func() string { return "" },
		Drain:   func(bool) {}, Drained: func(context.Context) {}, Quit: func() {},
	}
}

func get(t *testing.T, f *Facts, method, path string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = "[::1]:1234"
	w := httptest.NewRecorder()
	Handler(f).ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestClustersInEnvoysForms(t *testing.T) {
	_, text := get(t, facts(), "GET", "/clusters")
	for _, line := range []string{
		"a::default_priority::max_requests::5\n", "a::default_priority::max_connections::4294967295\n", "a::10.0.0.1:80::cx_active::3\n",
		"a::10.0.0.1:80::health_flags::healthy\n", "a::10.0.0.2:80::health_flags::/failed_outlier_check/failed_eds_health\n",
		"a::10.0.0.2:80::last_failure::1970-01-01T00:00:00Z refused\n",
	} {
		if !strings.Contains(text, line) {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	var parsed struct {
		Statuses []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Address struct {
					Socket struct {
						Address string `json:"address"`
						Port    int    `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
				Health struct {
					EDS     string `json:"eds_health_status"`
					Outlier bool   `json:"failed_outlier_check"`
				} `json:"health_status"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	_, text = get(t, facts(), "GET", "/clusters?format=json")
	if err := json.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	hosts := parsed.Statuses[0].Hosts
	if a := hosts[0].Address.Socket; a.Address != "10.0.0.1" || a.Port != 80 || hosts[0].Health.EDS != "HEALTHY" || !hosts[1].Health.Outlier {
		t.Errorf("%+v", parsed)
	}
}

func TestConfigDumpHidesSecrets(t *testing.T) {
	_, text := get(t, facts(), "GET", "/config_dump")
	if strings.Contains(text, "HIDDEN") || !strings.Contains(text, "PUBLIC") {
		t.Fatalf("secrets, or too little:\n%s", text)
	}
	var d struct {
		Configs []struct {
			Type      string                     `json:"@type"`
			Clusters  []map[string]any           `json:"dynamic_active_clusters"`
			Listeners []map[string]any           `json:"dynamic_listeners"`
			Bootstrap map[string]json.RawMessage `json:"bootstrap"`
		} `json:"configs"`
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Configs) != 3 || d.Configs[0].Bootstrap["node"] == nil || d.Configs[1].Clusters[0]["version_info"] != "7" || d.Configs[2].Listeners[0]["name"] != "l" {
		t.Errorf("%+v", d.Configs)
	}
}

func TestPartsOfTheConfiguration(t *testing.T) {
	for path, want := range map[string][]string{
		"/config_dump?resource=dynamic_active_clusters":              {`"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump.DynamicCluster"`, `"version_info": "7"`},
		"/config_dump?resource=dynamic_listeners&name_regex=^l$":     {`DynamicListener`, `"version_info": "8"`, `[redacted]`},
		"/config_dump?resource=dynamic_listeners&name_regex=^other$": {`"configs": []`},
		"/config_dump?resource=dynamic_route_configs&include_eds":    {`"configs": []`},
		"/config_dump?resource=bootstrap":                            {`BootstrapConfigDump`, `"web-1"`},
		"/config_dump?resource=live":                                 {`"connected": true`},
		"/config_dump?name_regex=a":                                  {`BootstrapConfigDump`, `"version_info": "7"`},
		"/config_dump?include_eds":                                   {`"snapshot"`, `"live"`, `"version_info": "7"`},
	} {
		code, got := get(t, facts(), "GET", path)
		for _, part := range want {
			if code != 200 || !strings.Contains(got, part) {
				t.Errorf("%s: %d, no %s in\n%s", path, code, part, got)
			}
		}
		if strings.Contains(path, "name_regex") && (strings.Contains(got, "snapshot") || strings.Contains(path, "=a") && strings.Contains(got, `"8"`)) {
			t.Errorf("%s: more than was asked for:\n%s", path, got)
		}
	}
	if code, text := get(t, facts(), "GET", "/config_dump?resource=static_clusters"); code != http.StatusNotFound || !strings.Contains(text, "dynamic_listeners") {
		t.Errorf("%d %q", code, text)
	}
}

func TestWhatIsNoPage(t *testing.T) {
	for _, c := range []struct {
		method, path string
		code         int
		says         string
	}{
		{"GET", "/drain", 405, "/drain takes POST, not GET"}, {"POST", "/clusters", 405, "/clusters takes GET"}, {"GET", "/nosuch", 404, "/help lists"},
		{"GET", "/clusters?fmt=json", 400, `no parameter "fmt"; it takes format`}, {"GET", "/help", 200, "/config_dump"}, {"GET", "/ready?probe=1", 200, "ready"},
	} {
		if code, text := get(t, facts(), c.method, c.path); code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%s %s: %d %q", c.method, c.path, code, text)
		}
	}
}

func TestStats(t *testing.T) {
	for path, want := range map[string]string{
		"/stats":                              "cluster.a.upstream_cx_total: 0\ncluster.a.upstream_rq_total: 4\nserver.live: 1\n",
		"/stats?filter=^server":               "server.live: 1\n",
		"/stats?format=prometheus&filter=one": "# TYPE one counter\none{a=\"b\"} 1\n",
		"/stats/prometheus":                   "# TYPE one counter\none{a=\"b\"} 1\n# TYPE two counter\ntwo 2\n",
		"/stats/prometheus?filter=o":          "# TYPE one counter\none{a=\"b\"} 1\n# TYPE two counter\ntwo 2\n",
		"/metrics?filter=two":                 "# TYPE two counter\ntwo 2\n",
		"/stats?usedonly":                     "cluster.a.upstream_rq_total: 4\nserver.live: 1\n",
		"/stats?usedonly&filter=cx":           "",
		"/listeners":                          "virtualInbound::[::1]:15006\n",
	} {
		if code, got := get(t, facts(), "GET", path); code != 200 || got != want {
			t.Errorf("%s: %d\n%s", path, code, got)
		}
	}
	for _, path := range []string{"/stats?filter=(", "/stats?format=yaml", "/stats?type=Gauges", "/metrics?format=json", "/config_dump?mask=a", "/config_dump?name_regex=("} {
		if code, _ := get(t, facts(), "GET", path); code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, code)
		}
	}
}

func TestLevelOfTheLog(t *testing.T) {
	f := facts()
	if code, text := get(t, f, "POST", "/logging?level=debug"); code != 200 || text != "level: debug\n" || f.Level.Level() != slog.LevelDebug {
		t.Errorf("%d %q", code, text)
	}
	if code, _ := get(t, f, "POST", "/logging?level=loud"); code != http.StatusBadRequest || f.Level.Level() != slog.LevelDebug {
		t.Errorf("a level that is none: %d", code)
	}
	if code, _ := get(t, f, "GET", "/logging?level=info"); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
}

func TestServerInfo(t *testing.T) {
	f := facts()
	for _, c := range []struct{ unready, state string }{{"", "LIVE"}, {Draining, "DRAINING"}, {"no certificate yet", "PRE_INITIALIZING"}} {
		f.Unready = func() string { return c.unready }
		_, text := get(t, f, "GET", "/server_info")
		var info serverInfo
		if err := json.Unmarshal([]byte(text), &info); err != nil {
			t.Fatal(err)
		}
		if info.State != c.state || info.Options.Epoch != 2 || info.Version != "v1" || info.Node.ID != f.Node.ID() {
			t.Errorf("%+v", info)
		}
	}
}
