package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/weftmesh/weft/internal/identity"
)

const patience = 2 * time.Minute

// self is the test binary.
func self() string {
	path, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return path
}

func testOptions(dir string, isolation Isolation) Options {
	return Options{
		StateDir: filepath.Join(dir, "state"), RunDir: filepath.Join(dir, "run"), PodHost: []string{self(), PodHostCommand}, ProxyBinary: self(),
		Isolation: isolation, Control: "unix://" + controlFile(dir), TrustDomain: "cluster.local",
		Roots: func() (string, error) { return "roots", nil }, Token: func(p identity.Peer) (string, error) { return p.Instance, nil },
		Publish: map[uint16]uint16{8080: 0}, DrainTime: time.Second,
	}
}

// deployment runs the test application on port 9080.
func deployment(name, version string, edit ...func(*corev1.Container)) *appsv1.Deployment {
	labels := map[string]string{"app": name, "version": version}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: name}}
	d.Spec.Template.Labels = labels
	c := corev1.Container{Name: "app", Command: []string{self(), "app"}, Env: []corev1.EnvVar{{Name: "VERSION", Value: version}}, Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 9080}}}
	for _, e := range edit {
		e(&c)
	}
	d.Spec.Template.Spec.Containers = []corev1.Container{c}
	return d
}

func deployments(d ...*appsv1.Deployment) []*appsv1.Deployment { return d }

func replicas(d *appsv1.Deployment, n int32) *appsv1.Deployment { d.Spec.Replicas = &n; return d }

func service(name string) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}}
	s.Spec.Selector = map[string]string{"app": name}
	s.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 9080, TargetPort: intstr.FromString("http")}}
	return s
}

func find(r *Runtime, name string) WorkloadStatus {
	for _, w := range r.Workloads() {
		if w.Name == name {
			return w
		}
	}
	return WorkloadStatus{}
}

// mesh is a running Runtime with its directory kept current.
type mesh struct {
	*Runtime
	t   *testing.T
	dir string
}

func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "wr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func up(t *testing.T, isolation Isolation, edit ...func(*Options)) *mesh {
	t.Helper()
	dir := shortDir(t)
	opt := testOptions(dir, isolation)
	for _, e := range edit {
		e(&opt)
	}
	writeDirectory(t, dir, directory{})
	r, err := New(opt)
	if isolation == Netns && errors.Is(err, syscall.EPERM) {
		t.Skip("the kernel refuses namespaces:", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	m := &mesh{r, t, dir}
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		for range r.Changes(ctx) {
			writeDirectory(t, dir, m.directory())
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		<-watched
		if _, err := os.Stat(opt.RunDir); !os.IsNotExist(err) {
			t.Errorf("the folder of sockets stays: %v", err)
		}
	})
	return m
}

var directoryMu sync.Mutex // tests and their watchers write

func writeDirectory(t *testing.T, dir string, d directory) {
	directoryMu.Lock()
	defer directoryMu.Unlock()
	raw, err := json.Marshal(d)
	if err == nil {
		err = os.WriteFile(controlFile(dir)+".new", raw, 0o600)
	}
	if err == nil {
		err = os.Rename(controlFile(dir)+".new", controlFile(dir))
	}
	if err != nil {
		t.Error(err)
	}
}

// directory points every service at its first ready endpoint.
func (m *mesh) directory() directory {
	d := directory{Names: map[string]string{}, Endpoints: map[string]string{}}
	o := m.Observed()
	for _, s := range o.Services {
		host := s.Name + "." + s.Namespace + ".svc.cluster.local"
		d.Names[host] = s.Spec.ClusterIP
		if eps := m.endpoints(o, s.Name); len(eps) > 0 {
			d.Endpoints[host+":9080"], d.Endpoints[s.Spec.ClusterIP+":9080"] = eps[0], eps[0]
		}
	}
	return d
}

// endpoints are a service's ready endpoints.
func (m *mesh) endpoints(o Observed, service string) (out []string) {
	for _, s := range o.EndpointSlices {
		for _, e := range s.Endpoints {
			if s.Labels["kubernetes.io/service-name"] == service && *e.Conditions.Ready {
				out = append(out, net.JoinHostPort(e.Addresses[0], fmt.Sprint(*s.Ports[0].Port)))
			}
		}
	}
	return out
}

// await waits for a condition, looking again at each change.
func (m *mesh) await(what string, ok func() bool) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	changes := m.Changes(ctx)
	for !ok() {
		if _, more := <-changes; !more {
			m.t.Fatalf("waited too long for %s: %+v", what, m.Workloads())
		}
	}
}

func (m *mesh) ready(name string, n int) WorkloadStatus {
	m.t.Helper()
	m.await(fmt.Sprintf("%d ready of %s", n, name), func() bool { return find(m.Runtime, name).Ready == n })
	return find(m.Runtime, name)
}

