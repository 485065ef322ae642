package telemetry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func edge(workload string) EdgeKey {
	return EdgeKey{Reporter: FromSource, Source: Workload{Workload: workload, Namespace: "default"},
		Destination: Workload{Workload: `re"vi\ews`}, Host: "reviews.default.svc.cluster.local", Protocol: "http", Security: "mutual_tls"}
}

// page reads the page with Prometheus' own parser.
func page(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	var b bytes.Buffer
	if _, err := m.WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(&b)
	if err != nil {
		t.Fatal(err)
	}
	return families
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestPageIsPrometheus(t *testing.T) {
	m := New(0)
	e := m.Edge(edge("productpage"))
	e.Request(Answer{Code: 200, Flags: "-"}, 7*time.Millisecond, 0, 375)
	e.Request(Answer{Code: 200, Flags: "-"}, 12*time.Second, 3, 1)
	e.Request(Answer{Code: 503, Flags: "UF"}, time.Millisecond, 0, 0)
	e.Opened()
	e.Closed(10, 20)
	m.Add(func(p *Page) { p.Gauge("weft_test", "A test.", 2.5, Label{"a", "b\nc"}) })
	f := page(t, m)
	total := f["istio_requests_total"].Metric
	if len(total) != 2 || total[0].Counter.GetValue() != 2 || label(total[1], "response_flags") != "UF" {
		t.Fatalf("istio_requests_total: %v", total)
	}
	if got := label(total[0], "destination_workload"); got != `re"vi\ews` {
		t.Fatalf("destination_workload %q", got)
	}
	h := f["istio_request_duration_milliseconds"].Metric[0].Histogram
	if h.GetSampleCount() != 2 || h.GetSampleSum() != 12007 || len(h.Bucket) != 20 {
		t.Fatalf("duration: %v", h)
	}
	if f["istio_tcp_received_bytes_total"].Metric[0].Counter.GetValue() != 20 || f["weft_test"].Metric[0].Gauge.GetValue() != 2.5 {
		t.Fatal("tcp or added metrics wrong")
	}
}

func TestSeriesAreBounded(t *testing.T) {
	m := New(10)
	for i := range 50 {
		m.Edge(edge(fmt.Sprint(i))).Request(Answer{Code: 200}, 0, 0, 0)
	}
	e := m.Edge(edge("0"))
	for i := range 50 {
		e.Request(Answer{Code: 200 + i}, 0, 0, 0)
	}
	f := page(t, m)
	sum := 0.0
	for _, s := range f["istio_requests_total"].Metric {
		sum += s.Counter.GetValue()
	}
	// The overflow edge has series of its own, one per code it was asked to count, which the bound on codes keeps few.
	if n := len(f["istio_requests_total"].Metric); sum != 100 || n > 12 {
		t.Fatalf("%v requests in %d series", sum, n)
	}
	if f["weft_series_refused_total"].Metric[0].Counter.GetValue() == 0 {
		t.Fatal("the bound went unnoticed")
	}
}

func TestRequestDoesNotAllocate(t *testing.T) {
	e := New(0).Edge(edge("a"))
	a := Answer{Code: 200, Flags: "-"}
	e.Request(a, 0, 0, 0)
	if n := testing.AllocsPerRun(100, func() { e.Request(a, time.Millisecond, 1, 2) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func entry() *Entry {
	return &Entry{Start: time.Unix(0, 0), Method: "GET", Path: "/a\"\n[fake] ", Protocol: "HTTP/1.1", Code: 503, Flags: "UF",
		Details: "upstream reset", Authority: "reviews:9080", UpstreamTime: -1, Remote: netip.MustParseAddrPort("10.0.0.1:5"),
		Reason: "connect to 10.0.0.2:9080: connection refused", RequestID: "\xff"}
}

func TestTextIsOneLineOfEnvoysForm(t *testing.T) {
	got := string(entry().appendText(nil))
	want := `[1970-01-01T00:00:00.000Z] "GET /a\"\u000a[fake]  HTTP/1.1" 503 UF upstream_reset - "-" 0 0 0 - "-" "-" "` + "\ufffd" +
		`" "reviews:9080" "-" - - - 10.0.0.1:5 - - "connect to 10.0.0.2:9080: connection refused"` + "\n"
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

func TestJSONIsJSON(t *testing.T) {
	var got map[string]any
	if err := json.Unmarshal(entry().appendJSON(nil), &got); err != nil {
		t.Fatal(err)
	}
	if got["path"] != "/a\"\n[fake] " || got["response_code"] != 503.0 || got["user_agent"] != nil {
		t.Fatalf("got %v", got)
	}
}

// gate blocks its writer until it is opened.
type gate struct {
	open chan struct{}
	mu   sync.Mutex
	strings.Builder
}

func (g *gate) Write(p []byte) (int, error) {
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.Builder.Write(p)
}

func TestLogNeverWaits(t *testing.T) {
	g := &gate{open: make(chan struct{})}
	l := NewLog(g)
	const n = 3 * queuedLines
	for range n {
		l.Write(entry()) // would block for ever
	}
	if l.Dropped() == 0 {
		t.Fatal("nothing dropped by a writer that stands still")
	}
	close(g.open)
	l.Close()
	if got := uint64(strings.Count(g.String(), "\n")); got != n-l.Dropped() {
		t.Fatalf("%d lines, %d dropped of %d", got, l.Dropped(), n)
	}
}

// writes hands every write on.
type writes chan string

func (w writes) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}

func TestTheLineAfterASilenceIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := make(writes)
		l := NewLog(w)
		time.Sleep(time.Minute)
		for range 2 {
			from := time.Now()
			l.Write(entry())
			if <-w; time.Since(from) != 0 {
				t.Errorf("after %s", time.Since(from))
			}
			l.Write(entry())
			l.Write(entry())
			if text := <-w; strings.Count(text, "\n") != 2 || time.Since(from) != flushAfter {
				t.Errorf("those that followed: %q after %s", text, time.Since(from))
			}
			time.Sleep(2 * flushAfter)
		}
		l.Close()
	})
}
