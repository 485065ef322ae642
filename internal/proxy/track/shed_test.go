package track

import (
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/slow"
)

// TestSlowClientsOfHTTP1AreShed: of three that are answered, the one that takes nothing is cut off, and only where memory is short.
func TestSlowClientsOfHTTP1AreShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tracker Tracker
		ends := make([]error, 3)
		var peers []net.Conn
		for i := range ends {
			here, peer := net.Pipe()
			peers = append(peers, peer)
			c := &Caller{Conn: conn.FromNet(here)}
			tracker.Add(&Conn{Conn: c, Slow: c.Slow, Shed: c.Shed})
			if i == 2 {
				continue // nothing waits for it
			}
			go func() { // ends with the connection
				for ends[i] == nil {
					_, ends[i] = c.Write(make([]byte, 1000))
				}
			}()
		}
		for range int(slow.Time/time.Second) + 1 {
			if n := tracker.Shed(time.Now(), false); n != 0 {
				t.Errorf("%d were cut off without need", n)
			}
			time.Sleep(time.Second)
			if _, err := peers[1].Read(make([]byte, 1000)); err != nil {
				t.Errorf("the one that reads: %v", err)
			}
			synctest.Wait()
		}
		if n := tracker.Shed(time.Now(), true); n != 1 {
			t.Errorf("%d were cut off", n)
		}
		synctest.Wait()
		if !errors.Is(ends[0], slow.ErrShed) || ends[1] != nil {
			t.Errorf("they ended by %v", ends)
		}
		for _, p := range peers {
			p.Close()
		}
		synctest.Wait()
	})
}
