package http2

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/message"
)

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRoundTrips makes small requests over 8 connections with 32 streams each. cpu-us/op is what both ends together cost.
func BenchmarkRoundTrips(b *testing.B) {
	b.Run("8x32", func(b *testing.B) { roundTrips(b, 8, 32) })
	b.Run("1x1", func(b *testing.B) { roundTrips(b, 1, 1) })
}

func roundTrips(b *testing.B, conns, streams int) {
	var res message.Response
	res.Status, res.Body = 200, message.Body{Kind: message.Sized, Length: 1024}
	for _, f := range [][2]string{{"Content-Type", "text/plain"}, {"Server", "weft"}, {"Date", "Mon, 21 Oct 2013 20:13:21 GMT"}} {
		res.Header.Add(f[0], f[1])
	}
	body := make([]byte, 1024)
	clients := make([]*ClientConn, conns)
	for i := range clients {
		clients[i] = join(b, nil, nil, func(s *ServerStream) {
			s.WriteResponse(&res)
			s.WriteBody(body)
			s.FinishBody(nil)
		}).client
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := cpu()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for _, c := range clients {
		for range streams {
			wg.Go(func() {
				req := get("/productpage?u=normal")
				req.Header.Add("User-Agent", "curl/8.0")
				req.Header.Add("Accept", "*/*")
				req.Header.Add("X-Request-Id", "6d1f8e2a-0000-4000-8000-123456789abc")
				var r message.Response
				p := make([]byte, 4096)
				for left.Add(-1) >= 0 {
					if err := roundTrip(c, req, &r, p); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	b.ReportMetric(float64((cpu()-before).Nanoseconds())/1000/float64(b.N), "cpu-us/op")
}

func roundTrip(c *ClientConn, req *message.Request, r *message.Response, p []byte) error {
	st, err := c.Open()
	if err != nil {
		return err
	}
	defer st.EndExchange()
	if err := st.WriteRequest(req); err != nil {
		return err
	}
	if err := st.FinishBody(nil); err != nil {
		return err
	}
	if err := st.ReadResponse(r); err != nil {
		return err
	}
	for !st.BodyDone() {
		if _, err := st.ReadBody(p); err != nil && !st.BodyDone() {
			return err
		}
	}
	return nil
}

// BenchmarkBulk moves a long body.
func BenchmarkBulk(b *testing.B) {
	const piece = 128 << 10
	j := join(b, nil, nil, func(s *ServerStream) {
		s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}})
		p := make([]byte, piece)
		for s.WriteBody(p) == nil {
		}
	})
	st := open(b, j.client)
	send(b, st, get("/"), "", nil)
	var r message.Response
	if err := st.ReadResponse(&r); err != nil {
		b.Fatal(err)
	}
	p := make([]byte, piece)
	b.SetBytes(piece)
	for b.Loop() {
		for n := 0; n < piece; {
			k, err := st.ReadBody(p[:piece-n])
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
	b.StopTimer()
	st.EndExchange()
}
