package runtime

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestCompile(t *testing.T) {
	yes := true
	for _, tt := range []struct {
		name    string
		edit    func(*appsv1.Deployment, *corev1.Container)
		state   State
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
		{"probe of an unknown port", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("nope")}}}
		}, Invalid, `readinessProbe: no port is named "nope"`},
		{"gRPC probe", func(_ *appsv1.Deployment, c *corev1.Container) {
			c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: 1}}}
		}, Invalid, "only httpGet, tcpSocket and exec run locally"},
		{"unknown account", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Template.Spec.ServiceAccountName = "nobody" }, "",
			`warning spec.template.spec.serviceAccountName: there is no ServiceAccount "nobody"`},
		{"host network", func(d *appsv1.Deployment, _ *corev1.Container) { d.Spec.Template.Spec.HostNetwork = true }, Invalid, "hostNetwork"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := deployment("web", "v1")
			tt.edit(d, &d.Spec.Template.Spec.Containers[0])
			c := compiler{images: map[string][]string{"docker.io/istio/examples-bookinfo-reviews-v1:*": {"reviews"}}}
			w := c.compile(d, 0)
			if w.state != tt.state || (w.state == "") != (w.reason == "") {
				t.Errorf("state %q: %q", w.state, w.reason)
			}
			got := ""
			for _, f := range c.findings {
				got += string(f.Severity) + " " + f.Field + ": " + f.Message + "\n"
			}
			if !strings.Contains(got, tt.finding) || (tt.finding == "") != (got == "") {
				t.Errorf("findings %q, want %q", got, tt.finding)
			}
		})
	}
}

func TestRevisionFollowsTemplateOnly(t *testing.T) {
	rev := func(d *appsv1.Deployment, restarts int) string { return (&compiler{}).compile(d, restarts).revision }
	base := rev(deployment("web", "v1"), 0)
	if rev(replicas(deployment("web", "v1"), 5), 0) != base {
		t.Error("replicas change the revision")
	}
	if rev(deployment("web", "v2"), 0) == base || rev(deployment("web", "v1"), 1) == base {
		t.Error("template or restart does not change the revision")
	}
}

func TestExpand(t *testing.T) {
	env := func(n string) (string, bool) { v, ok := map[string]string{"A": "a", "E": ""}[n]; return v, ok }
	for in, want := range map[string]string{
		"$(A)": "a", "x$(A)y$(E)z": "xayz", "$$(A)": "$(A)", "$$$(A)": "$a", "$(B)": "$(B)", "$A $": "$A $", "$(A": "$(A", "$": "$", "": "",
	} {
		if got := expand(in, env); got != want {
			t.Errorf("%q gives %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(B")
	f.Fuzz(func(t *testing.T, s string) {
		if got := expand(escape(s), func(string) (string, bool) { return "X", true }); got != s {
			t.Errorf("%q escaped gives %q", s, got)
		}
	})
}

func TestLookCommand(t *testing.T) {
	dir := t.TempDir()
	tool := filepath.Join(dir, "bin", "tool")
	if err := os.MkdirAll(filepath.Dir(tool), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(tool, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	r := &Runtime{opt: Options{CommandDirs: []string{dir, filepath.Join(dir, "bin")}}}
	path := func(string) (string, bool) { return "/usr/bin:/bin", true }
	for name, want := range map[string]string{"tool": tool, "bin/tool": tool, "./bin/tool": tool, tool: tool, "sh": "sh"} {
		if got, err := r.lookCommand(name, "/", path); err != nil || !strings.HasSuffix(got, want) {
			t.Errorf("%s: %q %v", name, got, err)
		}
	}
	for _, name := range []string{"", "no-such-tool", "bin", dir, "/nonexistent"} {
		if got, err := r.lookCommand(name, "/", path); err == nil {
			t.Errorf("%q: %q", name, got)
		}
	}
}

func TestNameServiceSwitch(t *testing.T) {
	if got := filesAndDNS("passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"); got != "passwd: files\nhosts: files dns\n" {
		t.Error(got)
	}
}
