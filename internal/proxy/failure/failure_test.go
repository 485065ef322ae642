package failure

import (
	"io"
	"os"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/http2"
)

func TestWhatAClientOfHTTP2DidWrong(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind Kind
	}{
		{&http2.StreamError{Code: http2.Cancel, Remote: true}, ClientReset},
		{&http2.StreamError{Code: http2.ProtocolError, Reason: "body is longer than declared"}, ClientBroken},
		{&http2.StreamError{Code: http2.Cancel, Reason: "the window stayed shut", Stalled: time.Minute}, ClientStalled},
		{&http2.ConnError{Code: http2.CompressionError}, ClientBroken},
		{&http2.ConnError{Code: http2.NoError, Err: io.EOF}, ClientGone},
		{&http2.ConnError{Code: http2.EnhanceYourCalm, Remote: true}, ClientGone},
		{os.ErrDeadlineExceeded, ClientGone},
	} {
		if got := Departed("receive", c.err); got.Kind != c.kind || got.Status() != 0 {
			t.Errorf("%v: flag %s, status %d", c.err, got.Flag(), got.Status())
		}
	}
}

// TestAnswersThatAClientDoesNotTake: as in Envoy, whose stream_idle_timeout bounds that too, and no protocol is broken by it.
func TestAnswersThatAClientDoesNotTake(t *testing.T) {
	e := Departed("response body", &http2.StreamError{Code: http2.Cancel, Reason: "the window stayed shut", Stalled: time.Minute})
	if e.Flag() != "SI" || e.Status() != 0 || e.Fault() != OfClient || e.Details("http2") != "stream_idle_timeout" ||
		e.Reason() != "response body: the client took nothing of the answer for 1m0s" {
		t.Errorf("%d %s %s: %s", e.Status(), e.Flag(), e.Details("http2"), e.Reason())
	}
}

// TestBodiesThatAnUpstreamDoesNotTake: that is a time-out, and no malformed answer.
func TestBodiesThatAnUpstreamDoesNotTake(t *testing.T) {
	e := Unanswered("receive", &http2.StreamError{Code: http2.Cancel, Reason: "the window stayed shut", Stalled: time.Minute})
	if e.Flag() != "UT" || e.Status() != 504 || e.Fault() != OfUpstream || e.Details("http1") != "response_timeout" ||
		e.Reason() != "receive: the endpoint took nothing of the request's body for 1m0s" {
		t.Errorf("%d %s %s: %s", e.Status(), e.Flag(), e.Details("http1"), e.Reason())
	}
}
