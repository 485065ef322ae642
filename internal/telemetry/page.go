package telemetry

import (
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Page is a metrics page in Prometheus' text format (version 0.0.4) in the making.
type Page struct{ b []byte }

// ContentType of a page.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Label is a name and its value.
type Label struct{ Name, Value string }

// Family starts a metric: kind is "counter", "gauge" or "histogram".
func (p *Page) Family(name, kind, help string) {
	p.b = append(p.b, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

// Sample writes a line of the current family.
func (p *Page) Sample(name string, value float64, labels ...Label) {
	p.line(name, labels, "", strconv.FormatFloat(value, 'g', -1, 64))
}

func (p *Page) line(name string, labels []Label, le, value string) {
	p.b = append(p.b, name...)
	sep := byte('{')
	for _, l := range labels {
		p.b = append(append(p.b, sep), l.Name...)
		p.b = append(p.b, `="`...)
		p.b = append(appendEscaped(p.b, l.Value), '"')
		sep = ','
	}
	if le != "" {
		p.b = append(append(append(append(p.b, sep), `le="`...), le...), '"')
		sep = ','
	}
	if sep == ',' {
		p.b = append(p.b, '}')
	}
	p.b = append(append(append(p.b, ' '), value...), '\n')
}

func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		default:
			b = append(b, c)
		}
	}
	return b
}

// Counter writes a family with one sample.
func (p *Page) Counter(name, help string, value float64, labels ...Label) {
	p.Family(name, "counter", help)
	p.Sample(name, value, labels...)
}

// Gauge writes a family with one sample.
func (p *Page) Gauge(name, help string, value float64, labels ...Label) {
	p.Family(name, "gauge", help)
	p.Sample(name, value, labels...)
}

// WriteTo writes the page of all metrics.
func (m *Metrics) WriteTo(w io.Writer) (int64, error) {
	p := &Page{}
	edges, extra := m.sorted()
	p.requests(edges)
	p.messages(edges)
	p.tcp(edges)
	p.Gauge("weft_series", "Answer series held.", float64(m.series.Load()))
	p.Counter("weft_series_refused_total", "Observations counted under \"other\" because of the bound on series.",
		float64(m.refused.Load()))
	for _, f := range extra {
		f(p)
	}
	n, err := w.Write(p.b)
	return int64(n), err
}

// sorted gives the edges in an order that stays from page to page.
func (m *Metrics) sorted() ([]*Edge, []func(*Page)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	edges := make([]*Edge, 0, len(m.edges)+1)
	for _, e := range m.edges {
		edges = append(edges, e)
	}
	slices.SortFunc(edges, func(a, b *Edge) int {
		return cmp.Or(strings.Compare(string(a.key.Reporter), string(b.key.Reporter)),
			strings.Compare(a.key.Source.Workload, b.key.Source.Workload),
			strings.Compare(a.key.Destination.Workload, b.key.Destination.Workload),
			strings.Compare(a.key.Host, b.key.Host), strings.Compare(a.key.Destination.Version, b.key.Destination.Version),
			strings.Compare(a.key.Protocol, b.key.Protocol))
	})
	return append(edges, m.overflow), slices.Clone(m.extra)
}

func (p *Page) requests(edges []*Edge) {
	p.Family("istio_requests_total", "counter", "Requests.")
	eachAnswer(edges, func(labels []Label, s *answers) {
		p.line("istio_requests_total", labels, "", strconv.FormatUint(s.count.Load(), 10))
	})
	for _, h := range []struct {
		name, help string
		of         func(*answers) *histogram
	}{
		{"istio_request_duration_milliseconds", "From the request's first byte to the response's last.", func(s *answers) *histogram { return &s.duration }},
		{"istio_request_bytes", "Size of request bodies.", func(s *answers) *histogram { return &s.request }},
		{"istio_response_bytes", "Size of response bodies.", func(s *answers) *histogram { return &s.response }},
	} {
		p.Family(h.name, "histogram", h.help)
		eachAnswer(edges, func(labels []Label, s *answers) { p.histogram(h.name, labels, h.of(s)) })
	}
}

