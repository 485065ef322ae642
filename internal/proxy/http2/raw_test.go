package http2

import (
	"bytes"
	"net"
	"net/netip"
	"slices"
	"testing"

	xhttp2 "golang.org/x/net/http2"
	xhpack "golang.org/x/net/http2/hpack"

	"github.com/weftmesh/weft/internal/memnet"
	"github.com/weftmesh/weft/internal/proxy/conn"
)

// raw is a peer that sends and reads frames as a test wants them, by another implementation of the framing.
type raw struct {
	t     testing.TB
	nc    net.Conn
	fr    *xhttp2.Framer
	block bytes.Buffer
	enc   *xhpack.Encoder
	err   error      // why next gave nil
	done  chan error // what Serve or Run gave
}

// memLink gives both ends of a connection in memory.
func memLink(t testing.TB) (a, b net.Conn) {
	t.Helper()
	n, addr := memnet.New(), netip.MustParseAddrPort("10.0.0.1:80")
	l, err := n.Listen(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if a, err = n.Dial(t.Context(), netip.MustParseAddr("10.0.0.2"), addr); err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func newRaw(t testing.TB, nc net.Conn) *raw {
	p := &raw{t: t, nc: nc, fr: xhttp2.NewFramer(nc, nc), done: make(chan error, 1)}
	p.fr.AllowIllegalWrites = true
	p.fr.ReadMetaHeaders = xhpack.NewDecoder(4096, nil)
	p.fr.MaxHeaderListSize = 1 << 20
	p.enc = xhpack.NewEncoder(&p.block)
	return p
}

// rawClient is the client of a server that runs handle. It has sent preface and SETTINGS.
func rawClient(t testing.TB, o *Options, handle func(*ServerStream), settings ...xhttp2.Setting) *raw {
	a, b := memLink(t)
	p := newRaw(t, a)
	s := NewServerConn(conn.FromNet(b), "http", o)
	go func() { p.done <- s.Serve(handle) }()
	t.Cleanup(func() { a.Close(); s.Close() })
	p.write([]byte(clientPreface))
	p.must(p.fr.WriteSettings(settings...))
	return p
}

func (p *raw) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *raw) write(b []byte) {
	p.t.Helper()
	_, err := p.nc.Write(b)
	p.must(err)
}

var plainGet = []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}

// fields gives a header block.
func (p *raw) fields(kv ...string) []byte {
	p.block.Reset()
	for i := 0; i < len(kv); i += 2 {
		p.must(p.enc.WriteField(xhpack.HeaderField{Name: kv[i], Value: kv[i+1]}))
	}
	return bytes.Clone(p.block.Bytes())
}

func (p *raw) headers(id uint32, end bool, kv ...string) {
	p.t.Helper()
	p.must(p.fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: id, BlockFragment: p.fields(kv...), EndStream: end, EndHeaders: true}))
}

// next gives the next frame that is neither SETTINGS nor WINDOW_UPDATE nor an answer to PING, or nil at the end of the connection.
func (p *raw) next() xhttp2.Frame {
	for {
		f, err := p.fr.ReadFrame()
		if err != nil {
			p.err = err
			return nil
		}
		switch f := f.(type) {
		case *xhttp2.SettingsFrame, *xhttp2.WindowUpdateFrame:
			continue
		case *xhttp2.PingFrame:
			if f.IsAck() {
				continue
			}
		}
		return f
	}
}

// goAway reads up to a GOAWAY and gives its code, or -1 if the connection ends without.
func (p *raw) goAway() int {
	for {
		switch f := p.next().(type) {
		case nil:
			return -1
		case *xhttp2.GoAwayFrame:
			return int(f.ErrCode)
		}
	}
}

// rst reads up to a RST_STREAM or the head of a response for id: its code, or -1.
func (p *raw) rst(id uint32) int {
	for {
		switch f := p.next().(type) {
		case nil:
			p.t.Fatal("the connection ended", p.err)
		case *xhttp2.RSTStreamFrame:
			if f.StreamID == id {
				return int(f.ErrCode)
			}
		case *xhttp2.MetaHeadersFrame:
			if f.StreamID == id {
				return -1
			}
		case *xhttp2.GoAwayFrame:
			p.t.Fatalf("GOAWAY %v", f.ErrCode)
		}
	}
}

// status reads up to the head of a response for id.
func (p *raw) status(id uint32) string {
	p.t.Helper()
	for {
		switch f := p.next().(type) {
		case nil:
			p.t.Fatal("the connection ended", p.err)
		case *xhttp2.MetaHeadersFrame:
			if f.StreamID == id {
				return f.PseudoValue("status")
			}
		case *xhttp2.RSTStreamFrame, *xhttp2.GoAwayFrame:
			p.t.Fatalf("%v", f)
		}
	}
}

func with(kv []string, more ...string) []string { return append(slices.Clone(kv), more...) }
