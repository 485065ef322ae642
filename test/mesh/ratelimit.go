package mesh

import (
	"context"
	"strings"
	"sync"

	servicev3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
)

// rateLimits is a rate-limit service that lets each description pass twice, and never forgets.
type rateLimits struct {
	servicev3.UnimplementedRateLimitServiceServer
	process *process

	mu     sync.Mutex
	counts map[string]int
}

// ShouldRateLimit notes what was asked as "DOMAIN KEY=VALUE,...".
func (s *rateLimits) ShouldRateLimit(_ context.Context, q *servicev3.RateLimitRequest) (*servicev3.RateLimitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := &servicev3.RateLimitResponse{OverallCode: servicev3.RateLimitResponse_OK}
	for _, d := range q.GetDescriptors() {
		var entries []string
		for _, e := range d.GetEntries() {
			entries = append(entries, e.GetKey()+"="+e.GetValue())
		}
		key := q.GetDomain() + " " + strings.Join(entries, ",")
		s.counts[key]++
		status := &servicev3.RateLimitResponse_DescriptorStatus{Code: servicev3.RateLimitResponse_OK}
		if s.counts[key] > 2 {
			status.Code, answer.OverallCode = servicev3.RateLimitResponse_OVER_LIMIT, servicev3.RateLimitResponse_OVER_LIMIT
		}
		answer.Statuses = append(answer.Statuses, status)
		s.process.mu.Lock()
		s.process.seen = append(s.process.seen, Seen{Method: "LIMIT", Path: key})
		s.process.mu.Unlock()
	}
	return answer, nil
}

func (p *process) serveRateLimits() {
	s := grpc.NewServer()
	servicev3.RegisterRateLimitServiceServer(s, &rateLimits{process: p, counts: map[string]int{}})
	p.running.Go(func() { _ = s.Serve(p.listener) }) // ends with the server; the error says only that
	p.end = s.Stop
}
