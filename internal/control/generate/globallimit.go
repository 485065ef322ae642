package generate

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	serviceconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	globallimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/wire"
)

// globalLimit asks the service about each request once, with a description for each rule that has something to say.
func globalLimit(l *model.RateLimit) *globallimitv3.RateLimit {
	s := l.Service
	m := &globallimitv3.RateLimit{
		Domain: s.Domain, FailureModeDeny: s.Deny, RateLimitedStatus: &typev3.HttpStatus{Code: typev3.StatusCode(l.Status)},
		RateLimitService: &serviceconfigv3.RateLimitServiceConfig{TransportApiVersion: corev3.ApiVersion_V3,
			GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: wire.OutboundCluster(s.Port, "", s.Host)}}}},
	}
	if s.Timeout > 0 {
		m.Timeout = durationpb.New(s.Timeout)
	}
	if l.Report {
		m.EnableXRatelimitHeaders = globallimitv3.RateLimit_DRAFT_VERSION_03
	}
	for i := range l.Rules {
		m.RateLimits = append(m.RateLimits, &routev3.RateLimit{Actions: descriptorActions(&l.Rules[i])})
	}
	return m
}

// serves reports whether the node is an endpoint of a service: a rate-limit service must not be asked whether it may be asked.
func (g *Generator) serves(host string) bool {
	s := g.mesh.Service(host)
	return s != nil && slices.ContainsFunc(g.mesh.Endpoints(s), func(e *model.Endpoint) bool {
		return e.Instance == g.node.Name && e.Namespace == g.node.Namespace
	})
}

// descriptorActions describe the requests of a rule. The first entry with a value is told of those alone that match.
func descriptorActions(r *model.RateLimitRule) (actions []*routev3.RateLimit_Action) {
	headers := limitMatch(r)
	for _, e := range r.Entries {
		switch {
		case e.Value != "" && len(headers) > 0:
			actions = append(actions, headerValueMatch(e.Key, e.Value, headers))
			headers = nil
		case e.Value != "":
			actions = append(actions, genericKey(e.Key, e.Value))
		default:
			actions = append(actions, keyAction(e.Key, e.From))
		}
	}
	return actions
}
