//go:build !linux

package rpc

import "errors"

// poller exists on Linux only: a control plane elsewhere serves no proxies.
type poller struct{}

func openPoller() (*poller, error)       { return nil, errors.ErrUnsupported }
func (*poller) watch(*socket) error      { return errors.ErrUnsupported }
func (*poller) run()                     {}
func (*poller) close()                   {}
func (*socket) detach() error            { return errors.ErrUnsupported }
func (*socket) release() error           { return nil }
func (*socket) recv([]byte) (int, error) { return 0, errors.ErrUnsupported }
func (*socket) send([]byte) (int, error) { return 0, errors.ErrUnsupported }
