package parity

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/weftmesh/weft/test/rig"
)

// TestShares compares how requests are spread: by weights, healths, priorities and localities.
func TestShares(t *testing.T) {
	const rounds = 1500 // by which a tenth is more than five standard deviations
	port := map[string]uint16{}
	for _, name := range []string{"a", "b", "c", "d"} {
		port[name] = rig.NewBackend(t, func(c net.Conn, _ *rig.Received) bool {
			_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%s", name)
			return err == nil
		}).Addr().Port()
	}
	// host is "a", "a!" for one that is not well, "a~" for a degraded one, "a*3" for a weight.
	host := func(s string) string {
		e := fmt.Sprintf("endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}", port[s[:1]])
		switch rest := s[1:]; {
		case rest == "!":
			e += ", health_status: UNHEALTHY"
		case rest == "~":
			e += ", health_status: DEGRADED"
		case strings.HasPrefix(rest, "*"):
			e += ", load_balancing_weight: " + rest[1:]
		}
		return "{" + e + "}"
	}
	// Each group is a locality, "priority/weight: hosts".
	group := func(s string) string {
		head, hosts, _ := strings.Cut(s, ": ")
		priority, weight, _ := strings.Cut(head, "/")
		var list []string
		for h := range strings.FieldsSeq(hosts) {
			list = append(list, host(h))
		}
		extra := ""
		if weight != "" {
			extra = ", load_balancing_weight: " + weight
		}
		return fmt.Sprintf("{locality: {region: r%s, zone: z%s}, priority: %s%s, lb_endpoints: [%s]}", strings.ReplaceAll(hosts[:1], " ", ""), priority, priority, extra, strings.Join(list, ", "))
	}
	cases := []struct{ name, settings, groups string }{
		{"even", "lb_policy: ROUND_ROBIN", "0: a b c"},
		{"weights", "lb_policy: ROUND_ROBIN", "0: a b*3 c*2"},
		{"random", "lb_policy: RANDOM", "0: a b c d"},
		{"least", "lb_policy: LEAST_REQUEST", "0: a b"},
		{"unwell", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a! b c"},
		{"spill", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a b! ; 1: c d"},
		{"failover", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a! b! ; 1: c"},
		{"third", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a! ; 1: b! ; 2: c"},
		{"panic", "common_lb_config: {healthy_panic_threshold: {value: 50}}", "0: a b! c! d!"},
		{"nopanic", "common_lb_config: {healthy_panic_threshold: {value: 20}}", "0: a b! c! d!"},
		{"default", "lb_policy: ROUND_ROBIN", "0: a b! c! d!"},
		{"allunwell", "lb_policy: ROUND_ROBIN", "0: a! b!"},
		{"noneatall", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a! b!"},
		{"panics2", "lb_policy: ROUND_ROBIN", "0: a! b! ; 1: c! d!"},
		{"degraded", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a~ b"},
		{"degradedmore", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a~ b! c!"},
		{"localities", "common_lb_config: {locality_weighted_lb_config: {}}", "0/3: a b ; 0/1: c"},
		{"localityspill", "common_lb_config: {locality_weighted_lb_config: {}, healthy_panic_threshold: {value: 0}}", "0/1: a b! d! ; 0/1: c"},
		{"overprovisioned", "common_lb_config: {healthy_panic_threshold: {value: 0}}", "0: a b c! ; 1: d"},
	}
	var routes, clusters strings.Builder
	for _, c := range cases {
		var groups []string
		for g := range strings.SplitSeq(c.groups, " ; ") {
			groups = append(groups, group(g))
		}
		fmt.Fprintf(&routes, "\n  - {match: {prefix: /%s/}, route: {cluster: %s}}", c.name, c.name)
		fmt.Fprintf(&clusters, "- {name: %s, connect_timeout: 1s, type: STATIC, %s, load_assignment: {cluster_name: %s, endpoints: [%s]}}\n", c.name, c.settings, c.name, strings.Join(groups, ", "))
	}
	w := newTwins(t, settings{routes: "virtual_hosts:\n- name: all\n  domains: [\"*\"]\n  routes:" + routes.String(), clusters: clusters.String()})
	spread := func(address, name string) map[string]int {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		count := map[string]int{}
		for range rounds {
			count[one(t, c, "/"+name+"/")]++
		}
		return count
	}
	for _, c := range cases {
		e, o := spread(w.envoy, c.name), spread(w.ours, c.name)
		for _, who := range []string{"a", "b", "c", "d", "503"} {
			if d := e[who] - o[who]; d > rounds/10 || -d > rounds/10 {
				t.Errorf("%s (%s): Envoy %v, Weft %v", c.name, c.groups, e, o)
				break
			}
		}
	}
}

// one asks over a kept connection and gives the body, or the status of a failure.
func one(t *testing.T, c net.Conn, path string) string {
	t.Helper()
	io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: a\r\n\r\n")
	res, body := response(t, c)
	if res != 200 {
		return fmt.Sprint(res)
	}
	return body
}

func response(t *testing.T, c net.Conn) (status int, body string) {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}
