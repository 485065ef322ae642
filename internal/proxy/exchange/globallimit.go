package exchange

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/weftmesh/weft/internal/proxy/cluster"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/failure"
	"github.com/weftmesh/weft/internal/proxy/filter/globallimit"
	"github.com/weftmesh/weft/internal/proxy/filter/ratelimit"
)

// withinGlobal asks the services of the listener's global limits.
func (x *Exchange) withinGlobal() bool {
	if x.http == nil {
		return true
	}
	for _, l := range x.http.GlobalLimits {
		if drawn(l.Enabled, x.p.random32) && !x.askService(l) {
			return false
		}
	}
	return true
}

func (x *Exchange) askService(l *conf.GlobalLimit) bool {
	descriptions := x.describe(l)
	if len(descriptions) == 0 {
		return true
	}
	client, err := x.p.services.get(x.p.Clusters, l.Cluster)
	var a globallimit.Answer
	if err == nil {
		ctx, cancel := context.WithTimeout(x.p.ctx, l.Timeout)
		a, err = client.Ask(ctx, l.Domain, descriptions)
		cancel()
	}
	if err != nil {
		return x.unasked(l, err)
	}
	if l.Report && a.Limit != 0 && (x.quota.Limit == 0 || a.Left < x.quota.Left) {
		x.report, x.quota = true, ratelimit.Verdict{Limit: a.Limit, Left: a.Left, Reset: a.Reset}
	}
	x.toldByService = a.Response
	if !a.Over {
		for _, f := range a.Request {
			x.Req.Header.Set(f.Name, f.Value)
		}
		return true
	}
	if x.limitChange, x.limitExhausted = &l.Response, l.Exhausted; l.Mark {
		x.toldByService = append(x.toldByService, conf.HeaderValue{Name: "X-Envoy-Ratelimited", Value: "true"})
	}
	x.fail(failure.OverGlobalLimit, "limit", fmt.Errorf("the rate-limit service says that domain %s is over its limit", l.Domain))
	x.err.Code = l.Status
	return false
}

// unasked decides about a request of which the service has said nothing.
func (x *Exchange) unasked(l *conf.GlobalLimit, err error) bool {
	x.p.Unasked.Add(1)
	if !l.Deny {
		return true
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("no answer within %s: %w", l.Timeout, err)
	}
	x.fail(failure.LimitUnknown, "limit", err)
	x.err.Code = l.ErrorStatus
	return false
}

// describe gives the descriptions of the request by the limit's own rules, else by those of the route that are of its stage. They are the caller's to keep.
func (x *Exchange) describe(l *conf.GlobalLimit) (out [][]conf.LimitEntry) {
	r := ratelimit.Request{Request: &x.Req, Remote: x.d.Remote.Addr(), RemoteText: x.d.RemoteText(), Source: x.p.Bootstrap.Node.Workload}
	if x.split != nil {
		r.Destination = x.split.Cluster
	}
	rules := [2][]conf.LimitRule{l.Rules}
	if l.Rules == nil {
		rules = x.limitRules(conf.OverrideHostRules)
	}
	for _, list := range rules {
		for i := range list {
			if l.Rules == nil && list[i].Stage != l.Stage {
				continue
			}
			if entries := ratelimit.Describe(nil, &list[i], &r); len(entries) > 0 {
				out = append(out, entries)
			}
		}
	}
	return out
}

// services are the clients of rate-limit services, by cluster.
type services struct {
	mu        sync.Mutex
	byCluster map[string]*globallimit.Client
}

// get gives the client of a cluster's service; its connections go to the cluster's endpoints as any others do.
func (s *services) get(clusters *cluster.Set, name string) (*globallimit.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.byCluster[name]; c != nil {
		return c, nil
	}
	c, err := globallimit.New(func(ctx context.Context) (net.Conn, error) { return clusters.Connect(ctx, name) })
	if err != nil {
		return nil, err
	}
	if s.byCluster == nil {
		s.byCluster = map[string]*globallimit.Client{}
	}
	s.byCluster[name] = c
	return c, nil
}

func (s *services) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.byCluster {
		c.Close()
	}
	s.byCluster = nil
}
