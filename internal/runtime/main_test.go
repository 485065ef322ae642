package runtime

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/internal/broker"
	"github.com/weftmesh/weft/internal/wire"
)

// The test binary is the pod host, the sidecar and the application too.
func TestMain(m *testing.M) {
	if os.Args[0] == "weft-proxy" {
		exitOn(relay(os.Args[2]))
	}
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case PodHostCommand:
			os.Exit(PodHostMain(nil))
		case "app":
			exitOn(app())
		case "parent":
			exitOn(parent(os.Args[2], os.Args[3]))
		case "get":
			_, err := http.Get(os.Args[2])
			exitOn(err)
		}
	}
	goleak.VerifyTestMain(m)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// app is an HTTP server that tells about itself.
func app() error {
	port := os.Getenv("PORT")
	if port == "" {
		port = "9080"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/who", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s", os.Getenv("HOSTNAME"), os.Getenv("VERSION"))
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, os.Getenv(r.URL.RawQuery)) })
	mux.HandleFunc("/healthy", func(w http.ResponseWriter, r *http.Request) {
		if file := os.Getenv("HEALTHY_FILE"); file != "" {
			if _, err := os.Stat(file); err != nil {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}
	})
	mux.HandleFunc("/wait", func(w http.ResponseWriter, r *http.Request) {
		fmt.Println("waiting")
		for {
			if _, err := os.Stat(r.URL.RawQuery); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/call", func(w http.ResponseWriter, r *http.Request) {
		resp, err := http.Get(r.URL.RawQuery)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	})
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		return err
	}
	fmt.Println("listening", os.Getenv("VERSION"))
	srv := http.Server{Handler: mux}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, func() {
		if os.Getenv("ABRUPT") != "" {
			os.Exit(1)
		}
		srv.Shutdown(context.Background())
	})
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	fmt.Fprintln(os.Stderr, "bye")
	return nil
}

// directory is what the stand-in for the control plane says, in a file: names to virtual addresses, those to an endpoint.
type directory struct {
	Names     map[string]string
	Endpoints map[string]string
}

func readDirectory(b *wire.Bootstrap) (d directory, err error) {
	raw, err := os.ReadFile(strings.TrimPrefix(b.Control, "unix://"))
	if err == nil {
		err = json.Unmarshal(raw, &d)
	}
	return d, err
}

// relay stands in for weft-proxy: it relays TCP to where the directory says.
func relay(file string) error {
	b, err := wire.ReadBootstrap(file)
	if err != nil {
		return err
	}
	mark := func(_, _ string, c syscall.RawConn) (err error) {
		if b.Mark != 0 {
			c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, b.Mark) })
		}
		return err
	}
	dialer := net.Dialer{Control: mark, Timeout: patience}
	var live sync.WaitGroup
	to := func(target func(net.Conn) string) func(net.Conn) {
		return func(c net.Conn) {
			live.Add(1)
			defer live.Done()
			defer c.Close()
			addr := target(c)
			d, err := readDirectory(b)
			if err != nil {
				return
			}
			if ep := d.Endpoints[addr]; ep != "" {
				addr = ep
			}
			up, err := dialer.Dial("tcp", addr)
			if errors.Is(err, syscall.EHOSTUNREACH) {
				up, err = broker.Client{Path: b.Broker}.Dial(context.Background(), "tcp", addr)
			}
			if err != nil {
				return
			}
			defer up.Close()
			go func() { io.Copy(up, c); up.(*net.TCPConn).CloseWrite() }()
			io.Copy(c, up)
		}
	}
	fixed := func(addr string) func(net.Conn) string { return func(net.Conn) string { return addr } }
	if b.Node.Role == wire.Gateway {
		l, err := broker.Client{Path: b.Broker}.Listen(8080)
		if err != nil {
			return err
		}
		go serve(l, to(fixed("web.default.svc.cluster.local:9080")))
	}
	for addr, target := range map[string]func(net.Conn) string{b.Outbound: originalDestination, b.Inbound: originalDestination} {
		if err := listenOn(addr, to(target)); err != nil {
			return err
		}
	}
	for _, m := range append(b.OutboundPorts, b.InboundPorts...) {
		if err := listenOn(m.Listen, to(fixed(m.Destination))); err != nil {
			return err
		}
	}
	if b.DNS != "" {
		u, err := net.ListenPacket("udp", b.DNS)
		if err != nil {
			return err
		}
		go answerNames(u, b)
	}
	admin, err := net.Listen("unix", b.AdminSocket)
	if err != nil {
		return err
	}
	http.HandleFunc("/ready", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/drain", func(http.ResponseWriter, *http.Request) { live.Wait() })
	go http.Serve(admin, nil)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
	return nil
}

func listenOn(addr string, handle func(net.Conn)) error {
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err == nil {
		go serve(l, handle)
	}
	return err
}

func serve(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go handle(c)
	}
}

func originalDestination(c net.Conn) string {
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err.Error()
	}
	var out netip.AddrPort
	raw.Control(func(fd uintptr) {
		if dst, err := unix.GetsockoptIPv6Mreq(int(fd), unix.SOL_IP, unix.SO_ORIGINAL_DST); err == nil {
			m := dst.Multiaddr
			out = netip.AddrPortFrom(netip.AddrFrom4([4]byte(m[4:8])), binary.BigEndian.Uint16(m[2:4]))
		}
	})
	return out.String()
}

func answerNames(u net.PacketConn, b *wire.Bootstrap) {
	buf := make([]byte, 512)
	for {
		n, from, err := u.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		d, _ := readDirectory(b)
		q := m.Questions[0]
		m.Response, m.RCode, m.Additionals = true, dnsmessage.RCodeNameError, nil
		if ip, err := netip.ParseAddr(d.Names[strings.TrimSuffix(q.Name.String(), ".")]); err == nil {
			m.RCode = dnsmessage.RCodeSuccess
			if q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: &dnsmessage.AResource{A: ip.As4()}}}
			}
		}
		if out, err := m.Pack(); err == nil {
			u.WriteTo(out, from)
		}
	}
}

// parent is a `weft up` that is going to be killed: it prints when its pod is ready.
func parent(dir, isolation string) error {
	r, err := New(testOptions(dir, Isolation(isolation)))
	if err != nil {
		return err
	}
	r.SetDesired(Desired{Deployments: deployments(deployment("web", "v1"))})
	changes := r.Changes(context.Background())
	go r.Run(context.Background())
	for range changes {
		if w := find(r, "web"); w.Ready == 1 {
			fmt.Println("ready")
			break
		}
	}
	select {}
}

func controlFile(dir string) string { return filepath.Join(dir, "directory.json") }