func (p *Page) histogram(name string, labels []Label, h *histogram) {
	total := uint64(0)
	for i := range h.buckets {
		total += h.buckets[i].Load()
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i], 'f', -1, 64)
		}
		p.line(name+"_bucket", labels, le, strconv.FormatUint(total, 10))
	}
	p.line(name+"_sum", labels, "", strconv.FormatFloat(float64(h.sum.Load())/1000, 'f', -1, 64))
	p.line(name+"_count", labels, "", strconv.FormatUint(total, 10))
}

func eachAnswer(edges []*Edge, f func([]Label, *answers)) {
	for _, e := range edges {
		list := e.answers.Load()
		if list == nil {
			continue
		}
		common := e.key.labels()
		for _, s := range *list {
			labels := append(slices.Clip(common), Label{"response_code", strconv.Itoa(s.Code)},
				Label{"response_flags", orUnknown(s.Flags)}, Label{"grpc_response_status", s.GRPC})
			f(labels, s)
		}
	}
}

func (p *Page) tcp(edges []*Edge) {
	for _, c := range []struct {
		name, help string
		of         func(*Edge) uint64
	}{
		{"istio_tcp_connections_opened_total", "Connections relayed without HTTP.", func(e *Edge) uint64 { return e.opened.Load() }},
		{"istio_tcp_connections_closed_total", "Connections that have ended.", func(e *Edge) uint64 { return e.closed.Load() }},
		{"istio_tcp_sent_bytes_total", "Bytes sent in responses.", func(e *Edge) uint64 { return e.sent.Load() }},
		{"istio_tcp_received_bytes_total", "Bytes received in requests.", func(e *Edge) uint64 { return e.received.Load() }},
	} {
		p.Family(c.name, "counter", c.help)
		for _, e := range edges {
			if e.tcp.Load() {
				p.line(c.name, append(e.key.labels(), Label{"response_flags", "-"}), "", strconv.FormatUint(c.of(e), 10))
			}
		}
	}
}

func (p *Page) messages(edges []*Edge) {
	for _, c := range []struct {
		name, help string
		of         func(*Edge) uint64
	}{
		{"istio_request_messages_total", "Messages of gRPC in requests.", func(e *Edge) uint64 { return e.asked.Load() }},
		{"istio_response_messages_total", "Messages of gRPC in responses.", func(e *Edge) uint64 { return e.answered.Load() }},
	} {
		p.Family(c.name, "counter", c.help)
		for _, e := range edges {
			if e.key.Protocol == "grpc" {
				p.line(c.name, e.key.labels(), "", strconv.FormatUint(c.of(e), 10))
			}
		}
	}
}

func orUnknown(s string) string { return cmp.Or(s, "unknown") }

// labels are Istio's, in its order.
func (k *EdgeKey) labels() []Label {
	u := orUnknown
	s, d := &k.Source, &k.Destination
	return []Label{
		{"reporter", string(k.Reporter)},
		{"source_workload", u(s.Workload)}, {"source_canonical_service", u(s.Service)},
		{"source_canonical_revision", cmp.Or(s.Revision, "latest")}, {"source_workload_namespace", u(s.Namespace)},
		{"source_principal", u(s.Principal)}, {"source_app", u(s.App)}, {"source_version", u(s.Version)},
		{"source_cluster", u(s.Cluster)},
		{"destination_workload", u(d.Workload)}, {"destination_workload_namespace", u(d.Namespace)},
		{"destination_principal", u(d.Principal)}, {"destination_app", u(d.App)}, {"destination_version", u(d.Version)},
		{"destination_service", u(k.Host)}, {"destination_canonical_service", u(d.Service)},
		{"destination_canonical_revision", cmp.Or(d.Revision, "latest")}, {"destination_service_name", u(k.ServiceName)},
		{"destination_service_namespace", u(k.ServiceNamespace)}, {"destination_cluster", u(d.Cluster)},
		{"request_protocol", k.Protocol}, {"connection_security_policy", k.Security},
	}
}
