package cluster

import (
	"github.com/weftmesh/weft/internal/proxy/admin"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

func shown(l *conf.Limits) admin.Limits {
	return admin.Limits{MaxConnections: l.MaxConnections, MaxPending: l.MaxPending, MaxRequests: l.MaxRequests, MaxRetries: l.MaxRetries}
}

// Describe tells operators about all running clusters.
func (r *Set) Describe() []admin.Cluster {
	var list []admin.Cluster
	for _, c := range r.all() {
		s := admin.Cluster{Name: c.Conf.Name, Endpoints: []admin.Endpoint{}, Limits: shown(&c.Conf.Limits)}
		if c.Conf.High != (conf.Limits{}) {
			high := shown(&c.Conf.High)
			s.High = &high
		}
		s.Names = c.describeNames()
		where := c.places()
		s.Connections, s.Pending, s.Requests, s.Retries = c.inUse()
		for _, e := range c.endpoints() {
			ce := e.Host.Endpoint
			es := admin.Endpoint{Address: e.Raw.Address, Hostname: ce.Host, Workload: ce.Workload, Condition: e.Host.Condition(),
				MutualTLS: e.Raw.Source != nil, Active: e.Host.Active(), Healthy: ce.Healthy, Draining: ce.Draining, Degraded: ce.Degraded,
				Ejected: e.Host.Ejected(), Failing: e.Host.Failing(), Weight: ce.Weight}
			if l := where[ce]; l != nil {
				es.Priority, es.Region, es.Zone, es.SubZone = l.Priority, l.Region, l.Zone, l.SubZone
			}
			es.Open, es.Idle = e.Pool.Count()
			if f := e.Host.LastFailure(); f != nil {
				es.LastFailure, es.FailedAt = f.Text, f.At
			}
			s.Endpoints = append(s.Endpoints, es)
		}
		list = append(list, s)
	}
	return list
}

// places says in which locality each endpoint is.
func (c *Cluster) places() map[*conf.Endpoint]*conf.Locality {
	m := map[*conf.Endpoint]*conf.Locality{}
	for i := range c.Conf.Localities {
		for _, e := range c.Conf.Localities[i].Endpoints {
			m[e] = &c.Conf.Localities[i]
		}
	}
	return m
}

func (c *Cluster) endpoints() []*Endpoint {
	list := append([]*Endpoint(nil), c.ends...)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.visited {
		list = append(list, e)
	}
	for _, e := range c.hosts {
		list = append(list, e)
	}
	return list
}
