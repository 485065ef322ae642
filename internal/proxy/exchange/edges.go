package exchange

import (
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/downstream"
	"github.com/weftmesh/weft/internal/telemetry"
)

// edge gives the series that count this request.
func (x *Exchange) edge() *telemetry.Edge {
	protocol := "http"
	if x.isGRPC || x.grpc != "" {
		protocol = "grpc"
	}
	if x.d.Direction == downstream.Inbound {
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
