package fault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/test/rig"
)

// block encodes a head.
func block(pairs ...string) []byte {
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}) // a bytes.Buffer takes everything
	}
	return b.Bytes()
}

// frames gives what write writes.
func frames(t *testing.T, write func(*http2.Framer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(http2.NewFramer(&b, nil)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestTruncatedHTTP2Requests cuts a connection at each byte of a request: a backend never takes one for whole.
func TestTruncatedHTTP2Requests(t *testing.T) {
	request := append([]byte(http2.ClientPreface), frames(t, func(f *http2.Framer) error {
		return errors.Join(f.WriteSettings(), f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true,
			BlockFragment: block(":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/cut")}),
			f.WriteData(1, false, []byte("01234")), f.WriteDataPadded(1, false, []byte("56789"), make([]byte, 5)),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: block("t", "v")}))
	})...)
	for to, version := range map[string]conf.Version{"HTTP/1.1": conf.HTTP1, "HTTP/2": conf.HTTP2} {
		b, whole := counting(t)
		p, address, _ := outbound(t, nil)
		p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
			c := rig.Cluster("backend", rig.Plain(b))
			c.Speaks = version
			s.Clusters["backend"] = c
		})
		for _, how := range endings {
			t.Run("to "+to+" "+how.name, func(t *testing.T) {
				before := whole()
				for n := range len(request) {
					c := dial(t, address)
					c.Write(request[:n])
					how.end(c)
					c.Close()
				}
				rig.Eventually(t, "nothing is under way", func() bool { return quiet(p) })
				if n := whole() - before; n != 0 {
					t.Errorf("the backend took %d requests for whole", n)
				}
			})
		}
	}
}

// quiet reports whether no connection to an endpoint is in use.
func quiet(p *rig.Proxy) bool {
	for _, c := range p.Clusters() {
		for _, e := range c.Endpoints {
			if e.Open > e.Idle {
				return false
			}
		}
	}
	return true
}

// counting is a backend of both versions that counts the requests that it has read to their end.
func counting(t *testing.T) (address string, whole func() int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	n := 0
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	s := &http.Server{Protocols: both, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err == nil {
			mu.Lock()
			n++
			mu.Unlock()
		}
	})}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		s.Serve(l)
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().String(), func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// TestTruncatedHTTP2Responses cuts a backend's connection at each byte of a response: a client never takes one for whole.
func TestTruncatedHTTP2Responses(t *testing.T) {
	response := frames(t, func(f *http2.Framer) error {
		return errors.Join(f.WriteSettings(), f.WriteSettingsAck(),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: block(":status", "200", "x", "y")}),
			f.WriteData(1, false, []byte("01234")), f.WriteDataPadded(1, false, []byte("56789"), make([]byte, 5)),
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: block("t", "v")}))
	})
	var mu sync.Mutex
	cut, how := 0, endings[0].end
	address := scripted(t, func(c net.Conn) {
		mu.Lock()
		n, end := cut, how
		mu.Unlock()
		heard := awaitRequest(c)
		if heard {
			c.Write(response[:n])
		}
		if n == len(response) {
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c) // closing with unread frames would destroy what was written
		}
		end(c)
	})
	p, at, _ := outbound(t, nil)
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		c := rig.Cluster("backend", rig.Plain(address))
		c.Speaks = conf.HTTP2
		s.Clusters["backend"] = c
	})
	two := &http.Transport{Protocols: new(http.Protocols)}
	two.Protocols.SetUnencryptedHTTP2(true)
	for name, tr := range map[string]*http.Transport{"to HTTP/1.1": {}, "to HTTP/2": two} {
		for _, i := range []int{0, 2} {
			t.Run(name+" "+endings[i].name, func(t *testing.T) {
				defer tr.CloseIdleConnections()
				for n := range len(response) {
					mu.Lock()
					cut, how = n, endings[i].end
					mu.Unlock()
					if status, body, err := fetch(t, tr, "http://"+at+"/"); err == nil && status < 500 {
						t.Errorf("cut at %d: the client took %d %q for whole", n, status, body)
					}
				}
				rig.Eventually(t, "nothing is under way", func() bool { return quiet(p) })
				mu.Lock()
				cut = len(response)
				mu.Unlock()
				if status, body, err := fetch(t, tr, "http://"+at+"/"); err != nil || status != 200 || body != "0123456789" {
					t.Errorf("the whole response: %d %q, %v", status, body, err)
				}
			})
		}
	}
}

func fetch(t *testing.T, tr *http.Transport, url string) (int, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", url, bytes.NewReader([]byte("once"))) // which nobody repeats by himself
	if err != nil {
		t.Fatal(err)
	}
	res, err := tr.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// scripted serves connections by a script until the test ends.
func scripted(t *testing.T, script func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed by the cleanup
			}
			c.SetDeadline(time.Now().Add(patience))
			serving.Go(func() {
				script(c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	return l.Addr().String()
}

// awaitRequest reads the preface and frames up to the end of a request.
func awaitRequest(c net.Conn) bool {
	if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
		return false
	}
	f := http2.NewFramer(c, c)
	if f.WriteSettings() != nil {
		return false
	}
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return false
		}
		if fr.Header().StreamID == 1 && fr.Header().Flags.Has(http2.FlagDataEndStream) &&
			(fr.Header().Type == http2.FrameData || fr.Header().Type == http2.FrameHeaders) {
			return true
		}
	}
}
