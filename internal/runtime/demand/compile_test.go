package demand

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestCompile(t *testing.T) {
	yes := true
	for _, tt := range []struct {
		name    string
		edit    func(*appsv1.Deployment, *corev1.Container)
		state   Refusal
		finding string // severity field: message
	}{
		{"as it should be", func(*appsv1.Deployment, *corev1.Container) {}, "", ""},
		{"no command", func(_ *appsv1.Deployment, c *corev1.Container) { c.Command = nil }, NoCommand,
			"refused spec.template.spec.containers[0].command: images are not run locally"},
		{"image with a command", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.Command, c.Image = nil, "docker.io/istio/examples-bookinfo-reviews-v1:1.20"
		}, "", ""},
		{"config map", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{}}}}
		}, Invalid, "refused spec.template.spec.containers[0].env[0].valueFrom: A: ConfigMaps"},
		{"optional config map", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{Optional: &yes}}}
		}, "", ""},
		{"secret of all", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{}}}
		}, Invalid, "refused spec.template.spec.containers[0].envFrom[0]: "},
		{"unknown field", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.Env = []corev1.EnvVar{{Name: "A", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nope"}}}}
		}, Invalid, `field "spec.nope" is not known`},
		{"empty folder", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		}, "", "warning spec.template.spec.volumes[0]: tmp: "},
		{"secret volume", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "key", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{}}}}
		}, Invalid, "refused spec.template.spec.volumes[0]: key: "},
		{"optional secret volume", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "key", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{Optional: &yes}}}}
		}, "", "warning spec.template.spec.volumes[0]: key: "},
		{"probe of an unknown port", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("nope")}}}
		}, Invalid, `readinessProbe: no port is named "nope"`},
		{"gRPC probe", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1}}}
		}, Invalid, "only httpGet, tcpSocket and exec run locally"},
		{"unknown account", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Template.Spec.ServiceAccountName = "nobody" }, "",
			`warning spec.template.spec.serviceAccountName: there is no ServiceAccount "nobody"`},
		{"own security settings that hold", func(_ *appsv1.Deployment, c *corev1.Container) {
			no := false
			c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Privileged: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
		}, "", ""},
		{"own security settings", func(_ *appsv1.Deployment, c *corev1.Container) {
			id := int64(7)
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: &id, Privileged: &yes}
		}, "", "warning spec.template.spec.containers[0].securityContext: privileged, runAsUser: without effect"},
		{"empty security settings of the pod", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.SecurityContext = &corev1.PodSecurityContext{}
		}, "", ""},
		{"security settings of the pod", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: &yes}
		}, "", "warning spec.template.spec.securityContext: runAsNonRoot: without effect"},
		{"container that never ends among the first", func(d *appsv1.Deployment, c *corev1.Container) {
			always := corev1.ContainerRestartPolicyAlways
			d.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "i", Command: c.Command, RestartPolicy: &always}}
		}, Invalid, "refused spec.template.spec.initContainers[0].restartPolicy: it would never end"},
		{"probe of an init container", func(d *appsv1.Deployment, c *corev1.Container) {
			d.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "i", Command: c.Command, Lifecycle: &corev1.Lifecycle{}}}
		}, "", "warning spec.template.spec.initContainers[0]: probes and"},
		{"stop signal", func(_ *appsv1.Deployment, c *corev1.Container) {
			hup := corev1.SIGHUP
			c.Lifecycle = &corev1.Lifecycle{StopSignal: &hup}
		}, "", "warning spec.template.spec.containers[0].lifecycle.stopSignal: "},
		{"hook after the start", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{}}
		}, Invalid, "refused spec.template.spec.containers[0].lifecycle.postStart: "},
		{"limits", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1")}
		}, "", "warning spec.template.spec.containers[0].resources.limits: "},
		{"requests", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("1")}
		}, "", ""},
		{"host port", func(_ *appsv1.Deployment, c *corev1.Container) { c.Ports[0].HostPort = 80 }, "", "warning spec.template.spec.containers[0].ports[0].hostPort: "},
		{"host aliases", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.HostAliases = []corev1.HostAlias{{IP: "192.0.2.1", Hostnames: []string{"a"}}}
		}, "", "warning spec.template.spec.hostAliases: "},
		{"own name servers", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.DNSConfig = &corev1.PodDNSConfig{}
		}, "", "warning spec.template.spec.dnsConfig: "},
		{"the machine's name servers", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Template.Spec.DNSPolicy = corev1.DNSDefault }, "", "warning spec.template.spec.dnsPolicy: "},
		{"a cluster's name servers", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Template.Spec.DNSPolicy = corev1.DNSClusterFirst
		}, "", ""},
		{"a cluster's defaults", func(d *appsv1.Deployment, _ *corev1.Container) {
			d.Spec.Strategy = strategy("25%", "25%")
			d.Spec.Template.Spec.RestartPolicy, d.Spec.Template.Spec.SchedulerName = corev1.RestartPolicyAlways, "default-scheduler"
		}, "", ""},
		{"many at a time", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Strategy = strategy("100%", "0") }, "", ""}, // of one
		{"none more", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Strategy = strategy("0", "1") }, "",
			"warning spec.strategy.rollingUpdate.maxSurge: one more"},
		{"some less", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Strategy = strategy("1", "1") }, "",
			"info spec.strategy.rollingUpdate.maxUnavailable: one more"},
		{"waiting after readiness", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.MinReadySeconds = 1 }, "", "warning spec.minReadySeconds: "},
		{"host processes", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Template.Spec.HostPID = true }, Invalid, "refused spec.template.spec.hostPID: "},
		{"host network", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Template.Spec.HostNetwork = true }, Invalid, "hostNetwork"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := deployment("web", "v1")
			tt.edit(d, &d.Spec.Template.Spec.Containers[0])
			c := Compiler{Images: map[string][]string{"docker.io/istio/examples-bookinfo-reviews-v1:*": {"reviews"}}}
			w := c.Compile(d, 0)
			if w.State != tt.state || (w.State == "") != (w.Reason == "") {
				t.Errorf("state %q: %q", w.State, w.Reason)
			}
			got := ""
			for _, f := range c.Findings {
				got += string(f.Severity) + " " + f.Field + ": " + f.Message + "\n"
			}
			if !strings.Contains(got, tt.finding) || (tt.finding == "") != (got == "") {
				t.Errorf("findings %q, want %q", got, tt.finding)
			}
		})
	}
}

