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

	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// TestJoinedProxyDrains ends proxies with a request under way: it is finished, unless the bootstrap file wants no draining.
func TestJoinedProxyDrains(t *testing.T) {
	bin := build(t, "weft", "weft-proxy")
	weft := filepath.Join(bin, "weft")
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
		drain bool
	}{
		"by default":                  {drain: true},
		"as long as is wanted":        {flags: []string{"--drain-seconds", "60"}, drain: true},
		"not at all":                  {flags: []string{"--drain-seconds", "0"}},
		"a file without a word of it": {file: silent, drain: true},
	} {
		t.Run(name, func(t *testing.T) {
			listen, admin, file := loopbacktest.Address(t), loopbacktest.Address(t), filepath.Join(t.TempDir(), "bootstrap.json")
			text := join(t, listen, admin, x.flags...)
			if x.file != nil {
				text = x.file(t, text)
			}
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			proxy := process(t, filepath.Join(bin, "weft-proxy"), "--bootstrap", file)
			client := through(listen)
			await(t, "the proxy serves", func() bool { return client.call() == "answered" })
			got := make(chan string, 1)
			go func() { got <- client.get("http://backend.example/slow") }() // ends with the proxy at the latest
			<-arrived
			if err := proxy.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if !x.drain {
				if text := <-got; text == "answered" || strings.HasPrefix(text, "200") {
					t.Errorf("got %s", text)
				}
				return
			}
			await(t, "the proxy drains", func() bool {
				r, err := http.Get("http://" + admin + "/server_info")
				if err != nil {
					t.Fatal("it has ended: ", err)
				}
				defer r.Body.Close()
				text, _ := io.ReadAll(r.Body)
				return strings.Contains(string(text), "DRAINING")
			})
			answer <- true
			if text := <-got; text != "answered" {
				t.Errorf("got %s", text)
			}
			if err := proxy.Wait(); err != nil {
				t.Errorf("it ended with %v", err)
			}
		})
	}
}
