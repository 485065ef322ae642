package http2

import (
	"io"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// TestTunnels carries bytes both ways after an extended CONNECT (as a WebSocket does) and after a CONNECT, ends one direction and
// then the other.
func TestTunnels(t *testing.T) {
	for _, upgrade := range []string{"websocket", ""} {
		asked := make(chan message.Request, 1)
		j := join(t, nil, nil, func(s *ServerStream) {
			r := *s.Request()
			asked <- message.Request{Method: r.Method, Upgrade: r.Upgrade, Authority: r.Authority, Path: r.Path, Scheme: r.Scheme}
			status := 200
			if r.Upgrade != "" {
				status = 101
			}
			if s.WriteResponse(&message.Response{Status: status}) != nil {
				return
			}
			c, err := s.Hijack()
			if err != nil {
				return
			}
			io.Copy(struct{ io.Writer }{c}, struct{ io.Reader }{c})
			c.CloseWrite()
			c.Close()
		})
		for !j.client.AllowsUpgrade() { // a first exchange brings the server's SETTINGS
			st := open(t, j.client)
			r := get("/first")
			send(t, st, r, "", nil)
			<-asked
			receive(t, st)
			st.EndExchange()
		}
		r := get("/chat")
		if r.Upgrade = upgrade; upgrade == "" {
			r = &message.Request{Method: "CONNECT", Authority: "db:5432"}
		}
		st := open(t, j.client)
		if err := st.WriteRequest(r); err != nil {
			t.Fatal(err)
		}
		c, err := st.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		var res message.Response
		if err := st.ReadResponse(&res); err != nil {
			t.Fatal(err)
		}
		if want := 200; upgrade == "" && res.Status != want || upgrade != "" && (res.Status != 101 || res.Upgrade != upgrade) {
			t.Errorf("%+v", res)
		}
		got := <-asked
		if upgrade != "" && (got.Method != "GET" || got.Path != "/chat") || got.Upgrade != upgrade || got.Authority != r.Authority {
			t.Errorf("the server was asked %+v", got)
		}
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 4)
		if _, err := io.ReadFull(c, p); err != nil || string(p) != "ping" {
			t.Fatalf("%q, %v", p, err)
		}
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(p); n != 0 || err != io.EOF {
			t.Errorf("%d, %v after the end", n, err)
		}
		c.Close()
		st.EndExchange()
	}
}

// TestUpgradeNotOffered: before the server has said that it takes extended CONNECT, none is sent.
func TestUpgradeNotOffered(t *testing.T) {
	a, _ := tcpLink(t)
	c := NewClientConn(a, nil)
	st := open(t, c)
	r := get("/")
	r.Upgrade = "websocket"
	if err := st.WriteRequest(r); err != ErrNoUpgrade || st.ID() != 0 {
		t.Errorf("stream %d, %v", st.ID(), err)
	}
	st.EndExchange()
}
