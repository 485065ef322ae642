package agent

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	health1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/weftmesh/weft/internal/identity"
)

// TestPingsAreInvisible has a link ping all the time: calls whose header blocks and messages take many frames pass unharmed, and the
// connection stays.
func TestPingsAreInvisible(t *testing.T) {
	p := newPlane(t)
	_, dir := run(t, p.bootstrap(), func(a *Agent) { a.after, a.timeout = time.Microsecond, time.Minute })
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, socketFile), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call(t, conn)
	large := strings.Repeat("x", 200<<10)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "large", large)
	for range 50 {
		// A service of which nothing is known: its name is all that is large.
		if _, err := health1.NewHealthClient(conn).Check(ctx, &health1.HealthCheckRequest{Service: large}); !strings.Contains(err.Error(), "unknown service") {
			t.Fatal(err)
		}
	}
}

// TestSilence: the connection to a control plane that takes everything and answers nothing is ended, within a header block of the client
// once that is over, and while a write waits.
func TestSilence(t *testing.T) {
	settings := strings.Repeat("\x00", 3) + "\x04" + strings.Repeat("\x00", 5)
	for name, sent := range map[string]string{"idle": "", "much to write": strings.Repeat("\x00\x40\x00\x00"+strings.Repeat("\x00", 5+1<<14), 1000)} {
		t.Run(name, func(t *testing.T) {
			client, ours := net.Pipe()
			up, control := silent(t)
			defer control.Close()
			l := newLink(ours, up, 20*time.Millisecond, 50*time.Millisecond)
			ended := make(chan error, 3)
			go func() { ended <- l.send(t.Context()) }()    // ends with the client's connection
			go func() { ended <- l.receive(t.Context()) }() // ends with the control plane's
			watched := make(chan error, 1)
			go func() { watched <- l.watch(t.Context()) }() // ends by itself
			go func() {                                     // ends with the client's connection
				_, err := io.WriteString(client, http2.ClientPreface+settings+sent)
				ended <- err
			}()
			if err := <-watched; !errors.Is(err, errSilent) {
				t.Errorf("got %v", err)
			}
			client.Close()
			ours.Close()
			up.Close()
			for range 3 {
				<-ended
			}
		})
	}
}

// silent is a connection of TLS whose other end reads nothing.
func silent(t *testing.T) (ours *tls.Conn, theirs net.Conn) {
	t.Helper()
	p := newPlane(t)
	serving, err := p.authority.ServingCertificate(identity.ControlID(domain), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() { // ends with the handshake
		c, err := l.Accept()
		if err != nil {
			return
		}
		_ = tls.Server(c, serving.ServerTLS(identity.TLSOptions{OptionalPeer: true})).Handshake()
		accepted <- c
	}()
	ours, err = tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true}) // who it is is not what is asked
	if err != nil {
		t.Fatal(err)
	}
	return ours, <-accepted
}

// TestPingsWaitForHeaderBlocks: between HEADERS and its CONTINUATION nothing else may be sent.
func TestPingsWaitForHeaderBlocks(t *testing.T) {
	up, control := net.Pipe()
	defer control.Close()
	l := newLink(nil, up, time.Hour, time.Hour)
	got := make(chan byte, 8)
	go func() { // ends with up
		defer close(got)
		for r, b := bufio.NewReader(control), []byte(nil); ; {
			var err error
			if b, err = frame(r, b); err != nil {
				return
			}
			got <- b[typeAt]
		}
	}()
	for _, step := range []struct {
		kind http2.FrameType
		end  http2.Flags
		ping bool
	}{{http2.FrameHeaders, 0, false}, {http2.FrameContinuation, 0, false}, {http2.FrameContinuation, http2.FlagContinuationEndHeaders, true}, {http2.FrameData, 0, true}} {
		if err := l.write([]byte{0, 0, 0, byte(step.kind), byte(step.end), 0, 0, 0, 1}, true); err != nil {
			t.Fatal(err)
		}
		if kind := <-got; kind != byte(step.kind) {
			t.Fatalf("got %d, want %d", kind, step.kind)
		}
		sent, err := l.ping()
		if err != nil || sent != step.ping {
			t.Fatalf("after %v: sent %v, %v", step.kind, sent, err)
		}
		if sent && <-got != byte(http2.FramePing) {
			t.Fatal("no ping came")
		}
	}
	up.Close()
	<-got
}
