package head

import "fmt"

// Limits bound a head: its bytes, counted as SETTINGS_MAX_HEADER_LIST_SIZE does, and its field lines.
type Limits struct{ Bytes, Fields int }

// Error is a request that breaks a limit. Status is what to answer.
type Error struct {
	Status int
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("http2: %s (%d)", e.Reason, e.Status) }

// What a request is refused for, and the handler answers.
var (
	errLarge      = &Error{431, "head is too large"}
	errFieldCount = &Error{431, "too many fields"}
	// ErrExpectation is for an expectation that nobody knows.
	ErrExpectation = &Error{417, "unknown expectation"}
)

// Refusal gives why a head of so many bytes and fields is too much, or nil.
func (l Limits) Refusal(bytes, fields int) *Error {
	switch {
	case bytes > l.Bytes:
		return errLarge
	case fields > l.Fields:
		return errFieldCount
	}
	return nil
}
