package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Patience says when a mesh that does not answer is given up: it is asked for a sign of life when nothing has come for as long as Silence, and
// again and again until the answer has come. A request may take as long as it takes, as long as the mesh answers that.
type Patience struct {
	Silence time.Duration
	Sign    time.Duration // that a sign of life may take
	// Waiting is told once, when half of that is over; nil for nobody.
	Waiting func()
}

// DefaultPatience is that of NewClient.
var DefaultPatience = Patience{Silence: 5 * time.Second, Sign: 20 * time.Second}

// attended is a request that is given up when the mesh hangs.
type attended struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// attend watches over a request until its body is closed.
func (c *Client) attend(ctx context.Context, changes bool) *attended {
	a := &attended{}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	go func() { // ends with the request
		var said sync.Once
		for sleep(a.ctx, c.Patience.Silence) {
			if !c.alive(a.ctx, &said) {
				hint := "its process may be stopped, or the machine overloaded: look at it, and at its log"
				if changes {
					hint = "what was asked for may still be done when it goes on; its process may be stopped, or the machine overloaded"
				}
				a.cancel(&UnavailableError{Message: fmt.Sprintf("the mesh at %s does not answer, and has given no sign of life for %v", c.socket, c.Patience.Sign), Hint: hint})
			}
		}
	}()
	return a
}

// sleep reports whether the context has not ended after a time.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// alive asks for a sign of life. Only that none came in time says that there is none.
func (c *Client) alive(ctx context.Context, said *sync.Once) bool {
	ctx, cancel := context.WithTimeout(ctx, c.Patience.Sign)
	defer cancel()
	half := time.AfterFunc(c.Patience.Sign/2, func() {
		if c.Patience.Waiting != nil {
			said.Do(c.Patience.Waiting)
		}
	})
	defer half.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://weft"+pingPath, nil)
	if err != nil {
		return true
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return !errors.Is(ctx.Err(), context.DeadlineExceeded)
	}
	resp.Body.Close()
	return true
}

// why is the error of the request: that the mesh hangs, or that it ended.
func (a *attended) why(err error, changes bool) error {
	if hang := (*UnavailableError)(nil); errors.As(context.Cause(a.ctx), &hang) {
		return hang
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		e := &UnavailableError{Message: "the mesh ended before it answered", Hint: "see whether it runs: weft status"}
		if changes {
			e.Hint = "what was asked for may have been done: look with weft get"
		}
		return e
	}
	return err
}

// attendedBody ends the watch with the body.
type attendedBody struct {
	io.ReadCloser
	request *attended
}

func (b attendedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // the end of a body as such
		err = b.request.why(err, false)
	}
	return n, err
}

func (b attendedBody) Close() error {
	b.request.cancel(nil)
	return b.ReadCloser.Close()
}

// changes reports whether a request may change something.
func changes(method, path string) bool {
	return method != http.MethodGet && !slices.Contains([]string{"/v1/explain", "/v1/diff"}, path)
}
