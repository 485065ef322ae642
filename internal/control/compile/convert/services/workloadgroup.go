package services

import (
	"strings"

	networkingapi "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
)

// workloadGroup checks a WorkloadGroup. Nothing is made of it until a machine registers by it; a WorkloadEntry stands for itself.
func (p converter) workloadGroup(g *networking.WorkloadGroup) {
	spec := &g.Spec
	p.Only(spec, "spec", "metadata", "template", "probe")
	if m := spec.Metadata; m != nil {
		p.ValidLabels(m.Labels, "spec.metadata.labels")
		for _, k := range parts.SortedKeys(m.Annotations) {
			if problems := validation.IsQualifiedName(strings.ToLower(k)); len(problems) > 0 {
				p.Err("InvalidName", parts.Key("spec.metadata.annotations", k), "", "%q is not valid: %s", k, problems[0])
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
func (p converter) readinessProbe(r *networkingapi.ReadinessProbe, field string) {
	if r == nil {
		return
	}
	for _, n := range []struct {
		name  string
		value int32
	}{{"initialDelaySeconds", r.InitialDelaySeconds}, {"timeoutSeconds", r.TimeoutSeconds}, {"periodSeconds", r.PeriodSeconds},
		{"successThreshold", r.SuccessThreshold}, {"failureThreshold", r.FailureThreshold}} {
		p.Limit(n.value, field+"."+n.name)
	}
	switch m := r.HealthCheckMethod.(type) {
	case *networkingapi.ReadinessProbe_HttpGet:
		p.ValidPort(m.HttpGet.GetPort(), field+".httpGet.port")
		if s := m.HttpGet.GetScheme(); s != "" && s != "HTTP" && s != "HTTPS" {
			p.Err("InvalidValue", field+".httpGet.scheme", "", "%q is neither HTTP nor HTTPS", s)
		}
		for i, h := range m.HttpGet.GetHttpHeaders() {
			if problems := validation.IsHTTPHeaderName(h.GetName()); len(problems) > 0 {
				p.Err("InvalidHeaderName", parts.At(field+".httpGet.httpHeaders", i)+".name", "", "%q is not the name of a header: %s", h.GetName(), problems[0])
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
