package ads

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
)

type stream = grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]

// session is one stream. All fields but in belong to the goroutine of Run.
type session struct {
	*Client
	stream   stream
	in       *inbox
	sent     map[string]map[string]*subscription // what the server was told, by type
	greeted  bool                                // the node was sent
	answered bool
	accepted chan struct{} // closed when the server has taken the stream
}

// acceptAfter is how long a stream must have stood for it to count as taken. A server that has nothing new for a client that
// resumes says nothing; ours sends the stream's head at least, others need not.
const acceptAfter = time.Second

// maxMessage bounds what the control plane may send at once, in bytes; a table of 100,000 routes has some 20 MiB. With gRPC's own bound,
// 4 MiB, a table that is larger would cut the proxy off from everything, since it would be sent the same again and again.
const maxMessage = 512 << 20

// session opens a stream and serves it until it breaks. answered says whether the server took it.
func (c *Client) session(ctx context.Context) (answered bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	st, err := c.client().DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		cancel()
		return false, err
	}
	c.streams.Add(1)
	s := &session{Client: c, stream: st, in: newInbox(), sent: map[string]map[string]*subscription{}, accepted: make(chan struct{})}
	done := make(chan struct{})
	go func() { // ends when the stream does, at the latest by cancel
		defer close(done)
		if head, err := st.Header(); err == nil && head != nil { // a refusal has none
			close(s.accepted)
		}
		s.in.fill(st)
	}()
	defer func() {
		cancel()
		<-done
	}()
	err = s.serve(ctx)
	return s.answered, err
}

func (s *session) serve(ctx context.Context) error {
	if err := s.tell(); err != nil {
		return err
	}
	stands := time.NewTimer(acceptAfter)
	defer stands.Stop()
	accepted := s.accepted
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-accepted:
			accepted = nil
			s.connected()
		case <-stands.C:
			s.connected()
		case <-s.wake:
			if err := s.tell(); err != nil {
				return err
			}
		case <-s.in.ready:
			msgs, err := s.in.take()
			for _, m := range msgs {
				if err := s.receive(m); err != nil {
					return err
				}
			}
			if err != nil {
				return err
			}
		}
	}
}

// tell sends the difference between what is wanted and what the server was told.
func (s *session) tell() error {
	types, wanted := s.wantedNames()
	for _, t := range types {
		old, first := s.sent[t], s.sent[t] == nil
		var gone, added []string
		for name, sub := range old {
			if wanted[t][name] != sub {
				gone = append(gone, name)
			}
		}
		for name, sub := range wanted[t] {
			if old[name] != sub {
				added = append(added, name)
			}
		}
		s.sent[t] = wanted[t]
		if err := s.tellType(t, gone, added, first); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) tellType(t string, gone, added []string, first bool) error {
	slices.Sort(gone)
	slices.Sort(added)
	if len(gone) > 0 {
		// A message of its own: a name that was dropped and is wanted again is in both lists.
		if err := s.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesUnsubscribe: gone}); err != nil {
			return err
		}
	}
	if len(added) == 0 {
		return nil
	}
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t, ResourceNamesSubscribe: added}
	if first {
		r.InitialResourceVersions = s.held(t)
	}
	return s.send(r)
}

// held gives the versions to resume from.
func (s *session) held(t string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	versions := map[string]string{}
	for name, sub := range s.wanted[t] {
		if sub.version != "" {
			versions[name] = sub.version
		}
		maps.Copy(versions, sub.listed)
	}
	return versions
}

func (s *session) send(r *discoveryv3.DeltaDiscoveryRequest) error {
	if !s.greeted {
		r.Node, s.greeted = s.node, true
	}
	err := s.stream.Send(r)
	if errors.Is(err, io.EOF) {
		// The reason is what Recv returns.
		<-s.in.ended
		_, err = s.in.take()
	}
	return err
}

// connected tells the handler once that the control plane is there.
func (s *session) connected() {
	if !s.answered {
		s.answered = true
		s.handler.Connected()
	}
}

