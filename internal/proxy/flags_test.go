package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/wire"
)

// flagRig is a client's sidecar and an upstream host without one, where each case has a port.
type flagRig struct {
	client, web *pod
	port        uint16
	heard       chan struct{} // closed when the upstream that says nothing has heard something
}

// to publishes the cluster and the service of the case; change may be nil.
func (r *flagRig) to(change func(*conf.Cluster, *conf.HTTP, *conf.Route)) {
	name := fmt.Sprint("web", r.port)
	c := meshCluster(name, r.port, r.web)
	c.Transports, c.Speaks = []conf.TransportMatch{{}}, conf.HTTP1
	h, rt := &conf.HTTP{}, forwardTo(name)
	if change != nil {
		change(c, h, rt)
	}
	target := &conf.Target{Name: name, Routes: table(rt), Listener: &conf.Listener{Name: name, Chains: []*conf.Chain{{HTTP: h}}}}
	r.client.config.publish(func(s *conf.Snapshot, names map[string]*conf.Target) {
		s.Clusters[name] = c
		names[wire.ListenerName("web", r.port)], names[wire.ListenerName(vip, r.port)] = target, target
	})
}

// says makes the upstream answer every connection with the text once it has heard something, and then close it.
func (r *flagRig) says(text string) {
	r.web.serveRaw(r.port, func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, text)
	})
}

// silent makes the upstream take connections and say nothing.
func (r *flagRig) silent() {
	r.heard = make(chan struct{})
	var once sync.Once
	r.web.serveRaw(r.port, func(c net.Conn) {
		if n, _ := c.Read(make([]byte, 4096)); n > 0 {
			once.Do(func() { close(r.heard) })
		}
		io.Copy(io.Discard, c)
	})
}

func hasTimeout(d time.Duration) func(*conf.Cluster, *conf.HTTP, *conf.Route) {
	return func(_ *conf.Cluster, _ *conf.HTTP, rt *conf.Route) { rt.Forward.Timeout = d }
}

func faulty(f conf.Fault) func(*conf.Cluster, *conf.HTTP, *conf.Route) {
	return func(_ *conf.Cluster, _ *conf.HTTP, rt *conf.Route) { rt.Fault = &f }
}

