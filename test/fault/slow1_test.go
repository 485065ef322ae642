package fault

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/test/rig"
)

// terminates has a chain terminate TLS with a certificate that nobody need know.
func terminates(t *testing.T) func(*conf.Chain) {
	web := httptest.NewUnstartedServer(nil) // for its certificate
	web.StartTLS()
	t.Cleanup(web.Close)
	c := web.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	pair := conf.KeyPair{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]}),
		Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})}
	return func(c *conf.Chain) {
		c.TLS = &conf.DownstreamTLS{Certificates: []conf.KeyPair{pair}, ALPN: []string{"http/1.1"}}
	}
}

// secure opens a connection of TLS. A small receive buffer has the proxy hold what is not read.
func secure(address string, small bool) (*tls.Conn, error) {
	d := net.Dialer{Timeout: patience}
	if small {
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 8<<10) })
		}
	}
	c, err := tls.DialWithDialer(&d, "tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// getSecure asks once, by a connection of its own.
func getSecure(address string) (got, error) {
	c, err := secure(address, false)
	if err != nil {
		return got{}, err
	}
	defer c.Close()
	io.WriteString(c, "GET /g HTTP/1.1\r\nHost: a\r\n\r\n")
	return read(bufio.NewReader(c))
}

// TestSlowReadersOfHTTP1: seven hundred clients that leave answers over TLS unread do not take a proxy past its limit of memory; those that
// read are served meanwhile or, at most, refused for a while, and keep what they have.
func TestSlowReadersOfHTTP1(t *testing.T) {
	const limit, crowd = 100 << 20, 700
	b := rig.NewBackend(t, func(c net.Conn, r *rig.Received) bool {
		if r.URL.Path == "/g" {
			return ok(c, r)
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		for p := make([]byte, 64<<10); ; {
			if _, err := c.Write(p); err != nil {
				return false
			}
		}
	})
	address, admin, pid, _ := adminChild(t, childEndpoint+"="+b.Addr().String(), childWatched+"=yes", childTLS+"=yes", "GOMEMLIMIT="+strconv.Itoa(limit))
	t.Logf("%d MiB resident at first", residentBytes(t, pid)>>20) // skips where memory cannot be measured
	fair, err := secure(address, false)
	if err != nil {
		t.Fatal(err)
	}
	defer fair.Close()
	io.WriteString(fair, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
	var fairly atomic.Int64
	var fairEnd atomic.Value
	var readers sync.WaitGroup
	readers.Go(func() { // ends with its connection
		for p := make([]byte, 32<<10); ; time.Sleep(10 * time.Millisecond) { // 3 MB/s at most
			n, err := fair.Read(p)
			if fairly.Add(int64(n)); err != nil {
				fairEnd.Store(err.Error())
				return
			}
		}
	})
	leave := make(chan struct{})
	var begun, turned atomic.Int64
	for range crowd {
		readers.Go(func() { // ends when all leave
			c, err := secure(address, true)
			if err != nil {
				turned.Add(1)
				return
			}
			defer c.Close()
			io.WriteString(c, "GET /endless HTTP/1.1\r\nHost: a\r\n\r\n")
			if n, err := c.Read(make([]byte, 16)); n == 0 || err != nil {
				turned.Add(1)
				return
			}
			begun.Add(1)
			<-leave
		})
	}
	peak, watch := int64(0), make(chan struct{})
	readers.Go(func() { // ends when all leave
		defer close(watch)
		for {
			select {
			case <-leave:
				return
			case <-time.After(20 * time.Millisecond):
				peak = max(peak, residentBytes(t, pid))
			}
		}
	})
	rig.Eventually(t, "all have come", func() bool { return begun.Load()+turned.Load() == crowd })
	t.Logf("%d wait, %d were turned away", begun.Load(), turned.Load())
	rig.Eventually(t, "those who read are served", func() bool {
		for range 10 {
			if g, err := getSecure(address); err != nil || g.status != 200 {
				return false
			}
		}
		return true
	})
	before := fairly.Load()
	rig.Eventually(t, "the one that reads goes on", func() bool { return fairly.Load() > before+1<<20 || fairEnd.Load() != nil })
	if err := fairEnd.Load(); err != nil {
		t.Errorf("the one that reads: %v", err)
	}
	_, metrics := page(t, admin, "/metrics?filter=weft_(overload|memory)")
	close(leave)
	<-watch
	fair.Close()
	readers.Wait()
	t.Logf("%d MiB resident at most\n%s", peak>>20, metrics)
	// A twentieth is less than the pages of the program itself, which the kernel takes back when it has to.
	if peak > limit+limit/20 {
		t.Errorf("%d bytes resident, the limit is %d", peak, limit)
	}
}
