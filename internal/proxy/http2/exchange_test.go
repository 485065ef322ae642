package http2

import (
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

func TestExchange(t *testing.T) {
	j := join(t, nil, nil, echo)
	for _, body := range []string{"", "hello", strings.Repeat("0123456789", 500_000)} {
		for _, kind := range []message.BodyKind{message.Sized, message.Chunked} {
			st := open(t, j.client)
			r := get("/x?y")
			r.Method, r.Body = "POST", message.Body{Kind: kind}
			if kind == message.Sized {
				r.Body.Length = int64(len(body))
			}
			var trailers message.Header
			trailers.Add("Sum", "1")
			if err := st.WriteRequest(r); err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() { done <- errors.Join(st.WriteBody([]byte(body)), st.FinishBody(&trailers)) }()
			res, got := receive(t, st)
			if err := <-done; err != nil {
				t.Error(err)
			}
			if asked, _ := res.Header.Get("asked"); res.Status != 200 || asked != "POST http a.example/x?y" {
				t.Errorf("%+v", res)
			}
			if got != body || res.Body != r.Body {
				t.Errorf("%d bytes as %v came back as %d as %v", len(body), r.Body, len(got), res.Body)
			}
			if sum, _ := st.Trailers().Get("sum"); sum != "1" {
				t.Errorf("trailers %v", st.Trailers())
			}
			if !st.EndExchange() {
				t.Error("the connection ended")
			}
		}
	}
}

func TestManyStreams(t *testing.T) {
	j := join(t, nil, nil, echo)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 50 {
				st := open(t, j.client)
				r := get("/")
				r.Body.Kind = message.Chunked
				send(t, st, r, "some text", nil)
				if _, got := receive(t, st); got != "some text" {
					t.Errorf("%q", got)
				}
				st.EndExchange()
			}
		})
	}
	wg.Wait()
	if n := j.client.Streams(); n != 0 {
		t.Errorf("%d streams are left", n)
	}
}

// TestTakeBody reads a body without copying. What was lent stays as it is when the stream is reset, and while other streams use blocks.
func TestTakeBody(t *testing.T) {
	j := join(t, nil, nil, func(s *ServerStream) {
		s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}})
		s.WriteBody([]byte("first"))
		s.Flush()
		if s.Request().Path == "/cut" {
			<-s.Gone()
			return
		}
		s.WriteBody([]byte(" and second"))
		s.FinishBody(nil)
	})
	cut := open(t, j.client)
	send(t, cut, get("/cut"), "", nil)
	var r message.Response
	if err := cut.ReadResponse(&r); err != nil {
		t.Fatal(err)
	}
	lent := take(t, cut)
	cut.Reset(Cancel)
	for range 20 {
		st := open(t, j.client)
		send(t, st, get("/"), "", nil)
		if err := st.ReadResponse(&r); err != nil {
			t.Fatal(err)
		}
		got := string(take(t, st))
		rest, err := readAll(st)
		if got += rest; err != nil || got != "first and second" || !st.BodyDone() {
			t.Fatalf("%q, %v", got, err)
		}
		st.EndExchange()
	}
	if string(lent) != "first" {
		t.Errorf("what was lent became %q", lent)
	}
	if p := cut.TakeBody(); p != nil {
		t.Errorf("%q after the reset", p)
	}
	cut.EndExchange()
}

// take awaits bytes and takes them.
func take(t *testing.T, st *ClientStream) []byte {
	t.Helper()
	for {
		if p := st.TakeBody(); p != nil {
			return p
		}
		runtime.Gosched()
	}
}
