package fault

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weftmesh/weft/test/rig"
)

// reader is a client of HTTP/2 with downloads that never end.
type reader struct {
	t *testing.T
	c net.Conn
	f *http2.Framer
	// Of the streams that the server has reset: for the want of memory, and else.
	shed, reset atomic.Int64
	got         atomic.Int64 // bytes of bodies
	ended       chan struct{}
}

// download begins so many downloads, and reads. A client that is fair opens its windows again; another lets each stream's stay shut.
func download(t *testing.T, address string, streams int, fair bool) *reader {
	t.Helper()
	r := &reader{t: t, c: dial(t, address), ended: make(chan struct{})}
	if err := r.c.SetDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	r.f = begin2(t, r.c)
	if err := r.f.WriteWindowUpdate(0, 1<<30); err != nil {
		t.Fatal(err)
	}
	var head bytes.Buffer
	enc := hpack.NewEncoder(&head)
	for i := range streams {
		head.Reset()
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/endless"}} {
			enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		if err := r.f.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
	}
	go r.run(fair) // ends with the connection
	t.Cleanup(func() { r.c.Close(); <-r.ended })
	return r
}

func (r *reader) run(fair bool) {
	defer close(r.ended)
	for {
		f, err := r.f.ReadFrame()
		if err != nil {
			return
		}
		switch f := f.(type) {
		case *http2.DataFrame:
			r.got.Add(int64(len(f.Data())))
			if fair && len(f.Data()) > 0 && r.f.WriteWindowUpdate(f.StreamID, uint32(len(f.Data()))) != nil {
				return
			}
			if fair {
				time.Sleep(20 * time.Millisecond) // slow, but not too slow: 800 KB/s at most
			}
		case *http2.RSTStreamFrame:
			if f.ErrCode == http2.ErrCodeEnhanceYourCalm {
				r.shed.Add(1)
			} else {
				r.reset.Add(1)
			}
		}
	}
}

// TestSlowReadersAreShed: clients of HTTP/2 that let hundreds of answers wait lose them when memory is short, and others are served again
// and keep theirs.
func TestSlowReadersAreShed(t *testing.T) {
	const limit = 512 << 20
	b := rig.NewBackend(t, func(c net.Conn, r *rig.Received) bool {
		if r.URL.Path == "/g" {
			return ok(c, r)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for p := make([]byte, 256<<10); ; {
			if _, err := c.Write(p); err != nil {
				return false
			}
		}
	})
	address, admin, pid, tell := adminChild(t, childEndpoint+"="+b.Addr().String(), childWatched+"=yes", "GOMEMLIMIT="+strconv.Itoa(limit))
	residentBytes(t, pid) // skips where memory cannot be measured
	metric := func(name string) (n int64) {
		t.Helper()
		_, page := page(t, admin, "/metrics")
		for line := range strings.Lines(page) {
			if text, found := strings.CutPrefix(line, name+" "); found {
				f, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
				if err != nil {
					t.Fatal(err)
				}
				n = int64(f)
			}
		}
		return n
	}
	fair := download(t, address, 1, true)
	var slow []*reader
	for range 2 {
		slow = append(slow, download(t, address, 200, false))
	}
	rig.Eventually(t, "the downloads wait", func() bool {
		return slow[0].got.Load() == 200*65535 && slow[1].got.Load() == 200*65535
	})
	fmt.Fprintln(tell, limit/1000*930)
	rig.Eventually(t, "requests are refused", func() bool { return metric("weft_overload_stage") >= 2 })
	rig.Eventually(t, "answers are shed", func() bool { return metric("weft_overload_answers_total") > 0 })
	rig.Eventually(t, "requests are served again", func() bool {
		g, err := get(t, address)
		return err == nil && g.status == 200
	})
	if slow[0].shed.Load() == 0 && slow[1].shed.Load() == 0 {
		t.Error("no client was told")
	}
	if n := fair.shed.Load() + fair.reset.Load() + slow[0].reset.Load() + slow[1].reset.Load(); n > 0 {
		t.Errorf("%d other streams were reset", n)
	}
	before := fair.got.Load()
	rig.Eventually(t, "the one that reads goes on", func() bool { return fair.got.Load() > before+64<<10 })
	fmt.Fprintln(tell, 0)
}
