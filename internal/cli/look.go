package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/offline"
)

func (s *session) psCommand() *cobra.Command {
	var wide bool
	var as format
	c := &cobra.Command{
		Use:   "ps",
		Short: "Show the workloads and how they are",
		Long: `Show the workloads and how they are.

On a terminal, tables are made to fit: reasons are cut short, and columns that matter least are left out and named
below. Elsewhere, and with -o json or yaml, everything is there.`,
		Example: "  weft ps\n  weft ps --wide     # with every instance and process",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client := s.client()
			defer client.Close()
			st, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			if done, err := as.write(s.out, st.Workloads); done {
				return err
			}
			if wide {
				s.printPods(st.Workloads)
			} else {
				s.printWorkloads(st.Workloads)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&wide, "wide", "w", false, "a line for each process")
	as.flag(c, "json or yaml")
	return c
}

func statePaint(state string) paint {
	switch state {
	case "Running":
		return green
	case "Pending", "Starting", "Terminating", "ScaledDown":
		return yellow
	}
	return red
}

func (s *session) printWorkloads(ws []api.Workload) {
	if len(ws) == 0 {
		s.out.printf("nothing runs\n")
		return
	}
	rows := make([][]cell, len(ws))
	for i, w := range ws {
		var started time.Time
		for _, p := range w.Pods {
			if started.IsZero() || p.Started.Before(started) {
				started = p.Started
			}
		}
		rows[i] = []cell{text(w.Namespace), painted(bold, w.Name), text(fmt.Sprintf("%d/%d", w.Ready, w.Desired)),
			painted(statePaint(w.State), w.State), number("%d", w.Restarts), text(age(started, time.Now())), painted(dim, w.Reason)}
	}
	s.out.table([]column{{head: "NAMESPACE"}, {head: "WORKLOAD"}, {head: "READY"}, {head: "STATE"}, {head: "RESTARTS", spare: 1}, {head: "AGE", spare: 2},
		{head: "REASON", elastic: true}}, rows)
}

func (s *session) printPods(ws []api.Workload) {
	var rows [][]cell
	for _, w := range ws {
		for _, p := range w.Pods {
			for _, proc := range p.Processes {
				state := painted(green, "up")
				if !proc.Running {
					state = painted(red, "down")
				}
				rows = append(rows, []cell{text(p.Name), text(p.IP), text(proc.Name), number("%d", proc.PID), state,
					painted(statePaint(p.State), p.State), number("%d", proc.Restarts), text(age(p.Started, time.Now())), text(proc.Version), painted(dim, proc.LastExit)})
			}
		}
	}
	if len(rows) == 0 {
		s.out.printf("nothing runs\n")
		return
	}
	s.out.table([]column{{head: "INSTANCE"}, {head: "ADDRESS", spare: 2}, {head: "PROCESS"}, {head: "PID", spare: 3}, {head: "UP"}, {head: "STATE"},
		{head: "RESTARTS", spare: 1}, {head: "AGE", spare: 4}, {head: "PROXY", spare: 5}, {head: "LAST EXIT", elastic: true}}, rows)
}

func (s *session) logsCommand() *cobra.Command {
	var q api.LogQuery
	var since time.Duration
	var stamps bool
	c := &cobra.Command{
		Use:   "logs [WORKLOAD|INSTANCE|SERVICE]",
		Short: "Show what programs and sidecars write",
		Example: `  weft logs -f                          # everything, as it comes
  weft logs reviews                     # all versions of reviews
  weft logs productpage -c istio-proxy  # the access log of its sidecar`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				q.Namespace, q.Name = splitName(args[0], q.Namespace)
			}
			if since > 0 {
				q.Since = time.Now().Add(-since)
			}
			client := s.client()
			defer client.Close()
			return client.Logs(c.Context(), q, func(l api.LogLine) error { return s.printLog(l, stamps) })
		},
	}
	c.Flags().StringVarP(&q.Namespace, "namespace", "n", "", "only this namespace")
	c.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on as lines come")
	c.Flags().IntVar(&q.Tail, "tail", 0, "only the last lines of each process")
	c.Flags().StringVarP(&q.Process, "container", "c", "", "only this container; istio-proxy is the sidecar")
	c.Flags().DurationVar(&since, "since", 0, "only lines of the last while, such as 5m")
	c.Flags().BoolVarP(&stamps, "timestamps", "t", false, "when each line came")
	return c
}

func (s *session) printLog(l api.LogLine, stamps bool) error {
	colors := []paint{cyan, green, yellow, "35", "34", "36;1", "32;1", "33;1", "35;1", "34;1"}
	sum := 0
	for _, b := range []byte(l.Workload) {
		sum += int(b)
	}
	prefix := l.Pod
	if l.Process == "istio-proxy" {
		prefix += " " + l.Process // by which -c takes it
	}
	if stamps {
		prefix = l.Time.Format("15:04:05.000") + " " + prefix
	}
	_, err := fmt.Fprintf(s.out.out, "%s %s\n", s.out.paint(colors[sum%len(colors)], prefix+" |"), l.Text)
	return err
}

