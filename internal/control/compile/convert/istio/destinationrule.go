package istio

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"
	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
)

// destinationRule converts a DestinationRule.
func (p converter) destinationRule(dr *networking.DestinationRule) {
	spec := &dr.Spec
	p.Only(spec, "spec", "host", "trafficPolicy", "subsets", "exportTo", "workloadSelector")
	d := &model.Destination{Ref: p.Ref(), Created: p.Born, ExportTo: p.ExportTo(parts.DefaultExport(spec.ExportTo, p.Mesh.DestinationExport), "spec.exportTo")}
	if spec.Host == "*" || p.ValidHost(spec.Host, "spec.host", true) {
		d.Host = p.FullHost(spec.Host)
	}
	p.Destination = d
	if policy := p.trafficPolicy(spec.TrafficPolicy, "spec.trafficPolicy"); policy != nil {
		d.Policy = *policy
	}
	p.ownBalancing(dr.Annotations, d)
	p.healthCheck(dr.Annotations, d)
	if sel := spec.WorkloadSelector; sel != nil {
		d.Selector = p.ValidLabels(sel.MatchLabels, "spec.workloadSelector.matchLabels")
		if len(sel.MatchLabels) == 0 {
			d.Selector = map[string]string{} // which is not none: it selects all
			p.Warn("MissingField", "spec.workloadSelector.matchLabels", "leave workloadSelector out, or write labels", "without labels it selects all clients of the namespace")
		}
		if len(spec.ExportTo) > 0 && !d.ExportTo.Private {
			p.Err("ConflictingFields", "spec.exportTo", `leave it out, or write "."`, "a rule for selected workloads is for those of its own namespace")
		}
	}
	seen := map[string]int{}
	for i, s := range spec.Subsets {
		field := parts.At("spec.subsets", i)
		if first, ok := seen[s.Name]; ok {
			p.Err("DuplicateSubset", field+".name", "", "subset %q is already spec.subsets[%d]", s.Name, first)
		}
		seen[s.Name] = i
		d.Subsets = append(d.Subsets, p.subset(s, field))
	}
}

func (p converter) subset(s *networkingapi.Subset, field string) model.Subset {
	p.Only(s, field, "name", "labels", "trafficPolicy")
	if s.Name == "" {
		p.Err("MissingField", field+".name", "", "a name is missing")
	} else if problems := validation.IsDNS1123Label(s.Name); len(problems) > 0 {
		p.Err("InvalidName", field+".name", "", "%q is not valid: %s", s.Name, problems[0])
	}
	return model.Subset{Name: s.Name, Labels: p.ValidLabels(s.Labels, field+".labels"),
		Policy: p.trafficPolicy(s.TrafficPolicy, field+".trafficPolicy")}
}

func (p converter) trafficPolicy(t *networkingapi.TrafficPolicy, field string) *model.TrafficPolicy {
	if t == nil {
		return nil
	}
	p.notEmpty(t, field, "a policy")
	p.Only(t, field, "loadBalancer", "connectionPool", "outlierDetection", "tls", "portLevelSettings", "proxyProtocol", "retryBudget", "tunnel")
	out := &model.TrafficPolicy{
		Balancing: p.balancing(t.LoadBalancer, field+".loadBalancer"),
		Pool:      p.pool(t.ConnectionPool, field+".connectionPool"),
		Outlier:   p.outlier(t.OutlierDetection, field+".outlierDetection"),
	}
	out.TLS = p.clientTLS(t.Tls, field+".tls")
	if l := t.LoadBalancer.GetLocalityLbSetting(); t.OutlierDetection == nil && len(l.GetFailover())+len(l.GetFailoverPriority()) > 0 {
		p.Warn("NoEffect", field+".loadBalancer.localityLbSetting", "add outlierDetection", "without outlierDetection nothing tells that endpoints fail, and none is preferred")
	}
	if b := t.RetryBudget; b != nil {
		p.Only(b, field+".retryBudget", "percent", "minRetryConcurrency")
		n := b.MinRetryConcurrency
		out.RetryBudget = &model.RetryBudget{Min: &n}
		if n == 0 { // as in Istio not to be told from one that is left out
			out.RetryBudget.Min = nil
		}
		if v := b.Percent; v != nil {
			percent := p.Percent(v.Value, field+".retryBudget.percent")
			out.RetryBudget.Percent = &percent
		}
	}
	if h := t.ProxyProtocol; h != nil {
		p.Only(h, field+".proxyProtocol", "version")
		out.ProxyProtocol = uint8(h.Version) + 1
	}
	if out.Tunnel = p.tunnel(t.Tunnel, field+".tunnel"); out.Tunnel != nil && t.ProxyProtocol != nil {
		p.Err("ConflictingFields", field+".proxyProtocol", "remove one of them", "does not go with tunnel")
	}
	for i, pl := range t.PortLevelSettings {
		f := parts.At(field+".portLevelSettings", i)
		p.Only(pl, f, "port", "loadBalancer", "connectionPool", "outlierDetection", "tls")
		if pl.LoadBalancer == nil && pl.ConnectionPool == nil && pl.OutlierDetection == nil && pl.Tls == nil {
			p.Err("MissingField", f, "", "the port has no settings")
		}
		if pl.Port == nil {
			p.Err("MissingField", f+".port", "", "a port is missing")
			continue
		}
		number := p.ValidPort(pl.Port.Number, f+".port.number")
		if out.Ports[number] != nil {
			p.Err("DuplicatePort", f+".port.number", "", "port %d has settings already", number)
		}
		if out.Ports == nil {
			out.Ports = map[uint16]*model.TrafficPolicy{}
		}
		out.Ports[number] = &model.TrafficPolicy{
			Balancing: p.balancing(pl.LoadBalancer, f+".loadBalancer"), Pool: p.pool(pl.ConnectionPool, f+".connectionPool"),
			Outlier: p.outlier(pl.OutlierDetection, f+".outlierDetection"), TLS: p.clientTLS(pl.Tls, f+".tls"),
		}
	}
	return out
}

