package control

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/version"
)

// metrics are the control plane's own; those of discovery are in serve.
type metrics struct {
	compile  prometheus.Histogram
	debounce prometheus.Histogram
	csr      *prometheus.CounterVec
	config   *prometheus.CounterVec
	registry *prometheus.CounterVec
	passed   *prometheus.CounterVec
	failed   *prometheus.CounterVec

	handshakes *prometheus.CounterVec
}

func newMetrics(r *prometheus.Registry) *metrics {
	m := &metrics{
		compile: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weft_control_compile_seconds",
			Help: "Time that one compilation of all objects took.", Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 5}}),
		debounce: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_debounce_time",
			Help: "Seconds that a change waited for others to merge with.", Buckets: []float64{.001, .002, .005, .01, .05, .1, 1}}),
		csr: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_ca_signing_requests_total",
			Help: "Certificate signing calls, by proof of identity and result."}, []string{"proof", "code"}),
		config: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_k8s_cfg_events",
			Help: "Changes of configuration objects, of all sources."}, []string{"type", "event"}),
		registry: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_k8s_reg_events",
			Help: "Changes of objects that say what runs where, of all sources."}, []string{"type", "event"}),
		passed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "galley_validation_passed",
			Help: "Configuration objects that were taken into force, of all sources."}, []string{"resource"}),
		failed: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "galley_validation_failed",
			Help: "Findings for which configuration objects were refused, by code."}, []string{"resource", "reason"}),
	}
	m.handshakes = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weft_control_handshakes_refused_total",
		Help: "Connections to the address for proxies that did not come to be, by reason."}, []string{"reason"})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "istio_build", Help: "1, with the version of the control plane as tag."},
		[]string{"component", "tag"})
	build.WithLabelValues("pilot", version.String()).Set(1)
	r.MustRegister(m.compile, m.debounce, m.csr, m.config, m.registry, m.passed, m.failed, m.handshakes, build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) signed(r ca.Result) { m.csr.WithLabelValues(string(r.Proof), r.Code.String()).Inc() }

// registryKinds are the kinds that say what runs where, by the name that Istio's dashboards have for their changes.
var registryKinds = map[string]string{"Service": "Services", "EndpointSlice": "EndpointSlice", "Pod": "Pods", "Namespace": "Namespaces"}

// took counts changes that came on top of a snapshot, nil for none.
func (m *metrics) took(before *source.Snapshot, changes source.Changes) {
	count := func(k source.Key, event string) {
		if name := registryKinds[k.Kind]; name != "" {
			m.registry.WithLabelValues(name, event).Inc()
			return
		}
		m.config.WithLabelValues(k.Kind, event).Inc()
		if event != "delete" {
			m.passed.WithLabelValues(resource(k.Kind)).Inc()
		}
	}
	for _, o := range changes.Set {
		event := "add"
		if before != nil && before.Get(o.Key()) != nil {
			event = "update"
		}
		count(o.Key(), event)
	}
	for _, k := range changes.Gone {
		count(k, "delete")
	}
	m.refused(changes.Refused)
}

// refused counts the errors among findings.
func (m *metrics) refused(findings []model.Finding) {
	for _, f := range findings {
		if f.Severity == model.Error {
			m.failed.WithLabelValues(resource(f.Object.Kind), f.Code).Inc()
		}
	}
}

// resource is what Kubernetes' API calls a kind: its plural in lower case. An error may be about no kind that we know.
func resource(kind string) string {
	kind, _, _ = strings.Cut(strings.ToLower(kind), ".")
	switch {
	case kind == "":
		return "unknown"
	case strings.HasSuffix(kind, "s"):
		return kind + "es"
	case strings.HasSuffix(kind, "cy"), strings.HasSuffix(kind, "ry"):
		return kind[:len(kind)-1] + "ies"
	}
	return kind + "s"
}

// told counts what there is to tell the user, when it is asked.
type told struct{ control *Control }

var findingsDesc = prometheus.NewDesc("weft_control_findings", "Findings about objects and proxies now, as weft status shows them.",
	[]string{"severity", "code"}, nil)

// Describe implements prometheus.Collector.
func (t told) Describe(out chan<- *prometheus.Desc) { out <- findingsDesc }

// Collect implements prometheus.Collector.
func (t told) Collect(out chan<- prometheus.Metric) {
	type labels struct {
		severity model.Severity
		code     string
	}
	counts := map[labels]int{}
	for _, f := range t.control.Findings() {
		counts[labels{f.Severity, f.Code}]++
	}
	for l, n := range counts {
		out <- prometheus.MustNewConstMetric(findingsDesc, prometheus.GaugeValue, float64(n), string(l.severity), l.code)
	}
}