// failures are the ways in which a request can fail at one proxy. codec stands for the client's version of HTTP in details.
var failures = []struct {
	name                  string
	status                int // 0: the client hears nothing, or is cut off
	flag, details, reason string
	grpc                  int
	set                   func(*flagRig)
	url                   string
	fields                int  // that the request has besides, each small: a large head is not even sent to who has said its limit
	late                  bool // the response begins well
	leave                 bool // the client leaves when its request has arrived
}{
	{name: "nothing fails", status: 200, flag: "-", details: "via_upstream", grpc: -1,
		set: func(r *flagRig) { r.web.serve(r.port, hello("web")); r.to(nil) }},
	{name: "malformed", status: 431, flag: "DPE", details: "codec.codec_error", reason: "(431)", grpc: -1, fields: 200,
		set: func(r *flagRig) { r.to(nil) }},
	{name: "path out of the root", status: 400, flag: "DPE", details: "path_normalization_failed", reason: "leads out", grpc: 13, url: "/a/../../b",
		set: func(r *flagRig) {
			r.to(func(_ *conf.Cluster, h *conf.HTTP, _ *conf.Route) { h.NormalizePath = true })
		}},
	{name: "no route", status: 404, flag: "NR", details: "route_not_found", reason: "nothing matches", grpc: 12,
		set: func(r *flagRig) {
			r.to(func(_ *conf.Cluster, _ *conf.HTTP, rt *conf.Route) {
				rt.Match.Path = conf.StringMatch{Kind: conf.Exact, Value: "/other"}
			})
		}},
	{name: "no cluster", status: 503, flag: "NC", details: "cluster_not_found", reason: "cluster nowhere: not known", grpc: 14,
		set: func(r *flagRig) {
			r.to(func(_ *conf.Cluster, _ *conf.HTTP, rt *conf.Route) { rt.Forward.Clusters[0].Cluster = "nowhere" })
		}},
	{name: "no configuration", status: 503, flag: "NC", details: "no_configuration", reason: "control plane unreachable", grpc: 14,
		set: func(r *flagRig) {
			r.to(nil)
			r.client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) { names[wire.ListenerName("web", r.port)] = nil })
		}},
	{name: "no endpoint", status: 503, flag: "UH", details: "no_healthy_upstream", reason: "has no endpoints", grpc: 14,
		set: func(r *flagRig) {
			r.to(func(c *conf.Cluster, _ *conf.HTTP, _ *conf.Route) { c.Localities = nil })
		}},
	{name: "connection refused", status: 503, flag: "UF", details: "upstream_reset_before_response_started{remote_connection_failure}",
		reason: "refused", grpc: 14, set: func(r *flagRig) { r.to(nil) }},
	{name: "connection refused, retried", status: 503, flag: "UF,URX", details: "upstream_reset_before_response_started{remote_connection_failure}",
		reason: "refused (attempt 3)", grpc: 14,
		set: func(r *flagRig) {
			r.to(func(_ *conf.Cluster, _ *conf.HTTP, rt *conf.Route) { rt.Forward.Retry = istioRetries() })
		}},
	{name: "no TLS", status: 503, flag: "UF", details: "upstream_reset_before_response_started{remote_connection_failure|TLS_error}",
		reason: "tls handshake", grpc: 14,
		set: func(r *flagRig) {
			r.says("HTTP/1.1 400 Bad Request\r\n\r\n")
			r.to(func(c *conf.Cluster, _ *conf.HTTP, _ *conf.Route) { c.Transports = meshCluster("x", 1).Transports })
		}},
	{name: "circuit breaker", status: 503, flag: "UO", details: "upstream_reset_before_response_started{overflow}", reason: "1 under way, and no more are allowed", grpc: 14,
		set: func(r *flagRig) {
			r.silent()
			r.to(func(c *conf.Cluster, _ *conf.HTTP, _ *conf.Route) { c.MaxRequests = 1 })
			r.occupy()
		}},
	{name: "closed before an answer", status: 503, flag: "UC", details: "upstream_reset_before_response_started{connection_termination}",
		reason: "closed the connection", grpc: 14, set: func(r *flagRig) { r.says(""); r.to(nil) }},
	{name: "closed within the answer", status: 200, late: true, flag: "UC", details: "upstream_reset_after_response_started{connection_termination}",
		reason: "closed the connection", grpc: -1,
		set: func(r *flagRig) { r.says("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin"); r.to(nil) }},
	{name: "malformed answer", status: 502, flag: "UPE", details: "upstream_reset_before_response_started{protocol_error}", reason: "http1", grpc: 14,
		set: func(r *flagRig) { r.says("what?\r\n\r\n"); r.to(nil) }},
	{name: "no frames", status: 502, flag: "UPE", details: "upstream_reset_before_response_started{protocol_error}",
		reason: `does not speak HTTP/2: it answered`, grpc: 14,
		set: func(r *flagRig) {
			r.says(strings.Repeat("what? ", 10))
			r.to(func(c *conf.Cluster, _ *conf.HTTP, _ *conf.Route) { c.Speaks = conf.HTTP2 })
		}},
	{name: "stream reset", status: 503, flag: "UR", details: "upstream_reset_before_response_started{remote_reset}", reason: "INTERNAL_ERROR", grpc: 14,
		set: func(r *flagRig) {
			r.web.serveOf(2, r.port, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
			r.to(func(c *conf.Cluster, _ *conf.HTTP, _ *conf.Route) { c.Speaks = conf.HTTP2 })
		}},
	{name: "time-out", status: 504, flag: "UT", details: "response_timeout", reason: "no complete answer within 200ms, the route", grpc: 14,
		set: func(r *flagRig) { r.silent(); r.to(hasTimeout(200 * time.Millisecond)) }},
	{name: "time-out of the attempt", status: 504, flag: "UT", details: "upstream_per_try_timeout", reason: "no answer within 200ms, the time for one attempt", grpc: 14,
		set: func(r *flagRig) {
			r.silent()
			r.to(func(_ *conf.Cluster, _ *conf.HTTP, rt *conf.Route) {
				rt.Forward.Retry = &conf.Retry{PerTry: 200 * time.Millisecond}
			})
		}},
	{name: "delay and time-out", status: 504, flag: "UT,DI", details: "response_timeout", reason: "the route's time-out", grpc: 14,
		set: func(r *flagRig) {
			r.silent()
			r.to(func(_ *conf.Cluster, _ *conf.HTTP, rt *conf.Route) {
				rt.Forward.Timeout, rt.Fault = 200*time.Millisecond, &conf.Fault{Delay: time.Millisecond, DelayFraction: 1e6}
			})
		}},
	{name: "standstill", status: 200, late: true, flag: "SI", details: "stream_idle_timeout", reason: "idle time of streams", grpc: -1,
		set: func(r *flagRig) {
			r.web.serveRaw(r.port, func(c net.Conn) {
				c.Read(make([]byte, 4096))
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegin")
				io.Copy(io.Discard, c)
			})
			r.to(func(_ *conf.Cluster, h *conf.HTTP, _ *conf.Route) { h.StreamIdle = 300 * time.Millisecond })
		}},
	{name: "client leaves", flag: "gone", details: "gone", reason: "", grpc: -1, leave: true,
		set: func(r *flagRig) { r.silent(); r.to(nil) }},
	{name: "denied", status: 403, flag: "-", details: "rbac_access_denied_matched_policy[lock]", reason: "denied by policy lock", grpc: 7,
		set: func(r *flagRig) {
			r.to(func(_ *conf.Cluster, h *conf.HTTP, _ *conf.Route) {
				h.RBAC = []*conf.RBAC{rbac(conf.Deny, "lock", &conf.Rule{Any: true})}
			})
		}},
	{name: "not allowed", status: 403, flag: "-", details: "rbac_access_denied_matched_policy[none]", grpc: 7,
		set: func(r *flagRig) {
			r.to(func(_ *conf.Cluster, h *conf.HTTP, _ *conf.Route) {
				h.RBAC = []*conf.RBAC{rbac(conf.Allow, "key", from("nobody"))}
			})
		}},
	{name: "abort", status: 418, flag: "FI", details: "fault_filter_abort", reason: "injected", grpc: 2,
		set: func(r *flagRig) { r.to(faulty(conf.Fault{AbortStatus: 418, AbortFraction: 1e6})) }},
	{name: "delay and abort", status: 503, flag: "DI,FI", details: "fault_filter_abort", reason: "injected", grpc: 14,
		set: func(r *flagRig) {
			r.to(faulty(conf.Fault{AbortStatus: 503, AbortFraction: 1e6, Delay: time.Millisecond, DelayFraction: 1e6}))
		}},
	{name: "delay", status: 200, flag: "DI", details: "via_upstream", grpc: -1,
		set: func(r *flagRig) {
			r.web.serve(r.port, hello("web"))
			r.to(faulty(conf.Fault{Delay: time.Millisecond, DelayFraction: 1e6}))
		}},
	{name: "local limit", status: 429, flag: "RL", details: "local_rate_limited", reason: "over the limit of 1 in 1h0m0s; try again in 1h0m0s", grpc: 14,
		set: func(r *flagRig) {
			r.silent()
			r.to(func(_ *conf.Cluster, h *conf.HTTP, _ *conf.Route) {
				h.Limits = []*conf.LocalLimit{{Filter: "limit", Key: fmt.Sprint(r.port), Enabled: 1e6, Enforced: 1e6, Status: 429,
					Bucket: &conf.TokenBucket{Max: 1, Fill: 1, Interval: time.Hour}}}
			})
			r.occupy()
		}},
	{name: "limit unknown", status: 500, flag: "RLSE", details: "rate_limiter_error", reason: "cluster nowhere: not known", grpc: 2,
		set: func(r *flagRig) {
			r.to(func(_ *conf.Cluster, h *conf.HTTP, rt *conf.Route) {
				h.GlobalLimits = []*conf.GlobalLimit{{Domain: "d", Cluster: "nowhere", Timeout: time.Second, Deny: true, ErrorStatus: 500, Enabled: 1e6}}
				rt.Forward.LimitRules = []conf.LimitRule{{Actions: []conf.LimitAction{{Kind: conf.LimitGeneric, Key: "k", Value: "v"}}}}
			})
		}},
}