// notEmpty refuses a block that says nothing.
func (p converter) notEmpty(m proto.Message, field, what string) {
	said := false
	m.ProtoReflect().Range(func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
		said = true
		return false
	})
	if !said {
		p.Err("MissingField", field, "leave it out", "%s without any setting", what)
	}
}

func (p converter) pool(c *networkingapi.ConnectionPoolSettings, field string) *model.ConnectionPool {
	if c == nil {
		return nil
	}
	p.notEmpty(c, field, "a connection pool")
	out := &model.ConnectionPool{}
	if t := c.Tcp; t != nil {
		p.Only(t, field+".tcp", "maxConnections", "connectTimeout", "tcpKeepalive", "maxConnectionDuration", "idleTimeout")
		out.MaxConnectionDuration = p.Timeout(t.MaxConnectionDuration, field+".tcp.maxConnectionDuration")
		out.TCPIdleTimeout = p.TimeoutOrZero(t.IdleTimeout, field+".tcp.idleTimeout")
		if t.IdleTimeout != nil && out.TCPIdleTimeout == 0 {
			out.TCPIdleTimeout = parts.MaxDuration // 0s turns it off
		}
		if k := t.TcpKeepalive; k != nil {
			out.KeepAlive = p.keepAlive(k, field+".tcp.tcpKeepalive")
		}
		out.MaxConnections = p.Limit(t.MaxConnections, field+".tcp.maxConnections")
		out.ConnectTimeout = p.Timeout(t.ConnectTimeout, field+".tcp.connectTimeout")
	}
	if h := c.Http; h != nil {
		f := field + ".http"
		p.Only(h, f, "http1MaxPendingRequests", "http2MaxRequests", "maxRequestsPerConnection", "maxRetries", "idleTimeout",
			"h2UpgradePolicy", "useClientProtocol", "maxConcurrentStreams", "http2KeepAlive")
		out.MaxStreams = p.Limit(h.MaxConcurrentStreams, f+".maxConcurrentStreams")
		if k := h.Http2KeepAlive; k != nil {
			p.pings(k, f+".http2KeepAlive", out)
		}
		out.UpgradeHTTP2 = h.H2UpgradePolicy == networkingapi.ConnectionPoolSettings_HTTPSettings_UPGRADE
		out.KeepHTTP1 = h.H2UpgradePolicy == networkingapi.ConnectionPoolSettings_HTTPSettings_DO_NOT_UPGRADE
		out.ClientProtocol = h.UseClientProtocol
		if out.UpgradeHTTP2 && out.ClientProtocol {
			p.Err("ConflictingFields", f+".useClientProtocol", "", "h2UpgradePolicy UPGRADE speaks HTTP/2, whatever the client speaks")
		}
		out.MaxPending = p.Limit(h.Http1MaxPendingRequests, f+".http1MaxPendingRequests")
		out.MaxRequests = p.Limit(h.Http2MaxRequests, f+".http2MaxRequests")
		out.MaxRequestsPerConnection = p.Limit(h.MaxRequestsPerConnection, f+".maxRequestsPerConnection")
		out.IdleTimeout = p.Timeout(h.IdleTimeout, f+".idleTimeout")
		if n := p.Limit(h.MaxRetries, f+".maxRetries"); n > 0 {
			out.MaxRetries = &n
		}
	}
	return out
}

// pings reads when connections of HTTP/2 are asked whether they are alive.
func (p converter) pings(k *networkingapi.ConnectionPoolSettings_HTTPSettings_ConnectionKeepalive, field string, out *model.ConnectionPool) {
	p.Only(k, field, "interval", "timeout")
	out.PingAfter, out.PingTimeout = p.Timeout(k.Interval, field+".interval"), p.Timeout(k.Timeout, field+".timeout")
	if k.Interval == nil {
		p.Err("MissingField", field+".interval", "", "a duration is missing")
	}
	if k.Timeout == nil {
		p.Err("MissingField", field+".timeout", "", "a duration is missing")
	}
}

