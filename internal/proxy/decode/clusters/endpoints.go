package clusters

import (
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
	"github.com/weftmesh/weft/internal/wire"
)

// addressing says whether endpoints may be DNS names.
type addressing bool

const (
	addressesOnly addressing = false
	namesToo      addressing = true
)

// Endpoints decodes the endpoints of a cluster. They must be addresses.
func Endpoints(w *walk.Walk, m *endpointv3.ClusterLoadAssignment) *conf.Assignment {
	d := &decoder{w}
	return d.assignment(m, addressesOnly)
}

func (d *decoder) assignment(m *endpointv3.ClusterLoadAssignment, names addressing) *conf.Assignment {
	d.Only(m, "cluster_name", "endpoints", "policy")
	a := &conf.Assignment{Name: m.GetClusterName()}
	d.At("policy", func() {
		d.Only(m.GetPolicy(), "overprovisioning_factor")
		if f := m.GetPolicy().GetOverprovisioningFactor(); f != nil {
			if a.Overprovisioning = f.GetValue(); a.Overprovisioning < 100 {
				d.At("overprovisioning_factor", func() { d.Fail("%d is less than 100", a.Overprovisioning) })
			}
		}
	})
	walk.Each(d.Walk, "endpoints", m.GetEndpoints(), func(l *endpointv3.LocalityLbEndpoints) {
		loc := d.locality(l, names)
		a.Localities = append(a.Localities, loc)
		a.Total += len(loc.Endpoints)
	})
	return a
}

// maxPriority is Envoy's bound.
const maxPriority = 128

func (d *decoder) locality(m *endpointv3.LocalityLbEndpoints, names addressing) conf.Locality {
	d.Only(m, "locality", "lb_endpoints", "load_balancing_weight", "priority", "metadata") // metadata is for people
	d.Only(m.GetLocality(), "region", "zone", "sub_zone")
	l := conf.Locality{
		Region: m.GetLocality().GetRegion(), Zone: m.GetLocality().GetZone(), SubZone: m.GetLocality().GetSubZone(),
		Priority: m.GetPriority(), Weight: m.GetLoadBalancingWeight().GetValue(),
	}
	if l.Priority > maxPriority {
		d.At("priority", func() { d.Fail("%d is more than %d", l.Priority, maxPriority) })
	}
	walk.Each(d.Walk, "lb_endpoints", m.GetLbEndpoints(), func(e *endpointv3.LbEndpoint) { l.Endpoints = append(l.Endpoints, d.endpoint(e, names)) })
	return l
}

func (d *decoder) endpoint(m *endpointv3.LbEndpoint, names addressing) *conf.Endpoint {
	d.Only(m, "endpoint", "health_status", "metadata", "load_balancing_weight")
	e := &conf.Endpoint{Weight: max(m.GetLoadBalancingWeight().GetValue(), 1)}
	d.At("endpoint", func() {
		d.Only(m.GetEndpoint(), "address", "hostname") // hostname is for health checks
		d.At("address", func() {
			if pipe := m.GetEndpoint().GetAddress().GetPipe(); pipe != nil {
				if e.Address = d.pipe(pipe); names == namesToo {
					d.Fail("pipe: does not go with names that are resolved")
				}
				return
			}
			e.Address, e.Port = d.Socket(m.GetEndpoint().GetAddress())
			a, err := netip.ParseAddr(e.Address)
			switch {
			case err == nil:
				e.Addr = netip.AddrPortFrom(a, e.Port)
			case names == addressesOnly:
				d.Failed(err)
			}
		})
	})
	switch s := m.GetHealthStatus(); s {
	case corev3.HealthStatus_UNKNOWN, corev3.HealthStatus_HEALTHY, corev3.HealthStatus_DEGRADED:
		e.Healthy, e.Degraded = true, s == corev3.HealthStatus_DEGRADED
	case corev3.HealthStatus_DRAINING:
		e.Draining = true
	case corev3.HealthStatus_UNHEALTHY, corev3.HealthStatus_TIMEOUT:
	default:
		d.At("health_status", func() { d.Fail("%d is not known", s) })
	}
	endpointFacts(m.GetMetadata(), e)
	return e
}

// pipe gives the address of a unix socket.
func (d *decoder) pipe(m *corev3.Pipe) string {
	d.At("pipe", func() {
		d.Only(m, "path", "mode") // the mode is for who listens
		if p := m.GetPath(); len(p) < 2 || p[0] != '/' && p[0] != '@' || strings.ContainsAny(p, "\x00\r\n") {
			d.At("path", func() { d.Fail("%q is no absolute path", p) })
		}
	})
	return wire.UnixPrefix + m.GetPath()
}

// endpointFacts reads what metrics and transports need to know of the endpoint's workload.
func endpointFacts(m *corev3.Metadata, e *conf.Endpoint) {
	e.TLSMode = walk.Metadata(m, "envoy.transport_socket_match")("tlsMode")
	parts := strings.Split(walk.Metadata(m, "istio")("workload"), ";")
	for i, to := range []*string{&e.Workload, &e.WorkloadNamespace, &e.CanonicalService, &e.Revision} {
		if i < len(parts) {
			*to = parts[i]
		}
	}
	weft := walk.Metadata(m, "weft")
	e.Instance, e.App, e.Version, e.ServiceAccount = weft("instance"), weft("app"), weft("version"), weft("serviceAccount")
}
