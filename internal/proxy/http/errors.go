package http1

import (
	"errors"
	"strconv"
)

// Error is a message that breaks the protocol or a limit. For a request Status is what to answer before closing; for a
// response it is 502.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string { return "http1: " + e.Reason + " (" + strconv.Itoa(e.Status) + ")" }

// Misuse of a connection by its owner, or bodies and heads that cannot be framed as announced.
var (
	// ErrBodyLength means that more or fewer bytes were written than the head declared. The connection cannot be used again.
	ErrBodyLength = errors.New("http1: body does not have its declared length")
	// ErrBadHead means that a head to be written holds a name, value, target or status that would break it.
	ErrBadHead = errors.New("http1: head cannot be written")
	// ErrState means a call out of the order that the package comment gives.
	ErrState = errors.New("http1: call out of order")
)

func bad(reason string) *Error { return &Error{400, reason} }

var (
	errBareLF        = bad("line does not end in CRLF")
	errRequestLine   = bad("malformed request line")
	errMethod        = bad("invalid character in method")
	errTarget        = bad("invalid request target")
	errTargetForm    = bad("request target form does not suit the method")
	errVersion       = &Error{505, "HTTP version is not supported"}
	errTargetLong    = &Error{414, "request line is too long"}
	errHeadLong      = &Error{431, "head is too large"}
	errFieldCount    = &Error{431, "too many fields"}
	errFold          = bad("line starts with white space")
	errFieldName     = bad("invalid field name")
	errFieldValue    = bad("invalid character in field value")
	errHostMissing   = bad("no Host field")
	errHostTwice     = bad("more than one Host field")
	errHost          = bad("invalid host")
	errLengthTwice   = bad("more than one Content-Length")
	errLength        = bad("invalid Content-Length")
	errLengthCoding  = bad("Content-Length together with Transfer-Encoding")
	errCoding        = bad("chunked is not the last or only transfer coding")
	errCodingUnknown = &Error{501, "unknown transfer coding"}
	errCoding10      = bad("Transfer-Encoding in HTTP/1.0")
	errExpectation   = &Error{417, "unknown expectation"}
	errConnectBody   = bad("CONNECT with content")
	errTraceBody     = bad("TRACE with content")
	errChunkSize     = bad("invalid chunk size")
	errChunkEnd      = bad("chunk data does not end where its size says")
	errChunkCost     = &Error{413, "chunk extensions are too large"}
	errTrailersLong  = &Error{431, "trailers are too large"}
	errStatusLine    = bad("malformed status line")
	errUpgrade       = bad("101 to a protocol that was not asked for")
	errInformational = bad("too many informational responses")
)

// asUpstream gives what a client reports for a parse error: the request was not at fault.
func asUpstream(err error) error {
	if e, ok := err.(*Error); ok {
		return &Error{502, e.Reason}
	}
	return err
}