func deployment(name, version string) *appsv1.Deployment {
	d := &appsv1.Deployment{}
	d.Name, d.Spec.Template.Labels = name, map[string]string{"app": name, "version": version}
	d.Spec.Template.Spec.Containers = []corev1.Container{{Name: "app", Command: []string{"/app"}, Env: []corev1.EnvVar{{Name: "VERSION", Value: version}},
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 9080}}}}
	return d
}

func replicas(d *appsv1.Deployment, n int32) *appsv1.Deployment { d.Spec.Replicas = &n; return d }

func service(name string) *corev1.Service {
	s := &corev1.Service{}
	s.Name, s.Spec.Selector = name, map[string]string{"app": name}
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 9080, TargetPort: intstr.FromString("http")}}
	return s
}

func strategy(surge, unavailable string) appsv1.DeploymentStrategy {
	a, b := intstr.Parse(surge), intstr.Parse(unavailable)
	return appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxSurge: &a, MaxUnavailable: &b}}
}

func TestServiceFields(t *testing.T) {
	for name, tt := range map[string]struct {
		edit func(*corev1.ServiceSpec)
		want string
	}{
		"as it should be": {func(s *corev1.ServiceSpec) {
			s.Type, s.SessionAffinity = corev1.ServiceTypeClusterIP, corev1.ServiceAffinityNone
		}, ""},
		"load balancer":   {func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeLoadBalancer }, "info spec.type"},
		"node port":       {func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort }, "info spec.type"},
		"other addresses": {func(s *corev1.ServiceSpec) { s.ExternalIPs = []string{"192.0.2.1"} }, "warning spec.externalIPs"},
		"affinity":        {func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP }, "warning spec.sessionAffinity"},
		"UDP":             {func(s *corev1.ServiceSpec) { s.Ports[0].Protocol = corev1.ProtocolUDP }, ""},
		"SCTP":            {func(s *corev1.ServiceSpec) { s.Ports[0].Protocol = corev1.ProtocolSCTP }, "warning spec.ports[0].protocol"},
	} {
		s := service("web")
		tt.edit(&s.Spec)
		got := ""
		for _, f := range ServiceFields(s) {
			got += string(f.Severity) + " " + f.Field
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestRevisionFollowsTemplateOnly(t *testing.T) {
	rev := func(d *appsv1.Deployment, restarts int) string { return (&Compiler{}).Compile(d, restarts).Revision }
	base := rev(deployment("web", "v1"), 0)
	if rev(replicas(deployment("web", "v1"), 5), 0) != base {
		t.Error("replicas change the revision")
	}
	if rev(deployment("web", "v2"), 0) == base || rev(deployment("web", "v1"), 1) == base {
		t.Error("template or restart does not change the revision")
	}
}