func (s *session) statusCommand() *cobra.Command {
	var as format
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the mesh at a glance: control plane, gateways, proxies, findings",
		Long: `Show the mesh at a glance: control plane, gateways, proxies, findings.

For each proxy: its state, since when and why; and how many listeners, routes, clusters, endpoint sets and names it
has. 3/4 stands for three in their newest version, of four. The states:
  synced    it has accepted the newest of all that it asked for
  waiting   it was sent something that it has not answered
  behind    something changed that it was not sent yet
  slow      it does not read what it is sent
  refused   it refused something and keeps what it had; the reason says what
  reconnecting
            it connects again and again; the reason says how often in the last minute, and why its last stream ended.
            One that refuses something, does not read, or does not answer for long is shown as that, with the same reason
  gone      it is not connected to this control plane, although its workload is there. Where there are several replicas,
            each shows the proxies that are connected to it: one that is gone from one may be at another

On a narrow terminal columns are left out, as with weft ps; -o json has them all.`,
		Example: "  weft status\n  weft status -o json     # with everything that is stale or missing",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client := s.client()
			defer client.Close()
			st, err := client.Status(c.Context())
			if err != nil {
				return err
			}
			if done, err := as.write(s.out, st); done {
				return err
			}
			s.printStatus(st)
			return nil
		},
	}
	as.flag(c, "json or yaml")
	return c
}

func (s *session) printStatus(st api.Status) {
	control := painted(green, st.Control)
	if st.Control != "running" {
		control.paint = red
	}
	now := time.Now()
	line := func(name, value string) { s.out.printf("%s %s\n", s.out.paint(dim, fmt.Sprintf("%-14s", name)), value) }
	xds, metrics := "", "none"
	if st.XDSAddress != "" {
		xds = "; xDS at " + st.XDSAddress
	}
	if st.Metrics != "" {
		metrics = st.Metrics
	}
	line("mesh", fmt.Sprintf("%s, %s, up %s, pid %d", st.Mesh, st.Version, age(st.Started, now), st.PID))
	line("isolation", st.Isolation+" ("+st.Reason+")")
	line("control plane", fmt.Sprintf("%s since %s%s", s.out.paint(control.paint, control.text), age(st.ControlSince, now), xds))
	line("identity", fmt.Sprintf("trust domain %s, root expires %s", st.TrustDomain, st.RootExpires.Format("2006-01-02")))
	line("metrics", metrics)
	for _, g := range st.Gateways {
		line("gateway", fmt.Sprintf("%s (port %d)", g.URL(), g.Port))
	}
	applied := fmt.Sprintf("%d applied", st.AppliedCount)
	if st.Control != "running" {
		applied = "applied ones not known now"
	}
	line("objects", applied+"; from "+strings.Join(st.Sources, ", "))
	if len(st.Proxies) > 0 {
		s.out.printf("\n")
		s.printProxies(st.Proxies, now)
	}
	if len(st.Findings) > 0 {
		s.out.printf("\n")
		s.printFindings(st.Findings)
	}
}

func (s *session) graphCommand() *cobra.Command {
	var window time.Duration
	var as format
	var follow bool
	c := &cobra.Command{
		Use:   "graph",
		Short: "Show who calls whom, how often, with how many errors, how fast",
		Example: `  weft graph
  weft graph --window 5m
  weft graph --follow        # redraw every two seconds`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if window < api.MinWindow || window > api.MaxWindow {
				return &usageError{fmt.Errorf("window %s: want %s to %s", window, api.MinWindow, api.MaxWindow)}
			}
			client := s.client()
			defer client.Close()
			for {
				g, err := client.Graph(c.Context(), window)
				if err != nil {
					return err
				}
				if follow && isTerminal(s.out.out) {
					s.out.printf("\x1b[H\x1b[2J")
				}
				var written bool
				if written, err = as.write(s.out, g); !written {
					s.printGraph(g)
				}
				if err != nil || !follow {
					return err
				}
				if !wait(c.Context(), 2*time.Second) {
					return nil
				}
			}
		},
	}
	c.Flags().DurationVar(&window, "window", time.Minute, "how far back to look, 5 s to 10 min")
	as.flag(c, "json or yaml")
	c.Flags().BoolVarP(&follow, "follow", "f", false, "redraw until Ctrl-C")
	return c
}

// wait is false when the context ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (s *session) printGraph(g api.Graph) {
	if len(g.Edges) == 0 {
		s.out.printf("no traffic in the last %s\n", g.Window)
		return
	}
	rows := make([][]cell, len(g.Edges))
	for i, e := range g.Edges {
		lock := painted(green, "mTLS")
		switch {
		case e.Unsent:
			lock = painted(dim, "-")
		case !e.MutualTLS:
			lock = painted(yellow, "plain")
		}
		errors := number("%.1f %%", e.ErrorShare*100)
		if e.ErrorShare > 0 {
			errors.paint = red
		}
		rows[i] = []cell{painted(bold, withVersion(e.Source, e.SourceVersion)), text("->"), painted(bold, withVersion(e.Destination, e.DestinationVersion)),
			text(e.Protocol), lock, number("%.2f/s", e.Rate), errors, number("%s", milliseconds(e.P50)), number("%s", milliseconds(e.P95)), number("%s", milliseconds(e.P99))}
	}
	s.out.table([]column{{head: "FROM"}, {}, {head: "TO"}, {head: "PROTOCOL", spare: 1}, {head: "SECURITY"}, {head: "RATE"}, {head: "ERRORS"},
		{head: "P50", spare: 3}, {head: "P95"}, {head: "P99", spare: 2}}, rows)
	if g.Covered < g.Window {
		s.out.printf("%s\n", s.out.paint(dim, fmt.Sprintf("the mesh has been watched for %s of the %s asked for", g.Covered.Round(time.Second), g.Window)))
	}
}

