package consul

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
)

// A Consul that hangs, or is cut off silently, is not told from one that has no news by questions that wait for news. So it is asked
// something every aliveTime that it answers at once, whoever asks, and may take as long for it.
const (
	leaderPath = "/v1/status/leader"
	aliveTime  = 10 * time.Second
)

// listen asks until the context ends.
func (s *Source) listen(ctx context.Context) {
	own := &http.Transport{TLSClientConfig: s.options.TLS, Proxy: http.ProxyFromEnvironment} // the other one's connections may all wait
	defer own.CloseIdleConnections()
	client := &http.Client{Transport: own}
	for sleep(ctx, aliveTime); ctx.Err() == nil; sleep(ctx, aliveTime) {
		err := s.answers(ctx, client)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			own.CloseIdleConnections()
			s.fails(leaderPath, err)
		default:
			s.reads(leaderPath)
		}
	}
}

// answers is an error when Consul does not answer at all. What it answers is for the other questions to judge.
func (s *Source) answers(ctx context.Context, client *http.Client) error {
	asking, cancel := context.WithTimeout(ctx, aliveTime)
	defer cancel()
	req, err := http.NewRequestWithContext(asking, http.MethodGet, strings.TrimSuffix(s.options.Address, "/")+leaderPath, nil)
	if err != nil {
		return err
	}
	answer, err := client.Do(req)
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it does not answer")
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	_, _ = io.CopyN(io.Discard, answer.Body, maxLeader) // so that the connection can be used again
	return nil
}

// maxLeader is more than the answer has, in bytes.
const maxLeader = 4 << 10
