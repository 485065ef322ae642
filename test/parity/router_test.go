package parity

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/test/rig"
)

// TestTheRoutersOwnFields: which fields of Envoy's the router adds, and leaves out where suppress_envoy_headers is set.
func TestTheRoutersOwnFields(t *testing.T) {
	for _, router := range []string{"", ", suppress_envoy_headers: true"} {
		w := newTwins(t, settings{router: router, manager: "server_header_transformation: PASS_THROUGH", routes: `
virtual_hosts:
- name: all
  domains: ["*"]
  include_request_attempt_count: true
  include_attempt_count_in_response: true
  routes:
  - match: {prefix: /path/}
    route: {cluster: b, prefix_rewrite: /}
  - match: {prefix: /host/}
    route: {cluster: b, host_rewrite_literal: b.example}
  - match: {prefix: /}
    route: {cluster: b}
`})
		w.backend.Answer(func(c net.Conn, r *rig.Received) bool {
			_, err := fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Got: %s\r\n\r\n", strings.Join(envoys(r.Header), " "))
			return err == nil
		})
		for _, l := range []string{"/", "/path/x", "/host/", "/ | grpc-timeout: 1S | content-type: application/grpc"} {
			w.compare(l+router, fieldsOf(w.envoy, l), fieldsOf(w.ours, l))
		}
		if got := fieldsOf(w.ours, "/path/x"); strings.Contains(got, "original-path") == (router != "") {
			t.Error(got)
		}
	}
}

// fieldsOf tells which fields of Envoy's the backend got, and which the client.
func fieldsOf(address, line string) string {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, request(line))
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err.Error()
	}
	return res.Header.Get("X-Got") + "\n" + strings.Join(envoys(res.Header), " ")
}

// envoys are the names of the fields that are Envoy's, but for the one that we do not write.
func envoys(h http.Header) (names []string) {
	for n := range h {
		if n = strings.ToLower(n); strings.HasPrefix(n, "x-envoy-") && n != "x-envoy-internal" {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return names
}
