package convert

import (
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	networkingbeta "istio.io/client-go/pkg/apis/networking/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/model"
)

// workloadGroup checks a WorkloadGroup. Nothing is made of it until a machine registers by it; a WorkloadEntry stands for itself.
func (p *Part) workloadGroup(g *networking.WorkloadGroup) {
	spec := &g.Spec
	p.only(spec, "spec", "metadata", "template", "probe")
	if m := spec.Metadata; m != nil {
		p.validLabels(m.Labels, "spec.metadata.labels")
		for _, k := range sortedKeys(m.Annotations) {
			if problems := validation.IsQualifiedName(strings.ToLower(k)); len(problems) > 0 {
				p.Err("InvalidName", Key("spec.metadata.annotations", k), "", "%q is not valid: %s", k, problems[0])
			}
		}
	}
	if spec.Template == nil {
		p.Err("MissingField", "spec.template", "", "a template is needed")
		return
	}
	if spec.Template.Address != "" {
		p.Err("ConflictingFields", "spec.template.address", "leave it out", "each machine has an address of its own")
	}
	p.entryFields(spec.Template, "spec.template")
	p.readinessProbe(spec.Probe, "spec.probe")
	p.Info("NoEffect", "spec", "write a WorkloadEntry for each machine", "machines do not register by themselves: nothing is made of the group")
}

// readinessProbe checks what Istio's agents ask applications on machines.
func (p *Part) readinessProbe(r *networkingapi.ReadinessProbe, field string) {
	if r == nil {
		return
	}
	for _, n := range []struct {
		name  string
		value int32
	}{{"initialDelaySeconds", r.InitialDelaySeconds}, {"timeoutSeconds", r.TimeoutSeconds}, {"periodSeconds", r.PeriodSeconds},
		{"successThreshold", r.SuccessThreshold}, {"failureThreshold", r.FailureThreshold}} {
		p.limit(n.value, field+"."+n.name)
	}
	switch m := r.HealthCheckMethod.(type) {
	case *networkingapi.ReadinessProbe_HttpGet:
		p.ValidPort(m.HttpGet.GetPort(), field+".httpGet.port")
		if s := m.HttpGet.GetScheme(); s != "" && s != "HTTP" && s != "HTTPS" {
			p.Err("InvalidValue", field+".httpGet.scheme", "", "%q is neither HTTP nor HTTPS", s)
		}
		for i, h := range m.HttpGet.GetHttpHeaders() {
			if problems := validation.IsHTTPHeaderName(h.GetName()); len(problems) > 0 {
				p.Err("InvalidHeaderName", At(field+".httpGet.httpHeaders", i)+".name", "", "%q is not the name of a header: %s", h.GetName(), problems[0])
			}
		}
	case *networkingapi.ReadinessProbe_TcpSocket:
		p.ValidPort(m.TcpSocket.GetPort(), field+".tcpSocket.port")
	case *networkingapi.ReadinessProbe_Grpc:
		if m.Grpc.GetPort() != 0 {
			p.ValidPort(m.Grpc.GetPort(), field+".grpc.port")
		}
	case *networkingapi.ReadinessProbe_Exec:
		if len(m.Exec.GetCommand()) == 0 {
			p.Err("MissingField", field+".exec.command", "", "a command is missing")
		}
	default:
		p.Err("MissingField", field, "", "one of httpGet, tcpSocket, exec and grpc is needed")
	}
}

// proxyConfig converts a ProxyConfig.
func (p *Part) proxyConfig(pc *networkingbeta.ProxyConfig) {
	spec, namespace := &pc.Spec, pc.Namespace
	p.only(spec, "spec", "selector", "concurrency", "environmentVariables", "image")
	out := &model.ProxyConfig{Ref: p.Ref(), Namespace: namespace, Created: p.Born}
	if s := spec.GetSelector(); s != nil {
		out.Selector = p.validLabels(s.MatchLabels, "spec.selector.matchLabels")
		if len(out.Selector) == 0 {
			out.Selector = nil
		}
	}
	if namespace == p.settings.RootNamespace {
		if out.Namespace = ""; out.Selector != nil {
			p.Err("ConflictingFields", "spec.selector", "write it into the workloads' namespace", "in the root namespace it is for all workloads of the mesh")
		}
	}
	if n := spec.GetConcurrency(); n != nil {
		if n.Value < 0 {
			p.Err("InvalidValue", "spec.concurrency", "", "%d is negative", n.Value)
		}
		c := uint32(max(n.Value, 0))
		out.Concurrency = &c
	}
	if len(spec.GetEnvironmentVariables()) > 0 {
		p.Unsupported("spec.environmentVariables", "proxies read nothing from their environment")
	}
	if spec.GetImage() != nil {
		p.Unsupported("spec.image", "proxies run from the weft-proxy that the mesh was installed with")
	}
	p.ProxyConfig = out
}
