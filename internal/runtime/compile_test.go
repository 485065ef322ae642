package runtime

import (
	"net/netip"
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

func TestServiceAddresses(t *testing.T) {
	cidr := netip.MustParsePrefix("10.78.0.0/29") // six addresses
	file := filepath.Join(t.TempDir(), "ips.json")
	s, err := loadServiceAddresses(cidr, file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[netip.Addr]string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		ip, changed, err := s.assign(key{"default", name}, netip.Addr{})
		if err != nil || !changed || got[ip] != "" || !cidr.Contains(ip) || ip == cidr.Addr() || ip == netip.MustParseAddr("10.78.0.7") {
			t.Fatalf("%s: %v %v %v", name, ip, changed, err)
		}
		got[ip] = name
	}
	if err := s.save(); err != nil {
		t.Fatal(err)
	}
	if s, err = loadServiceAddresses(cidr, file); err != nil {
		t.Fatal(err)
	}
	for ip, name := range got {
		if again, changed, err := s.assign(key{"default", name}, netip.Addr{}); again != ip || changed || err != nil {
			t.Errorf("%s: %v, then %v %v %v", name, ip, again, changed, err)
		}
	}
	taken, _, _ := s.assign(key{"default", "a"}, netip.Addr{})
	if ip, changed, err := s.assign(key{"default", "explicit"}, taken); ip != taken || !changed || err != nil {
		t.Errorf("explicit address: %v %v %v", ip, changed, err)
	}
	if ip, _, err := s.assign(key{"default", "a"}, netip.Addr{}); ip == taken || err != nil {
		t.Errorf("its former owner: %v %v", ip, err)
	}
	if ip, _, err := s.assign(key{"default", "more"}, netip.Addr{}); err == nil {
		t.Errorf("a seventh of six: %v", ip)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadServiceAddresses(cidr, file); err == nil {
		t.Error("a broken file is taken")
	}
}

func TestPodAddressesComeInTurn(t *testing.T) {
	p := podAddresses{cidr: netip.MustParsePrefix("10.77.0.0/29"), used: map[netip.Addr]bool{}}
	if p.gateway().String() != "10.77.0.1/29" {
		t.Error(p.gateway())
	}
	first, err := p.take()
	if err != nil || first.String() != "10.77.0.2" {
		t.Fatal(first, err)
	}
	p.give(first)
	for i := range 5 {
		if ip, err := p.take(); err != nil || i < 4 && ip == first {
			t.Fatal(i, ip, err)
		}
	}
	if ip, err := p.take(); err == nil {
		t.Errorf("a sixth of five: %v", ip)
	}
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