func (s *session) receive(m *discoveryv3.DeltaDiscoveryResponse) error {
	s.connected()
	s.updates.Add(1)
	u, rejected := s.sift(m)
	rejected = append(rejected, s.handler.Apply(u)...)
	s.remember(u, rejected)
	// What the update leads to is asked for before it is acknowledged: a server that waits for this proxy sees that it is not through yet.
	if err := s.tell(); err != nil {
		return err
	}
	ack := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}
	if len(rejected) > 0 {
		s.rejections.Add(uint64(len(rejected)))
		text := rejectionText(rejected)
		s.opts.Log.Warn("ads: configuration refused", "type", m.TypeUrl, "error", text)
		ack.ErrorDetail = &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: text}
	}
	return s.send(ack)
}

// maxNack bounds the text of a refusal, in bytes.
const maxNack = 4096

func rejectionText(rs []Rejection) string {
	parts := make([]string, len(rs))
	for i, r := range rs {
		parts[i] = fmt.Sprintf("%s: %v", r.Name, r.Err)
	}
	text := strings.ToValidUTF8(strings.Join(parts, "; "), "?")
	if len(text) > maxNack {
		text = strings.ToValidUTF8(text[:maxNack], "") + "..."
	}
	return text
}

// sift leaves out what is not subscribed (any more) and refuses what is no resource.
func (s *session) sift(m *discoveryv3.DeltaDiscoveryResponse) (Update, []Rejection) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := s.wanted[m.TypeUrl]
	u := Update{Type: m.TypeUrl}
	var rejected []Rejection
	for _, r := range m.Resources {
		switch {
		case names[r.GetName()] == nil && names[Wildcard] == nil:
		case r.GetResource() == nil && r.GetTtl() != nil: // a heartbeat: what is held stays (xDS protocol, "TTL")
		case r.GetResource() == nil || r.Resource.TypeUrl != m.TypeUrl:
			rejected = append(rejected, Rejection{r.GetName(), fmt.Errorf("is a %q in a response of %q",
				r.GetResource().GetTypeUrl(), m.TypeUrl)})
		default:
			u.Changed = append(u.Changed, Resource{r.Name, r.Version, r.Resource})
		}
	}
	for _, name := range m.RemovedResources {
		if names[name] != nil || names[Wildcard] != nil {
			u.Removed = append(u.Removed, name)
		}
	}
	return u, rejected
}

// remember keeps the versions of what was taken.
func (s *session) remember(u Update, rejected []Rejection) {
	refused := make(map[string]bool, len(rejected))
	for _, r := range rejected {
		refused[r.Name] = true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range u.Changed {
		if !refused[r.Name] {
			s.setVersion(u.Type, r.Name, r.Version)
		}
	}
	for _, name := range u.Removed {
		s.setVersion(u.Type, name, "")
	}
}

// setVersion is called with mu held.
func (s *session) setVersion(t, name, version string) {
	if sub := s.wanted[t][name]; sub != nil {
		sub.version = version
		return
	}
	wild := s.wanted[t][Wildcard]
	switch {
	case wild == nil:
	case version == "":
		delete(wild.listed, name)
	default:
		if wild.listed == nil {
			wild.listed = map[string]string{}
		}
		wild.listed[name] = version
	}
}

// inbox takes responses off the stream as they come, so that neither side waits to write while the other does.
type inbox struct {
	ready chan struct{} // has room for one: there is something to take
	ended chan struct{} // closed when the stream ended

	mu   sync.Mutex
	msgs []*discoveryv3.DeltaDiscoveryResponse
	err  error
}

func newInbox() *inbox {
	return &inbox{ready: make(chan struct{}, 1), ended: make(chan struct{})}
}

func (b *inbox) fill(st stream) {
	defer close(b.ended)
	for {
		m, err := st.Recv()
		if errors.Is(err, io.EOF) {
			err = errEnded
		}
		b.mu.Lock()
		if err == nil {
			b.msgs = append(b.msgs, m)
		}
		b.err = err
		b.mu.Unlock()
		select {
		case b.ready <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

func (b *inbox) take() ([]*discoveryv3.DeltaDiscoveryResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	msgs := b.msgs
	b.msgs = nil
	return msgs, b.err
}
