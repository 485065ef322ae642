package http2

import (
	"runtime"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/message"
)

// TestEndedConnectionsAreForgotten gives each stream deadlines that are far away: the timers must not keep connections that have
// ended in memory until then.
func TestEndedConnectionsAreForgotten(t *testing.T) {
	gone := make(chan string, 2)
	serveOne(t, gone)
	deadline := time.Now().Add(2 * time.Minute)
	for range 2 {
		for forgotten := false; !forgotten; {
			runtime.GC()
			select {
			case <-gone:
				forgotten = true
			default:
				if runtime.Gosched(); time.Now().After(deadline) {
					t.Fatal("a connection that has ended is still in memory")
				}
			}
		}
	}
}

// serveOne carries one request over a connection of its own, and ends it. What is collected is said to gone.
func serveOne(t *testing.T, gone chan string) {
	a, b := tcpLink(t)
	client, server := NewClientConn(a, nil), NewServerConn(b, "http", nil)
	ended := make(chan error, 2)
	go func() { ended <- client.Run() }()
	far := time.Now().Add(time.Hour)
	go func() {
		ended <- server.Serve(func(s *ServerStream) {
			s.SetReadDeadline(far)
			s.SetWriteDeadline(far)
			s.WriteResponse(&message.Response{Status: 204})
			s.FinishBody(nil)
		})
	}()
	st := open(t, client)
	st.SetReadDeadline(far)
	st.SetWriteDeadline(far)
	send(t, st, get("/"), "", nil)
	receive(t, st)
	st.EndExchange()
	client.Close()
	server.Close()
	<-ended
	<-ended
	runtime.AddCleanup(client, func(name string) { gone <- name }, "client")
	runtime.AddCleanup(server, func(name string) { gone <- name }, "server")
}
