package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// programMain is the test binary as a workload that knows nothing of the mesh, or as a client inside a pod:
//
//	program http PORT      an HTTP server; see webServer
//	program tcp PORT       a server that sends back each line after "echo "
//	program unix PATH      the same at a unix socket
//	program udp PORT       a server that sends back each datagram after its host name
//	program get URL [HOST] prints status and body, and which gateway it came through if one says so; exit code 1 without an answer
//	program poke PATH      the same of the pod's own web server, past its sidecar
//	program say ADDR LINE  sends a line over TCP and prints the line that comes back
//
// Servers listen on $PORT where the mesh tells them one.
func programMain(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	err := errors.New("which program?")
	switch {
	case len(args) == 2 && args[0] == "http":
		err = webServer(ctx, listenAt(args[1]))
	case len(args) == 2 && args[0] == "tcp":
		err = lineServer(ctx, "tcp", listenAt(args[1]))
	case len(args) == 2 && args[0] == "unix":
		err = lineServer(ctx, "unix", args[1])
	case len(args) == 2 && args[0] == "udp":
		err = datagramServer(ctx, listenAt(args[1]))
	case (len(args) == 2 || len(args) == 3) && args[0] == "get":
		err = get(args[1], args[2:]...)
	case len(args) == 2 && args[0] == "poke":
		err = get("http://localhost" + listenAt("8000") + args[1])
	case len(args) == 3 && args[0] == "say":
		err = say(args[1], args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "program:", err)
		return 1
	}
	return 0
}

func listenAt(port string) string { return ":" + cmp.Or(os.Getenv("PORT"), port) }

// webServer tells its host name at every path but these: /ready is its readiness, /break and /mend change that.
func webServer(ctx context.Context, addr string) error {
	var broken atomic.Bool
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "this is %s\n", os.Getenv("HOSTNAME")) })
	mux.HandleFunc("/break", func(http.ResponseWriter, *http.Request) { broken.Store(true) })
	mux.HandleFunc("/mend", func(http.ResponseWriter, *http.Request) { broken.Store(false) })
	mux.HandleFunc("/ready", func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	srv := &http.Server{Addr: addr, Handler: mux}
	done := make(chan struct{})
	go func() { // ends with the process
		defer close(done)
		<-ctx.Done()
		_ = srv.Shutdown(context.Background())
	}()
	fmt.Println("listening on", addr)
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-done
	return nil
}

func lineServer(ctx context.Context, network, addr string) error {
	l, err := net.Listen(network, addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	fmt.Println("listening on", addr)
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		go func() { // ends with the connection
			defer c.Close()
			buf := make([]byte, 4096)
			for {
				n, err := c.Read(buf)
				if err != nil {
					return
				}
				if _, err := c.Write(append([]byte("echo "), buf[:n]...)); err != nil {
					return
				}
			}
		}()
	}
}

func datagramServer(ctx context.Context, addr string) error {
	pc, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { pc.Close() })()
	fmt.Println("listening on", addr)
	buf := make([]byte, 64<<10)
	for {
		n, from, err := pc.ReadFrom(buf)
		if ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := pc.WriteTo(fmt.Appendf(nil, "%s %s", os.Getenv("HOSTNAME"), buf[:n]), from); err != nil {
			return err
		}
	}
}

func get(url string, host ...string) error {
	client := &http.Client{Timeout: busy}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	req.Host = strings.Join(host, "")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%d %s\n", resp.StatusCode, strings.TrimSpace(string(body)))
	if by := resp.Header.Get("X-Gateway"); by != "" {
		fmt.Println("x-gateway:", by)
	}
	return err
}

func say(addr, line string) error {
	c, err := net.DialTimeout("tcp", addr, busy)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(busy)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, line); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	fmt.Print(string(buf[:n]))
	return err
}
