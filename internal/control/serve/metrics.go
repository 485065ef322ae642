package serve

import "github.com/prometheus/client_golang/prometheus"

// metrics have Istio's names, so that its dashboards show them.
type metrics struct {
	pushes      *prometheus.CounterVec
	convergence prometheus.Histogram
	rejects     prometheus.Counter
	connected   prometheus.Gauge
}

// newMetrics registers the metrics; with a nil registry they count for nobody.
func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		pushes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_xds_pushes",
			Help: "Responses sent to xDS clients, by type."}, []string{"type"}),
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_proxy_convergence_time",
			Help:    "Seconds from a change of the mesh until a client has been sent all that it changes for it.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 3, 5, 10, 20, 30}}),
		rejects: prometheus.NewCounter(prometheus.CounterOpts{Name: "pilot_total_xds_rejects",
			Help: "Responses that xDS clients refused."}),
		connected: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_xds",
			Help: "Connected xDS clients."}),
	}
	if r != nil {
		r.MustRegister(m.pushes, m.convergence, m.rejects, m.connected)
	}
	return m
}
