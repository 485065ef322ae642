package explain

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/explain/fields"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
)

// manyEndpoints is from where on the endpoints of a workload whose proxies have the same configuration are judged once.
const manyEndpoints = 50

// ways judges every endpoint that gets requests, or else the first, and joins those that are alike.
func (e *evaluation) ways(d *Destination, c *conf.Cluster, list []*conf.Endpoint) {
	judged, places := map[string]int{}, make([]int, len(list))
	for i, ep := range list {
		share := d.Endpoints[i].Share
		if share == 0 && (i > 0 || slices.ContainsFunc(d.Endpoints, func(o Endpoint) bool { return o.Share > 0 })) {
			continue
		}
		server := e.server(ep)
		key := judgedAs(ep, server, len(list) > manyEndpoints)
		at, known := judged[key]
		if !known {
			at = d.join(e.way(d, c, ep, server))
			judged[key] = at
		}
		d.Ways[at].count(ep, share)
		places[i] = at
	}
	e.again(d, func(i int) *Way {
		if d.Endpoints[i].Share > 0 {
			return &d.Ways[places[i]]
		}
		w := e.way(d, c, list[i], e.server(list[i]))
		return &w
	})
	slices.SortStableFunc(d.Ways, func(a, b Way) int { return cmp.Compare(b.Share, a.Share) })
	d.Inbound, d.Transport, d.MTLS = d.Ways[0].Inbound, d.transports(), true
	for i := range d.Ways {
		d.MTLS = d.MTLS && d.Ways[i].MTLS
	}
}

// server gives the proxy in front of an endpoint; nil where there is none.
func (e *evaluation) server(ep *conf.Endpoint) *Proxy {
	if e.view.Server == nil {
		return nil
	}
	if p, ok := e.view.Server(ep); ok {
		return &p
	}
	return nil
}

// judgedAs is equal for endpoints of which one needs to be judged.
func judgedAs(ep *conf.Endpoint, server *Proxy, many bool) string {
	if !many || server == nil {
		return fmt.Sprint(ep.Address, " ", ep.Port, " ", ep.TLSMode, " ", server == nil)
	}
	sum := ""
	if server.sum != nil {
		sum = server.sum()
	}
	return fmt.Sprint(server.Namespace, "/", server.Workload, " ", ep.Port, " ", ep.TLSMode, " ", sum)
}

// way says how an endpoint is reached, and asks its proxy.
func (e *evaluation) way(d *Destination, c *conf.Cluster, ep *conf.Endpoint, server *Proxy) Way {
	t := transportOf(c, ep)
	w := Way{Transport: transportText(c, t), MTLS: t != nil && t.Workload}
	if server != nil {
		w.Inbound = e.inbound(server, c, ep, t, d.HTTP != "")
	}
	e.ending(&w, d)
	return w
}

// join adds a way, unless there is one like it, and gives its place.
func (d *Destination) join(w Way) int {
	at := slices.IndexFunc(d.Ways, func(o Way) bool { return o.Transport == w.Transport && o.Inbound.like(w.Inbound) })
	if at < 0 {
		d.Ways = append(d.Ways, w)
		return len(d.Ways) - 1
	}
	return at
}

// like reports whether requests are treated alike.
func (in *Inbound) like(o *Inbound) bool {
	if in == nil || o == nil {
		return in == o
	}
	return in.Port == o.Port && in.To == o.To && in.Relayed == o.Relayed && in.unshaken == o.unshaken && in.Refused == o.Refused && reflect.DeepEqual(in.Verdict, o.Verdict) && reflect.DeepEqual(in.Limits, o.Limits)
}

func (w *Way) count(ep *conf.Endpoint, share float64) {
	w.Share += share
	w.Endpoints++
	instance := cmp.Or(ep.Instance, ep.Address)
	w.Instances = appendNew(w.Instances, instance)
	w.Workloads = appendNew(w.Workloads, cmp.Or(ep.Workload, instance))
}

