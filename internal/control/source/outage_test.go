package source

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestOutageReason(t *testing.T) {
	us, server := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 40312}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 8500}
	get := func(err error) error { return &url.Error{Op: "Get", URL: "http://10.0.0.1:8500/v1/a", Err: err} }
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: server, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	reset := &net.OpError{Op: "read", Net: "tcp", Source: us, Addr: server, Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("status 500"), "status 500"},
		{refused, "dial tcp 10.0.0.1:8500: connect: connection refused"},
		{get(refused), "dial tcp 10.0.0.1:8500: connect: connection refused"},
		{reset, "read: connection reset by peer"},
		{get(reset), "read: connection reset by peer"},
		{fmt.Errorf("list: %w", get(reset)), "read: connection reset by peer"},
		{get(fmt.Errorf("http: %w", refused)), "http: dial tcp 10.0.0.1:8500: connect: connection refused"},
	} {
		if got := OutageReason(test.err); got != test.want {
			t.Errorf("%v: got %q, want %q", test.err, got, test.want)
		}
	}
}

// TestWentBackPasses: that a source went back is said for ten minutes from the last time.
func TestWentBackPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var in Intake
		var last atomic.Pointer[Change] // told by timers too
		in.Begin("there", func(c Change) { last.Store(&c) })
		in.Open()
		told := func() []string {
			synctest.Wait()
			var messages []string
			for _, f := range last.Load().Findings {
				messages = append(messages, f.Code+" "+f.File+" "+f.Message)
			}
			return messages
		}
		in.WentBack("once", "")
		time.Sleep(remarkTime - time.Second)
		in.WentBack("twice", "")
		time.Sleep(remarkTime - time.Second)
		if got := told(); !slices.Equal(got, []string{"SourceWentBack there twice"}) {
			t.Errorf("told %q", got)
		}
		time.Sleep(2 * time.Second)
		if got := told(); len(got) > 0 {
			t.Errorf("still told: %q", got)
		}
	})
}