// occupy sends a request that takes what there is of a limit and is never answered.
func (r *flagRig) occupy() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with the request
		defer close(done)
		q, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://web:%d/occupied", r.port), nil)
		if res, err := r.client.client().Do(q); err == nil {
			res.Body.Close()
		}
	}()
	r.client.m.t.Cleanup(func() { cancel(); <-done })
	name := fmt.Sprint("web", r.port)
	eventually(r.client.m.t, "a request under way", func() bool {
		c := r.client.proxy.clusters.Get(name)
		if c == nil {
			return false
		}
		_, _, requests, _ := c.Breaker.InUse()
		return requests == 1
	})
}

// TestFailuresAreTold drives a proxy into each failure, for clients of HTTP/1, HTTP/2 and gRPC: what the client hears, what the log
// and the metrics say.
func TestFailuresAreTold(t *testing.T) {
	for _, client := range []string{"http1", "http2", "grpc"} {
		t.Run(client, func(t *testing.T) {
			m := newMesh(t)
			p := m.pod("frontend", "10.0.0.1", nil)
			for i, f := range failures {
				t.Run(f.name, func(t *testing.T) {
					r := &flagRig{client: p, web: p.bare(fmt.Sprint("10.0.1.", i+1)), port: uint16(7000 + i)}
					if client == "grpc" && f.grpc < 0 {
						t.Skip("no failure that is told in terms of gRPC")
					}
					f.set(r)
					version := 2
					if client == "http1" {
						version = 1
					}
					c := p.clientOf(version)
					path := "/case" + strconv.Itoa(i)
					if f.url != "" {
						path = f.url
					}
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					q, err := http.NewRequestWithContext(ctx, "POST", fmt.Sprintf("http://web:%d%s", r.port, path), http.NoBody)
					if err != nil {
						t.Fatal(err)
					}
					if client == "grpc" {
						q.Header.Set("Content-Type", "application/grpc")
					}
					for i := range f.fields {
						q.Header.Set("X-"+strconv.Itoa(i), "1")
					}
					if f.leave {
						go func() { <-r.heard; cancel() }() // ends when the request is there
					}
					status, told := 0, ""
					if res, err := c.Do(q); err == nil {
						_, bodyErr := io.ReadAll(res.Body)
						res.Body.Close()
						if status, told = res.StatusCode, res.Header.Get("Grpc-Status"); (bodyErr != nil) != f.late {
							t.Errorf("the body: %v", bodyErr)
						}
					}
					want, wantTold := f.status, ""
					if client == "grpc" {
						want, wantTold = 200, strconv.Itoa(f.grpc)
					}
					if status != want || told != wantTold {
						t.Errorf("status %d, grpc-status %q; want %d, %q", status, told, want, wantTold)
					}
					checkTold(t, r, client, want, f.flag, f.details, f.reason)
				})
			}
		})
	}
}