func (p converter) outlier(o *networkingapi.OutlierDetection, field string) *model.Outlier {
	if o == nil {
		return nil
	}
	if o.ConsecutiveLocalOriginFailures.GetValue() > 0 && !o.SplitExternalLocalOriginErrors {
		p.Err("ConflictingFields", field+".consecutiveLocalOriginFailures", "set splitExternalLocalOriginErrors", "it counts only where local failures are told from others")
	}
	p.Only(o, field, "splitExternalLocalOriginErrors", "consecutiveLocalOriginFailures", "consecutiveGatewayErrors",
		"consecutive5xxErrors", "interval", "baseEjectionTime", "maxEjectionPercent", "minHealthPercent", "outlierDetectionHttpErrorCodes")
	for i, code := range o.OutlierDetectionHttpErrorCodes {
		if code < 100 || code > 599 {
			p.Err("InvalidStatus", parts.At(field+".outlierDetectionHttpErrorCodes", i), "", "%d is not between 100 and 599", code)
		}
	}
	return &model.Outlier{
		Consecutive5xx: number(o.Consecutive_5XxErrors), ConsecutiveGateway: number(o.ConsecutiveGatewayErrors),
		ConsecutiveLocal: number(o.ConsecutiveLocalOriginFailures), SplitLocalOrigin: o.SplitExternalLocalOriginErrors,
		Interval: p.Timeout(o.Interval, field+".interval"), BaseEjection: p.Timeout(o.BaseEjectionTime, field+".baseEjectionTime"),
		MaxEjectionPercent: uint32(p.Percent(float64(o.MaxEjectionPercent), field+".maxEjectionPercent")),
		MinHealthPercent:   uint32(p.Percent(float64(o.MinHealthPercent), field+".minHealthPercent")),
		ErrorCodes:         o.OutlierDetectionHttpErrorCodes,
	}
}

func number(v *wrapperspb.UInt32Value) *uint32 {
	if v == nil {
		return nil
	}
	n := v.Value
	return &n
}

var clientModes = map[networkingapi.ClientTLSSettings_TLSmode]model.TLSMode{
	networkingapi.ClientTLSSettings_DISABLE: model.TLSDisable, networkingapi.ClientTLSSettings_SIMPLE: model.TLSSimple,
	networkingapi.ClientTLSSettings_MUTUAL: model.TLSMutual, networkingapi.ClientTLSSettings_ISTIO_MUTUAL: model.TLSIstioMutual,
}

func (p converter) clientTLS(t *networkingapi.ClientTLSSettings, field string) *model.ClientTLS {
	if t == nil {
		return nil
	}
	p.Only(t, field, "mode", "credentialName", "subjectAltNames", "sni", "insecureSkipVerify")
	out := &model.ClientTLS{Mode: clientModes[t.Mode], SNI: t.Sni, SANs: t.SubjectAltNames, SkipVerify: t.InsecureSkipVerify.GetValue()}
	if t.Sni != "" {
		p.ValidHost(t.Sni, field+".sni", false)
	}
	if out.SkipVerify && t.Mode == networkingapi.ClientTLSSettings_SIMPLE && t.CredentialName != "" {
		p.Warn("NoEffect", field+".credentialName", "leave one of them out", "insecureSkipVerify takes any certificate, and mode SIMPLE shows none")
	}
	if out.SkipVerify && len(t.SubjectAltNames) > 0 {
		p.Err("ConflictingFields", field+".subjectAltNames", "", "insecureSkipVerify compares no names")
	}
	ours := t.Mode == networkingapi.ClientTLSSettings_ISTIO_MUTUAL || t.Mode == networkingapi.ClientTLSSettings_DISABLE
	switch {
	case ours && t.CredentialName != "":
		p.Err("ConflictingFields", field+".credentialName", "", "mode %s takes no credential", t.Mode)
	case t.Mode == networkingapi.ClientTLSSettings_MUTUAL && t.CredentialName == "" && t.ClientCertificate != "": // is refused, and says what to do
	case t.Mode == networkingapi.ClientTLSSettings_MUTUAL && t.CredentialName == "":
		p.Err("MissingField", field+".credentialName", "", "mode MUTUAL needs a credentialName")
	case t.Mode == networkingapi.ClientTLSSettings_SIMPLE && out.SkipVerify: // nothing of a Secret is needed
	case t.CredentialName != "":
		p.Credentials = append(p.Credentials, parts.Credential{Name: t.CredentialName, Field: field + ".credentialName",
			Pair: t.Mode == networkingapi.ClientTLSSettings_MUTUAL, CA: true,
			Take: func(s parts.Secret) { out.Certificate, out.Key, out.CA, out.CRL = s.Certificate, s.Key, s.CA, s.CRL },
			Lack: func(why string) { out.Refuse = why }})
	}
	return out
}
