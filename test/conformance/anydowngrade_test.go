package conformance

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// fields are a random list for HTTP/2: pseudo-headers, most of them right, and fields of which each part may be a trick.
func (w writer) fields() []string {
	nasty := func(right ...string) string {
		if w.IntN(25) > 0 {
			return w.of(right...)
		}
		return w.of("", " ", "a b", "a\r\nx: y", "a\r\n\r\n"+smuggled, "a\nb", "a\x00", "a:b", "A", "\xff", "a\t", " a", "/g HTTP/1.1", "a\r", "chunked", "0", "-1", "+5", "5, 5", "http://b/", "//b", "*", "a@b", "a#b", "a/../b", ":path", "a?b#c", "\x7f")
	}
	pseudo := [][2]string{{":method", nasty("GET", "POST", "PUT", "HEAD", "OPTIONS")}, {":scheme", nasty("http", "https")}, {":authority", nasty("a", "a:80")}, {":path", nasty("/g", "/p?q", "/%0d%0a")}}
	if w.IntN(12) == 0 {
		i := w.IntN(4)
		pseudo = slices.Delete(pseudo, i, i+1)
	}
	if w.IntN(12) == 0 {
		pseudo = append(pseudo, [2]string{w.of(":method", ":path", ":authority", ":scheme", ":status", ":x", ":protocol"), nasty("GET", "/x", "b", "websocket", "http")})
	}
	w.Shuffle(len(pseudo), func(i, j int) { pseudo[i], pseudo[j] = pseudo[j], pseudo[i] })
	var out []string
	for _, p := range pseudo {
		out = append(out, p[0], p[1])
	}
	for range w.IntN(4) {
		name := w.of("x", "x", "x-y", "cookie", "te", "host", "content-length", "transfer-encoding", "connection", "upgrade", "keep-alive", "proxy-connection", "expect", "trailer", "content-type")
		if w.IntN(15) == 0 {
			name = nasty("x-z", "X", "x ", " x", "x:y", "x\r\ny", "content_length", "x\x00", "transfer-encoding ", "x: y\r\n\r\n"+smuggled)
		}
		out = append(out, name, nasty("1", "5", "a", "trailers", "chunked", "close", "websocket", "100-continue", "a=b", "application/grpc"))
	}
	return out
}

// TestAnyDowngrade sends random requests of HTTP/2 towards backends of HTTP/1: what reaches them can be read in one way only, and is one
// request at most.
func TestAnyDowngrade(t *testing.T) {
	rounds := 300
	if s := os.Getenv("ANYTHING"); s != "" {
		rounds, _ = strconv.Atoi(s)
	}
	for i, w := range toHTTP1(t) {
		t.Run(w.name, func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			gen := writer{rand.New(rand.NewPCG(seed, uint64(i)))}
			reached := 0
			for range rounds {
				w.backend.Take()
				c := dialH2(t, w.address)
				c.conn.SetDeadline(time.Now().Add(patience))
				head, data := gen.fields(), gen.of("", "", "hello", "0\r\n\r\n"+smuggled, smuggled)
				trailers := []string(nil)
				if data != "" && gen.IntN(4) == 0 {
					trailers = []string{gen.of("x", "content-length", "transfer-encoding", ":path", "X", "host", "x\r\ny", "connection"), gen.of("1", "a\r\nb: c", "chunked", "a\x00", " a")}
				}
				c.headers(1, data == "", head...)
				if data != "" {
					c.f.WriteData(1, trailers == nil, []byte(data))
				}
				if trailers != nil {
					c.headers(1, true, trailers...)
				}
				got := c.outcome(1)
				c.conn.Close()
				whole := 0
				for _, r := range w.backend.Take() {
					if r.Err != nil {
						continue
					}
					whole++
					if bad := judge(r.Raw); bad != "" {
						t.Errorf("seed %d: %q %q %q (%s): the backend got %q: %s", seed, head, data, trailers, got, r.Raw, bad)
					}
				}
				if reached += whole; whole > 1 {
					t.Errorf("seed %d: %q %q %q became %d requests", seed, head, data, trailers, whole)
				}
			}
			if reached < rounds/10 {
				t.Errorf("only %d of %d requests reached the backend: the test shows too little", reached, rounds)
			}
		})
	}
}