// exec runs a command in the only pod of a workload.
func (m *mesh) exec(workload string, command ...string) string {
	m.t.Helper()
	var out strings.Builder
	code, err := m.Exec(m.t.Context(), "", find(m.Runtime, workload).Pods[0].Name, command, Stdio{Out: &out, Err: &out})
	if err != nil {
		m.t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", code, strings.TrimSpace(out.String()))
}

// get asks the application through the gateway.
func (m *mesh) get(path string) string {
	m.t.Helper()
	m.await("the gateway's port", func() bool { return len(m.Published()) == 1 })
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + m.Published()[0].Address + path)
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimSpace(string(body))
}

// published waits until the directory that proxies see has the endpoint of a service.
func (m *mesh) published(service string) {
	m.t.Helper()
	m.await("the directory", func() bool {
		d := m.directory()
		writeDirectory(m.t, m.dir, d)
		return d.Endpoints[service+".default.svc.cluster.local:9080"] != ""
	})
}

func TestTraffic(t *testing.T) {
	for _, isolation := range []Isolation{Netns, Ports} {
		t.Run(string(isolation), func(t *testing.T) {
			m := up(t, isolation)
			if m.Mode() != isolation || m.Reason() == "" {
				t.Errorf("mode %s: %s", m.Mode(), m.Reason())
			}
			m.SetDesired(Desired{Deployments: deployments(deployment("web", "v1"), deployment("reviews", "v2")), Services: []*corev1.Service{service("web"), service("reviews")}})
			m.ready("web", 1)
			m.ready("reviews", 1)
			m.ready("istio-ingressgateway", 1)
			m.published("web")
			m.published("reviews")
			if got := m.get("/who"); got != find(m.Runtime, "web").Pods[0].Name+" v1" {
				t.Errorf("through the gateway: %q", got)
			}
			url := "http://reviews:9080/who"
			if isolation == Ports {
				url = "http://" + m.get("/env?REVIEWS_SERVICE_HOST") + ":" + m.get("/env?REVIEWS_SERVICE_PORT") + "/who"
			}
			if got := m.get("/call?" + url); got != find(m.Runtime, "reviews").Pods[0].Name+" v2" {
				t.Errorf("from service to service: %q", got)
			}
			if ep := m.endpoints(m.Observed(), "reviews"); isolation == Netns && !strings.HasPrefix(ep[0], "10.77.") || isolation == Ports && !strings.HasPrefix(ep[0], "127.0.0.1:") {
				t.Errorf("endpoints %v", ep)
			}
			if isolation == Ports && m.get("/env?HTTP_PROXY") == "" {
				t.Error("no HTTP_PROXY")
			}
		})
	}
}

