package demand

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ignored is a field without effect here, found when it is set.
type ignored struct {
	set      bool
	severity Severity
	field    string
	message  string
}

func (c *Compiler) report(at string, fields []ignored) {
	for _, f := range fields {
		switch {
		case !f.set:
		case f.severity == Refused:
			c.refuse(at+f.field, "%s", f.message)
		default:
			c.find(f.severity, at+f.field, "%s", f.message)
		}
	}
}

// strategy looks at how a Deployment wants to be updated. Here one more instance is started at a time and none less serves, which
// every strategy but "no more" allows.
func (c *Compiler) strategy(d *appsv1.Deployment) {
	kind, rolling := d.Spec.Strategy.Type, d.Spec.Strategy.RollingUpdate
	surge, unavailable := 1, 0
	if rolling != nil {
		surge = scaled(rolling.MaxSurge, c.w.Replicas, true, 1)
		unavailable = scaled(rolling.MaxUnavailable, c.w.Replicas, false, 0)
	}
	const how = "one more instance is started at a time, and none less serves"
	c.report("spec.", []ignored{
		{kind != "" && kind != appsv1.RecreateDeploymentStrategyType && kind != appsv1.RollingUpdateDeploymentStrategyType, Warning, "strategy.type", how},
		{surge == 0, Warning, "strategy.rollingUpdate.maxSurge", how},
		{surge > 1, Info, "strategy.rollingUpdate.maxSurge", how},
		{surge > 0 && unavailable > 0, Info, "strategy.rollingUpdate.maxUnavailable", how},
		{d.Spec.MinReadySeconds > 0, Warning, "minReadySeconds", "is not waited for: an instance counts once it is ready"},
		{d.Spec.Paused, Warning, "paused", "changes are rolled out nevertheless"},
	})
}

