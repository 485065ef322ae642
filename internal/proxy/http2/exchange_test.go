package http2

import (
	"errors"
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
