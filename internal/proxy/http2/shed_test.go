package http2

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/weftmesh/weft/internal/proxy/message"
	"github.com/weftmesh/weft/internal/proxy/slow"
)

// TestShed: of two streams that wait for their client, the one that gets on is left alone, and so are both while memory is not short.
func TestShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 2)
		begun := make(chan *ServerConn, 2)
		p := rawClient(t, nil, func(s *ServerStream) {
			begun <- s.ServerConn()
			s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}})
			err := error(nil)
			for b := make([]byte, 16<<10); err == nil; {
				err = s.WriteBody(b)
			}
			ended <- err
		})
		p.must(p.fr.WriteWindowUpdate(0, 1<<30))
		resets := make(chan xhttp2.Frame, 10)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for f := p.next(); f != nil; f = p.next() {
				if f.Header().Type == xhttp2.FrameRSTStream {
					resets <- f
				}
			}
		}()
		p.headers(1, true, plainGet...)
		p.headers(3, true, plainGet...)
		server := <-begun
		synctest.Wait()
		n := 0
		for range int(slow.Time/time.Second) + 1 {
			n = server.Slow(time.Now())
			time.Sleep(time.Second)
			p.must(p.fr.WriteWindowUpdate(3, slow.Bytes))
			synctest.Wait()
		}
		if n != 1 || len(resets) > 0 {
			t.Errorf("%d streams are slow, %d reset", n, len(resets))
		}
		if n := server.Shed(time.Now()); n != 1 {
			t.Errorf("shed %d", n)
		}
		var why *StreamError
		if err := <-ended; !errors.As(err, &why) || !why.Shed || why.Code != EnhanceYourCalm {
			t.Errorf("ended by %v", err)
		}
		if f := (<-resets).(*xhttp2.RSTStreamFrame); f.StreamID != 1 || f.ErrCode != xhttp2.ErrCodeEnhanceYourCalm {
			t.Errorf("%v", f)
		}
		if server.Slow(time.Now()); server.Shed(time.Now()) != 0 {
			t.Error("shed twice")
		}
		p.nc.Close()
		<-done
		<-ended
		<-p.done
	})
}

// TestShedClosesStuckConnections: a client that does not read at all keeps what was written to it nowhere.
func TestShedClosesStuckConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := make(chan *ServerConn, 1)
		p := rawClient(t, nil, func(s *ServerStream) {
			begun <- s.ServerConn()
			s.WriteResponse(&message.Response{Status: 200, Body: message.Body{Kind: message.Chunked}})
			for b := make([]byte, 16<<10); s.WriteBody(b) == nil; {
			}
		}, xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1 << 30})
		p.must(p.fr.WriteWindowUpdate(0, 1<<30))
		p.headers(1, true, plainGet...)
		server := <-begun
		synctest.Wait()
		n := 0
		for range int(slow.Time/time.Second) + 1 {
			n = server.Slow(time.Now())
			time.Sleep(time.Second)
		}
		if n == 0 {
			t.Fatal("not slow")
		}
		server.Shed(time.Now())
		if err := <-p.done; !errors.Is(err, errShed) {
			t.Errorf("ended by %v", err)
		}
	})
}
