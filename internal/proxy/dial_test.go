package proxy

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/wire"
)

func TestNetworksOfABootstrap(t *testing.T) {
	for field, b := range map[string]wire.Bootstrap{"podNetwork": {PodNetwork: "10.77.0.0"}, "serviceNetwork": {ServiceNetwork: "x/16"},
		"hostAlias": {HostAlias: "host"}} {
		if _, err := New(Options{Bootstrap: &b}); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestVirtualAddressWithoutSuchAPort(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", func(b *wire.Bootstrap) { b.ServiceNetwork = "10.78.0.0/16" })
	status, body, _ := client.get(client.client(), "http://web:9999/")
	if status != 503 || !strings.Contains(body, vip+" is an address of the mesh, and nothing listens on port 9999 there") {
		t.Errorf("%d %q", status, body)
	}
	eventually(t, "the request in the log", func() bool { return client.logged(" 503 UF ", "nothing listens on port 9999") })
	conn, err := client.Dial(t.Context(), netip.MustParseAddrPort(vip+":9998"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte{0, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil || n > 0 {
		t.Errorf("relayed to nowhere: %d bytes", n)
	}
	eventually(t, "the relayed connection in the log", func() bool { return client.logged(" UF,URX ", "nothing listens on port 9998") })
}