// withVersion adds the version where the workload's name does not end in it already.
func withVersion(name, version string) string {
	if version == "" || strings.HasSuffix(name, "-"+version) {
		return name
	}
	return name + " (" + version + ")"
}

func (s *session) explainCommand() *cobra.Command {
	var req api.ExplainRequest
	var headers, files []string
	var as format
	var settings string
	var o offline.Options
	c := &cobra.Command{
		Use:   "explain --from WORKLOAD [METHOD] URL",
		Short: "Say which way a request would take, and why",
		Long: `Say which way a request would take, and why: host, route and why earlier routes did not match,
subset, endpoints, encryption, policy verdict. It is computed by the proxy's own code from the
configuration in force, or with -f from files alone, without a mesh; nothing is sent.`,
		Example: `  weft explain --from productpage GET http://reviews:9080/reviews/0
  weft explain -f examples/bookinfo --from productpage GET http://reviews:9080/reviews/0
  weft explain --from productpage GET http://reviews:9080/reviews/0 -H end-user:jason
  weft explain --from frontend grpc://greeter:9090/hello.Greeter/SayHello
  weft explain --from istio-ingressgateway udp://localhost:5353
  weft explain --from istio-ingressgateway http://localhost:8080/productpage`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if req.Method, req.URL, err = requestLine(args); err != nil {
				return err
			}
			if req.From == "" {
				return &usageError{errors.New("--from is missing: the workload, service or gateway that sends the request")}
			}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, ":")
				if !ok || name == "" {
					return &usageError{fmt.Errorf("header %q: want name:value", h)}
				}
				req.Headers = append(req.Headers, api.HeaderField{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)})
			}
			if len(files) == 0 && (o.RegistryOnly || settings != "") {
				return &usageError{errors.New("--registry-only and --mesh-config go with -f: a running mesh has settings of its own")}
			}
			req.Color, o.Color = s.out.color, s.out.color
			if o.MeshConfig, err = meshConfig(settings); err != nil {
				return err
			}
			r, err := s.explained(c, files, req, o)
			if err != nil {
				return err
			}
			if done, err := as.write(s.out, r.Report); done {
				return err
			}
			s.out.printf("%s\n", strings.TrimRight(r.Text, "\n"))
			return nil
		},
	}
	c.Flags().StringVar(&req.From, "from", os.Getenv("WEFT_FROM"), "who sends it: workload, service or gateway, as name or name.namespace")
	c.Flags().StringArrayVarP(&files, "filename", "f", nil, "file, folder, or - for standard input: explain these, without a mesh; may be repeated")
	c.Flags().StringArrayVarP(&headers, "header", "H", nil, "header field, as name:value; may be repeated")
	c.Flags().StringVar(&req.ServerName, "server-name", "", "of https, TLS that the client makes itself: the server that it names, if not the URL's host")
	c.Flags().BoolVar(&o.RegistryOnly, "registry-only", false, "with -f: as weft up --registry-only")
	c.Flags().StringVar(&settings, "mesh-config", "", "with -f: as weft up --mesh-config")
	as.flag(c, "json or yaml")
	return c
}

// requestLine reads [METHOD] URL.
func requestLine(args []string) (method, url string, err error) {
	url = args[len(args)-1]
	switch {
	case strings.ContainsFunc(url, unicode.IsSpace):
		return "", "", &usageError{fmt.Errorf("URL %q has a space in it: write %%20 for one that is part of it, and headers with -H", url)}
	case len(args) == 2 && strings.ContainsAny(args[0], " /:"):
		return "", "", &usageError{fmt.Errorf("%q is no method: want [METHOD] URL, as in GET http://reviews:9080/", args[0])}
	case len(args) == 2:
		return args[0], url, nil
	case slices.Contains(methods, url):
		return "", "", &usageError{fmt.Errorf("the URL is missing: want [METHOD] URL, as in %s http://reviews:9080/; a host of this name is http://%s/", url, url)}
	}
	return http.MethodGet, url, nil
}

// methods are those of RFC 9110 and RFC 5789.
var methods = []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace}

// explained asks the running mesh, or files where there are any.
func (s *session) explained(c *cobra.Command, files []string, req api.ExplainRequest, o offline.Options) (api.ExplainReply, error) {
	if len(files) > 0 {
		return s.explainFiles(c, files, req, o)
	}
	client := s.client()
	defer client.Close()
	return client.Explain(c.Context(), req)
}