func TestExecAndEnvironment(t *testing.T) {
	m := up(t, Netns)
	d := deployment("web", "v1", func(c *corev1.Container) {
		for name, field := range map[string]string{"NS": "metadata.namespace", "IP": "status.podIP", "SA": "spec.serviceAccountName", "APP": "metadata.labels['app']"} {
			c.Env = append(c.Env, corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: field}}})
		}
		slices.SortFunc(c.Env, func(a, b corev1.EnvVar) int { return strings.Compare(a.Name, b.Name) })
		c.Env = append(c.Env, corev1.EnvVar{Name: "ALL", Value: "$(NS)/$(APP) $$(NS) $(UNKNOWN)"})
		c.WorkingDir = "/tmp"
	})
	d.Spec.Template.Spec.ServiceAccountName = "bookinfo-web"
	m.SetDesired(Desired{Deployments: deployments(d), Services: []*corev1.Service{service("web")}})
	w := m.ready("web", 1)
	if got, want := m.exec("web", "sh", "-c", "echo $NS $IP $SA $ALL; pwd; exit 7"), "7 default "+w.Pods[0].IP+" bookinfo-web default/web $(NS) $(UNKNOWN)\n/tmp"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := m.exec("web", "sh", "-c", "grep Cap /proc/self/status | grep -v 0000000000000000; cat /etc/resolv.conf; hostname"); got != "0 nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"+w.Pods[0].Name {
		t.Errorf("got %q", got)
	}
	var out strings.Builder
	if _, err := m.Exec(t.Context(), "", w.Pods[0].Name, []string{"cat"}, Stdio{In: strings.NewReader("input"), Out: &out}); err != nil || out.String() != "input" {
		t.Errorf("cat gave %q, %v", &out, err)
	}
	if _, err := m.Exec(t.Context(), "", "nobody", []string{"true"}, Stdio{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown pod: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := m.Exec(ctx, "", w.Pods[0].Name, []string{"sleep", "1000"}, Stdio{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("sleep: %v", err)
	}
}

func TestCrashRestarts(t *testing.T) {
	m := up(t, Auto)
	m.SetDesired(Desired{Deployments: deployments(deployment("web", "v1")), Services: []*corev1.Service{service("web")}})
	m.ready("web", 1)
	m.ready("istio-ingressgateway", 1)
	m.published("web")
	if code := m.exec("web", self(), "get", "http://127.0.0.1:9080/crash"); m.Mode() == Netns && !strings.Contains(code, "EOF") {
		t.Fatal(code)
	} else if m.Mode() == Ports {
		t.Skip("the application's port is another in ports mode")
	}
	m.await("CrashLoopBackOff", func() bool {
		w := find(m.Runtime, "web")
		return w.State == CrashLoop && strings.Contains(w.Reason, "exit status 3") && len(m.endpoints(m.Observed(), "web")) == 0
	})
	if w := m.ready("web", 1); w.Restarts != 1 {
		t.Errorf("%d restarts", w.Restarts)
	}

	before := find(m.Runtime, "web").Pods[0]
	syscall.Kill(pidOf(t, before, sidecarName), syscall.SIGKILL)
	m.await("another sidecar", func() bool {
		w := find(m.Runtime, "web")
		return w.Ready == 1 && !slices.ContainsFunc(w.Pods[0].Processes, func(s ProcessStatus) bool { return s.PID == pidOf(t, before, sidecarName) })
	})
	after := find(m.Runtime, "web").Pods[0]
	if pidOf(t, before, "app") != pidOf(t, after, "app") || pidOf(t, before, sidecarName) == pidOf(t, after, sidecarName) {
		t.Errorf("before %+v, after %+v", before.Processes, after.Processes)
	}
	m.published("web")
	if got := m.get("/who"); got != after.Name+" v1" {
		t.Errorf("after the sidecar's restart: %q", got)
	}
}

func pidOf(t *testing.T, p PodStatus, process string) int {
	t.Helper()
	for _, s := range p.Processes {
		if s.Name == process && s.PID > 1 {
			return s.PID
		}
	}
	t.Fatalf("%s has no pid: %+v", process, p)
	return 0
}

func TestProbes(t *testing.T) {
	m := up(t, Auto)
	healthy := filepath.Join(m.dir, "healthy")
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthy", Port: intstr.FromString("http")}}, PeriodSeconds: 1, FailureThreshold: 1}
	d := deployment("web", "v1", func(c *corev1.Container) {
		c.Env = append(c.Env, corev1.EnvVar{Name: "HEALTHY_FILE", Value: healthy})
		c.ReadinessProbe = probe
		c.StartupProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(9080)}}}
		c.LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"test", "!", "-e", healthy + ".dead"}}}, PeriodSeconds: 1, FailureThreshold: 1}
	})
	m.SetDesired(Desired{Deployments: deployments(d), Services: []*corev1.Service{service("web")}})
	m.await("NotReady", func() bool {
		w := find(m.Runtime, "web")
		return w.State == NotReady && strings.Contains(w.Reason, "503")
	})
	touch(t, healthy)
	m.ready("web", 1)
	if err := os.Remove(healthy); err != nil {
		t.Fatal(err)
	}
	m.await("readiness lost", func() bool {
		return find(m.Runtime, "web").Ready == 0 && len(m.endpoints(m.Observed(), "web")) == 0
	})
	touch(t, healthy)
	m.ready("web", 1)
	touch(t, healthy+".dead")
	m.await("a restart by the liveness probe", func() bool {
		w := find(m.Runtime, "web")
		return w.State == CrashLoop && strings.Contains(w.Reason, "probe failed")
	})
}

