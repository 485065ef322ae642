package parity

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode"
	"github.com/weftmesh/weft/test/envoy"
	"github.com/weftmesh/weft/test/rig"
)

// twins are an Envoy and a gateway of ours with one configuration, before one backend.
type twins struct {
	t           *testing.T
	envoy, ours string
	backend     *rig.Backend
	differences []*difference
}

// difference is one that is meant: requests whose line has a match of the expression are answered in another way.
type difference struct {
	line *regexp.Regexp
	seen bool
}

// differ lists requests, each by an expression, that are answered in another way for a reason.
func (w *twins) differ(reason string, lines ...string) {
	w.t.Helper()
	if reason == "" {
		w.t.Fatal("a difference without a reason")
	}
	for _, l := range lines {
		d := &difference{line: regexp.MustCompile("^(?:" + l + ")$")}
		w.differences = append(w.differences, d)
		w.t.Cleanup(func() {
			if !d.seen {
				w.t.Errorf("%s: is answered alike now", l)
			}
		})
	}
}

func (w *twins) meant(line string) (meant bool) {
	for _, d := range w.differences {
		if d.line.MatchString(line) {
			d.seen, meant = true, true
		}
	}
	return meant
}

// settings is what twins have in common. Everything is YAML of Envoy's messages.
type settings struct {
	manager  string // of the HttpConnectionManager, but for its routes and filters
	filters  string // before the router
	router   string // fields of the router's
	routes   string // the RouteConfiguration
	clusters string // beside "b", which is the backend; BACKEND stands for its port
}

const backendCluster = `
- name: b
  connect_timeout: 1s
  type: STATIC
  load_assignment: {cluster_name: b, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: BACKEND}}}}]}]}
`

const managerType = `"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager`

// listener gives the one listener, at a port.
func (s *settings) listener(port int) string {
	indent := func(text string, n int) string {
		return strings.ReplaceAll(strings.Trim(text, "\n"), "\n", "\n"+strings.Repeat(" ", n))
	}
	return fmt.Sprintf(`
name: gateway
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      %s
      stat_prefix: x
      %s
      http_filters:
      %s
      - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router%s}}
      route_config:
        name: r
        %s
`, port, managerType, indent(s.manager, 6), indent(s.filters, 6), s.router, indent(s.routes, 8))
}

func newTwins(t *testing.T, s settings) *twins {
	t.Helper()
	w := &twins{t: t, backend: rig.NewBackend(t, answer)}
	clusters := strings.ReplaceAll(backendCluster+s.clusters, "BACKEND", fmt.Sprint(w.backend.Addr().Port()))
	w.startEnvoy(s.listener(0), clusters)
	w.startOurs(s.listener(8080), clusters)
	return w
}

func fromYAML(t *testing.T, text string, m proto.Message) {
	t.Helper()
	j, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err, text)
	}
	if err := protojson.Unmarshal(j, m); err != nil {
		t.Fatal(err, text)
	}
}

func (w *twins) startOurs(listener, clusters string) {
	t := w.t
	t.Helper()
	l := &listenerv3.Listener{}
	fromYAML(t, listener, l)
	ln, err := decode.Listener(l)
	if err != nil {
		t.Fatal(err)
	}
	var list []json.RawMessage
	if err := yaml.Unmarshal([]byte(clusters), &list); err != nil {
		t.Fatal(err)
	}
	var cs []*conf.Cluster
	for _, raw := range list {
		c := &clusterv3.Cluster{}
		if err := protojson.Unmarshal(raw, c); err != nil {
			t.Fatal(err)
		}
		d, err := decode.Cluster(c)
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, d)
	}
	var gateway *rig.Proxy
	gateway, w.ours = rig.New(t).Gateway(nil)
	gateway.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		for _, c := range cs {
			s.Clusters[c.Name] = c
		}
		ln.Address = netip.MustParseAddrPort("127.0.0.1:8080")
		s.Gateways = []*conf.Listener{ln}
	})
}

func (w *twins) startEnvoy(listener, clusters string) {
	t := w.t
	t.Helper()
	var l, cs any
	if err := yaml.Unmarshal([]byte(listener), &l); err != nil {
		t.Fatal(err, listener)
	}
	if err := yaml.Unmarshal([]byte(clusters), &cs); err != nil {
		t.Fatal(err, clusters)
	}
	boot, err := json.Marshal(map[string]any{
		"admin":            map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}}},
		"static_resources": map[string]any{"listeners": []any{l}, "clusters": cs},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.envoy = envoy.Start(t, boot).String()
}

