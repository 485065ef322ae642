package conformance

import (
	"bufio"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/weftmesh/weft/test/rig"
)

// interop are the cases of grpc-go's own test, interop_test.sh: all that need no credentials of Google's.
var interop = []string{"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream",
	"timeout_on_sleeping_server", "cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message",
	"custom_metadata", "unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob", "rpc_soak", "channel_soak"}

// interopServer starts grpc-go's server.
func interopServer(t *testing.T) netip.AddrPort {
	t.Helper()
	cmd := exec.Command(peer(t, "server"), "-port", "0")
	cmd.Env = append(os.Environ(), "GRPC_GO_LOG_SEVERITY_LEVEL=info")
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	found, drained := make(chan netip.AddrPort, 1), make(chan struct{})
	go func() { // ends with the server
		defer close(drained)
		defer close(found)
		for lines := bufio.NewScanner(log); lines.Scan(); {
			if _, at, ok := strings.Cut(lines.Text(), "interop server listening on "); ok {
				if a, err := netip.ParseAddrPort(at); err == nil {
					found <- netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), a.Port())
				}
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-drained
		cmd.Wait() // says that it was killed
	})
	a, ok := <-found
	if !ok {
		t.Fatal("grpc-go's server does not say where it listens")
	}
	return a
}

// racy are cases of grpc-go in which the client ends a call just as the server does, and fails if the server's end comes first;
// and how often they are run again.
var racy = map[string]int{"cancel_after_begin": 2, "timeout_on_sleeping_server": 2}

// TestGRPCInterop runs grpc-go's own cases, client and server, in each direction and through a pair with mutual TLS.
func TestGRPCInterop(t *testing.T) {
	program := peer(t, "client")
	app := interopServer(t)
	r := rig.New(t)
	_, gateway := r.Gateway(nil, rig.Plain(app.String()))
	_, outbound := r.Outbound(rig.Plain(app.String()))
	_, inbound := r.Inbound(app)
	_, _, pair := r.Pair(app)
	for _, d := range []direction{{"gateway", gateway}, {"outbound", outbound}, {"inbound", inbound}, {"pair", pair}} {
		_, port, _ := strings.Cut(d.address, ":")
		for _, c := range interop {
			t.Run(d.name+" "+c, func(t *testing.T) {
				t.Parallel()
				for left := racy[c]; ; left-- {
					_, err := try(t, program, "-server_host", "127.0.0.1", "-server_port", port, "-test_case", c,
						"-service_config_json", `{"loadBalancingConfig": [{"test_backend_metrics_load_balancer": {}}]}`)
					if err == nil {
						return
					}
					if left == 0 {
						t.Fatal(err)
					}
					t.Logf("again, as the client may lose a race with itself: %v", err)
				}
			})
		}
	}
}
