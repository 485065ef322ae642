package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/exchange"
)

func TestApplicationsDoNotSpeakForTheMesh(t *testing.T) {
	m := newMesh(t)
	client, up := m.pod("productpage", "10.0.0.1", nil), m.pod("a", "10.0.0.2", nil)
	var asked atomic.Int64
	up.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set(exchange.UnsentHeader, "1")
		w.Header().Set(exchange.UnansweredHeader, "1")
		w.Header().Set(exchange.ReasonHeader, "made up")
		w.Header().Set("x-weft-else", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "mine")
	}))
	client.cluster("reviews", 9080, up)
	r := forwardTo("reviews")
	r.Forward.Retry = istioRetries()
	client.knows("reviews", 9080, r)
	status, body, h := client.do(client.client(), "POST", "http://reviews:9080/", strings.NewReader("pay"))
	if status != 503 || body != "mine" || asked.Load() != 1 {
		t.Fatalf("%d %q after %d requests", status, body, asked.Load())
	}
	for name := range h {
		if strings.HasPrefix(name, exchange.MeshPrefix) {
			t.Errorf("the application's %s came through", name)
		}
	}
	edge := m.pod("ingress", "10.0.0.9", asGateway)
	edge.cluster("reviews", 9080, up)
	edge.opens("reviews", 8080)
	v, c := visitor(m, edge, 8080)
	eventually(t, "gateway answers", func() bool { status, body, h = v.get(c, "http://shop.example/"); return status != 0 })
	if body != "mine" || h.Get(exchange.ReasonHeader) != "" {
		t.Errorf("outside: %d %q %v", status, body, h)
	}
}

func TestLimitsAreToldOutside(t *testing.T) {
	m := newMesh(t)
	edge, server := m.pod("ingress", "10.0.0.1", asGateway), m.pod("reviews", "10.0.0.2", nil)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "here") }))
	listening := strict(9080)
	listening.Chains[0].HTTP.Limits = []*conf.LocalLimit{limited(1)}
	server.accepts(listening)
	edge.cluster("reviews", 9080, server)
	edge.opens("reviews", 8080)
	v, c := visitor(m, edge, 8080)
	var status int
	var body string
	var h http.Header
	eventually(t, "the limit is reached", func() bool {
		status, body, h = v.get(c, "http://shop.example/", "x-user", "amy")
		return status == 429
	})
	if body != "Too Many Requests" || h.Get("X-Ratelimit-Limit") != "1" || h.Get("X-Ratelimit-Remaining") != "0" || h.Get("X-Over") != "yes" ||
		h.Get(exchange.ReasonHeader) != "" {
		t.Errorf("%q %v", body, h)
	}
}
