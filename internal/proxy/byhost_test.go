package proxy

import (
	"crypto/tls"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// TestByHost connects to the host that each request or ClientHello names, over real sockets, and holds servers against its name.
func TestByHost(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Host+" "+r.TLS.ServerName)
	}))
	t.Cleanup(server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}) // it is for example.com and *.example.com
	for _, name := range []string{"a.example.com:80", "b.example.com:80", "a.b.example.com:80", "secure.example.com:443"} {
		m.real.Store(name, server.Listener.Addr().String())
	}
	all := &conf.Cluster{Name: "all", Discovery: conf.ByHost, Speaks: conf.AsClient, ServiceHost: "*.example.com", Port: 80,
		Transports: []conf.TransportMatch{{TLS: &conf.UpstreamTLS{CA: ca}}}}
	secure := &conf.Cluster{Name: "secure", Discovery: conf.ByHost, ServiceHost: "*.example.com", Port: 443, Transports: []conf.TransportMatch{{}}}
	client.config.publish(func(s *conf.Snapshot, names map[string]*conf.Target) {
		s.Clusters["all"], s.Clusters["secure"] = all, secure
		names[wire.ListenerName(vip, 443)] = &conf.Target{Name: "secure", Listener: &conf.Listener{Name: "secure", Chains: []*conf.Chain{{
			Match: conf.ChainMatch{ServerNames: []string{"*.example.com"}}, TCP: &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "secure", Weight: 1}}, TotalWeight: 1}}}}}
	})
	client.knows("all", 80, forwardTo("all"))
	c := client.client()
	for host, want := range map[string]string{"a.example.com": "a.example.com a.example.com", "B.Example.com:80": "B.Example.com:80 b.example.com"} {
		for range 2 {
			if status, body, _ := client.get(c, "http://"+host+"/"); status != 200 || body != want {
				t.Errorf("%s: %d %q\n%s", host, status, body, client.log)
			}
		}
	}
	for host, flag := range map[string]string{"a.b.example.com": " UF ", "example.com": " UH ", "a.example.org": " UH ", "nobody.example.com": " UF "} {
		if status, body, _ := client.get(c, "http://"+host+"/"); status != 503 {
			t.Errorf("%s: %d %q", host, status, body)
		}
		eventually(t, host+" is in the log", func() bool { return client.logged(" 503"+flag, host) })
	}
	if !client.logged("the client names no host of *.example.com") {
		t.Errorf("the log does not say why:\n%s", client.log)
	}
	for name, want := range map[string]bool{"secure.example.com": true, "other.org": false} {
		raw, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":443"))
		if err != nil {
			t.Fatal(err)
		}
		raw.SetDeadline(time.Now().Add(enough))
		s := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err := s.Handshake(); (err == nil) != want {
			t.Errorf("%s: %v\n%s", name, err, client.log)
		}
		s.Close()
	}
}

// TestByHostAsksOwnServers: hosts are looked up at the name servers that the proxy was given, addresses that do not answer are passed over, and
// what is wrong with a name is told.
func TestByHostAsksOwnServers(t *testing.T) {
	n := newNameServer(t, "10.0.0.9", "10.0.0.2")
	client, _ := namesRig(t, n, &conf.Cluster{Name: "db", Discovery: conf.ByHost, Speaks: conf.AsClient, ServiceHost: "*.example", Port: 9080,
		Transports: []conf.TransportMatch{{}}})
	c := client.client()
	client.knows("a.example", 80, forwardTo("db"))
	if status, body, _ := client.get(c, "http://a.example/"); status != 200 || body != "one /" {
		t.Errorf("%d %q\n%s", status, body, client.log)
	}
	client.knows("b.example", 80, forwardTo("db"))
	n.set(dns.RcodeNameError)
	if status, _, _ := client.get(c, "http://b.example/"); status != 503 {
		t.Errorf("a name that does not exist: %d", status)
	}
	eventually(t, "the log says why", func() bool { return client.logged(" UF ", "name b.example does not exist") })
}
