package exchange

import (
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/telemetry"
)

// edge gives the series that count this request.
func (x *Exchange) edge() *telemetry.Edge {
	protocol := "http"
	if x.isGRPC || x.grpc != "" {
		protocol = "grpc"
	}
	if x.d.Direction == Inbound {
		return x.d.InboundEdge(x.clusterConf(), protocol)
	}
	if x.to == nil {
		return x.p.Book.Source(x.clusterConf(), nil, protocol)
	}
	slot := &x.to.HTTPEdge
	if protocol == "grpc" {
		slot = &x.to.GRPCEdge
	}
	if e := slot.Load(); e != nil {
		return e
	}
	e := x.p.Book.Source(x.cluster.Conf, x.to, protocol)
	slot.Store(e)
	return e
}

func (x *Exchange) clusterConf() *conf.Cluster {
	if x.cluster == nil {
		return nil
	}
	return x.cluster.Conf
}

// InboundEdge gives the series of the destination's side for this client.
func (d *Client) InboundEdge(c *conf.Cluster, protocol string) *telemetry.Edge {
	for i := range d.edges {
		if d.edges[i].cluster == c && d.edges[i].protocol == protocol {
			return d.edges[i].edge
		}
	}
	e := d.Mesh.Book.Destination(&d.Peer, d.PeerURI, c, protocol)
	if len(d.edges) >= maxEdges {
		d.edges = d.edges[:0] // clusters are remade when their configuration changes
	}
	d.edges = append(d.edges, inboundEdge{c, protocol, e})
	return e
}

const maxEdges = 8
