package http2

import (
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// TestSteadyRequestsAllocateNothing makes requests with a body one after the other: both sides together allocate nothing.
func TestSteadyRequestsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	res := message.Response{Status: 200, Body: message.Body{Kind: message.Sized, Length: 5}}
	res.Header.Add("Content-Type", "text/plain")
	body := make([]byte, 64)
	j := join(t, nil, nil, func(s *ServerStream) {
		p := body[32:]
		for !s.BodyDone() {
			s.ReadBody(p)
		}
		s.WriteResponse(&res)
		s.WriteBody(body[:5])
		s.FinishBody(nil)
	})
	req := get("/productpage")
	req.Method, req.Body = "POST", message.Body{Kind: message.Sized, Length: 5}
	req.Header.Add("User-Agent", "curl")
	req.Header.Add("Cookie", "session=0123456789")
	var r message.Response
	p := make([]byte, 64)
	round := func() {
		st, err := j.client.Open()
		if err != nil {
			t.Fatal(err)
		}
		st.WriteRequest(req)
		st.WriteBody(body[:5])
		st.FinishBody(nil)
		if err := st.ReadResponse(&r); err != nil {
			t.Fatal(err)
		}
		for !st.BodyDone() {
			st.ReadBody(p)
		}
		st.EndExchange()
	}
	for range 50 {
		round()
	}
	if n := testing.AllocsPerRun(500, round); n != 0 {
		t.Errorf("%v allocations for a request and its response", n)
	}
}
