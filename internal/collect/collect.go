// Package collect reads the metrics of all proxies of a mesh: it offers them together as one Prometheus target, and keeps the
// recent past of who called whom, from which the service graph is computed.
package collect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/protobuf/proto"

	"github.com/weftmesh/weft/internal/unixsocket"
)

// Target is one proxy's admin socket.
type Target struct {
	Pod, Namespace string
	Socket         string // path of a unix socket that serves /metrics
}

// Collector scrapes the targets. The zero value is not usable; see New.
type Collector struct {
	targets  func() []Target
	interval time.Duration
	log      *slog.Logger

	mu      sync.Mutex
	clients map[string]*http.Client // by socket
	last    map[string]edgeTotals   // by socket: counters of the last scrape, to find what was added
	totals  edgeTotals              // since the collector began, over all targets
	history []moment                // oldest first
}

// New gives a collector that asks for its targets at each scrape. Interval is 0 for the default of one second.
func New(targets func() []Target, interval time.Duration, log *slog.Logger) *Collector {
	if interval == 0 {
		interval = time.Second
	}
	return &Collector{targets: targets, interval: interval, log: log,
		clients: map[string]*http.Client{}, last: map[string]edgeTotals{}, totals: edgeTotals{}}
}

// Run scrapes until the context ends.
func (c *Collector) Run(ctx context.Context) error {
	tick := time.NewTicker(c.interval)
	defer tick.Stop()
	defer c.closeClients()
	for {
		c.Scrape(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Scrape reads every target once and adds what is new to the history.
func (c *Collector) Scrape(ctx context.Context) {
	results := c.scrapeAll(ctx, ofEdges)
	c.mu.Lock()
	defer c.mu.Unlock()
	seen := map[string]bool{}
	for _, r := range results {
		seen[r.target.Socket] = true
		if r.err != nil {
			continue // a proxy that starts or stops; the next scrape catches up
		}
		now := edgesOf(r.families)
		c.totals.addDifference(now, c.last[r.target.Socket])
		c.last[r.target.Socket] = now
	}
	for socket := range c.last {
		if !seen[socket] {
			delete(c.last, socket)
			if cl := c.clients[socket]; cl != nil {
				cl.CloseIdleConnections()
			}
			delete(c.clients, socket)
		}
	}
	c.remember(time.Now())
}

// Refresh scrapes unless that was done within the last moment.
func (c *Collector) Refresh(ctx context.Context) {
	c.mu.Lock()
	fresh := len(c.history) > 0 && time.Since(c.history[len(c.history)-1].at) < refreshAfter
	c.mu.Unlock()
	if !fresh {
		c.Scrape(ctx)
	}
}

// refreshAfter is how old a scrape may be for somebody who looks.
const refreshAfter = time.Second

type result struct {
	target   Target
	families map[string]*dto.MetricFamily
	err      error
}

// scrapeTimeout bounds one scrape: a proxy that does not answer must not hold up the others' figures.
const scrapeTimeout = 2 * time.Second

// scrapeAll reads every target, and of its metrics those whose lines only takes; nil takes all.
func (c *Collector) scrapeAll(ctx context.Context, only func(line []byte) bool) []result {
	targets := c.targets()
	results := make([]result, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			families, err := c.scrape(ctx, t, only)
			if err != nil {
				c.log.Debug("scrape failed", "pod", t.Pod, "error", err)
			}
			results[i] = result{t, families, err}
		})
	}
	wg.Wait()
	return results
}

func (c *Collector) scrape(ctx context.Context, t Target, only func([]byte) bool) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://proxy/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.client(t.Socket).Do(req)
	if err != nil {
		return nil, fmt.Errorf("scrape %s: %w", t.Pod, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("scrape %s: %s", t.Pod, resp.Status)
	}
	body := io.Reader(resp.Body)
	if only != nil {
		if body, err = keepLines(resp.Body, only); err != nil {
			return nil, fmt.Errorf("scrape %s: %w", t.Pod, err)
		}
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	return parser.TextToMetricFamilies(body)
}

// keepLines reads the lines that are wanted. Parsing costs far more than looking at the first bytes, and of all that a proxy
// exposes the graph needs a part.
func keepLines(r io.Reader, wanted func(line []byte) bool) (io.Reader, error) {
	var kept bytes.Buffer
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if wanted(line) {
			kept.Write(line)
		}
		switch {
		case errors.Is(err, io.EOF):
			return &kept, nil
		case err != nil:
			return nil, err
		}
	}
}

// ofEdges takes the samples, and the types, of the metrics that edgesOf reads: those that the calling side reports, and those of
// callers without a proxy.
func ofEdges(line []byte) bool {
	rest, isType := bytes.CutPrefix(line, []byte("# TYPE "))
	if !isType {
		rest = line
	}
	switch {
	case bytes.HasPrefix(rest, []byte("istio_requests_total")), bytes.HasPrefix(rest, []byte("istio_tcp_")),
		bytes.HasPrefix(rest, []byte("istio_request_duration_milliseconds")):
		return isType || bytes.Contains(line, []byte(`reporter="source"`)) || bytes.Contains(line, []byte(`source_workload="unknown"`))
	}
	return false
}

func (c *Collector) client(socket string) *http.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	cl, ok := c.clients[socket]
	if !ok {
		cl = &http.Client{Transport: &http.Transport{DialContext: unixsocket.Dialer(socket)}}
		c.clients[socket] = cl
	}
	return cl
}

func (c *Collector) closeClients() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, cl := range c.clients {
		cl.CloseIdleConnections()
	}
}

// Gather reads every proxy now and gives all metrics together, each with the labels pod and namespace of its proxy. Proxies that
// do not answer are left out. It is a prometheus.Gatherer.
func (c *Collector) Gather() ([]*dto.MetricFamily, error) {
	all := map[string]*dto.MetricFamily{}
	for _, r := range c.scrapeAll(context.Background(), nil) { // a Gatherer has no context; every scrape is bounded
		for name, f := range r.families {
			label(f, r.target)
			if known := all[name]; known != nil && known.GetType() == f.GetType() {
				known.Metric = append(known.Metric, f.Metric...)
			} else if known == nil {
				all[name] = f
			}
		}
	}
	families := make([]*dto.MetricFamily, 0, len(all))
	for _, f := range all {
		families = append(families, f)
	}
	slices.SortFunc(families, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return families, nil
}

func label(f *dto.MetricFamily, t Target) {
	for _, m := range f.Metric {
		m.Label = append(m.Label,
			&dto.LabelPair{Name: proto.String("namespace"), Value: proto.String(t.Namespace)},
			&dto.LabelPair{Name: proto.String("pod"), Value: proto.String(t.Pod)})
		slices.SortFunc(m.Label, func(a, b *dto.LabelPair) int { return strings.Compare(a.GetName(), b.GetName()) })
	}
}
