package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/unixsocket"
	"github.com/weftmesh/weft/internal/wire"
)

// How a sidecar that was ready is followed. It says at once when it has begun to drain, or has no memory left; that it says nothing may
// be a busy machine's fault. One answer is not believed: where a successor takes over, the process that leaves may still give it.
const (
	followEvery = 500 * time.Millisecond
	askAgain    = 100 * time.Millisecond
	refusals    = 2
	silences    = 4
	askTime     = time.Second
)

// watchSidecar follows the proxy's own word on whether it can serve.
func (s *process) watchSidecar(ctx context.Context) {
	lacking, ok := s.sidecarStarts(ctx)
	if !ok {
		return
	}
	s.learnVersion(ctx)
	s.update(func() {
		s.ready, s.unready, s.lacking = true, "", lacking
		if !s.p.sidecarWasUp {
			s.p.sidecarWasUp = true
			close(s.p.sidecarUp)
		}
	})
	s.followSidecar(ctx)
}

// sidecarStarts waits until the proxy says for the first time that it is ready, and what it lacks; false when ctx ended before.
func (s *process) sidecarStarts(ctx context.Context) (lacking string, ok bool) {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		lacking, err := s.askReady(ctx)
		if ctx.Err() != nil {
			return "", false
		}
		if err == nil {
			return lacking, true
		}
		if pause == 100*time.Millisecond {
			s.update(func() { s.unready = fmt.Sprintf("is not ready: %v", err) })
		}
		if !wait(ctx, pause) {
			return "", false
		}
	}
}

// followSidecar notes when the proxy is not ready any more, and again, until ctx ends. What a pod that leaves asked for itself is no
// news.
func (s *process) followSidecar(ctx context.Context) {
	refused, silent := 0, 0
	for pause := followEvery; wait(ctx, pause); {
		lacking, err := s.askReady(ctx)
		var no *answerError
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			refused, silent, pause = 0, 0, followEvery
		case errors.As(err, &no):
			refused, pause = refused+1, askAgain
		default:
			silent, pause = silent+1, askAgain
		}
		ready := err == nil
		if !ready && refused < refusals && silent < silences {
			continue
		}
		if !ready {
			pause = followEvery
		}
		s.heard(ready, lacking, err)
	}
}

// heard notes what the proxy said, if that is new.
func (s *process) heard(ready bool, lacking string, err error) {
	s.p.rt.mu.Lock()
	defer s.p.rt.mu.Unlock()
	why := ""
	if !ready {
		why = s.whyUnready(err)
	}
	was := s.ready
	if s.p.terminating || was == ready && s.unready == why && s.lacking == lacking {
		return
	}
	s.ready, s.unready, s.lacking = ready, why, lacking
	s.p.rt.changed()
	if ready == was {
		return
	}
	if ready {
		s.p.rt.log.Info("proxy is ready again", "pod", s.p.Key.String())
	} else {
		s.p.rt.log.Warn("proxy is not ready any more", "pod", s.p.Key.String(), "error", why)
	}
}

// drainsText is what a proxy answers that was told to drain.
const drainsText = "draining"

// whyUnready says it for people, as what "it" does. A proxy does not take a drain back, so what does is said too.
func (s *process) whyUnready(err error) string {
	var no *answerError
	switch {
	case !errors.As(err, &no):
		return fmt.Sprintf("does not answer: %v", err)
	case no.text == drainsText:
		return fmt.Sprintf("drains, as it was told to; weft restart -n %s %s replaces it", s.p.Namespace, s.p.w.Name)
	}
	return "is not ready: " + no.text
}

// askReady gives what the proxy lacks though it can serve; empty for nothing.
func (s *process) askReady(ctx context.Context) (lacking string, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	body, err := s.p.askSidecar(ctx, http.MethodGet, "/ready")
	if text, but := strings.CutPrefix(string(body), wire.ReadyBut); but && err == nil {
		lacking = fmt.Sprintf("%.*s", maxReason, strings.TrimSpace(text))
	}
	return lacking, err
}

func (s *process) learnVersion(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	info, err := s.p.sidecarInfo(ctx)
	if err != nil {
		s.p.rt.log.Debug("the sidecar's version is not known", "pod", s.p.Key.String(), "error", err)
	}
	s.update(func() { s.version = info.Version })
}

// wait reports false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// answerError is an answer of the admin socket that is not 200.
type answerError struct{ status, text string }

func (e *answerError) Error() string { return e.status + ": " + e.text }

// maxAnswer bounds what is read of an answer of the admin socket, and maxReason what an error quotes of one.
const (
	maxAnswer = 64 << 10
	maxReason = 300
)

// askSidecar makes a request to the proxy's admin socket; any answer but 200 is an *answerError.
func (p *pod) askSidecar(ctx context.Context, method, path string) ([]byte, error) {
	tr := &http.Transport{DisableKeepAlives: true, DialContext: unixsocket.Dialer(p.adminSocket())}
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if resp.StatusCode != http.StatusOK {
		return nil, &answerError{resp.Status, fmt.Sprintf("%.*s", maxReason, strings.TrimSpace(string(body)))}
	}
	return body, err
}

// sidecarInfo is what a proxy says of its process (/server_info, in Envoy's names).
type sidecarInfo struct {
	Version string `json:"version"`
	State   string `json:"state"`
	Options struct {
		Epoch int `json:"restart_epoch"`
	} `json:"command_line_options"`
}

// stateDraining is the State of a proxy that was told to drain.
const stateDraining = "DRAINING"

func (p *pod) sidecarInfo(ctx context.Context) (info sidecarInfo, err error) {
	raw, err := p.askSidecar(ctx, http.MethodGet, "/server_info")
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return info, fmt.Errorf("server info: %w", err)
	}
	return info, nil
}
