package demand

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/weftmesh/weft/internal/runtime/probe"
)

// Compiler turns a Deployment into a workload and finds what cannot be done.
type Compiler struct {
	Images   map[string][]string
	Accounts map[Key]bool
	OwnHosts bool // pods have an /etc/hosts of their own
	w        *Workload
	Findings []Finding
}

const (
	labelInject    = "sidecar.istio.io/inject"
	defaultGrace   = 30 * time.Second
	defaultAccount = "default"
)

func (c *Compiler) Compile(d *appsv1.Deployment, restarts int) *Workload {
	spec := d.Spec.Template.Spec
	c.w = &Workload{Key: Key{NamespaceOf(d.Namespace), d.Name}, Replicas: 1, Labels: d.Spec.Template.Labels, Sidecar: true, Grace: defaultGrace, Account: defaultAccount}
	w := c.w
	w.Template = d.Spec.Template.DeepCopy()
	w.Revision = revision(w.Template, restarts)
	w.Recreate = d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	if d.Spec.Replicas != nil {
		w.Replicas = int(*d.Spec.Replicas)
	}
	if s := spec.TerminationGracePeriodSeconds; s != nil {
		w.Grace = time.Duration(*s) * time.Second
	}
	if spec.ServiceAccountName != "" {
		w.Account = spec.ServiceAccountName
	}
	if w.Labels[labelInject] == "false" || d.Spec.Template.Annotations[labelInject] == "false" {
		w.Sidecar = false
	}
	c.strategy(d)
	c.pod(&spec)
	for i := range spec.InitContainers {
		at := fmt.Sprintf("spec.template.spec.initContainers[%d]", i)
		w.Inits = append(w.Inits, c.container(&spec.InitContainers[i], at))
		c.initFields(&spec.InitContainers[i], at)
	}
	for i := range spec.Containers {
		at := fmt.Sprintf("spec.template.spec.containers[%d]", i)
		w.Apps = append(w.Apps, c.container(&spec.Containers[i], at))
		c.appFields(&spec.Containers[i], at)
	}
	if len(spec.Containers) == 0 {
		c.refuse("spec.template.spec.containers", "there is none")
	}
	return w
}

// revision names a pod template: pods of another revision are replaced.
func revision(t *corev1.PodTemplateSpec, restarts int) string {
	raw, err := json.Marshal(t)
	if err != nil { // these types always marshal
		panic(err)
	}
	sum := sha256.Sum256(fmt.Appendf(raw, "#%d", restarts))
	return hex.EncodeToString(sum[:5])
}

func (c *Compiler) find(s Severity, field, format string, args ...any) {
	c.Findings = append(c.Findings, Finding{s, "Deployment", c.w.Namespace, c.w.Name, field, fmt.Sprintf(format, args...)})
}

// refuse makes the workload one that does not run; the first reason stays.
func (c *Compiler) refuse(field, format string, args ...any) {
	c.find(Refused, field, format, args...)
	if c.w.State == "" {
		c.w.State, c.w.Reason = Invalid, field+": "+fmt.Sprintf(format, args...)
	}
}

func (c *Compiler) pod(spec *corev1.PodSpec) {
	const at = "spec.template.spec."
	c.podFields(spec, at)
	for i, v := range spec.Volumes {
		field := fmt.Sprintf("%svolumes[%d]", at, i)
		if v.EmptyDir != nil || v.VolumeSource == (corev1.VolumeSource{}) {
			c.find(Warning, field, "%s: processes see the host's files; nothing is mounted", v.Name)
			continue
		}
		if isOptional(&v) {
			c.find(Warning, field, "%s: it is optional, and is not mounted", v.Name)
			continue
		}
		c.refuse(field, "%s: only emptyDir volumes, and optional ones, run locally", v.Name)
	}
	if !c.Accounts[Key{c.w.Namespace, c.w.Account}] && c.w.Account != defaultAccount {
		c.find(Warning, at+"serviceAccountName", "there is no ServiceAccount %q; its identity is given nevertheless", c.w.Account)
	}
}

// isOptional reports whether a pod runs without what a volume holds.
func isOptional(v *corev1.Volume) bool {
	if v.Secret != nil {
		return v.Secret.Optional != nil && *v.Secret.Optional
	}
	return v.ConfigMap != nil && v.ConfigMap.Optional != nil && *v.ConfigMap.Optional
}

func (c *Compiler) container(k *corev1.Container, field string) Container {
	out := Container{Name: k.Name, Dir: k.WorkingDir, Ports: k.Ports, Probes: map[string]*Check{}}
	out.Command = append(append([]string{}, k.Command...), k.Args...)
	if len(k.Command) == 0 {
		out.Command = append(append([]string{}, c.image(k.Image)...), k.Args...)
		if c.image(k.Image) == nil {
			c.find(Refused, field+".command", "images are not run locally; give the command that starts it")
			if c.w.State == "" {
				c.w.State, c.w.Reason = NoCommand, fmt.Sprintf("container %s has no command, and images are not run locally", k.Name)
			}
		}
	}
	for i, e := range k.EnvFrom {
		if optional := e.ConfigMapRef != nil && isTrue(e.ConfigMapRef.Optional) || e.SecretRef != nil && isTrue(e.SecretRef.Optional); !optional {
			c.refuse(fmt.Sprintf("%s.envFrom[%d]", field, i), "ConfigMaps and Secrets are not read locally")
		}
	}
	for i, e := range k.Env {
		c.env(&out, e, fmt.Sprintf("%s.env[%d]", field, i))
	}
	c.probe(&out, "startup", k.StartupProbe, field+".startupProbe")
	c.probe(&out, "liveness", k.LivenessProbe, field+".livenessProbe")
	c.probe(&out, "readiness", k.ReadinessProbe, field+".readinessProbe")
	if k.Lifecycle != nil {
		c.lifecycle(&out, k.Lifecycle, field+".lifecycle")
	}
	c.containerFields(k, field)
	return out
}

