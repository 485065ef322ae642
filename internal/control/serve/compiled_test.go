package serve

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/control/churn"
	"github.com/weftmesh/weft/internal/control/compile"
	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/identity"
	"github.com/weftmesh/weft/internal/wire"
)

// TestClientsHaveWhatIsCompiled changes objects at random. What the compiler makes of them and says of the difference must leave
// every client with exactly what is made anew for it.
func TestClientsHaveWhatIsCompiled(t *testing.T) {
	t.Run("at once", func(t *testing.T) { clientsHaveWhatIsCompiled(t, newPlane(t, Options{})) })
	t.Run("aside", func(t *testing.T) {
		p := newPlane(t, Options{})
		p.madeAside()
		clientsHaveWhatIsCompiled(t, p)
	})
}

func clientsHaveWhatIsCompiled(t *testing.T, p *plane) {
	const steps = 250
	r := rand.New(rand.NewPCG(5, 1))
	cert, key := p.pair()
	versions, _ := churn.Objects(r, cert, key)
	k := compile.New(model.Settings{TrustDomain: trustDomain})
	apply := func(set []*source.Object, gone []source.Key) *model.Mesh {
		m, delta := k.Apply(set, gone)
		if !delta.Empty() {
			p.server.Publish(m, delta)
		}
		return m
	}
	var first []*source.Object
	for _, list := range versions {
		first = append(first, list[0])
	}
	m := apply(first, nil)
	var mirrors []*mirror
	for _, n := range []wire.Node{
		{Role: wire.Sidecar, Name: "p0", Namespace: "ns0", ServiceAccount: "default"},
		{Role: wire.Sidecar, Name: "p1", Namespace: "ns1", ServiceAccount: "default"},
		{Role: wire.Gateway, Name: "p2", Namespace: "istio-system", ServiceAccount: "default"},
	} {
		c := &mirror{client: p.connect(n), node: n, has: map[entryName]string{}, names: namesOfObjects(n.Role == wire.Gateway)}
		if n.Name == "p1" {
			c.names[generate.ClusterType] = []string{"*"}
		}
		for typeURL, names := range c.names {
			c.subscribe(typeURL, names...)
		}
		c.catchUp(p)
		c.check(m, "at first")
		mirrors = append(mirrors, c)
	}
	most, listened := 0, map[string]bool{}
	for step := range steps {
		set, gone := map[source.Key]*source.Object{}, map[source.Key]bool{}
		for range 1 + r.IntN(3) {
			list := versions[r.IntN(len(versions))]
			o := list[r.IntN(len(list))]
			delete(set, o.Key())
			delete(gone, o.Key())
			if r.IntN(4) == 0 {
				gone[o.Key()] = true
			} else {
				set[o.Key()] = o
			}
		}
		m := apply(slices.Collect(maps.Values(set)), slices.Collect(maps.Keys(gone)))
		for _, c := range mirrors {
			c.catchUp(p)
			c.check(m, fmt.Sprintf("step %d, set %v, gone %v", step, slices.Collect(maps.Keys(set)), slices.Collect(maps.Keys(gone))))
			most = max(most, len(c.has))
			for n := range c.has {
				if c.node.Role == wire.Gateway && n.typeURL == generate.ListenerType {
					listened[n.name] = true
				}
			}
		}
	}
	if len(listened) < 2 {
		t.Errorf("the gateway only ever had the listeners %v", slices.Sorted(maps.Keys(listened)))
	}
	if most < 50 {
		t.Errorf("no client had more than %d resources: too little was compared", most)
	}
}

// namesOfObjects are the resources that may be of churn's objects.
func namesOfObjects(gateway bool) map[string][]string {
	names := map[string][]string{generate.ListenerType: {wire.InboundListener, wire.OutboundListener, "127.0.0.1:80", "127.0.0.1:443", "127.0.0.1:3306"}, generate.ClusterType: {"inbound|8080||", "inbound|3307||"}}
	hosts := []string{"ext.example.com", "a.example.com"}
	for _, ns := range []string{"ns0", "ns1", "istio-system"} {
		for i := range 4 {
			hosts = append(hosts, fmt.Sprintf("s%d.%s.svc.cluster.local", i, ns))
		}
	}
	add := func(typeURL, name string) { names[typeURL] = append(names[typeURL], name) }
	for _, h := range hosts {
		add(generate.DNSType, h)
		for _, port := range []uint16{80, 443, 3306} {
			add(generate.ListenerType, wire.ListenerName(h, port))
			add(generate.RouteType, wire.RouteName(h, port))
			for _, subset := range []string{"", "v1", "v2"} {
				add(generate.ClusterType, wire.OutboundCluster(port, subset, h))
				add(generate.EndpointsType, wire.OutboundCluster(port, subset, h))
			}
		}
	}
	if gateway {
		names[generate.ListenerType] = []string{"*"}
		names[generate.RouteType] = append(names[generate.RouteType], "http.80", "http.81")
	}
	return names
}

// pair gives a certificate and its key as PEM.
func (p *plane) pair() (cert, key []byte) {
	p.t.Helper()
	m := p.certify("ns0", "default", time.Hour).Current()
	private, _ := m.Certificate.PrivateKey.(*ecdsa.PrivateKey)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		p.t.Fatal(err)
	}
	return identity.EncodeCertificates(m.Certificate.Leaf), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}
