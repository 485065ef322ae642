package envoy

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Start runs an Envoy until the test ends, with a bootstrap in JSON whose admin interface and listener ask for port 0 of 127.0.0.1, and
// gives the listener's address.
func Start(t testing.TB, bootstrap []byte) netip.AddrPort {
	t.Helper()
	dir := t.TempDir()
	config, admin := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(Find(t), "-c", config, "-l", "error", "--concurrency", "1", "--disable-hot-restart", "--admin-address-path", admin)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	dieWithParent(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }() // ends with the program
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		select {
		case <-ended:
			t.Fatal("Envoy has ended")
		default:
		}
		if address := listens(client, admin); address.IsValid() {
			return address
		}
	}
	t.Fatal("Envoy does not listen")
	return netip.AddrPort{}
}

// listens gives the address of the first listener, by the admin interface whose address stands in a file; none before it has one.
func listens(client *http.Client, admin string) netip.AddrPort {
	where, err := os.ReadFile(admin)
	if err != nil || len(where) == 0 {
		return netip.AddrPort{}
	}
	res, err := client.Get("http://" + string(where) + "/listeners?format=json")
	if err != nil {
		return netip.AddrPort{}
	}
	defer res.Body.Close()
	var told struct {
		Listeners []struct {
			Address struct {
				Socket struct {
					Port uint16 `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if json.NewDecoder(res.Body).Decode(&told) != nil || len(told.Listeners) == 0 || told.Listeners[0].Address.Socket.Port == 0 {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), told.Listeners[0].Address.Socket.Port)
}
