package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// hedgedPair is a client whose attempts overlap after a time, and two servers.
func hedgedPair(t *testing.T, perTry time.Duration, first, second http.HandlerFunc) *pod {
	m := newMesh(t)
	client, a, b := m.pod("productpage", "10.0.0.1", nil), m.pod("a", "10.0.0.2", nil), m.pod("b", "10.0.0.3", nil)
	var n atomic.Int64
	either := func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			first(w, r)
			return
		}
		second(w, r)
	}
	a.serve(9080, http.HandlerFunc(either))
	b.serve(9080, http.HandlerFunc(either))
	client.cluster("reviews", 9080, a, b)
	r := forwardTo("reviews")
	r.Forward.Timeout = enough
	r.Forward.Retry = &conf.Retry{On: conf.OnGatewayError, Attempts: 1, PerTry: perTry, OtherHosts: true, Hedge: true}
	client.knows("reviews", 9080, r)
	return client
}

func answers(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) }
}

func TestSlowAttemptGetsARival(t *testing.T) {
	gone := make(chan struct{})
	client := hedgedPair(t, 50*time.Millisecond, func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
		close(gone)
	}, answers("second"))
	if status, body, _ := client.get(client.client(), "http://reviews:9080/"); status != 200 || body != "second" {
		t.Fatalf("%d %q", status, body)
	}
	<-gone // the loser is cut off
	if status, body, _ := client.get(client.client(), "http://reviews:9080/"); status != 200 || body != "second" {
		t.Errorf("afterwards: %d %q", status, body)
	}
}

// TestRivalDoesNotEndTheFirst: the answer of the first attempt counts where it comes first, or the rival's is bad.
func TestRivalDoesNotEndTheFirst(t *testing.T) {
	for name, rival := range map[string]http.HandlerFunc{
		"slower": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"bad":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
		"broken": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan struct{}, 1)
			client := hedgedPair(t, 50*time.Millisecond, func(w http.ResponseWriter, r *http.Request) {
				<-asked
				select {
				case <-time.After(50 * time.Millisecond):
				case <-r.Context().Done():
				}
				fmt.Fprint(w, "first")
			}, func(w http.ResponseWriter, r *http.Request) {
				asked <- struct{}{}
				rival(w, r)
			})
			if status, body, _ := client.get(client.client(), "http://reviews:9080/"); status != 200 || body != "first" {
				t.Errorf("%d %q", status, body)
			}
		})
	}
}

// TestPOSTHasNoRival: what may have been acted on is not sent a second time, however long it takes.
func TestPOSTHasNoRival(t *testing.T) {
	const most = time.Second
	var asked atomic.Int64
	slow := func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		select {
		case <-time.After(4 * most):
		case <-r.Context().Done():
		}
	}
	client := hedgedPair(t, most, slow, slow)
	status, calls := 504, int64(0)
	for ; status == 504 && asked.Load() == 0 && calls < 20; calls++ { // on a slow machine it may not arrive in time
		status, _, _ = client.do(client.client(), "POST", "http://reviews:9080/", strings.NewReader("pay"))
	}
	if n := asked.Load(); status != 504 || n == 0 || n > calls {
		t.Errorf("%d after %d attempts for %d calls", status, asked.Load(), calls)
	}
}
