package steady

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/test/mesh"
)

// malformed requests, and what may come of them: one of the statuses, or a close without a word.
var malformed = []struct{ name, text string }{
	{"no request line", "hello\r\n\r\n"},
	{"request line without target", "GET\r\n\r\n"},
	{"request line with spaces", "GET /a b HTTP/1.1\r\nHost: reviews:9080\r\n\r\n"},
	{"method with control character", "G\x01T / HTTP/1.1\r\nHost: reviews:9080\r\n\r\n"},
	{"unknown version", "GET / HTTP/7.0\r\nHost: reviews:9080\r\n\r\n"},
	{"no host", "GET / HTTP/1.1\r\n\r\n"},
	{"two hosts", "GET / HTTP/1.1\r\nHost: reviews:9080\r\nHost: ratings:9080\r\n\r\n"},
	{"length and chunked", "POST / HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
	{"two lengths", "POST / HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
	{"length with sign", "POST / HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: +5\r\n\r\nhello"},
	{"length too large", "POST / HTTP/1.1\r\nHost: reviews:9080\r\nContent-Length: 99999999999999999999\r\n\r\n"},
	{"unknown transfer coding", "POST / HTTP/1.1\r\nHost: reviews:9080\r\nTransfer-Encoding: gzip, what\r\n\r\n"},
	{"chunked twice", "POST / HTTP/1.1\r\nHost: reviews:9080\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"},
	{"space before colon", "GET / HTTP/1.1\r\nHost : reviews:9080\r\n\r\n"},
	{"folded field", "GET / HTTP/1.1\r\nHost: reviews:9080\r\nX-A: b\r\n c\r\n\r\n"},
	{"field without colon", "GET / HTTP/1.1\r\nHost: reviews:9080\r\nnonsense\r\n\r\n"},
	{"null in a field", "GET / HTTP/1.1\r\nHost: reviews:9080\r\nX-A: b\x00c\r\n\r\n"},
	{"bare CR in a field", "GET / HTTP/1.1\r\nHost: reviews:9080\r\nX-A: b\rc\r\n\r\n"},
	{"oversized field", "GET / HTTP/1.1\r\nHost: reviews:9080\r\nX-A: " + strings.Repeat("a", 1<<20) + "\r\n\r\n"},
	{"too many fields", "GET / HTTP/1.1\r\nHost: reviews:9080\r\n" + strings.Repeat("X-A: b\r\n", 50_000) + "\r\n"},
	{"oversized request line", "GET /" + strings.Repeat("a", 1<<20) + " HTTP/1.1\r\nHost: reviews:9080\r\n\r\n"},
	{"early close in the head", "GET /reviews/0 HTTP/1.1\r\nHost: revi"},
}

// TestMalformedRequestsReachNobody sends them to a gateway, through a client's own sidecar, and in plaintext to a workload's.
func TestMalformedRequestsReachNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bookinfo(t)
		before := reached(t, m)
		for _, way := range []struct{ name, from, to, at string }{
			{"gateway", mesh.Outside, "gateway:8080", "istio-ingressgateway"},
			{"outbound", "productpage", "reviews:9080", "productpage"},
			{"inbound", mesh.Outside, "reviews-v1:9080", "reviews-v1"},
		} {
			for _, c := range malformed {
				logged, err := m.Log(way.at)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := m.Talk(t.Context(), way.from, way.to, c.text)
				status, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " ")
				if answer != "" && status != "400" && status != "431" && status != "414" && status != "501" && status != "505" {
					t.Errorf("%s, %s: answered %.200q, %v", way.name, c.name, answer, err)
				}
				time.Sleep(time.Second) // the log is written in pieces
				after, err := m.Log(way.at)
				if err != nil {
					t.Fatal(err)
				}
				if answer != "" && len(after) == len(logged) {
					t.Errorf("%s, %s: answered with %s, and not logged", way.name, c.name, status)
				}
			}
		}
		if after := reached(t, m); after != before {
			t.Errorf("workloads were reached by %d requests", after-before)
		}
		// After all that the mesh serves as ever.
		if err := want(m.Do(t.Context(), mesh.Request{From: mesh.Outside, Method: "GET", URL: "http://gateway:8080/productpage"}), 200, "Comedy of Errors"); err != nil {
			t.Error(err)
		}
	})
}

// TestSmuggledRequestReachesNobody sends a request whose body would be another request to a parser that took the other length.
func TestSmuggledRequestReachesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := bookinfo(t)
		before := reached(t, m)
		const smuggled = "GET /smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n"
		for _, text := range []string{
			"POST /productpage HTTP/1.1\r\nHost: gateway\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
			"POST /productpage HTTP/1.1\r\nHost: gateway\r\nTransfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n" + smuggled,
			"POST /productpage HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\n" + smuggled,
			"GET /productpage HTTP/1.1\nHost: gateway\nContent-Length: 0\n Content-Length: 60\n\n" + smuggled,
		} {
			answer, err := m.Talk(t.Context(), mesh.Outside, "gateway:8080", text)
			if strings.Contains(answer, "HTTP/1.1 2") || errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%.80q: answered %.200q, %v", text, answer, err)
			}
		}
		if after := reached(t, m); after != before {
			t.Errorf("workloads were reached by %d requests", after-before)
		}
	})
}

// reached counts the requests that have reached any program.
func reached(t *testing.T, m *mesh.Mesh) int {
	t.Helper()
	seen, err := m.Seen("")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, requests := range seen {
		n += len(requests)
	}
	return n
}
