package http2

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// certificate gives the two sides' configurations for one host.
func certificate(t *testing.T) (client, server *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return &tls.Config{RootCAs: roots, ServerName: "a.example", NextProtos: []string{"h2"}},
		&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"h2"}}
}

// ourServer serves echo on a loopback port, by TLS if secure is not nil.
func ourServer(t *testing.T, secure *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []*ServerConn
	wg.Go(func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := conn.FromNet(nc)
			if secure != nil {
				c = conn.FromNet(tls.Server(conn.ToNet(c), secure))
			}
			s := NewServerConn(c, "http", nil)
			mu.Lock()
			conns = append(conns, s)
			mu.Unlock()
			wg.Go(func() { s.Serve(echo) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, s := range conns {
			s.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// TestGoClient lets net/http's client talk to our server: heads, long bodies, trailers, many at a time.
func TestGoClient(t *testing.T) {
	clientTLS, serverTLS := certificate(t)
	for _, secure := range []bool{false, true} {
		scheme, config := "http", (*tls.Config)(nil)
		tr := &http.Transport{Protocols: new(http.Protocols), TLSClientConfig: clientTLS}
		if tr.Protocols.SetUnencryptedHTTP2(true); secure {
			tr.Protocols = new(http.Protocols)
			tr.Protocols.SetHTTP2(true)
			scheme, config = "https", serverTLS
		}
		addr := ourServer(t, config)
		client := &http.Client{Transport: tr}
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				body := bytes.Repeat([]byte{byte(i)}, i*i*10_000)
				r, _ := http.NewRequest("POST", scheme+"://"+addr+"/p?q", io.MultiReader(bytes.NewReader(body)))
				r.Trailer = http.Header{"Sum": {"42"}}
				r.Header.Add("Cookie", "a=1")
				res, err := client.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !bytes.Equal(got, body) || res.ProtoMajor != 2 || res.StatusCode != 200 {
					t.Errorf("%d of %d bytes, %v, %v", len(got), len(body), res.Status, err)
				}
				if asked := res.Header.Get("Asked"); asked != "POST "+scheme+" "+addr+"/p?q" || res.Trailer.Get("Sum") != "42" {
					t.Errorf("%q, trailers %v", asked, res.Trailer)
				}
			})
		}
		wg.Wait()
		tr.CloseIdleConnections()
	}
}

// TestGoServer lets our client talk to net/http's server.
func TestGoServer(t *testing.T) {
	clientTLS, serverTLS := certificate(t)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Asked", r.Method+" "+r.Host+r.URL.RequestURI())
		w.Header().Set("Trailer", "Sum")
		if r.Method == "HEAD" {
			w.Header().Set("Content-Length", "123")
			return
		}
		w.WriteHeader(http.StatusEarlyHints)
		io.Copy(w, r.Body)
		w.Header().Set("Sum", r.Trailer.Get("Sum"))
	})
	for _, secure := range []bool{false, true} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: handler, Protocols: new(http.Protocols)}
		server.Protocols.SetUnencryptedHTTP2(true)
		server.Protocols.SetHTTP2(true)
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		c := conn.FromNet(nc)
		if secure {
			server.TLSConfig = serverTLS
			go server.ServeTLS(l, "", "")
			tc := tls.Client(conn.ToNet(c), clientTLS)
			if err := tc.Handshake(); err != nil {
				t.Fatal(err)
			}
			c = conn.FromNet(tc)
		} else {
			go server.Serve(l)
		}
		cc := NewClientConn(c, nil)
		done := make(chan error)
		go func() { done <- cc.Run() }()
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() { goServerExchange(t, cc, strings.Repeat("x", i*i*10_000)) })
		}
		wg.Wait()
		st := open(t, cc)
		r := get("/head")
		r.Method = "HEAD"
		send(t, st, r, "", nil)
		res, body := receive(t, st)
		if n, _ := res.Header.Get("content-length"); n != "123" || body != "" || res.Body.Kind != message.NoBody {
			t.Errorf("HEAD: %+v, %q", res, body)
		}
		st.EndExchange()
		cc.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		server.Close()
	}
}

func goServerExchange(t *testing.T, cc *ClientConn, body string) {
	st, err := cc.Open()
	if err != nil {
		t.Error(err)
		return
	}
	defer st.EndExchange()
	r := get("/p?q")
	r.Method, r.Body = "POST", message.Body{Kind: message.Chunked}
	r.Header.Add("TE", "trailers")
	r.Header.Add("Trailer", "Sum")
	if err := st.WriteRequest(r); err != nil {
		t.Error(err)
		return
	}
	wrote := make(chan error)
	go func() {
		var trailers message.Header
		trailers.Add("Sum", "42")
		if err := st.WriteBody([]byte(body)); err != nil {
			wrote <- err
			return
		}
		wrote <- st.FinishBody(&trailers)
	}()
	var res message.Response
	for res.Status < 200 {
		if err := st.ReadResponse(&res); err != nil {
			t.Error(err)
			break
		}
	}
	got, err := readAll(st)
	if sum, _ := st.Trailers().Get("sum"); err != nil || got != body || sum != "42" {
		t.Errorf("%d of %d bytes, trailer %q, %v", len(got), len(body), sum, err)
	}
	if asked, _ := res.Header.Get("asked"); asked != "POST a.example/p?q" {
		t.Error(asked)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}

// TestCurl lets curl's HTTP/2, which is nghttp2's, talk to our server.
func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("curl is not installed")
	}
	if out, _ := exec.Command(curl, "--version").Output(); !bytes.Contains(out, []byte("nghttp2")) {
		t.Skip("curl has no HTTP/2")
	}
	body := strings.Repeat("0123456789", 300_000)
	cmd := exec.CommandContext(t.Context(), curl, "-sS", "--http2-prior-knowledge", "-H", "X-A: b", "--data-binary", "@-", "-w", "%{http_version} %{http_code}",
		"http://"+ourServer(t, nil)+"/x")
	cmd.Stdin = strings.NewReader(body)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || string(out) != body+"2 200" {
		t.Errorf("%d bytes, %v: %.200s; %s", len(out), err, out[max(0, len(out)-200):], &said)
	}
}
