package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestDrain restarts a pod whose application drops its requests when told to end: the one under way is answered.
func TestDrain(t *testing.T) {
	m := up(t, Auto, func(o *Options) { o.DrainTime = patience })
	d := deployment("web", "v1", func(c *corev1.Container) { c.Env = append(c.Env, corev1.EnvVar{Name: "ABRUPT", Value: "1"}) })
	m.SetDesired(Desired{Deployments: deployments(d), Services: []*corev1.Service{service("web")}})
	m.ready("web", 1)
	m.ready("istio-ingressgateway", 1)
	m.published("web")
	gate := filepath.Join(m.dir, "gate")
	status := make(chan string, 1)
	url := "http://" + m.Published()[0].Address + "/wait?" + gate
	go func() {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // the stand-in drains connections, not requests
		resp, err := client.Get(url)
		if err != nil {
			status <- err.Error()
			return
		}
		resp.Body.Close()
		status <- resp.Status
	}()
	for l := range m.Logs(t.Context(), Selector{Name: "web", Process: "app"}, LogOptions{Follow: true}) {
		if l.Text == "waiting" {
			break
		}
	}
	if err := m.Restart("", "web"); err != nil {
		t.Fatal(err)
	}
	m.await("the old pod to leave", func() bool {
		w := find(m.Runtime, "web")
		return len(w.Pods) == 2 && w.Ready == 1 && (w.Pods[0].State == Stopping || w.Pods[1].State == Stopping)
	})
	touch(t, gate)
	if got := <-status; got != "200 OK" {
		t.Errorf("request under way: %s", got)
	}
	m.await("the old pod's end", func() bool { return len(find(m.Runtime, "web").Pods) == 1 })
}

func TestInitContainersAndNoSidecar(t *testing.T) {
	m := up(t, Auto, func(o *Options) { o.DisableGateway = true })
	mark := filepath.Join(m.dir, "init")
	d := deployment("web", "v1", func(c *corev1.Container) {
		c.Command = []string{"sh", "-c", "test -e " + mark + " && exec \"$0\" app", c.Command[0]}
	})
	d.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "prepare", Command: []string{"sh", "-c", "touch $0", mark}}}
	plain := deployment("plain", "v1")
	plain.Spec.Template.Labels["sidecar.istio.io/inject"] = "false"
	m.SetDesired(Desired{Deployments: deployments(d, plain)})
	if w := m.ready("web", 1); w.Restarts != 0 || len(w.Pods[0].Processes) != 2 {
		t.Errorf("%+v", w)
	}
	if w := m.ready("plain", 1); len(w.Pods[0].Processes) != 1 {
		t.Errorf("%+v", w)
	}
	for _, p := range m.Observed().Pods {
		if want := map[string]string{"web": "istio", "plain": ""}[p.Labels["app"]]; p.Labels[LabelTLSMode] != want {
			t.Errorf("%s: tlsMode %q", p.Name, p.Labels[LabelTLSMode])
		}
	}
}

func TestServiceAddresses(t *testing.T) {
	r, err := New(testOptions(shortDir(t), Ports))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ask := func(name, ip string) *corev1.Service { s := service(name); s.Spec.ClusterIP = ip; return s }
	r.SetDesired(Desired{Services: []*corev1.Service{ask("a", ""), ask("b", "10.78.1.1"), ask("c", "10.78.1.1"), ask("d", "None"), ask("e", "10.0.0.1")}})
	o := r.Observed()
	got := map[string]string{}
	for _, s := range o.Services {
		got[s.Name] = s.Spec.ClusterIP
	}
	if got["b"] != "10.78.1.1" || got["c"] == got["b"] || got["d"] != "None" || got["e"] == "10.0.0.1" || !strings.HasPrefix(got["a"], "10.78.") {
		t.Errorf("addresses %v", got)
	}
	if len(o.Findings) != 2 || o.Findings[0].Name != "c" || o.Findings[1].Name != "e" {
		t.Errorf("findings %v", o.Findings)
	}
}

func TestPrograms(t *testing.T) {
	dir := shortDir(t)
	writeDirectory(t, dir, directory{})
	r, err := New(testOptions(dir, Ports))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(testOptions(dir, Ports)); err == nil || !strings.Contains(err.Error(), "used by another") {
		t.Errorf("a second runtime: %v", err)
	}
	for _, bad := range []struct {
		p    ProgramSpec
		want string
	}{
		{ProgramSpec{Name: "Bad_Name", Command: []string{self()}}, "name"},
		{ProgramSpec{Name: "empty"}, "command is empty"},
		{ProgramSpec{Name: "absent", Command: []string{"nosuch"}, Env: map[string]string{"PATH": "/somewhere:/else"}}, `program "absent": command "nosuch" is not found in /somewhere:/else`},
		{ProgramSpec{Name: "nowhere", Command: []string{self()}, Dir: "/nonexistent"}, "/nonexistent"},
	} {
		if err := r.AddProgram(bad.p); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%+v: %v", bad.p, err)
		}
	}
	if len(r.Programs()) > 0 {
		t.Error("a refused program is kept")
	}
	if err := r.AddProgram(ProgramSpec{Name: "web", Port: 9080, Command: []string{self(), "app"}, Env: map[string]string{"VERSION": "$(HOME)"}}); err != nil {
		t.Fatal(err)
	}
	vip := r.Observed().Services[0].Spec.ClusterIP
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	m := up(t, Ports, func(o *Options) { o.StateDir = filepath.Join(dir, "state") })
	m.ready("web", 1)
	m.ready("istio-ingressgateway", 1)
	m.published("web")
	if got := m.get("/env?VERSION"); got != "$(HOME)" {
		t.Errorf("VERSION is %q", got)
	}
	if got := m.Observed().Services[0].Spec.ClusterIP; got != vip {
		t.Errorf("service address was %s and is %s", vip, got)
	}
	if err := m.RemoveProgram("", "web"); err != nil {
		t.Fatal(err)
	}
	m.await("removal", func() bool { return len(m.Observed().Pods) == 1 && len(m.Programs()) == 0 })
	if err := m.RemoveProgram("", "web"); !errors.Is(err, ErrNotFound) {
		t.Errorf("second removal: %v", err)
	}
}

func TestLogs(t *testing.T) {
	m := up(t, Auto, func(o *Options) { o.DisableGateway = true })
	m.SetDesired(Desired{Deployments: deployments(deployment("web", "v1"))})
	m.ready("web", 1)
	m.SetDesired(Desired{})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	for l := range m.Logs(ctx, Selector{Name: "web", Process: "app"}, LogOptions{Follow: true}) {
		got = append(got, fmt.Sprint(l.Stderr, " ", l.Text))
		if l.Text == "bye" {
			break
		}
	}
	if want := []string{"false listening v1", "true bye"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
}