// checkTold looks for the failure in the log and among the metrics.
func checkTold(t *testing.T, r *flagRig, client string, status int, flag, details, reason string) {
	t.Helper()
	codec := client
	if client == "grpc" {
		codec = "http2"
	}
	if flag == "gone" {
		flag, details = "DC", "downstream_remote_disconnect"
		if codec == "http2" {
			flag, details = "DR", "http2.remote_reset"
		}
	}
	details = strings.Replace(details, "codec.", codec+".", 1)
	defer func() {
		if t.Failed() {
			t.Log(r.client.log.String())
		}
	}()
	where := ":" + strconv.Itoa(int(r.port))
	line := fmt.Sprintf(` %d %s %s `, status, flag, details)
	eventually(t, "log line "+line+reason, func() bool { return r.client.logged(line, reason, where) })
	protocol := "http"
	if client == "grpc" {
		protocol = "grpc"
	}
	eventually(t, "metrics", func() bool {
		return metric(r.client, "istio_requests_total", fmt.Sprintf(`response_code="%d"`, status), `response_flags="`+flag+`"`,
			`request_protocol="`+protocol+`"`)
	})
}

func TestFailuresOfRelayedConnectionsAreTold(t *testing.T) {
	m := newMesh(t)
	client := m.pod("frontend", "10.0.0.1", nil)
	for i, f := range []struct {
		name, line, reason string
		set                func(*conf.Cluster, *conf.TCP, *flagRig)
	}{
		{"no endpoint", " 0 UH no_healthy_upstream - ", "has no endpoints", func(c *conf.Cluster, _ *conf.TCP, _ *flagRig) { c.Localities = nil }},
		{"refused", " 0 UF,URX upstream_reset_before_response_started{remote_connection_failure} - ", "refused", func(*conf.Cluster, *conf.TCP, *flagRig) {}},
		{"no TLS", " 0 UF,URX upstream_reset_before_response_started{remote_connection_failure|TLS_error} - ", "tls handshake",
			func(c *conf.Cluster, _ *conf.TCP, r *flagRig) {
				c.Transports = meshCluster("x", 1).Transports
				r.says("no\r\n")
			}},
		{"no cluster", " 0 NC cluster_not_found - ", "not known", func(_ *conf.Cluster, tcp *conf.TCP, _ *flagRig) { tcp.Clusters[0].Cluster = "nowhere" }},
		{"denied", " 0 - - rbac_access_denied_matched_policy[lock] ", "denied by policy lock", func(_ *conf.Cluster, tcp *conf.TCP, _ *flagRig) {
			tcp.RBAC = []*conf.RBAC{rbac(conf.Deny, "lock", &conf.Rule{Any: true})}
		}},
		{"idle", " 0 SI tcp_session_idle_timeout - ", "idle", func(_ *conf.Cluster, tcp *conf.TCP, r *flagRig) {
			tcp.IdleTimeout = 200 * time.Millisecond
			r.silent()
		}},
		{"nothing fails", " 0 - - - ", "", func(_ *conf.Cluster, _ *conf.TCP, r *flagRig) {
			r.web.serveRaw(r.port, func(c net.Conn) { io.WriteString(c, "bye") })
		}},
	} {
		t.Run(f.name, func(t *testing.T) {
			r := &flagRig{client: client, web: client.bare(fmt.Sprint("10.0.1.", i+1)), port: uint16(7000 + i)}
			name := fmt.Sprint("web", r.port)
			c := meshCluster(name, r.port, r.web)
			c.Transports = []conf.TransportMatch{{}}
			tcpService(client, name, r.port, false)
			target, _ := client.config.Resolve(t.Context(), wire.ListenerName(vip, r.port))
			f.set(c, target.Listener.Chains[0].TCP, r)
			client.config.publish(func(s *conf.Snapshot, _ map[string]*conf.Target) { s.Clusters[name] = c })
			conn, err := client.Dial(t.Context(), netip.AddrPortFrom(netip.MustParseAddr(vip), r.port))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			io.ReadAll(conn)
			conn.Close()
			defer func() {
				if t.Failed() {
					t.Log(client.log.String())
				}
			}()
			eventually(t, "log line "+f.line+f.reason, func() bool {
				return client.logged(`"- - -"`, f.line, f.reason, fmt.Sprintf("%s:%d", vip, r.port))
			})
		})
	}
}
