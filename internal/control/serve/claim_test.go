package serve

import (
	"fmt"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/control/generate"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// refused fails unless the stream ends with a code and words.
func (c *client) refused(code codes.Code, words string) {
	c.t.Helper()
	for {
		_, err := c.stream.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), words) || len(err.Error()) > 4096 {
			c.t.Errorf("got %.500v, want %v with %q", err, code, words)
		}
		return
	}
}

// TestLongClaims: what a client says of itself is bounded.
func TestLongClaims(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil, "10.77.0.1"))
	id := p.certify("default", "productpage", time.Hour)
	long := strings.Repeat("x", 3<<20)
	for what, edit := range map[string]func(*client){
		"node.id has":           func(c *client) { c.node.Id = "sidecar~10.0.0.1~productpage-0.default~" + long },
		"253":                   func(c *client) { c.node.Id = "sidecar~10.0.0.1~" + strings.Repeat("x", 254) + ".default~x" },
		"control characters":    func(c *client) { c.node.Id = "sidecar~10.0.0.1~a\x1b[2Jb.default~x" },
		"NAME in node.metadata": func(c *client) { c.node.Metadata.Fields["NAME"] = structpb.NewStringValue(long) },
		`"x\x00"`:               func(c *client) { c.node.Metadata.Fields["NAME"] = structpb.NewStringValue("x\x00") },
		"LABELS": func(c *client) {
			c.node.Metadata.Fields["LABELS"].GetStructValue().Fields["a"] = structpb.NewStringValue(long)
		},
		wire.SDSDirField + " in": func(c *client) { c.node.Metadata.Fields[wire.SDSDirField] = structpb.NewStringValue(long) },
	} {
		c := p.connectAs(productpage(), id)
		edit(c)
		c.subscribe(generate.EndpointsType, reviewsAll)
		c.refused(codes.InvalidArgument, what)
	}
	for field, what := range map[string]string{"NAMESPACE": "claims namespace", "SERVICE_ACCOUNT": "claims service account"} {
		c := p.connectAs(productpage(), id)
		c.node.Metadata.Fields[field] = structpb.NewStringValue(long)
		c.subscribe(generate.EndpointsType, reviewsAll)
		c.refused(codes.PermissionDenied, what)
	}
	if all := p.server.Clients(); len(all) != 0 {
		t.Errorf("%d clients are remembered", len(all))
	}
}

// owned has the workload reviews-v1 of an account.
func owned(account string) *model.Mesh {
	return mesh(func(m *model.Mesh) {
		if account != "none" {
			m.Workloads.Put("default/reviews-v1", &model.Workload{Namespace: "default", Name: "reviews-v1", ServiceAccount: account})
		}
	}, "10.77.0.1")
}

// TestNameOfAnother: a name that the mesh knows is for who has a certificate of its account, whatever the node leaves out.
func TestNameOfAnother(t *testing.T) {
	for _, role := range []wire.Role{wire.Sidecar, wire.Gateway} {
		p := newPlane(t, Options{})
		p.publish(owned("reviews"))
		n := wire.Node{Role: role, Name: "reviews-v1", Namespace: "default", ServiceAccount: "productpage"}
		bad := p.connect(n)
		bad.node.Metadata = nil // the id alone says it
		bad.subscribe(generate.EndpointsType, reviewsAll)
		bad.refused(codes.PermissionDenied, `runs as service account "reviews"`)
		if f := p.server.Findings(); len(f) != 1 || f[0].Code != "ProxyDenied" || f[0].Object.Name != "reviews-v1" {
			t.Errorf("findings %v", f)
		}
		n.ServiceAccount = "reviews"
		good := p.connect(n)
		good.subscribe(generate.EndpointsType, reviewsAll)
		good.want(generate.EndpointsType, reviewsAll)
		if f := p.server.Findings(); role == wire.Sidecar && len(f) != 0 {
			t.Errorf("findings %v, with the right one there", f)
		}
	}
}

// TestNameBecomesAnothers: who connects before the mesh knows the name is judged when it does, and one without an account is anybody's.
func TestNameBecomesAnothers(t *testing.T) {
	p := newPlane(t, Options{})
	n := wire.Node{Role: wire.Sidecar, Name: "reviews-v1", Namespace: "default", ServiceAccount: "productpage"}
	early := p.connect(n)
	early.subscribe(generate.EndpointsType, reviewsAll)
	p.publish(owned("none"))
	early.want(generate.EndpointsType, reviewsAll)
	p.publish(owned(""))
	early.quiet()
	p.server.Publish(owned("reviews"), model.Delta{Workloads: map[string]bool{"default/reviews-v1": true}})
	early.refused(codes.PermissionDenied, "default/reviews-v1")
}

// TestManyLeave: of those that left the latest are remembered, of one identity fewer than of all, and the others counted.
func TestManyLeave(t *testing.T) {
	h := &history{}
	now := time.Now()
	leave := func(account string, i int) {
		c := &session{who: caller{}, claim: claim{id: fmt.Sprintf("%s-%d", account, i), name: account}}
		c.who.ID.ServiceAccount = account
		h.leaves(c, nil, now.Add(time.Duration(i)*time.Millisecond), func(*Client) bool { return true })
	}
	for i := range maxLeftOfOne + 7 {
		leave("hostile", i)
	}
	if h.left["hostile-6"] != nil || h.left["hostile-7"] == nil || len(h.left) != maxLeftOfOne || h.dropped.count != 7 {
		t.Errorf("%d are remembered, %d left out", len(h.left), h.dropped.count)
	}
	for i := range maxLeft {
		leave(fmt.Sprint("other", i), 1000+i)
	}
	if len(h.left) != maxLeft || h.left["hostile-106"] != nil || h.left["other499-1499"] == nil {
		t.Errorf("%d are remembered", len(h.left))
	}
	f := h.findings(now.Add(time.Minute))
	if len(f) != 1 || f[0].Code != "ProxiesLeftOut" || !strings.Contains(f[0].Message, "107 more") {
		t.Errorf("findings %v", f)
	}
	if f := h.findings(now.Add(time.Hour)); len(f) != 0 {
		t.Errorf("findings an hour later %v", f)
	}
}

// TestNackWithOrders: what a client writes cannot give a terminal orders.
func TestNackWithOrders(t *testing.T) {
	p := newPlane(t, Options{})
	p.publish(mesh(nil))
	c := p.connect(productpage())
	c.subscribe(generate.EndpointsType, "a\x1b]0;x\x07")
	r := c.recv()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
	c.follow()
	p.publish(mesh(routed("elsewhere.example")))
	r = c.recv()
	c.nack(generate.RouteType, r.GetNonce(), "bad\x1b[2J\x00\nfield")
	c.quiet()
	f := p.server.Findings()
	if len(f) != 1 || !strings.Contains(f[0].Message, `bad\x1b[2J\x00\nfield`) {
		t.Errorf("findings %q", f)
	}
	if got := p.server.Clients()[0].Reason; !strings.Contains(got, `bad\x1b[2J\x00\nfield`) {
		t.Errorf("the reason is %q", got)
	}
}
