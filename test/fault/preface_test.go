package fault

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/test/rig"
)

// end is how a request ends that finds an endpoint of an odd kind.
type end struct {
	status int
	grpc   string // of a call of gRPC
	flags  []string
	conns  int64 // at most
	says   string
}

// odd are the ways in which endpoints answer the preface of HTTP/2. After the first connection of a way without a word, HTTP/1 finds an
// application that answers.
var odd = []struct {
	name   string
	answer func(net.Conn)
	// Where the service has declared HTTP/2, where its version is the client's, and where the client calls by gRPC.
	declared, asClient, call end
}{
	{"closes", func(net.Conn) {},
		end{status: 503, flags: []string{"UC"}, conns: 1, says: "before it spoke HTTP/2: is it an application of HTTP/1?"},
		end{status: 200, flags: []string{"-"}, conns: 2},
		end{status: 200, grpc: "14", flags: []string{"UC"}, conns: 1, says: "before it spoke HTTP/2"}},
	{"resets", reset,
		end{status: 503, flags: []string{"UC"}, conns: 1, says: "before it spoke HTTP/2"},
		end{status: 200, flags: []string{"-"}, conns: 2},
		end{status: 200, grpc: "14", flags: []string{"UC"}, conns: 1, says: "before it spoke HTTP/2"}},
	{"is silent", func(c net.Conn) { io.Copy(io.Discard, c) },
		end{status: 503, flags: []string{"UF"}, conns: 1, says: "timed out"},
		end{status: 503, flags: []string{"UF"}, conns: 1, says: "timed out"},
		end{status: 200, grpc: "14", flags: []string{"UF"}, conns: 1, says: "timed out"}},
	{"speaks something else", says("220 mail ready\r\n"),
		end{status: 502, flags: []string{"UPE"}, conns: 1, says: `it answered "220 mail ready`},
		end{status: 200, flags: []string{"-"}, conns: 2},
		end{status: 200, grpc: "14", flags: []string{"UPE"}, conns: 1, says: "does not speak HTTP/2"}},
	{"refuses as HTTP/1", says("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
		end{status: 502, flags: []string{"UPE"}, conns: 1, says: "the endpoint speaks HTTP/1, not HTTP/2"},
		end{status: 200, flags: []string{"-"}, conns: 2},
		end{status: 200, grpc: "14", flags: []string{"UPE"}, conns: 1, says: "speaks HTTP/1"}},
	{"sends a TLS alert", says("\x15\x03\x01\x00\x02\x02\x46"),
		end{status: 502, flags: []string{"UPE"}, conns: 1, says: "does not speak HTTP/2"},
		end{status: 200, flags: []string{"-"}, conns: 2},
		end{status: 200, grpc: "14", flags: []string{"UPE"}, conns: 1, says: "does not speak HTTP/2"}},
	{"sends another frame first", says(strings.Repeat("\x00", 9)),
		end{status: 502, flags: []string{"UPE"}, conns: 1, says: "no SETTINGS first"},
		end{status: 502, flags: []string{"UPE"}, conns: 1, says: "no SETTINGS first"},
		end{status: 200, grpc: "14", flags: []string{"UPE"}, conns: 1, says: "no SETTINGS first"}},
	// Of what follows it depends on the moment how far a request comes.
	{"speaks HTTP/2 and closes", frames2(func(f *http2.Framer) { f.WriteSettings() }),
		end{status: 503, flags: []string{"UC", "UF"}, conns: 12},
		end{status: 503, flags: []string{"UC", "UF"}, conns: 12},
		end{status: 200, grpc: "14", flags: []string{"UC", "UF"}, conns: 12}},
	{"says GOAWAY and closes", frames2(func(f *http2.Framer) { f.WriteSettings(); f.WriteGoAway(0, http2.ErrCodeNo, nil) }),
		end{status: 503, flags: []string{"UC", "UF", "UR"}, conns: 12},
		end{status: 503, flags: []string{"UC", "UF", "UR"}, conns: 12},
		end{status: 200, grpc: "14", flags: []string{"UC", "UF", "UR"}, conns: 12}},
}

// says answers with a text, which arrives.
func says(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c) // closing with unread bytes would destroy what was written
	}
}

// frames2 answers with frames.
func frames2(write func(*http2.Framer)) func(net.Conn) {
	var b bytes.Buffer
	write(http2.NewFramer(&b, nil))
	return says(b.String())
}

// TestOddAnswersToHTTP2: whatever an endpoint answers to the preface of HTTP/2, a request takes few connections, and either reaches the
// application as HTTP/1.1 or fails with words that say why.
func TestOddAnswersToHTTP2(t *testing.T) {
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	defer two.CloseIdleConnections()
	for _, o := range odd {
		for _, c := range []struct {
			name   string
			speaks conf.Version
			grpc   bool
			end    end
		}{{"declared", conf.HTTP2, false, o.declared}, {"as the client", conf.AsClient, false, o.asClient}, {"gRPC", conf.AsClient, true, o.call}} {
			t.Run(o.name+", "+c.name, func(t *testing.T) {
				var conns atomic.Int64
				address := scripted(t, func(nc net.Conn) {
					conns.Add(1)
					first := make([]byte, 4)
					if _, err := io.ReadFull(nc, first); err == nil && string(first) != "PRI " {
						answerAll(nc)
						return
					}
					o.answer(nc)
				})
				p, at, _ := outbound(t, nil)
				p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
					u := rig.Cluster("backend", rig.Plain(address))
					u.Speaks, u.ConnectTimeout = c.speaks, patience
					if c.end.says == "timed out" {
						u.ConnectTimeout = 200 * time.Millisecond
					}
					s.Clusters["backend"] = u
				})
				asks(t, two, at, c.grpc, c.end)
				if n := conns.Load(); n > c.end.conns {
					t.Errorf("%d connections, at most %d were wanted", n, c.end.conns)
				}
				rig.Eventually(t, fmt.Sprintf("one of the flags %v", c.end.flags), func() bool {
					return slices.ContainsFunc(c.end.flags, func(flag string) bool { return strings.Contains(p.Log.String(), " "+flag+" ") })
				})
			})
		}
	}
}

// asks makes a request that nobody may repeat, and holds how it ends.
func asks(t *testing.T, tr *http.Transport, at string, grpc bool, want end) {
	t.Helper()
	method, path := "GET", "/"
	if grpc {
		method, path = "POST", "/a.B/C"
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+at+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if grpc {
		r.Header.Set("Content-Type", "application/grpc")
	}
	res, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	told := string(b) + res.Header.Get("Grpc-Message")
	if res.StatusCode != want.status || res.Header.Get("Grpc-Status") != want.grpc || !strings.Contains(told, want.says) {
		t.Errorf("%d, gRPC %q: %q", res.StatusCode, res.Header.Get("Grpc-Status"), told)
	}
}