func appendNew(list []string, s string) []string {
	if slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// transports says how endpoints are reached, with shares where they differ.
func (d *Destination) transports() string {
	var texts []string
	shares := map[string]float64{}
	for i := range d.Ways {
		texts = appendNew(texts, d.Ways[i].Transport)
		shares[d.Ways[i].Transport] += d.Ways[i].Share
	}
	if len(texts) == 1 {
		return texts[0]
	}
	for i, t := range texts {
		texts[i] = percent(shares[t]) + " by " + t
	}
	return strings.Join(texts, "; ")
}

func transportText(c *conf.Cluster, t *conf.UpstreamTLS) string {
	switch {
	case t == nil && len(c.Transports) > 1:
		return "plaintext: the endpoint offers no mutual TLS (no proxy in front of it, or its port has it disabled)"
	case t == nil:
		return "plaintext: nothing asks for TLS"
	case t.Workload:
		return "mutual TLS, expecting " + names(t.SANs)
	}
	return "TLS to the outside, " + outsideText(t)
}

// outsideText says what is shown and what is asked for in TLS that is not the mesh's.
func outsideText(t *conf.UpstreamTLS) string {
	parts := []string{"server name " + cmp.Or(t.SNI, "none")}
	switch {
	case t.SkipVerify:
		parts = append(parts, "certificate not verified")
	case len(t.SANs) > 0 && !(len(t.SANs) == 1 && t.SANs[0].Value == t.SNI):
		parts = append(parts, "expecting "+names(t.SANs))
	}
	if len(t.CA) > 0 {
		parts = append(parts, "by the authorities "+fields.Digest(t.CA))
	}
	if len(t.CRL) > 0 {
		parts = append(parts, "but for the revocation lists "+fields.Digest(t.CRL))
	}
	if t.Certificate != nil {
		parts = append(parts, "with the client's certificate "+fields.Digest(t.Certificate.Certificate))
	}
	return strings.Join(parts, ", ")
}

// serverText says what a gateway shows to clients, and what it asks of them.
func serverText(t *conf.DownstreamTLS) string {
	var parts []string
	if t.Workload {
		parts = append(parts, "with the gateway's own certificate of the mesh")
	}
	for i := range t.Certificates {
		parts = append(parts, "with the certificate "+fields.Digest(t.Certificates[i].Certificate))
	}
	switch {
	case t.AnyClient:
		parts = append(parts, "clients asked for a certificate, which is not verified")
	case t.Workload && t.RequireClient:
		parts = append(parts, "clients need a certificate of the mesh")
	case t.RequireClient:
		parts = append(parts, "clients need a certificate")
	case len(t.ClientCA) > 0:
		parts = append(parts, "clients may have a certificate")
	}
	if len(t.ClientCA) > 0 {
		parts = append(parts, "by the authorities "+fields.Digest(t.ClientCA))
	}
	if len(t.CRL) > 0 {
		parts = append(parts, "but for the revocation lists "+fields.Digest(t.CRL))
	}
	if len(t.SANs) > 0 {
		parts = append(parts, "for "+names(t.SANs))
	}
	if n := len(t.CertificateHashes) + len(t.KeyHashes); n > 0 {
		parts = append(parts, fmt.Sprintf("one of %d that are named by their hash", n))
	}
	if t.MinVersion != 0 {
		parts = append(parts, "from "+tls.VersionName(t.MinVersion)+" on")
	}
	if t.MaxVersion != 0 {
		parts = append(parts, "up to "+tls.VersionName(t.MaxVersion))
	}
	return strings.Join(parts, ", ")
}

// onward is where a proxy takes what a chain lets in; empty for the port itself.
func onward(server *Proxy, ch *conf.Chain, port uint16) string {
	cluster := ""
	switch {
	case ch.HTTP != nil && ch.HTTP.Routes != nil:
		for _, h := range ch.HTTP.Routes.Hosts {
			for _, r := range h.Routes {
				if r.Forward != nil && len(r.Forward.Clusters) > 0 {
					cluster = r.Forward.Clusters[0].Cluster
				}
			}
		}
	case ch.TCP != nil && len(ch.TCP.Clusters) > 0:
		cluster = ch.TCP.Clusters[0].Cluster
	}
	c, found, err := get[*conf.Cluster](server, decode.ClusterType, cluster)
	if cluster == "" || err != nil || !found {
		return ""
	}
	for _, l := range c.Localities {
		if len(l.Endpoints) == 0 {
			continue
		}
		ep := l.Endpoints[0] // a workload's own port has one
		if to := ep.Addr; !to.IsValid() || to != netip.AddrPortFrom(to.Addr(), port) || !to.Addr().IsLoopback() && to.Addr() != server.Address {
			return strings.TrimSuffix(ep.Address+":"+strconv.Itoa(int(ep.Port)), ":0")
		}
		return ""
	}
	if c.PortOverride != 0 && c.PortOverride != port {
		return "port " + strconv.Itoa(int(c.PortOverride))
	}
	return ""
}
