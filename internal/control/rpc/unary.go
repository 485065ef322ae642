package rpc

import (
	"context"
	"fmt"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// unary is a method that takes one message and gives one.
type unary struct {
	service any
	handler grpc.MethodHandler
}

// call is the Handler of a call of a unary method. The method runs on a goroutine of its own.
type call struct {
	stream *Stream
	method unary
	ctx    context.Context //nolint:containedctx // it is the call's
	cancel context.CancelFunc

	request []byte
	there   bool // the request
}

// answer is what a method gave.
type answer struct {
	stream  *Stream
	message []byte
	status  *status.Status
}

func newCall(s *Stream, m unary, h *head) (*call, error) {
	c := s.conn
	ctx := peer.NewContext(context.Background(), &peer.Peer{Addr: c.sock.remote, LocalAddr: c.sock.local,
		AuthInfo: credentials.TLSInfo{State: c.tls.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}})
	ctx, cancel, err := h.deadline(metadata.NewIncomingContext(ctx, h.metadata))
	if err != nil {
		return nil, err
	}
	return &call{stream: s, method: m, ctx: ctx, cancel: cancel}, nil
}

// Receive implements Handler.
func (c *call) Receive(message []byte) error {
	if c.there {
		return status.Error(codes.Internal, "a second request of a unary method")
	}
	c.there = true
	c.request = append([]byte(nil), message...)
	return nil
}

// Next implements Handler: the answer comes by itself.
func (c *call) Next() (bool, error) { return false, nil }

// Closed implements Handler.
func (c *call) Closed(error) { c.cancel() }

// start runs the method; it ends with the call's context at the latest, if the method heeds it.
func (c *call) start() error {
	if !c.there {
		return status.Error(codes.Internal, "there is no request")
	}
	owner := c.stream.conn
	owner.server.calls.Go(func() {
		message, err := c.run()
		owner.mu.Lock()
		owner.answers = append(owner.answers, answer{c.stream, message, status.Convert(err)})
		owner.mu.Unlock()
		owner.wake()
	})
	return nil
}

func (c *call) run() (message []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.stream.conn.server.options.Log.Error("a method of the control plane failed", "panic", p, "stack", string(debug.Stack()))
			err = status.Error(codes.Internal, fmt.Sprint("panic: ", p))
		}
	}()
	reply, err := c.method.handler(c.method.service, c.ctx, c.decode, nil)
	if err != nil {
		return nil, err
	}
	m, ok := reply.(proto.Message)
	if !ok {
		return nil, status.Errorf(codes.Internal, "the answer is a %T", reply)
	}
	return proto.Marshal(m)
}

func (c *call) decode(into any) error {
	m, ok := into.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "the request is a %T", into)
	}
	if err := proto.Unmarshal(c.request, m); err != nil {
		return status.Errorf(codes.Internal, "the request cannot be read: %v", err)
	}
	return nil
}

// reply sends the answers of unary methods.
func (c *conn) reply() {
	c.mu.Lock()
	answers := c.answers
	c.answers = nil
	c.mu.Unlock()
	for _, a := range answers {
		s := a.stream
		if s.handler == gone {
			continue
		}
		if a.status.Code() == codes.OK {
			s.Send(nil, a.message)
		}
		s.finish(&ending{status: a.status})
	}
}
