// Package ads is the proxy's side of the delta ADS stream (envoy.service.discovery.v3, DeltaAggregatedResources): it keeps a
// stream open, tells the server what is wanted, acknowledges or refuses what comes, and resumes after a break with the versions
// it holds. It knows resource types and names, nothing of their content.
package ads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/wire"
)

// Wildcard subscribes to every resource of a type.
const Wildcard = "*"

// Resource is one resource as it came.
type Resource struct {
	Name, Version string
	Body          *anypb.Any
}

// Update is one response of the server: what changed and what is gone. A removed name that was never there is how the server says
// that it does not know it.
type Update struct {
	Type    string
	Changed []Resource
	Removed []string
}

// Rejection refuses one resource of an update; the server is told why and the version held before stays.
type Rejection struct {
	Name string
	Err  error
}

// Handler hears what happens on the stream. All calls come from the goroutine of Run, one at a time; a handler may call Subscribe
// and Unsubscribe.
type Handler interface {
	// Apply takes an update and names what it refuses. The rest is acknowledged as taken.
	Apply(Update) []Rejection
	// Connected is called at the first response of a stream.
	Connected()
	// Disconnected is called when a stream ends or cannot be opened: keep what you have. It may come several times in a row.
	Disconnected(err error)
}

// Options tune a client; the zero value is good.
type Options struct {
	Log *slog.Logger // nil discards
	// FirstRetry and MaxRetry bound the pause between attempts: it starts at FirstRetry (50 ms), grows, and is jittered.
	FirstRetry, MaxRetry time.Duration
}

// Client is one node's subscription. Its methods are safe for concurrent use; Run is called once.
type Client struct {
	// Set at creation.
	conn    *grpc.ClientConn
	node    *corev3.Node
	handler Handler
	opts    Options
	wake    chan struct{} // has room for one: the wanted set changed

	warned string // the reason that was warned of last; Run's

	mu     sync.Mutex
	wanted map[string]map[string]*subscription // type, name

	streams, updates, rejections atomic.Uint64
}

// subscription is one wanted name. A name that is dropped and wanted again gets a new one, by which a session notices.
type subscription struct {
	version string            // held; empty for none
	listed  map[string]string // for Wildcard: versions of what came because of it
}

// Stats counts since the start.
type Stats struct {
	Streams    uint64 `json:"streams"` // opened so far
	Updates    uint64 `json:"updates"`
	Rejections uint64 `json:"rejections"`
}

// New makes a client of the control plane behind conn for a node.
func New(conn *grpc.ClientConn, node wire.Node, h Handler, o Options) (*Client, error) {
	n, err := nodeMessage(node)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FirstRetry <= 0 {
		o.FirstRetry = 50 * time.Millisecond
	}
	if o.MaxRetry <= 0 {
		o.MaxRetry = 3 * time.Second
	}
	return &Client{
		conn: conn, node: n, handler: h, opts: o,
		wake: make(chan struct{}, 1), wanted: map[string]map[string]*subscription{},
	}, nil
}

func nodeMessage(n wire.Node) (*corev3.Node, error) {
	labels := make(map[string]any, len(n.Labels))
	for k, v := range n.Labels {
		labels[k] = v
	}
	meta, err := structpb.NewStruct(map[string]any{
		"NAMESPACE": n.Namespace, "SERVICE_ACCOUNT": n.ServiceAccount, "WORKLOAD_NAME": n.Workload, "NAME": n.Name,
		"ROLE": string(n.Role), "CLUSTER_ID": n.Cluster, "LABELS": labels,
	})
	if err != nil {
		return nil, fmt.Errorf("ads: node %s: %w", n.ID(), err)
	}
	return &corev3.Node{Id: n.ID(), Cluster: n.Cluster, Metadata: meta, UserAgentName: "weft-proxy"}, nil
}

// Subscribe asks for resources by name, from now on and over every later stream. Names that are subscribed already stay as they are.
func (c *Client) Subscribe(typeURL string, names ...string) {
	c.mu.Lock()
	for _, name := range names {
		if c.names(typeURL)[name] == nil {
			c.names(typeURL)[name] = &subscription{}
		}
	}
	c.mu.Unlock()
	c.notify()
}

// Unsubscribe takes it back. Updates of the names that are on their way do not reach the handler.
func (c *Client) Unsubscribe(typeURL string, names ...string) {
	c.mu.Lock()
	for _, name := range names {
		delete(c.wanted[typeURL], name)
	}
	c.mu.Unlock()
	c.notify()
}

// Hold subscribes to a name of which a version is held already (from an earlier run), so that the server does not send it again.
// Under a wildcard subscription it only notes the version.
func (c *Client) Hold(typeURL, name, version string) {
	c.mu.Lock()
	if wild := c.names(typeURL)[Wildcard]; wild != nil {
		if wild.listed == nil {
			wild.listed = map[string]string{}
		}
		wild.listed[name] = version
	} else {
		c.names(typeURL)[name] = &subscription{version: version}
	}
	c.mu.Unlock()
	c.notify()
}

// Stats tells what happened so far.
func (c *Client) Stats() Stats {
	return Stats{Streams: c.streams.Load(), Updates: c.updates.Load(), Rejections: c.rejections.Load()}
}

// names is called with mu held.
func (c *Client) names(typeURL string) map[string]*subscription {
	m := c.wanted[typeURL]
	if m == nil {
		m = map[string]*subscription{}
		c.wanted[typeURL] = m
	}
	return m
}

func (c *Client) notify() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run keeps a stream open until ctx ends, and returns ctx's error then.
func (c *Client) Run(ctx context.Context) error {
	pause := c.opts.FirstRetry
	for {
		answered, err := c.session(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.handler.Disconnected(err)
		c.ended(err)
		if answered {
			pause = c.opts.FirstRetry
		}
		if err := sleep(ctx, pause/2+rand.N(pause/2+1)); err != nil {
			return err
		}
		pause = min(pause*8/5, c.opts.MaxRetry)
		// Without this the connection would wait for its own, longer back-off.
		c.conn.ResetConnectBackoff()
	}
}

// ended logs why a stream ended. That the control plane is away or asks for a new connection is nothing to warn of; anything else is, once
// until it is for another reason.
func (c *Client) ended(err error) {
	level := slog.LevelDebug
	switch reason := status.Convert(err).Message(); status.Code(err) {
	case codes.OK, codes.Unavailable, codes.Canceled, codes.Unauthenticated, codes.DeadlineExceeded:
	default:
		if reason != c.warned && !errors.Is(err, errEnded) {
			level, c.warned = slog.LevelWarn, reason
		}
	}
	c.opts.Log.Log(context.Background(), level, "ads: stream ended", "error", err)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

var errEnded = errors.New("the control plane ended the stream")

// wantedNames is a copy of the types and names that are wanted now, types in the order in which they depend on each other by name.
func (c *Client) wantedNames() (types []string, wanted map[string]map[string]*subscription) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted = make(map[string]map[string]*subscription, len(c.wanted))
	for t, names := range c.wanted {
		wanted[t] = maps.Clone(names)
	}
	return slices.Sorted(maps.Keys(wanted)), wanted
}

// client is the generated stub; a fresh one costs nothing.
func (c *Client) client() discoveryv3.AggregatedDiscoveryServiceClient {
	return discoveryv3.NewAggregatedDiscoveryServiceClient(c.conn)
}
