package local

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/runtime"
)

// Explain evaluates a request in the mesh that is being served.
func (o objects) Explain(ctx context.Context, req api.ExplainRequest) (api.ExplainReply, error) {
	c, err := o.h.Ready(ctx)
	if err != nil {
		return api.ExplainReply{}, err
	}
	q := explain.Request{From: req.From, Method: req.Method, URL: o.h.Inside(c.Mesh(), req.From, req.URL), ServerName: req.ServerName}
	for _, h := range req.Headers {
		q.Headers = append(q.Headers, explain.Field{Name: h.Name, Value: h.Value})
	}
	q.Headers = append(q.Headers, authority(q, req.URL)...)
	mesh := explain.Over(withClients(c.Mesh(), c.Clients()))
	mesh.Virtual = o.h.Virtual()
	mesh.Ejected = func(client *model.Workload) map[explain.Ejected]string { return o.h.Ejected(ctx, client) }
	report, err := mesh.Ask(q)
	switch {
	case errors.Is(err, explain.ErrNoClient):
		return api.ExplainReply{}, &api.InvalidError{Message: err.Error(), Hint: noObject}
	case err != nil:
		return api.ExplainReply{}, &api.InvalidError{Message: err.Error(), Hint: "weft explain --help has examples"}
	}
	var text strings.Builder
	if err := report.WriteText(&text, req.Color); err != nil {
		return api.ExplainReply{}, err
	}
	raw, err := json.Marshal(report)
	return api.ExplainReply{Report: raw, Text: text.String()}, err
}

// authority is the field for what a client asks for by a URL that is another inside: it knows nothing of that one.
func authority(q explain.Request, raw string) []explain.Field {
	named := slices.ContainsFunc(q.Headers, func(f explain.Field) bool { return strings.EqualFold(f.Name, "host") })
	before, _ := explain.CutTarget(raw)
	u, err := url.Parse(before)
	if named || q.URL == raw || err != nil || u.Scheme == "tcp" || u.Scheme == "udp" {
		return nil
	}
	return []explain.Field{{Name: "Host", Value: u.Host}}
}

// noObject is what to do about a client that only its connection would make known.
const noObject = "a client without an object, such as gRPC's own, is known by its name while it is connected (weft status): start it, or give it a WorkloadEntry"

// Virtual implements Host: the mesh gives the services their addresses.
func (m *Mesh) Virtual() bool { return true }

// Inside implements Host.
func (m *Mesh) Inside(mesh *model.Mesh, from, raw string) string {
	return inside(mesh, from, raw, m.runtime.Published())
}

// inside gives the URL as the gateway hears it: who asks for a gateway's view has the URL of the browser, with the port of this
// machine where the gateway's is published.
func inside(mesh *model.Mesh, from, raw string, published []runtime.Published) string {
	before, _ := explain.CutTarget(raw)
	u, err := url.Parse(before)
	if err != nil {
		return raw
	}
	if w, err := explain.FindClient(mesh, from); err != nil || !w.Gateway {
		return raw
	}
	for _, p := range published {
		if _, port, err := net.SplitHostPort(p.Address); err == nil && port == u.Port() && p.UDP == (u.Scheme == "udp") {
			u.Host = net.JoinHostPort(u.Hostname(), strconv.Itoa(int(p.Port)))
			return u.String() + raw[len(before):]
		}
	}
	return raw
}
