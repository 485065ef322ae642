package parity

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weftmesh/weft/test/rig"
)

// script is a backend that fails the first attempts of each request as the request asks: "x-fail: 503 503 reset close".
type script struct {
	mu   sync.Mutex
	seen map[string]int
}

func (s *script) answer(c net.Conn, r *rig.Received) bool {
	id := r.Header.Get("x-id")
	s.mu.Lock()
	s.seen[id]++
	n := s.seen[id]
	s.mu.Unlock()
	steps := strings.Fields(r.Header.Get("x-fail"))
	if n <= len(steps) {
		switch step := steps[n-1]; step {
		case "close":
			return false
		case "reset":
			c.(*net.TCPConn).SetLinger(0)
			return false
		case "half":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
			return false
		case "garbage":
			io.WriteString(c, "nonsense\r\n\r\n")
			return false
		case "slow":
			time.Sleep(300 * time.Millisecond)
		case "hint":
			_, err := io.WriteString(c, "HTTP/1.1 503 x\r\nX-Retry-Me: yes\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		case "grpc14":
			_, err := io.WriteString(c, "HTTP/1.1 200 x\r\nContent-Type: application/grpc\r\ngrpc-status: 14\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		case "grpc4":
			_, err := io.WriteString(c, "HTTP/1.1 200 x\r\nContent-Type: application/grpc\r\ngrpc-status: 4\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		default:
			_, err := io.WriteString(c, "HTTP/1.1 "+step+" x\r\nContent-Length: 0\r\n\r\n")
			return err == nil
		}
	}
	body := fmt.Sprintf("HTTP/1.1\nattempts=%d count=%s timeout=%s body=%s", n, r.Header.Get("x-envoy-attempt-count"), map[bool]string{true: "yes"}[r.Header.Get("x-envoy-expected-rq-timeout-ms") != ""], r.Body)
	if r.Method == http.MethodHead {
		body = ""
	}
	_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	return err == nil
}

func (s *script) attempts(id string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[id]
}

func TestRetries(t *testing.T) {
	pol := func(name, on, more string) string {
		return fmt.Sprintf(`
  - match: {prefix: /%s/}
    route: {cluster: b, timeout: 3s, retry_policy: {retry_on: "%s", num_retries: 2, retry_back_off: {base_interval: 0.001s}%s}}`, name, on, more)
	}
	routes := `
virtual_hosts:
- name: all
  domains: ["*"]
  include_request_attempt_count: true
  include_attempt_count_in_response: true
  routes:` +
		pol("5xx", "5xx", "") + pol("gw", "gateway-error", "") + pol("reset", "reset", "") + pol("cf", "connect-failure", "") + pol("ref", "refused-stream", "") +
		pol("4xx", "retriable-4xx", "") + pol("codes", "retriable-status-codes", ", retriable_status_codes: [418, 200]") + pol("codesonly", "5xx", ", retriable_status_codes: [418]") + pol("hdr", "retriable-headers", `, retriable_headers: [{name: x-retry-me, string_match: {exact: "yes"}}]`) +
		pol("reqh", "5xx", `, retriable_request_headers: [{name: ":method", string_match: {exact: GET}}]`) + pol("rbr", "reset-before-request", "") + pol("env", "envoy-ratelimited", "") + pol("http3", "http3-post-connect-failure", "") +
		pol("grpc", "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable", "") + pol("none", "", "") + pol("pertry", "5xx", ", per_try_timeout: 0.1s") + pol("pertryreset", "reset", ", per_try_timeout: 0.1s") + pol("idle", "5xx", ", per_try_idle_timeout: 0.1s") + `
  - match: {prefix: /zero/}
    route: {cluster: b, retry_policy: {retry_on: "5xx", num_retries: 0}}
  - match: {prefix: /default/}
    route: {cluster: b, retry_policy: {retry_on: "5xx"}}
  - match: {prefix: /dead/}
    route: {cluster: dead, retry_policy: {retry_on: "connect-failure", num_retries: 2}}
  - match: {prefix: /half/}
    route: {cluster: half, retry_policy: {retry_on: "connect-failure", num_retries: 5}}
  - match: {prefix: /t/}
    route: {cluster: b, timeout: 0.15s}
  - match: {prefix: /t0/}
    route: {cluster: b, timeout: 0s}
  - match: {prefix: /idle0/}
    route: {cluster: b, timeout: 0s, idle_timeout: 0.15s}
  - match: {prefix: /max/}
    route: {cluster: b, timeout: 0s, max_stream_duration: {max_stream_duration: 0.15s}}
  - match: {prefix: /}
    route: {cluster: b}
`
	for _, remote := range []bool{false, true} {
		w := newTwins(t, settings{manager: fmt.Sprintf("use_remote_address: %v\nserver_header_transformation: PASS_THROUGH", remote), routes: routes, clusters: `
- name: dead
  connect_timeout: 1s
  type: STATIC
  load_assignment: {cluster_name: dead, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}
- name: half
  connect_timeout: 1s
  type: STATIC
  load_assignment: {cluster_name: half, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 1}}}}, {endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: BACKEND}}}}]}]}
`})
		s := &script{seen: map[string]int{}}
		w.backend.Answer(s.answer)
		n := 0
		same := func(lines ...string) {
			for _, l := range lines {
				var re, ro string
				for try := 0; try == 0 || re != ro && try < 10 && strings.Contains(l, "slow"); try++ { // on a slow machine more is too late than what is meant
					n++
					e, o := fmt.Sprintf("e%d", n), fmt.Sprintf("o%d", n)
					re = ask(w.envoy, request(l+" | x-id: "+e)) + fmt.Sprintf("\nin all %d", s.attempts(e))
					ro = ask(w.ours, request(l+" | x-id: "+o)) + fmt.Sprintf("\nin all %d", s.attempts(o))
				}
				w.compare(l, re, ro)
			}
		}
		w.differ("what got no answer may have been acted on, and is not sent again: its method is not idempotent", "POST /.* x-fail: .*(close|reset|garbage|slow|101).*")
		w.differ("a kept connection that ends without an answer before GET: a new one is tried once, whatever the policy", "/.* x-fail: (close|reset|503 close 500).*")
		w.differ("a server that changes the protocol unasked is not believed", ".*x-fail: 101")
		w.differ("which endpoint is the first is each proxy's choice", ".*/half/.*")
		w.differ("the attempts are told with every failure", "/(idle0|max)/ .*")
		if !remote {
			w.differ("what the client says of its time stays", "/t0/ .*expected.*")
		}
		for _, p := range strings.Fields("5xx gw reset cf ref 4xx codes codesonly hdr reqh rbr env http3 grpc none zero default") {
			for _, f := range []string{"503", "500", "502 504", "503 503 503", "409", "404", "418", "429", "close", "reset", "garbage", "hint", "grpc14", "grpc4", "200", "503 close 500", "101"} {
				same("/"+p+"/ | x-fail: "+f, "POST /"+p+"/ | body=hello | x-fail: "+f)
			}
		}
		same("/5xx/ | x-fail: half", "/codes/ | x-fail: half") // Envoy takes a second to break off
		for _, p := range strings.Fields("pertry pertryreset idle t t0 idle0 max") {
			same("/"+p+"/ | x-fail: slow", "/"+p+"/ | x-fail: 503 slow", "POST /"+p+"/ | body=x | x-fail: slow")
		}
		same("/dead/", "/half/", "/half/", "POST /half/ | body=x")
		for _, h := range []string{"x-envoy-retry-on: 5xx", "x-envoy-retry-on: 5xx | x-envoy-max-retries: 2", "x-envoy-retry-on: 5xx | x-envoy-max-retries: 0", "x-envoy-retry-on: retriable-status-codes | x-envoy-retriable-status-codes: 503,418", "x-envoy-retry-on: retriable-headers | x-envoy-retriable-header-names: x-retry-me", "x-envoy-retry-grpc-on: unavailable", "x-envoy-retry-on: gateway-error,nonsense", "x-envoy-max-retries: 3", "x-envoy-max-retries: x | x-envoy-retry-on: 5xx"} {
			for _, f := range []string{"503", "503 503", "418", "hint", "grpc14", "close"} {
				same("/plain/ | x-fail: "+f+" | "+h, "/default/ | x-fail: "+f+" | "+h)
			}
		}
		for _, h := range []string{"x-envoy-upstream-rq-timeout-ms: 100", "x-envoy-upstream-rq-timeout-ms: 2000", "x-envoy-upstream-rq-timeout-ms: 0", "x-envoy-upstream-rq-timeout-ms: x", "x-envoy-upstream-rq-timeout-ms: -1", "x-envoy-upstream-rq-per-try-timeout-ms: 100", "x-envoy-upstream-rq-per-try-timeout-ms: 100 | x-envoy-retry-on: 5xx", "x-envoy-upstream-rq-timeout-alt-response: 1 | x-envoy-upstream-rq-timeout-ms: 100", "x-envoy-expected-rq-timeout-ms: 100", "grpc-timeout: 100m"} {
			same("/t/ | x-fail: slow | "+h, "/t0/ | x-fail: slow | "+h, "/pertry/ | x-fail: slow | "+h)
		}
	}
}
