package runtime

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// TestHiddenFromWorkloads lets every kind of application process look for the mesh's folders.
func TestHiddenFromWorkloads(t *testing.T) {
	extra := shortDir(t)
	touch(t, filepath.Join(extra, "ca-key.pem"))
	m := up(t, Netns, func(o *Options) { o.Hidden = []string{extra}; o.DisableGateway = true })
	seen := fmt.Sprintf("ls -A %s %s %s", extra, filepath.Join(m.dir, "state"), filepath.Join(m.dir, "run"))
	nothing := fmt.Sprintf("test $(%s | grep -c '^[a-z]') = 0", seen) // ls names each folder, with a slash before
	d := deployment("web", "v1", func(c *corev1.Container) {
		c.Command = []string{"sh", "-c", nothing + ` && exec "$0" app`, c.Command[0]}
		c.ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"sh", "-c", nothing}}}}
	})
	d.Spec.Template.Spec.InitContainers = []corev1.Container{{Name: "look", Command: []string{"sh", "-c", nothing}}}
	m.SetDesired(Desired{Deployments: deployments(d), Services: []*corev1.Service{service("web")}})
	w := m.ready("web", 1)
	if w.Restarts != 0 {
		t.Errorf("%+v", w)
	}
	if got := m.exec("web", "sh", "-c", nothing+" && echo none"); got != "0 none" {
		t.Errorf("exec: %s: %s", got, m.exec("web", "sh", "-c", seen))
	}
	if got := m.exec("web", "cat", filepath.Join(extra, "ca-key.pem")); !strings.Contains(got, "No such file") {
		t.Errorf("the key: %s", got)
	}
	if sockets, err := filepath.Glob(filepath.Join(m.dir, "run", "p", "*", "admin.sock")); err != nil || len(sockets) != 1 {
		t.Errorf("without hiding there are %v, %v", sockets, err)
	} else if fi, err := os.Stat(sockets[0]); err != nil || fi.Mode().Perm() != 0o700 { // a socket is made with 0777 less the umask
		t.Errorf("admin socket: %v %v", fi.Mode(), err)
	}
}

func TestCommandInHiddenFolder(t *testing.T) {
	hidden := shortDir(t)
	tool := filepath.Join(hidden, "tool")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(shortDir(t), "tool")
	if err := os.Symlink(tool, link); err != nil {
		t.Fatal(err)
	}
	m := up(t, Netns, func(o *Options) { o.Hidden = []string{hidden}; o.DisableGateway = true })
	m.SetDesired(Desired{Deployments: deployments(
		deployment("command", "v1", func(c *corev1.Container) { c.Command = []string{link} }),
		deployment("folder", "v1", func(c *corev1.Container) { c.WorkingDir = hidden }),
	)})
	for name, want := range map[string]string{"command": "command " + link, "folder": "working directory " + hidden} {
		want += " is inside " + hidden + ", which the mesh hides from workloads"
		m.await(name, func() bool { return strings.Contains(find(m.Runtime, name).Reason, want) })
	}
}

// TestHostByName reaches a server on the machine's loopback. The sidecar learns at once that the pods' network has no way there.
func TestHostByName(t *testing.T) {
	m := up(t, Netns, func(o *Options) { o.DisableGateway = true })
	d := deployment("web", "v1")
	d.Spec.Template.Spec.HostAliases = []corev1.HostAlias{{IP: "127.0.0.1", Hostnames: []string{"one.test", "two.test"}}}
	m.SetDesired(Desired{Deployments: deployments(d)})
	if w := m.ready("web", 1); w.Pods[0].Reason != "" {
		t.Errorf("the pod lacks: %s", w.Pods[0].Reason)
	}
	if got := m.exec("web", self(), "get", "http://two.test:9080/who"); got != "0 " {
		t.Errorf("an alias of the manifest: %s", got)
	}
	if len(m.Observed().Findings) > 0 {
		t.Error(m.Observed().Findings)
	}
	asked := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.Host }))
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if got := m.exec("web", self(), "get", "http://host.weft.internal:"+port); got != "0 " {
		t.Fatal(got)
	}
	if got := <-asked; got != "host.weft.internal:"+port {
		t.Error(got)
	}
}

// TestSignalsStayInThePod kills everything that a workload can.
func TestSignalsStayInThePod(t *testing.T) {
	m := up(t, Netns, func(o *Options) { o.DisableGateway = true })
	if notes := m.host.Notes(); len(notes) > 0 {
		t.Skip(notes)
	}
	m.SetDesired(Desired{Deployments: deployments(deployment("web", "v1"), deployment("reviews", "v1"))})
	m.ready("reviews", 1)
	before := m.ready("web", 1).Pods[0]
	m.exec("reviews", "sh", "-c", "kill -9 -1")
	m.await("the killer's end", func() bool { return find(m.Runtime, "reviews").Restarts == 1 })
	m.ready("reviews", 1) // its sidecar lives
	if after := m.ready("web", 1).Pods[0]; pidOf(t, after, "app") != pidOf(t, before, "app") || pidOf(t, after, sidecarName) != pidOf(t, before, sidecarName) {
		t.Errorf("before %+v, after %+v", before.Processes, after.Processes)
	}
}
