package runtime

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

// key names an object.
type key struct{ namespace, name string }

func (k key) String() string { return k.namespace + "/" + k.name }

// workload is a Deployment as the runtime runs it; immutable.
type workload struct {
	key
	gateway  bool
	replicas int
	recreate bool   // strategy: old pods leave before new ones come
	revision string // changes with the template and with Restart
	labels   map[string]string
	account  string // service account
	sidecar  bool
	grace    time.Duration
	template *corev1.PodTemplateSpec
	inits    []container
	apps     []container

	// state is NoCommand or Invalid when it cannot run, and reason says why.
	state  State
	reason string
}

// container is one application process, checked.
type container struct {
	name    string
	command []string
	dir     string
	env     []corev1.EnvVar // values and field references only
	ports   []corev1.ContainerPort
	probes  map[string]*checkSpec // "startup", "liveness", "readiness"
	preStop *corev1.LifecycleHandler
}

// checkSpec is a probe, checked.
type checkSpec struct {
	probe.Timing
	handler corev1.ProbeHandler
}

// compiler turns a Deployment into a workload and finds what cannot be done.
type compiler struct {
	images   map[string][]string
	accounts map[key]bool
	ownHosts bool // pods have an /etc/hosts of their own
	w        *workload
	findings []Finding
}

const (
	labelInject    = "sidecar.istio.io/inject"
	defaultGrace   = 30 * time.Second
	defaultAccount = "default"
)

func (c *compiler) compile(d *appsv1.Deployment, restarts int) *workload {
	spec := d.Spec.Template.Spec
	c.w = &workload{key: key{namespaceOf(d.Namespace), d.Name}, replicas: 1, labels: d.Spec.Template.Labels, sidecar: true, grace: defaultGrace, account: defaultAccount}
	w := c.w
	w.template = d.Spec.Template.DeepCopy()
	w.revision = revision(w.template, restarts)
	w.recreate = d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType
	if d.Spec.Replicas != nil {
		w.replicas = int(*d.Spec.Replicas)
	}
	if s := spec.TerminationGracePeriodSeconds; s != nil {
		w.grace = time.Duration(*s) * time.Second
	}
	if spec.ServiceAccountName != "" {
		w.account = spec.ServiceAccountName
	}
	if w.labels[labelInject] == "false" || d.Spec.Template.Annotations[labelInject] == "false" {
		w.sidecar = false
	}
	c.strategy(d)
	c.pod(&spec)
	for i := range spec.InitContainers {
		at := fmt.Sprintf("spec.template.spec.initContainers[%d]", i)
		w.inits = append(w.inits, c.container(&spec.InitContainers[i], at))
		c.initFields(&spec.InitContainers[i], at)
	}
	for i := range spec.Containers {
		at := fmt.Sprintf("spec.template.spec.containers[%d]", i)
		w.apps = append(w.apps, c.container(&spec.Containers[i], at))
		c.appFields(&spec.Containers[i], at)
	}
	if len(spec.Containers) == 0 {
		c.refuse("spec.template.spec.containers", "there is none")
	}
	return w
}

