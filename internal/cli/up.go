package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
)

// pollInterval is how often the command line asks a mesh for news while it waits for something.
const pollInterval = 100 * time.Millisecond

// defaultState says where api.StateDir is, in words that are true for everybody.
const defaultState = "/var/lib/weft/NAME for root, else ~/.local/state/weft/NAME"

func (s *session) upCommand() *cobra.Command {
	var o UpOptions
	var publish, images []string
	var detach bool
	c := &cobra.Command{
		Use:   "up DIR|FILE...",
		Short: "Start a mesh with the workloads of ordinary Kubernetes YAML on this machine",
		Long: `Start a mesh on this machine. The files hold ordinary Kubernetes objects (Deployment, Service, ...)
whose containers carry a command, and Istio's or the Gateway API's objects; edits are followed.
Each workload runs with a sidecar in a network namespace of its own, with root or without.`,
		Example: `  weft up examples/bookinfo
  weft up -d examples/bookinfo           # in the background; weft down stops it
  weft up app.yaml --publish 80=8080     # gateway port 80 at port 8080 of this machine`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if o.Paths, err = absolute(args); err != nil {
				return err
			}
			if o.Publish, err = parsePublish(publish); err != nil {
				return err
			}
			if o.Images, err = parseImages(images); err != nil {
				return err
			}
			if o.MeshConfig != "" {
				if o.MeshConfig, err = filepath.Abs(o.MeshConfig); err != nil {
					return err
				}
			}
			o.Mesh = s.mesh
			o.RunDir = api.RunDir(s.mesh)
			if o.StateDir == "" {
				o.StateDir = api.StateDir(s.mesh)
			}
			if detach {
				return s.upDetached(c.Context(), o)
			}
			return s.up(c.Context(), o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.StateDir, "state", "", "folder for keys, applied objects and logs (default "+defaultState+")")
	f.StringVar(&o.Isolation, "isolation", "auto", "auto, netns (a network namespace for each workload) or ports (shared network)")
	f.StringVar(&o.PublishAddress, "publish-address", "127.0.0.1", "address of this machine on which gateways listen")
	f.StringArrayVar(&publish, "publish", nil, "gateway port and port of this machine, as 80=8080; 0 picks a free one; may be repeated")
	f.StringVar(&o.XDSAddress, "xds-address", "127.0.0.1:15012", "address of the control plane for proxies outside this mesh; none for no such listener")
	f.StringVar(&o.MetricsAddress, "metrics-address", "127.0.0.1:15014", "address of the aggregated metrics; none for no such listener")
	f.BoolVar(&o.AccessLog, "access-log", true, "sidecars log each request (weft logs -c istio-proxy)")
	f.StringVar(&o.MeshConfig, "mesh-config", "", "file with the mesh's settings, in the form of Istio's MeshConfig; its trust domain is that of the mesh")
	f.BoolVar(&o.RegistryOnly, "registry-only", false, "refuse calls to destinations that the mesh does not know")
	f.StringArrayVar(&images, "image", nil, "command that stands for a container image, as 'PATTERN=COMMAND ARG'; may be repeated")
	f.StringVar(&o.LogLevel, "log-level", "warn", "debug, info, warn or error")
	f.StringVar(&o.CertTTL, "cert-ttl", "24h", "lifetime of workload certificates; they are renewed at half of it")
	f.BoolVarP(&detach, "detach", "d", false, "return when everything is ready and go on in the background")
	return c
}

func absolute(paths []string) ([]string, error) {
	out := make([]string, len(paths))
	for i, p := range paths {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(abs); err != nil {
			return nil, fmt.Errorf("%s: %w", p, errors.Unwrap(err))
		}
		out[i] = abs
	}
	return out, nil
}

func parsePublish(list []string) (map[uint16]uint16, error) {
	m := map[uint16]uint16{}
	for _, e := range list {
		a, b, ok := strings.Cut(e, "=")
		if !ok {
			a, b, ok = strings.Cut(e, ":")
		}
		gateway, err1 := strconv.ParseUint(a, 10, 16)
		host, err2 := strconv.ParseUint(b, 10, 16)
		if !ok || err1 != nil || err2 != nil || gateway == 0 {
			return nil, &usageError{fmt.Errorf("publish %q: want GATEWAYPORT=PORT, such as 80=8080", e)}
		}
		m[uint16(gateway)] = uint16(host)
	}
	return m, nil
}

func parseImages(list []string) (map[string][]string, error) {
	m := map[string][]string{}
	for _, e := range list {
		pattern, command, ok := strings.Cut(e, "=")
		if !ok || pattern == "" || len(strings.Fields(command)) == 0 {
			return nil, &usageError{fmt.Errorf("image %q: want PATTERN=COMMAND", e)}
		}
		m[pattern] = strings.Fields(command)
	}
	return m, nil
}

func workingDir(dir string) (string, error) {
	if dir == "" {
		return os.Getwd()
	}
	return filepath.Abs(dir)
}

// up runs the mesh in this process and tells on the terminal what happens, until the context ends or the mesh is asked to stop.
func (s *session) up(ctx context.Context, o UpOptions) error {
	if s.programs.Up == nil {
		return errors.New("this build cannot start a mesh")
	}
	client := api.NewClient(filepath.Join(o.RunDir, "api.sock"))
	defer client.Close()
	if st, err := client.Status(ctx); err == nil {
		return &api.InvalidError{Message: fmt.Sprintf("the mesh %q runs already (pid %d)", st.Mesh, st.PID),
			Hint: "stop it with weft down, or start another one with --mesh NAME"}
	}
	o.LogOutput = s.out.err
	began := time.Now()
	watchCtx, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { // ends with watchCtx
		defer close(watched)
		s.watch(watchCtx, client, began)
	}()
	err := s.programs.Up(ctx, o)
	stopWatching()
	<-watched
	if err == nil || errors.Is(err, context.Canceled) {
		s.out.printf("stopped\n")
		return nil
	}
	return err
}

// upDetached starts the same command in a session of its own and waits until its mesh is ready.
func (s *session) upDetached(ctx context.Context, o UpOptions) error {
	if err := os.MkdirAll(o.StateDir, 0o700); err != nil {
		return err
	}
	client := api.NewClient(filepath.Join(o.RunDir, "api.sock"))
	defer client.Close()
	if st, err := client.Status(ctx); err == nil {
		return &api.InvalidError{Message: fmt.Sprintf("the mesh %q runs already (pid %d)", st.Mesh, st.PID), Hint: "weft down stops it"}
	}
	logPath := filepath.Join(o.StateDir, "up.log")
	logFile, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{}
	for _, a := range os.Args[1:] {
		if a != "-d" && a != "--detach" && a != "--detach=true" {
			args = append(args, a)
		}
	}
	cmd := exec.Command(self, args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the process or with ours
	w := &watcher{s: s, client: client, began: time.Now(), detached: true}
	for {
		if w.step(ctx); w.announced {
			s.out.printf("\nrunning in the background (pid %d); its messages are in %s\n", cmd.Process.Pid, logPath)
			return nil
		}
		select {
		case <-ended:
			raw, _ := os.ReadFile(logPath)
			return fmt.Errorf("the mesh did not start:\n%s", strings.TrimPrefix(strings.TrimSpace(string(raw)), "error: "))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollInterval):
		}
	}
}

func (s *session) watch(ctx context.Context, client *api.Client, began time.Time) {
	w := &watcher{s: s, client: client, began: began}
	for wait(ctx, pollInterval) {
		w.step(ctx)
	}
}

// watcher prints what changes in a mesh: workloads becoming ready or failing, new findings, and once the summary.
type watcher struct {
	s         *session
	client    *api.Client
	began     time.Time
	announced bool
	detached  bool // the mesh goes on without this process
	ready     int  // looks in a row that found everything ready
	recalled  bool // told of what was applied earlier
	states    map[string]string
	findings  map[string]bool
	gateways  string
}

// takes reports whether a route of a gateway takes requests for a URL, by its published port.
func (w *watcher) takes(ctx context.Context, gateway, url string) bool {
	reply, err := w.client.Explain(ctx, api.ExplainRequest{From: gateway, Method: http.MethodGet, URL: url})
	var report struct{ Outcome string }
	return err == nil && json.Unmarshal(reply.Report, &report) == nil && report.Outcome == "forward"
}

func (w *watcher) step(ctx context.Context) {
	st, err := w.client.Status(ctx)
	if err != nil {
		return // not there yet, or already gone
	}
	if w.states == nil {
		w.states, w.findings = map[string]string{}, map[string]bool{}
		w.s.out.printf("%s mesh %s, isolation %s: %s\n", w.s.out.paint(bold, "weft"), st.Mesh, st.Isolation, st.Reason)
	}
	if st.AppliedCount > 0 && !w.announced && !w.recalled { // known once the control plane has read its objects
		w.recalled = true
		w.s.out.printf("%d objects were applied earlier and are in force (weft get; weft delete --all removes them)\n", st.AppliedCount)
	}
	w.printFindings(st.Findings)
	w.printStates(st.Workloads)
	if late := time.Since(w.began) > patience; !allSettled(st) && !late {
		w.ready = 0
	} else if w.ready++; w.ready >= looks && !w.announced {
		w.announced = true
		w.summary(ctx, st)
	} else if w.announced {
		w.printGateways(st.Gateways)
	}
}

func (w *watcher) printFindings(fs []api.Finding) {
	now := map[string]bool{}
	for _, f := range fs {
		if f.Severity == api.SeverityInfo && !leftOut(f) {
			continue
		}
		now[f.Text] = true
		if !w.findings[f.Text] {
			w.s.printFindings([]api.Finding{f})
		}
	}
	for old := range w.findings {
		if !now[old] {
			fmt.Fprintf(w.s.out.err, "%s %s\n", w.s.out.paintErr(green, "solved:"), old)
		}
	}
	w.findings = now
}

// startTime is how long a workload may fail its first probes before that is news.
const startTime = 3 * time.Second

func (w *watcher) printStates(ws []api.Workload) {
	for _, wl := range ws {
		key := wl.Namespace + "/" + wl.Name
		state := fmt.Sprintf("%s %d/%d", wl.State, wl.Ready, wl.Desired)
		if w.states[key] == state {
			continue
		}
		if wl.State == "NotReady" && time.Since(w.began) < startTime {
			continue
		}
		w.states[key] = state
		if wl.State == "Pending" || wl.State == "Starting" || wl.State == "Terminating" {
			continue
		}
		mark := w.s.out.paint(statePaint(wl.State), map[bool]string{true: "ready", false: wl.State}[wl.State == "Running"])
		line := fmt.Sprintf("  %-26s %s", wl.Name, mark)
		if wl.Desired != 1 {
			line += fmt.Sprintf(" %d/%d", wl.Ready, wl.Desired)
		}
		if wl.Reason != "" {
			line += "  " + w.s.out.paint(dim, wl.Reason)
		}
		w.s.out.printf("%s\n", line)
	}
}

// looks is how often everything must be found ready: what a look finds settled may just be about to be sent.
const looks = 2

// patience is how long the summary waits for workloads that do not become ready.
const patience = 30 * time.Second

// unready names the workloads that are still on their way, or fail.
func unready(st api.Status) (names []string) {
	for _, wl := range st.Workloads {
		switch wl.State {
		case "Running", "ScaledDown":
		default:
			names = append(names, wl.Name)
		}
	}
	return names
}

// allSettled is true when every workload is ready or can never be, and the proxies know.
func allSettled(st api.Status) bool {
	for _, wl := range st.Workloads {
		switch wl.State {
		case "Running", "ScaledDown", "NoCommand", "Invalid":
		default:
			return false
		}
	}
	return st.Control == "running" && st.Settled && len(st.Workloads) > 0
}

func (w *watcher) summary(ctx context.Context, st api.Status) {
	o := w.s.out
	if late := unready(st); len(late) > 0 {
		o.printf("\n%s after %.0f s: %s (weft ps says why); the rest is up\n", o.paint(yellow, "not ready"), time.Since(w.began).Seconds(), strings.Join(late, ", "))
	} else {
		o.printf("\n%s in %.1f s\n", o.paint(green, "up"), time.Since(w.began).Seconds())
	}
	if !slices.ContainsFunc(st.Workloads, func(w api.Workload) bool { return !w.Gateway }) {
		o.printf("  nothing runs in it yet: weft apply -f FILE, or weft run\n")
	}
	page, from := "", ""
	for _, wl := range st.Workloads {
		if wl.Gateway {
			from = wl.Name
		}
		if strings.HasPrefix(wl.Name, "productpage") {
			page = "/productpage"
		}
	}
	for _, g := range st.Gateways {
		o.printf("  %-12s %s\n", "gateway", o.paint(cyan, w.pageAt(ctx, &g, from, page)))
	}
	w.gateways = gatewayList(st.Gateways)
	if st.Metrics != "" {
		o.printf("  %-12s %s\n", "metrics", o.paint(cyan, st.Metrics))
	}
	o.printf("\ntry next\n")
	self := "weft"
	if exe, err := os.Executable(); err == nil {
		if rel, err := filepath.Rel(mustGetwd(), exe); err == nil && !strings.HasPrefix(rel, "..") {
			self = rel
		}
	}
	if w.s.mesh != api.DefaultMesh {
		self += " --mesh " + w.s.mesh
	}
	tries := [][2]string{{self + " ps", "what runs"}, {self + " graph", "who calls whom"}, {self + " logs -f", "what they say"}}
	if page != "" {
		tries = append(tries, [2]string{self + " explain --from productpage http://reviews:9080/reviews/0", "which way, and why"})
		const shift = "examples/bookinfo/try/reviews-90-10.yaml"
		if _, err := os.Stat(shift); err == nil {
			tries = append(tries, [2]string{self + " apply -f " + shift, "shift traffic"})
		}
	}
	end := "Ctrl-C"
	if w.detached {
		end = self + " down"
	}
	tries = append(tries, [2]string{end, "stop everything"})
	width := 0
	for _, t := range tries {
		width = max(width, len(t[0]))
	}
	for _, t := range tries {
		o.printf("  %-*s   %s\n", width, t[0], o.paint(dim, t[1]))
	}
	o.printf("\n")
}

func (w *watcher) printGateways(gs []api.Published) {
	if now := gatewayList(gs); now != w.gateways && now != "" {
		w.gateways = now
		w.s.out.printf("  %-12s %s\n", "gateways", now)
	}
}

func gatewayList(gs []api.Published) string {
	list := make([]string, len(gs))
	for i, g := range gs {
		list[i] = g.URL()
	}
	return strings.Join(list, " ")
}

// pageAt is where a browser finds the page behind a gateway's port, if it speaks HTTP and has a route to it.
func (w *watcher) pageAt(ctx context.Context, g *api.Published, gateway, page string) string {
	at := g.URL()
	if page != "" && strings.HasPrefix(at, "http") && w.takes(ctx, gateway, at+page) {
		return at + page
	}
	return at
}

func mustGetwd() string {
	dir, err := os.Getwd()
	if err != nil {
		return "/"
	}
	return dir
}