func isTrue(b *bool) bool { return b != nil && *b }

// image gives the command that Options.Images has for an image; nil for none.
func (c *Compiler) image(image string) []string {
	if cmd, ok := c.Images[image]; ok {
		return cmd
	}
	var best string
	for pattern := range c.Images {
		ok, _ := path.Match(pattern, image)
		if (ok || strings.HasPrefix(image, pattern)) && len(pattern) > len(best) {
			best = pattern
		}
	}
	return c.Images[best]
}

func (c *Compiler) env(out *Container, e corev1.EnvVar, field string) {
	if v := e.ValueFrom; v != nil {
		switch {
		case v.FieldRef != nil:
			if _, ok := FieldValue(v.FieldRef.FieldPath, &corev1.Pod{}); !ok {
				c.refuse(field+".valueFrom.fieldRef", "%s: field %q is not known", e.Name, v.FieldRef.FieldPath)
			}
		case v.ConfigMapKeyRef != nil && isTrue(v.ConfigMapKeyRef.Optional), v.SecretKeyRef != nil && isTrue(v.SecretKeyRef.Optional):
			return
		default:
			c.refuse(field+".valueFrom", "%s: ConfigMaps, Secrets and resources are not read locally; give a value", e.Name)
		}
	}
	out.Env = append(out.Env, e)
}

func (c *Compiler) lifecycle(out *Container, l *corev1.Lifecycle, field string) {
	if l.PostStart != nil {
		c.refuse(field+".postStart", "is not run locally")
	}
	if s := l.PreStop; s != nil {
		if s.Exec == nil && s.Sleep == nil {
			c.refuse(field+".preStop", "only exec and sleep run locally")
		}
		out.PreStop = s
	}
}

func (c *Compiler) probe(out *Container, kind string, p *corev1.Probe, field string) {
	if p == nil {
		return
	}
	or := func(v, def int32) int {
		if v <= 0 {
			return int(def)
		}
		return int(v)
	}
	seconds := func(v, def int32) time.Duration { return time.Duration(or(v, def)) * time.Second }
	spec := &Check{Handler: p.ProbeHandler, Timing: probe.Timing{
		InitialDelay: seconds(p.InitialDelaySeconds, 0), Period: seconds(p.PeriodSeconds, 10), Timeout: seconds(p.TimeoutSeconds, 1),
		FailureThreshold: or(p.FailureThreshold, 3), SuccessThreshold: or(p.SuccessThreshold, 1),
	}}
	var err error
	switch {
	case p.HTTPGet != nil:
		_, err = ResolvePort(p.HTTPGet.Port, out.Ports)
		if p.HTTPGet.Host != "" {
			if _, bad := netip.ParseAddr(p.HTTPGet.Host); bad != nil {
				err = fmt.Errorf("host %q is not an address", p.HTTPGet.Host)
			}
		}
	case p.TCPSocket != nil:
		_, err = ResolvePort(p.TCPSocket.Port, out.Ports)
	case p.Exec != nil:
		if len(p.Exec.Command) == 0 {
			err = fmt.Errorf("exec.command is empty")
		}
	default:
		err = fmt.Errorf("only httpGet, tcpSocket and exec run locally")
	}
	if err != nil {
		c.refuse(field, "%v", err)
		return
	}
	out.Probes[kind] = spec
}

// ResolvePort finds a container's port by number or name.
func ResolvePort(p intstr.IntOrString, ports []corev1.ContainerPort) (uint16, error) {
	if p.Type == intstr.Int {
		if p.IntVal < 1 || p.IntVal > 65535 {
			return 0, fmt.Errorf("port %d is out of range", p.IntVal)
		}
		return uint16(p.IntVal), nil
	}
	for _, cp := range ports {
		if cp.Name == p.StrVal {
			return uint16(cp.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("no port is named %q", p.StrVal)
}

// gatewayKey and gatewayWorkload are the built-in ingress gateway, under the names that Istio's installation gives it.
var GatewayKey = Key{"istio-system", "istio-ingressgateway"}

func GatewayWorkload(restarts int) *Workload {
	labels := map[string]string{"istio": "ingressgateway", "app": "istio-ingressgateway"}
	t := &corev1.PodTemplateSpec{}
	t.Labels = labels
	t.Spec.ServiceAccountName = "istio-ingressgateway-service-account"
	return &Workload{
		Key: GatewayKey, Gateway: true, Replicas: 1, Labels: labels,
		Account: t.Spec.ServiceAccountName, Sidecar: true, Template: t, Revision: revision(t, restarts),
	}
}