// answer is the backend: it says what came. The query or a field may ask for another answer.
func answer(c net.Conn, r *rig.Received) bool {
	status := "200 OK"
	if s := r.Header.Get("x-answer"); s != "" {
		status = s + " x"
	}
	extra := ""
	for _, h := range r.Header.Values("x-give") {
		extra += h + "\r\n"
	}
	body := describe(r)
	head := fmt.Sprintf("HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n", status, len(body), extra)
	if r.Method == http.MethodHead {
		body = ""
	}
	_, err := io.WriteString(c, head+body)
	return err == nil
}

// noise are fields whose values differ from request to request, and x-envoy-internal, which we do not write: in a mesh it would be
// true of everybody.
var noise = []string{"x-request-id", "date", "x-envoy-upstream-service-time", "server", "x-envoy-expected-rq-timeout-ms", "x-envoy-internal"}

// describe gives a request as the backend got it, its fields in the order of their names. That a request without a body is said to have
// none is left to each proxy.
func describe(r *rig.Received) string {
	head, body, _ := strings.Cut(string(r.Raw), "\r\n\r\n")
	lines := strings.Split(head, "\r\n")
	for i, l := range lines[1:] {
		n, v, _ := strings.Cut(l, ":")
		lines[i+1] = strings.ToLower(n) + ":" + v
	}
	fields := slices.DeleteFunc(lines[1:], func(l string) bool {
		n, _, _ := strings.Cut(l, ":")
		return slices.Contains(noise, n) || l == "content-length: 0"
	})
	slices.SortStableFunc(fields, func(a, b string) int {
		n, _, _ := strings.Cut(a, ":")
		m, _, _ := strings.Cut(b, ":")
		return strings.Compare(n, m)
	})
	return lines[0] + "\n" + strings.Join(fields, "\n") + "\n\n" + body
}

// ask sends raw bytes and gives what came back, in a form to compare.
func ask(address, raw string) string {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, raw)
	method, _, _ := strings.Cut(raw, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return err.Error()
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		b = append(b, err.Error()...)
	}
	var fields []string
	for n, vs := range res.Header {
		if n = strings.ToLower(n); slices.Contains(noise, n) || n == "content-length" || n == "content-type" {
			continue
		}
		for _, v := range vs {
			if n != "vary" || v != "Origin" { // ours, so that no cache gives an answer to another origin
				fields = append(fields, n+": "+v)
			}
		}
	}
	slices.Sort(fields)
	if res.StatusCode >= 300 && !strings.Contains(string(b), "HTTP/1.1\n") && !strings.HasPrefix(string(b), "direct") {
		b = nil // what a proxy says of a failure is its own
	}
	return fmt.Sprintf("%d\n%s\n%s", res.StatusCode, strings.Join(fields, "\n"), b)
}

// request writes "GET /path | name: value | name: value" as HTTP/1.1; Host is "a.example" unless it is given.
func request(line string) string {
	parts := strings.Split(line, " | ")
	first, fields := strings.TrimSpace(parts[0]), parts[1:]
	if !strings.Contains(first, " ") {
		first = "GET " + first
	}
	out := first + " HTTP/1.1\r\n"
	if !slices.ContainsFunc(fields, func(f string) bool { return strings.HasPrefix(strings.ToLower(f), "host:") }) {
		out += "Host: a.example\r\n"
	}
	body := ""
	for _, f := range fields {
		if b, ok := strings.CutPrefix(f, "body="); ok {
			body = b
			out += fmt.Sprintf("Content-Length: %d\r\n", len(b))
			continue
		}
		out += strings.TrimSpace(f) + "\r\n"
	}
	return out + "\r\n" + body
}

// same asks both the same, and wants the same answer.
func (w *twins) same(lines ...string) {
	w.t.Helper()
	for _, l := range lines {
		w.compare(l, ask(w.envoy, request(l)), ask(w.ours, request(l)))
	}
}

func (w *twins) compare(line, envoy, ours string) {
	w.t.Helper()
	if envoy != ours && !w.meant(line) {
		w.t.Errorf("%s\n%s", line, diff(envoy, ours))
	}
}

// diff gives the lines that only one of two texts has, Envoy's with a minus.
func diff(a, b string) string {
	x, y := strings.Split(a, "\n"), strings.Split(b, "\n")
	out := ""
	for _, l := range x {
		if !slices.Contains(y, l) {
			out += "- " + l + "\n"
		}
	}
	for _, l := range y {
		if !slices.Contains(x, l) {
			out += "+ " + l + "\n"
		}
	}
	return out
}
