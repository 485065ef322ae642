package replica

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
	"github.com/weftmesh/weft/internal/wire"
)

// TestJoinedProxyDrains ends proxies with a request under way: it is finished, unless the bootstrap file wants no draining.
func TestJoinedProxyDrains(t *testing.T) {
	weft := program(t, "weft")
	p := startPlane(t, weft, 0)
	arrived, answer := make(chan bool), make(chan bool)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			arrived <- true
			select {
			case <-answer:
			case <-r.Context().Done():
			}
		}
		_, _ = io.WriteString(w, "answered")
	}))
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	p.send(t, port)
	join := func(t *testing.T, listen, admin string, more ...string) []byte {
		args := append([]string{"--mesh", p.mesh, "proxy", "join", "client-1", "--forward-proxy", listen, "--admin", admin}, more...)
		out, err := exec.CommandContext(t.Context(), weft, args...).Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return out
	}
	silent := func(t *testing.T, text []byte) []byte { // as the files of older versions
		var b map[string]any
		if err := json.Unmarshal(text, &b); err != nil {
			t.Fatal(err)
		}
		delete(b, "drainSeconds")
		out, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for name, x := range map[string]struct {
		flags []string
		file  func(*testing.T, []byte) []byte
		drain time.Duration // at most
	}{
		"by default":                  {drain: wire.DefaultDrainSeconds * time.Second},
		"as long as is wanted":        {flags: []string{"--drain-seconds", "60"}, drain: time.Minute},
		"not at all":                  {flags: []string{"--drain-seconds", "0"}},
		"a file without a word of it": {file: silent, drain: wire.DefaultDrainSeconds * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			once := func() (got string, took time.Duration) {
				listen, admin, file := loopbacktest.Address(t), loopbacktest.Address(t), filepath.Join(t.TempDir(), "bootstrap.json")
				text := join(t, listen, admin, x.flags...)
				if x.file != nil {
					text = x.file(t, text)
				}
				if err := os.WriteFile(file, text, 0o600); err != nil {
					t.Fatal(err)
				}
				proxy := process(t, program(t, "weft-proxy"), "--bootstrap", file)
				client := through(listen)
				await(t, "the proxy serves", func() bool { return client.call() == "answered" })
				answered := make(chan string, 1)
				go func() { answered <- client.get("http://backend.example/slow") }() // ends with the proxy at the latest
				<-arrived
				told := time.Now()
				if err := proxy.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if x.drain == 0 {
					return <-answered, 0
				}
				await(t, "the proxy drains, or has ended", func() bool {
					r, err := http.Get("http://" + admin + "/server_info")
					if err != nil {
						return true
					}
					defer r.Body.Close()
					text, _ := io.ReadAll(r.Body)
					return strings.Contains(string(text), "DRAINING")
				})
				select {
				case answer <- true:
					got = <-answered
				case got = <-answered:
				}
				took = time.Since(told)
				if err := proxy.Wait(); err != nil && got == "answered" {
					t.Errorf("it ended with %v", err)
				}
				return got, took
			}
			got, took := once()
			for got != "answered" && took > x.drain && x.drain > 0 { // the machine stood still for so long: that says nothing
				got, took = once()
			}
			if drained := got == "answered"; drained != (x.drain > 0) || strings.HasPrefix(got, "200") {
				t.Errorf("got %s", got)
			}
		})
	}
}
