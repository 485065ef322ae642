package failure

import (
	"io"
	"os"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/http2"
)

func TestWhatAClientOfHTTP2DidWrong(t *testing.T) {
	for _, c := range []struct {
		err  error
		kind Kind
	}{
		{&http2.StreamError{Code: http2.Cancel, Remote: true}, ClientReset},
		{&http2.StreamError{Code: http2.ProtocolError, Reason: "body is longer than declared"}, ClientBroken},
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
