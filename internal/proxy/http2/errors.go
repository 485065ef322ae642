package http2

import (
	"errors"
	"fmt"
	"time"

	"github.com/weftmesh/weft/internal/proxy/http2/head"
)

// ErrCode is a code of RFC 9113 section 7.
type ErrCode uint32

// The codes.
const (
	NoError            ErrCode = 0x0
	ProtocolError      ErrCode = 0x1
	InternalError      ErrCode = 0x2
	FlowControlError   ErrCode = 0x3
	SettingsTimeout    ErrCode = 0x4
	StreamClosed       ErrCode = 0x5
	FrameSizeError     ErrCode = 0x6
	RefusedStream      ErrCode = 0x7
	Cancel             ErrCode = 0x8
	CompressionError   ErrCode = 0x9
	ConnectError       ErrCode = 0xa
	EnhanceYourCalm    ErrCode = 0xb
	InadequateSecurity ErrCode = 0xc
	HTTP11Required     ErrCode = 0xd
)

var codeNames = [...]string{"NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
	"FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"}

// String gives the name that the RFC uses.
func (c ErrCode) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("code %d", uint32(c))
}

// StreamError means that a stream was reset.
type StreamError struct {
	Code   ErrCode
	Remote bool   // by the peer
	Reason string // why we did, may be empty
	// Stalled is how long the peer took nothing of what was to be sent, where we did for that.
	Stalled time.Duration
	// Shed means that memory was needed, and the peer took too little.
	Shed bool

	untouched bool
}

func (e *StreamError) Error() string {
	who := "reset"
	if e.Remote {
		who = "reset by the peer"
	}
	if e.Reason != "" {
		return "http2: stream " + who + ": " + e.Code.String() + ": " + e.Reason
	}
	return "http2: stream " + who + ": " + e.Code.String()
}

// Unprocessed reports whether the peer has said that it has not acted on the request (RFC 9113 section 8.7).
func (e *StreamError) Unprocessed() bool { return e.untouched || e.Remote && e.Code == RefusedStream }

// ConnError means that the connection ended, by a GOAWAY with an error of either side, or as Err says.
type ConnError struct {
	Code   ErrCode
	Remote bool // the peer has told Code
	Reason string
	Err    error // the transport's, nil for an error of the protocol

	untouched bool
}

func (e *ConnError) Error() string {
	switch {
	case e.Err != nil:
		return "http2: connection ended: " + e.Err.Error()
	case e.Remote:
		return "http2: connection ended by the peer: " + e.Code.String()
	}
	return "http2: connection error: " + e.Code.String() + ": " + e.Reason
}

func (e *ConnError) Unwrap() error { return e.Err }

// Unprocessed reports whether no byte of the request has left.
func (e *ConnError) Unprocessed() bool { return e.untouched }

// Error is a request that breaks a limit.
type Error = head.Error

// Misuse by the owner, states of a connection in which it takes no request, and bodies and heads that cannot be framed as announced.
var (
	// ErrBodyLength means that more or fewer bytes were written than the head declared. The stream was reset.
	ErrBodyLength = errors.New("http2: body does not have its declared length")
	// ErrBadHead means that a head to be written holds a name, value, target or status that would break it.
	ErrBadHead = errors.New("http2: head cannot be written")
	// ErrState means a call out of the order that the package comment gives.
	ErrState = errors.New("http2: call out of order")
	// ErrBusy means that the connection has as many streams as it may.
	ErrBusy = errors.New("http2: no stream is free")
	// ErrDraining means that the connection takes no further streams.
	ErrDraining = errors.New("http2: connection is draining")
	// ErrNoUpgrade means that the peer has not enabled extended CONNECT.
	ErrNoUpgrade = errors.New("http2: peer does not take extended CONNECT")
)

func connError(code ErrCode, reason string) *ConnError { return &ConnError{Code: code, Reason: reason} }