func namespaceOf(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
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

func (c *compiler) find(s Severity, field, format string, args ...any) {
	c.findings = append(c.findings, Finding{s, "Deployment", c.w.namespace, c.w.name, field, fmt.Sprintf(format, args...)})
}

// refuse makes the workload one that does not run; the first reason stays.
func (c *compiler) refuse(field, format string, args ...any) {
	c.find(Refused, field, format, args...)
	if c.w.state == "" {
		c.w.state, c.w.reason = Invalid, field+": "+fmt.Sprintf(format, args...)
	}
}

func (c *compiler) pod(spec *corev1.PodSpec) {
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
	if !c.accounts[key{c.w.namespace, c.w.account}] && c.w.account != defaultAccount {
		c.find(Warning, at+"serviceAccountName", "there is no ServiceAccount %q; its identity is given nevertheless", c.w.account)
	}
}

// isOptional reports whether a pod runs without what a volume holds.
func isOptional(v *corev1.Volume) bool {
	if v.Secret != nil {
		return v.Secret.Optional != nil && *v.Secret.Optional
	}
	return v.ConfigMap != nil && v.ConfigMap.Optional != nil && *v.ConfigMap.Optional
}

func (c *compiler) container(k *corev1.Container, field string) container {
	out := container{name: k.Name, dir: k.WorkingDir, ports: k.Ports, probes: map[string]*checkSpec{}}
	out.command = append(append([]string{}, k.Command...), k.Args...)
	if len(k.Command) == 0 {
		out.command = append(append([]string{}, c.image(k.Image)...), k.Args...)
		if c.image(k.Image) == nil {
			c.find(Refused, field+".command", "images are not run locally; give the command that starts it")
			if c.w.state == "" {
				c.w.state, c.w.reason = NoCommand, fmt.Sprintf("container %s has no command, and images are not run locally", k.Name)
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
func (c *compiler) image(image string) []string {
	if cmd, ok := c.images[image]; ok {
		return cmd
	}
	var best string
	for pattern := range c.images {
		ok, _ := path.Match(pattern, image)
		if (ok || strings.HasPrefix(image, pattern)) && len(pattern) > len(best) {
			best = pattern
		}
	}
	return c.images[best]
}

func (c *compiler) env(out *container, e corev1.EnvVar, field string) {
	if v := e.ValueFrom; v != nil {
		switch {
		case v.FieldRef != nil:
			if _, ok := fieldValue(v.FieldRef.FieldPath, &corev1.Pod{}); !ok {
				c.refuse(field+".valueFrom.fieldRef", "%s: field %q is not known", e.Name, v.FieldRef.FieldPath)
			}
		case v.ConfigMapKeyRef != nil && isTrue(v.ConfigMapKeyRef.Optional), v.SecretKeyRef != nil && isTrue(v.SecretKeyRef.Optional):
			return
		default:
			c.refuse(field+".valueFrom", "%s: ConfigMaps, Secrets and resources are not read locally; give a value", e.Name)
		}
	}
	out.env = append(out.env, e)
}

func (c *compiler) lifecycle(out *container, l *corev1.Lifecycle, field string) {
	if l.PostStart != nil {
		c.refuse(field+".postStart", "is not run locally")
	}
	if s := l.PreStop; s != nil {
		if s.Exec == nil && s.Sleep == nil {
			c.refuse(field+".preStop", "only exec and sleep run locally")
		}
		out.preStop = s
	}
}

func (c *compiler) probe(out *container, kind string, p *corev1.Probe, field string) {
	if p == nil {
		return
	}
	or := func(v, def int32) int { return max(int(v), 0) + int(def)*b2i(v <= 0) }
	seconds := func(v, def int32) time.Duration { return time.Duration(or(v, def)) * time.Second }
	spec := &checkSpec{handler: p.ProbeHandler, Timing: probe.Timing{
		InitialDelay: seconds(p.InitialDelaySeconds, 0), Period: seconds(p.PeriodSeconds, 10), Timeout: seconds(p.TimeoutSeconds, 1),
		FailureThreshold: or(p.FailureThreshold, 3), SuccessThreshold: or(p.SuccessThreshold, 1),
	}}
	var err error
	switch {
	case p.HTTPGet != nil:
		_, err = resolvePort(p.HTTPGet.Port, out.ports)
		if p.HTTPGet.Host != "" {
			if _, bad := netip.ParseAddr(p.HTTPGet.Host); bad != nil {
				err = fmt.Errorf("host %q is not an address", p.HTTPGet.Host)
			}
		}
	case p.TCPSocket != nil:
		_, err = resolvePort(p.TCPSocket.Port, out.ports)
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
	out.probes[kind] = spec
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// resolvePort finds a container's port by number or name.
func resolvePort(p intstr.IntOrString, ports []corev1.ContainerPort) (uint16, error) {
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
var gatewayKey = key{"istio-system", "istio-ingressgateway"}

func gatewayWorkload(restarts int) *workload {
	labels := map[string]string{"istio": "ingressgateway", "app": "istio-ingressgateway"}
	t := &corev1.PodTemplateSpec{}
	t.Labels = labels
	t.Spec.ServiceAccountName = "istio-ingressgateway-service-account"
	return &workload{
		key: gatewayKey, gateway: true, replicas: 1, labels: labels,
		account: t.Spec.ServiceAccountName, sidecar: true, template: t, revision: revision(t, restarts),
	}
}
