//go:build !linux

package conn

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

const canPoll = false

// pollers are none.
type pollers struct{}

func openPollers() (*pollers, error) { return nil, errors.ErrUnsupported }

func (*pollers) close() error                                { return nil }
func (*pollers) listen(l net.Listener) (net.Listener, error) { return l, nil }
func (*pollers) adopt(nc net.Conn) (net.Conn, error)         { return nc, nil }
func (*pollers) dial(context.Context, netip.AddrPort, func(uintptr) error) (net.Conn, error) {
	return nil, errors.ErrUnsupported
}

func polledPair(dst, src Conn) (d, s *pollers) { return nil, nil }

func splicePolled(dst, src *pollers, moved func(int64)) (readErr, writeErr error) {
	return errors.ErrUnsupported, nil
}

func controlPolled(c Conn, f func(fd uintptr)) (done bool, err error) { return false, nil }

// sentPolled is not known.
func sentPolled(Conn) int64 { return 0 }
