package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/test/rig"
)

// content is what the application serves at /content.
var content = strings.Repeat("0123456789", 100_000)

// application is a server of Go's with something of everything.
func application(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s from %s", r.Method, r.Host, r.Header.Get("X-Forwarded-For"))
	})
	mux.HandleFunc("/content", func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "content.txt", time.Unix(784111777, 0), strings.NewReader(content))
	})
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		if _, err := io.Copy(h, r.Body); err != nil {
			return
		}
		fmt.Fprint(w, hex.EncodeToString(h.Sum(nil)), " ", r.Trailer.Get("T"))
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "T")
		io.WriteString(w, "body")
		w.Header().Set("T", "v")
	})
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		io.WriteString(w, "hinted")
	})
	mux.HandleFunc("/status/204", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		for i := range 10 {
			fmt.Fprintln(w, i)
			w.(http.Flusher).Flush()
		}
	})
	both := new(http.Protocols)
	both.SetHTTP1(true)
	both.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: mux, Protocols: both, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	done := make(chan struct{})
	go func() { // ends with the server
		defer close(done)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// direction is where a client finds the application.
type direction struct{ name, address string }

// directions starts proxies in front of the application; forward is the address of a forward proxy.
func directions(t *testing.T, app netip.AddrPort) (all []direction, forward string) {
	t.Helper()
	r := rig.New(t)
	_, gateway := r.Gateway(nil, rig.Plain(app.String()))
	client, outbound := r.Outbound(rig.Plain(app.String()))
	_, inbound := r.Inbound(app)
	_, _, pair := r.Pair(app)
	return []direction{{"gateway", gateway}, {"outbound", outbound}, {"inbound", inbound}, {"pair", pair}}, client.Forward()
}

// curl runs Debian's, and gives what it printed to its standard output.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("curl")
	if err != nil {
		t.Skipf("curl is not installed: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"--silent", "--show-error", "--noproxy", "", "--max-time", fmt.Sprint(patience.Seconds())}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("curl %s: %v: %s", strings.Join(args, " "), err, errs.String())
	}
	return string(out)
}

// upload writes a file of that many bytes, and gives its name and sum.
func upload(t *testing.T, size int) (file, sum string) {
	t.Helper()
	p := bytes.Repeat([]byte("weft"), size/4)
	file = filepath.Join(t.TempDir(), "upload")
	if err := os.WriteFile(file, p, 0o600); err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(p)
	return file, hex.EncodeToString(h[:])
}

// TestCurl has Debian's curl use whatever its command line offers.
func TestCurl(t *testing.T) {
	all, forward := directions(t, application(t))
	file, sum := upload(t, 4<<20)
	for _, d := range all {
		base := "http://" + d.address
		// --http2 asks for an upgrade, which is ignored.
		for _, version := range []string{"--http1.0", "--http1.1", "--http2", "--http2-prior-knowledge"} {
			t.Run(d.name+version, func(t *testing.T) { curlAll(t, base, version, file, sum) })
		}
	}
	app := application(t)
	t.Run("forward proxy", func(t *testing.T) {
		if got := curl(t, "-x", "http://"+forward, "http://"+app.String()+"/hello"); !strings.HasPrefix(got, "GET "+app.String()) {
			t.Errorf("absolute form: %q", got)
		}
		if got := curl(t, "-p", "-x", "http://"+forward, "http://"+app.String()+"/hello"); !strings.HasPrefix(got, "GET "+app.String()) {
			t.Errorf("CONNECT: %q", got)
		}
		if got := curl(t, "-p", "--proxy1.0", forward, "http://"+app.String()+"/hello"); !strings.HasPrefix(got, "GET "+app.String()) {
			t.Errorf("CONNECT in HTTP/1.0: %q", got)
		}
	})
}

func curlAll(t *testing.T, base, version, file, sum string) {
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"GET", content, []string{base + "/content"}},
		{"range", "3456", []string{"-r", "13-16", base + "/content"}},
		{"two ranges", "multipart/byteranges", []string{"-r", "0-1,5-6", "-o", os.DevNull, "-w", "%{content_type}", base + "/content"}},
		{"resume", content[999_990:], []string{"-C", "999990", base + "/content"}},
		{"HEAD", "200 1000000", []string{"-I", "-o", os.DevNull, "-w", "%{http_code} %header{content-length}", base + "/content"}},
		{"not modified", "304", []string{"-z", "Sun, 06 Nov 1994 08:49:37 GMT", "-o", os.DevNull, "-w", "%{http_code}", base + "/content"}},
		{"small POST", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", []string{"-d", "hello", base + "/sum"}},
		{"POST of four megabytes, with Expect", sum, []string{"--data-binary", "@" + file, base + "/sum"}},
		{"PUT with Expect", sum, []string{"-H", "Expect: 100-continue", "-T", file, base + "/sum"}},
		{"PUT without Expect", sum, []string{"-H", "Expect:", "-T", file, base + "/sum"}},
		{"empty POST", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", []string{"-d", "", base + "/sum"}},
		{"form", "200", []string{"-F", "f=@" + file, "-o", os.DevNull, "-w", "%{http_code}", base + "/sum"}},
		{"DELETE", "DELETE", []string{"-X", "DELETE", base + "/hello"}},
		{"OPTIONS *", "200", []string{"-X", "OPTIONS", "--request-target", "*", "-o", os.DevNull, "-w", "%{http_code}", base}},
		{"204", "204 0", []string{"-w", "%{http_code} %{size_download}", base + "/status/204"}},
		{"stream", "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n", []string{"-N", base + "/stream"}},
		{"trailers", "body", []string{base + "/trailers"}},
		{"early hints", "hinted", []string{base + "/hints"}},
		{"two over one connection", "204204", []string{"-w", "%{http_code}", base + "/status/204", base + "/status/204"}},
		{"404", "404", []string{"-o", os.DevNull, "-w", "%{http_code}", base + "/nothing"}},
		{"path as it is", "307", []string{"--path-as-is", "-o", os.DevNull, "-w", "%{http_code}", base + "/a/../../nothing"}},
	} {
		if c.name == "two over one connection" && version == "--http2-prior-knowledge" {
			continue // curl 7.88 forgets that it speaks HTTP/2 there, with any server
		}
		if c.name == "OPTIONS *" && version != "--http1.1" {
			continue // curl 7.88 does not send it otherwise
		}
		got := curl(t, append([]string{version}, c.args...)...)
		if got != c.want && !strings.HasPrefix(got, c.want+" ") && !strings.HasPrefix(got, c.want+";") {
			t.Errorf("%s: %.200q, want %.200q", c.name, got, c.want)
		}
	}
	// HTTP/1.0 has no chunks to upload something of unknown length by.
	if version == "--http1.1" {
		if got := curl(t, version, "-T", "-", "-H", "Transfer-Encoding: chunked", base+"/sum"); !strings.HasPrefix(got, "e3b0c442") {
			t.Errorf("chunked PUT: %q", got)
		}
	}
}

// TestCurlBringsPROXYHeader: a gateway that is told to reads who the client is.
func TestCurlBringsPROXYHeader(t *testing.T) {
	app := application(t)
	r := rig.New(t)
	p, address := r.Gateway(nil, rig.Plain(app.String()))
	p.Config.Publish(func(s *conf.Snapshot, _ map[string]*conf.Target) {
		l := *s.Gateways[0]
		l.ProxyProtocol = &conf.ProxyProtocol{}
		s.Gateways = []*conf.Listener{&l}
	})
	rig.Eventually(t, "the header is read", func() bool {
		return strings.HasPrefix(curl(t, "--haproxy-protocol", "http://"+address+"/hello"), "GET "+address+" from 127.0.0.1")
	})
}

// TestGoClient has Go's client use whatever it offers.
func TestGoClient(t *testing.T) {
	app := application(t)
	all, forward := directions(t, app)
	for _, d := range all {
		t.Run(d.name, func(t *testing.T) {
			tr := &http.Transport{ExpectContinueTimeout: patience}
			defer tr.CloseIdleConnections()
			goClient(t, &http.Client{Transport: tr, Timeout: patience}, "http://"+d.address)
		})
		t.Run(d.name+" HTTP/2", func(t *testing.T) {
			tr := &http.Transport{ExpectContinueTimeout: patience, Protocols: new(http.Protocols)}
			tr.Protocols.SetUnencryptedHTTP2(true)
			defer tr.CloseIdleConnections()
			goClient(t, &http.Client{Transport: tr, Timeout: patience}, "http://"+d.address)
		})
	}
	t.Run("forward proxy", func(t *testing.T) {
		tr := &http.Transport{ExpectContinueTimeout: patience, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: forward})}
		defer tr.CloseIdleConnections()
		goClient(t, &http.Client{Transport: tr, Timeout: patience}, "http://"+app.String())
	})
}