func touch(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRollingRestartAndScale(t *testing.T) {
	m := up(t, Auto, func(o *Options) { o.DisableGateway = true })
	services := []*corev1.Service{service("web")}
	m.SetDesired(Desired{Deployments: deployments(replicas(deployment("web", "v1"), 2)), Services: services})
	m.ready("web", 2)

	ctx, stop := context.WithCancel(t.Context())
	least, most := 100, 0
	watched := make(chan struct{})
	changes := m.Changes(ctx)
	go func() {
		defer close(watched)
		for range changes {
			w := find(m.Runtime, "web")
			running := 0
			for _, p := range w.Pods {
				running += b2i(p.State != Stopping)
			}
			least, most = min(least, w.Ready), max(most, running)
		}
	}()
	all := func(version string, n int) func() bool {
		return func() bool {
			pods := m.Observed().Pods
			ok := len(pods) == n
			for _, p := range pods {
				ok = ok && p.Labels["version"] == version && len(p.Status.Conditions) == 3 && p.Status.Conditions[2].Status == corev1.ConditionTrue
			}
			return ok
		}
	}
	m.SetDesired(Desired{Deployments: deployments(replicas(deployment("web", "v2"), 2)), Services: services})
	m.await("both of v2", all("v2", 2))
	names := func() (out []string) {
		for _, p := range m.Observed().Pods {
			out = append(out, p.Name)
		}
		return out
	}
	before := names()
	if err := m.Restart("default", "web"); err != nil {
		t.Fatal(err)
	}
	m.await("two other pods", func() bool {
		return all("v2", 2)() && !slices.ContainsFunc(names(), func(n string) bool { return slices.Contains(before, n) })
	})
	stop()
	<-watched
	if least != 2 || most > 3 {
		t.Errorf("between %d ready and %d running pods", least, most)
	}

	m.SetDesired(Desired{Deployments: deployments(replicas(deployment("web", "v2"), 3)), Services: services})
	m.ready("web", 3)
	broken := replicas(deployment("web", "v3", func(c *corev1.Container) { c.Command = []string{"/nonexistent"} }), 3)
	m.SetDesired(Desired{Deployments: deployments(broken), Services: services})
	m.await("the broken version's reason", func() bool {
		w := find(m.Runtime, "web")
		return w.Ready == 3 && w.State == Stalled && strings.Contains(w.Reason, "from before serve") && strings.Contains(w.Reason, "/nonexistent")
	})
	m.SetDesired(Desired{Deployments: deployments(replicas(deployment("web", "v2"), 0)), Services: services})
	m.await("scale to zero", func() bool { return len(m.Observed().Pods) == 0 && find(m.Runtime, "web").State == ScaledDown })
	m.SetDesired(Desired{})
	m.await("removal", func() bool { return len(m.Workloads()) == 0 })
}

// TestFallsBackToPorts runs where no namespace may be made: in a user namespace whose limit of further ones is 0.
func TestFallsBackToPorts(t *testing.T) {
	if os.Getenv("WEFT_TEST_REFUSED") == "" {
		cmd := exec.Command(self(), "-test.run=^TestFallsBackToPorts$", "-test.v")
		cmd.Env = append(os.Environ(), "WEFT_TEST_REFUSED=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: os.Getgid(), Size: 1}},
			AmbientCaps: []uintptr{unix.CAP_SYS_RESOURCE},
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) {
			t.Skip("the kernel refuses user namespaces:", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	if r, err := New(testOptions(shortDir(t), Netns)); err == nil {
		r.Close()
		t.Error("netns isolation was granted")
	}
	m := up(t, Auto)
	if m.Mode() != Ports || !strings.Contains(m.Reason(), "user.max_user_namespaces=0") {
		t.Errorf("mode %s: %s", m.Mode(), m.Reason())
	}
	m.SetDesired(Desired{Deployments: deployments(deployment("web", "v1"))})
	m.ready("web", 1)
}

// TestKilled kills a `weft up` with SIGKILL: none of its processes stays, and the next start works.
func TestKilled(t *testing.T) {
	for _, isolation := range []Isolation{Auto, Ports} {
		t.Run(string(isolation), func(t *testing.T) {
			dir := shortDir(t)
			writeDirectory(t, dir, directory{})
			links := linkNames(t)
			cmd := exec.Command(self(), "parent", dir, string(isolation))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
				t.Fatal(err)
			}
			if n := len(processesOf(dir)); n < 2 { // at least a sidecar names its bootstrap file
				t.Fatalf("%d processes name %s", n, dir)
			}
			if now := linkNames(t); !slices.Equal(now, links) {
				t.Errorf("links of the host were %v and are %v", links, now)
			}
			cmd.Process.Kill()
			cmd.Wait()
			deadline := time.Now().Add(patience)
			for len(processesOf(dir)) > 0 {
				if time.Now().After(deadline) {
					t.Fatalf("left: %v", processesOf(dir))
				}
				time.Sleep(time.Millisecond) // another process's end cannot be awaited
			}
			r, err := New(testOptions(dir, isolation))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func linkNames(t *testing.T) (out []string) {
	t.Helper()
	links, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out = append(out, l.Name)
	}
	return out
}

// processesOf lists the processes whose command line names a folder.
func processesOf(dir string) (out []string) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range files {
		if raw, _ := os.ReadFile(f); strings.Contains(string(raw), dir) {
			out = append(out, f+" "+strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	return out
}

// TestOrdinaryUser runs the tests of this package as another user when they run as root.
func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("already an ordinary user")
	}
	dir := shortDir(t)
	raw, err := os.ReadFile(self())
	binary := filepath.Join(dir, "runtime.test")
	if err == nil {
		err = errors.Join(os.WriteFile(binary, raw, 0o755), os.Chmod(dir, 0o777))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v")
	cmd.Dir = dir
	cmd.Env = []string{"TMPDIR=" + dir, "HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	t.Logf("as uid 65534:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