// scaled is a number of instances, or a share of them; def stands for nil and what is neither.
func scaled(v *intstr.IntOrString, replicas int, roundUp bool, def int) int {
	if v == nil {
		return def
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(v, replicas, roundUp)
	if err != nil {
		return def
	}
	return n
}

func (c *Compiler) podFields(spec *corev1.PodSpec, at string) {
	const host = "a pod here always has its own network and the mesh's processes"
	resources := spec.Resources
	c.report(at, []ignored{
		{spec.HostNetwork, Refused, "hostNetwork", host},
		{spec.HostPID, Refused, "hostPID", host},
		{spec.HostIPC, Refused, "hostIPC", host},
		{spec.RestartPolicy != "" && spec.RestartPolicy != corev1.RestartPolicyAlways, Warning, "restartPolicy", "processes that end are always started again"},
		{spec.ActiveDeadlineSeconds != nil, Warning, "activeDeadlineSeconds", "nothing ends the pod"},
		{spec.DNSPolicy == corev1.DNSDefault || spec.DNSPolicy == corev1.DNSNone, Warning, "dnsPolicy", "names are resolved as with ClusterFirst"},
		{spec.DNSConfig != nil, Warning, "dnsConfig", "has no effect: the sidecar resolves names"},
		{len(spec.HostAliases) > 0 && !c.OwnHosts, Warning, "hostAliases", "are in /etc/hosts in netns mode only"},
		{spec.Hostname != "", Warning, "hostname", "the host name is the instance's name"},
		{spec.Subdomain != "", Warning, "subdomain", "instances have no names of their own"},
		{spec.RuntimeClassName != nil, Warning, "runtimeClassName", "processes run as they are, in no container"},
		{len(spec.ReadinessGates) > 0, Warning, "readinessGates", "are not waited for"},
		{len(spec.SchedulingGates) > 0, Warning, "schedulingGates", "are not waited for"},
		{resources != nil && len(resources.Limits) > 0, Warning, "resources.limits", "limits are not enforced locally"},
	})
	c.securityContext(spec.SecurityContext, at+"securityContext")
}

func (c *Compiler) containerFields(k *corev1.Container, at string) {
	c.report(at, []ignored{
		{len(k.Resources.Limits) > 0, Warning, ".resources.limits", "limits are not enforced locally"},
		{len(k.Resources.Claims) > 0, Warning, ".resources.claims", "devices are not claimed; processes see the host's"},
		{k.Stdin || k.TTY, Warning, ".stdin", "there is neither input nor a terminal"},
	})
	for i, p := range k.Ports {
		c.report(fmt.Sprintf("%s.ports[%d]", at, i), []ignored{
			{p.HostPort != 0, Warning, ".hostPort", "no port of the machine is opened for it; let a gateway lead to it"},
		})
	}
	graceful := func(p *corev1.Probe) bool { return p != nil && p.TerminationGracePeriodSeconds != nil }
	c.report(at, []ignored{
		{graceful(k.StartupProbe), Warning, ".startupProbe.terminationGracePeriodSeconds", "the pod's counts"},
		{graceful(k.LivenessProbe), Warning, ".livenessProbe.terminationGracePeriodSeconds", "the pod's counts"},
	})
	c.securityContext(withoutSatisfied(k.SecurityContext), at+".securityContext")
}

// initFields looks at what differs between an init container and one of the application.
func (c *Compiler) initFields(k *corev1.Container, at string) {
	probed := k.StartupProbe != nil || k.LivenessProbe != nil || k.ReadinessProbe != nil
	c.report(at, []ignored{
		{k.RestartPolicy != nil && *k.RestartPolicy == corev1.ContainerRestartPolicyAlways, Refused, ".restartPolicy", "it would never end, and nothing after it start; make it one of the containers"},
		{k.RestartPolicy != nil && *k.RestartPolicy != corev1.ContainerRestartPolicyAlways, Warning, ".restartPolicy", "it is started until it succeeds"},
		{probed || k.Lifecycle != nil, Warning, "", "probes and lifecycle hooks of an init container have no effect"},
	})
}

func (c *Compiler) appFields(k *corev1.Container, at string) {
	c.report(at, []ignored{
		{k.RestartPolicy != nil && *k.RestartPolicy != corev1.ContainerRestartPolicyAlways, Warning, ".restartPolicy", "it is always started again"},
		{len(k.RestartPolicyRules) > 0, Warning, ".restartPolicyRules", "it is always started again"},
		{k.Lifecycle != nil && k.Lifecycle.StopSignal != nil, Warning, ".lifecycle.stopSignal", "SIGTERM ends it"},
	})
}

// withoutSatisfied leaves out of a container's security settings those that hold for every process here.
func withoutSatisfied(s *corev1.SecurityContext) *corev1.SecurityContext {
	if s == nil {
		return nil
	}
	s = s.DeepCopy()
	if !isTrue(s.AllowPrivilegeEscalation) {
		s.AllowPrivilegeEscalation = nil
	}
	if !isTrue(s.Privileged) {
		s.Privileged = nil
	}
	if s.Capabilities != nil && len(s.Capabilities.Add) == 0 {
		s.Capabilities = nil
	}
	return s
}

// securityContext names the settings of a pod or a container that have no effect.
func (c *Compiler) securityContext(s any, field string) {
	raw, err := json.Marshal(s)
	if err != nil { // these types always marshal
		panic(err)
	}
	var set map[string]any
	if err := json.Unmarshal(raw, &set); err != nil || len(set) == 0 {
		return // null, or nothing in it
	}
	var names []string
	for name := range set {
		names = append(names, name)
	}
	slices.Sort(names)
	c.find(Warning, field, "%s: without effect; processes run as the user of weft, without capabilities", strings.Join(names, ", "))
}

// ServiceFields finds what a Service asks for and does not get.
func ServiceFields(s *corev1.Service) []Finding {
	var out []Finding
	for _, f := range []ignored{
		{s.Spec.Type == corev1.ServiceTypeNodePort || s.Spec.Type == corev1.ServiceTypeLoadBalancer, Info, "spec.type",
			"no port of the machine is opened for it; let a Gateway and a route lead to it"},
		{len(s.Spec.ExternalIPs) > 0, Warning, "spec.externalIPs", "are not served"},
		{s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP, Warning, "spec.sessionAffinity",
			"has no effect; a DestinationRule with consistentHash keeps clients at an instance"},
	} {
		if f.set {
			out = append(out, Finding{f.severity, "Service", NamespaceOf(s.Namespace), s.Name, f.field, f.message})
		}
	}
	for i, p := range s.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP && p.Protocol != corev1.ProtocolUDP {
			out = append(out, Finding{Warning, "Service", NamespaceOf(s.Namespace), s.Name, fmt.Sprintf("spec.ports[%d].protocol", i), string(p.Protocol) + " does not pass through the mesh"})
		}
	}
	return out
}