func goClient(t *testing.T, c *http.Client, base string) {
	var hints []int
	trace := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == http.StatusEarlyHints && h.Get("Link") == "" {
			t.Error("the hint has lost its Link")
		}
		hints = append(hints, code)
		return nil
	}})
	do := func(ctx context.Context, method, path string, body io.Reader, change func(*http.Request)) (*http.Response, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, base+path, body)
		if err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(req)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
		return res, string(b)
	}
	if _, got := do(t.Context(), "GET", "/content", nil, nil); got != content {
		t.Errorf("%d bytes of content", len(got))
	}
	if res, _ := do(t.Context(), "HEAD", "/content", nil, nil); res.ContentLength != int64(len(content)) {
		t.Errorf("HEAD says %d bytes", res.ContentLength)
	}
	if res, got := do(t.Context(), "GET", "/trailers", nil, nil); got != "body" || res.Trailer.Get("T") != "v" {
		t.Errorf("%q with trailers %v", got, res.Trailer)
	}
	if _, got := do(trace, "GET", "/hints", nil, nil); got != "hinted" || len(hints) != 1 {
		t.Errorf("%q after informational %v", got, hints)
	}
	sum := sha256.Sum256([]byte(content))
	for name, change := range map[string]func(*http.Request){
		"sized":                 nil,
		"sized with Expect":     func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"chunked with trailers": func(r *http.Request) { r.ContentLength = -1; r.Trailer = http.Header{"T": {"up"}} },
	} {
		_, got := do(t.Context(), "POST", "/sum", strings.NewReader(content), change)
		want := hex.EncodeToString(sum[:]) + " "
		if strings.Contains(name, "trailers") {
			want += "up"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if res, _ := do(t.Context(), "GET", "/status/204", nil, nil); res.StatusCode != 204 {
		t.Errorf("%d", res.StatusCode)
	}
}
