package conformance

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/weftmesh/weft/test/rig"
)

// oddServer speaks HTTP/2 in plaintext and answers as the path says. It records what it was asked.
func oddServer(t *testing.T, asked chan<- http.Header) netip.AddrPort {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		h := w.Header()
		h.Set("Content-Type", "application/grpc")
		switch r.URL.Path {
		case "/trailers-only":
			h.Set("Grpc-Status", "5")
			h.Set("Grpc-Message", "%E2%82%AC%0A%25 %zz 50%")
		case "/only-with-content":
			h.Set("Grpc-Status", "5")
			w.Write([]byte("not a message"))
		case "/no-status":
			w.Write(body)
		case "/status-in-both":
			h.Set("Grpc-Status", "0")
			h.Set(http.TrailerPrefix+"Grpc-Status", "13")
			w.Write(body)
		case "/status-that-is-none":
			h.Set(http.TrailerPrefix+"Grpc-Status", "-1x")
			w.Write(body)
		case "/status-unknown":
			h.Set(http.TrailerPrefix+"Grpc-Status", "99")
			h.Set(http.TrailerPrefix+"Grpc-Status-Details-Bin", "CAUSAA")
			w.Write(body)
		case "/http-error":
			h.Set("Content-Type", "text/html")
			w.WriteHeader(503)
			w.Write([]byte("<p>"))
		case "/http-error-with-status":
			h.Set("Grpc-Status", "8")
			w.WriteHeader(429)
		default:
			h.Set(http.TrailerPrefix+"Grpc-Status", "0")
			w.Write(body)
		}
		asked <- r.Header
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(s.Listener.Addr().String())
}

// of gives what came of the test's own request; others' may have come late.
func of(t *testing.T, asked <-chan http.Header) http.Header {
	for h := range asked {
		if h.Get("X-Case") == t.Name() {
			return h
		}
	}
	return nil
}

// told gives the head, content and trailers of a response: ":status=200 grpc-status=5", without what proxies add.
func (h *h2) told(stream uint32) string {
	h.t.Helper()
	var out []string
	for {
		f, err := h.f.ReadFrame()
		if err != nil {
			return strings.Join(append(out, err.Error()), " ")
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				h.f.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			for _, x := range f.Fields {
				if slices.Contains([]string{":status", "content-type"}, x.Name) || strings.HasPrefix(x.Name, "grpc-") {
					out = append(out, x.Name+"="+x.Value)
				}
			}
		case *http2.DataFrame:
			if len(f.Data()) > 0 {
				out = append(out, string(f.Data()))
			}
		case *http2.RSTStreamFrame:
			return strings.Join(append(out, f.ErrCode.String()), " ")
		}
		if f.Header().StreamID == stream && f.Header().Flags.Has(http2.FlagDataEndStream) && f.Header().Type != http2.FrameWindowUpdate {
			return strings.Join(out, " ")
		}
	}
}

// TestOddGRPC: what servers of gRPC answer beside the usual is passed on as it is, for the client to judge
// (PROTOCOL-HTTP2.md and statuscodes.md of gRPC), and so is gRPC-Web where nobody translates it.
func TestOddGRPC(t *testing.T) {
	const grpc = ":status=200 content-type=application/grpc "
	asked := make(chan http.Header, 100)
	app := oddServer(t, asked)
	r := rig.New(t)
	_, gateway := r.Gateway(nil, rig.Plain(app.String()))
	_, outbound := r.Outbound(rig.Plain(app.String()))
	_, inbound := r.Inbound(app)
	_, _, pair := r.Pair(app)
	for _, d := range []direction{{"gateway", gateway}, {"outbound", outbound}, {"inbound", inbound}, {"pair", pair}} {
		for path, want := range map[string]string{
			"/fine":                   grpc + "hello grpc-status=0",
			"/trailers-only":          grpc + "grpc-status=5 grpc-message=%E2%82%AC%0A%25 %zz 50%",
			"/only-with-content":      grpc + "grpc-status=5 not a message",
			"/no-status":              grpc + "hello",
			"/status-in-both":         grpc + "grpc-status=0 hello grpc-status=13",
			"/status-that-is-none":    grpc + "hello grpc-status=-1x",
			"/status-unknown":         grpc + "hello grpc-status=99 grpc-status-details-bin=CAUSAA",
			"/http-error":             ":status=503 content-type=text/html <p>",
			"/http-error-with-status": ":status=429 content-type=application/grpc grpc-status=8",
		} {
			t.Run(d.name+path, func(t *testing.T) {
				c := dialH2(t, d.address)
				c.headers(1, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", path, "content-type", "application/grpc", "te", "trailers", "x-case", t.Name())
				if err := c.f.WriteData(1, true, []byte("hello")); err != nil {
					t.Fatal(err)
				}
				if got := fieldsInOrder(c.told(1)); got != fieldsInOrder(want) {
					t.Errorf("got %q, want %q", got, want)
				}
				of(t, asked)
			})
		}
		// A time-out that is none is the server's to judge.
		for limit, gets := range map[string]string{"1H": "0", "99999999S": "0", "99999999H": "0", "500000000n": "0", "1x": "0", "123456789S": "0", "-1S": "0", "1.5S": "0", "S": "0", "0S": "4", "0n": "4", "00000001n": "4"} {
			t.Run(d.name+" grpc-timeout "+limit, func(t *testing.T) {
				c := dialH2(t, d.address)
				c.headers(1, true, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/fine", "content-type", "application/grpc", "te", "trailers", "grpc-timeout", limit, "x-case", t.Name())
				if got := c.told(1); !strings.Contains(got+" ", " grpc-status="+gets+" ") {
					t.Errorf("got %q", got)
				}
				if gets == "0" {
					if h := of(t, asked); h.Get("Grpc-Timeout") == "" {
						t.Error("the server was told nothing")
					}
				}
			})
		}
		for _, media := range []string{"application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "application/grpcx", "application/grpc+json"} {
			t.Run(d.name+" "+media, func(t *testing.T) {
				c := dialH2(t, d.address)
				c.headers(1, false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/fine", "content-type", media, "x-case", t.Name())
				if err := c.f.WriteData(1, true, []byte("hello")); err != nil {
					t.Fatal(err)
				}
				if got := c.told(1); got != grpc+"hello grpc-status=0" {
					t.Errorf("got %q", got)
				}
				if h := of(t, asked); h.Get("Content-Type") != media {
					t.Errorf("the server saw %q", h.Get("Content-Type"))
				}
			})
		}
	}
}

// fieldsInOrder sorts words: servers write fields in the order of their names, and proxies may not.
func fieldsInOrder(s string) string {
	words := strings.Fields(s)
	slices.Sort(words)
	return strings.Join(words, " ")
}
