package serve

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weftmesh/weft/internal/control/model"
)

// metrics have Istio's names, so that its dashboards show them.
type metrics struct {
	byType      map[string]pushMetrics // and "" for types that we do not know
	convergence prometheus.Histogram
	rejects     *prometheus.CounterVec
	internal    prometheus.Counter
	triggers    *prometheus.CounterVec
	inbound     *prometheus.CounterVec
	prepare     prometheus.Histogram
	remade      prometheus.Counter
	services    prometheus.Gauge
	virtual     prometheus.Gauge
}

// pushMetrics are those of one type.
type pushMetrics struct {
	pushes prometheus.Counter
	size   prometheus.Observer
	time   prometheus.Observer
}

// newMetrics registers the metrics; with a nil registry they count for nobody.
func newMetrics(s *Server, r prometheus.Registerer) *metrics {
	pushes := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_xds_pushes",
		Help: "Responses sent to xDS clients, by type."}, []string{"type"})
	size := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pilot_xds_config_size_bytes",
		Help: "Bytes of the resources in responses, by type.", Buckets: []float64{1, 1e4, 1e6, 4e6, 1e7, 4e7}}, []string{"type"})
	pushTime := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "pilot_xds_push_time",
		Help: "Seconds that sending a response took, by type.", Buckets: []float64{.0001, .001, .01, .1, 1, 3, 5, 10, 20, 30}}, []string{"type"})
	m := &metrics{
		byType: map[string]pushMetrics{},
		convergence: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_proxy_convergence_time",
			Help:    "Seconds from a change of the mesh until a client that it concerns has been sent all of it.",
			Buckets: []float64{.001, .005, .01, .05, .1, .5, 1, 3, 5, 10, 20, 30}}),
		rejects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_total_xds_rejects",
			Help: "Responses that xDS clients refused, by type."}, []string{"type"}),
		internal: prometheus.NewCounter(prometheus.CounterOpts{Name: "pilot_total_xds_internal_errors",
			Help: "Streams that ended by a mistake of the control plane's own."}),
		triggers: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_push_triggers",
			Help: "Meshes published, by what changed: config, endpoint, service, proxy, global. Each counts for all that hold."}, []string{"type"}),
		inbound: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pilot_inbound_updates",
			Help: "Hosts and objects that differed between meshes, by kind: config, eds, svc."}, []string{"type"}),
		prepare: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "pilot_pushcontext_init_seconds",
			Help:    "Seconds from a compiled mesh until everything that it changes was made and streams were woken.",
			Buckets: []float64{.0001, .001, .01, .1, .5, 1, 3, 5}}),
		remade: prometheus.NewCounter(prometheus.CounterOpts{Name: "weft_xds_resources_remade_total",
			Help: "Resources that were made again because the mesh changed."}),
		services: prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_services", Help: "Services in the mesh."}),
		virtual:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "pilot_virt_services", Help: "Sets of routes in the mesh, of all kinds of objects."}),
	}
	for _, t := range append([]string{""}, order...) {
		name := metricType(t)
		m.byType[t] = pushMetrics{pushes.WithLabelValues(name), size.WithLabelValues(name), pushTime.WithLabelValues(name)}
	}
	if r != nil {
		r.MustRegister(pushes, size, pushTime, m.convergence, m.rejects, m.internal, m.triggers, m.inbound, m.prepare, m.remade, m.services, m.virtual,
			connected{s})
	}
	return m
}

// pushed counts a response.
func (m *metrics) pushed(typeURL string, size int, took time.Duration) {
	t, ok := m.byType[typeURL]
	if !ok {
		t = m.byType[""]
	}
	t.pushes.Inc()
	t.size.Observe(float64(size))
	t.time.Observe(took.Seconds())
}

// ended counts a stream that ended for a reason.
func (m *metrics) ended(reason error) {
	if c := status.Code(reason); c == codes.Internal || c == codes.Unknown {
		m.internal.Inc()
	}
}

// published counts a mesh.
func (m *metrics) published(mesh *model.Mesh, d model.Delta, p publication, took time.Duration) {
	m.prepare.Observe(took.Seconds())
	m.remade.Add(float64(p.remade))
	m.services.Set(float64(mesh.Services.Len()))
	m.virtual.Set(float64(len(mesh.RouteSets)))
	config := len(d.Routes) + len(d.Destinations) + len(d.Gateways) + len(d.Policies)
	for _, x := range []struct {
		trigger, inbound string
		n                int
	}{{"config", "config", config}, {"endpoint", "eds", len(d.Endpoints)}, {"service", "svc", len(d.Services)}, {"proxy", "", len(d.Workloads)}} {
		if x.n == 0 || p.everything {
			continue
		}
		m.triggers.WithLabelValues(x.trigger).Inc()
		if x.inbound != "" {
			m.inbound.WithLabelValues(x.inbound).Add(float64(x.n))
		}
	}
	if p.everything {
		m.triggers.WithLabelValues("global").Inc()
	}
}

// connected tells about the streams when it is asked.
type connected struct{ server *Server }

var (
	clientsDesc = prometheus.NewDesc("pilot_xds", "Connected xDS clients.", nil, nil)
	cachedDesc  = prometheus.NewDesc("weft_xds_resources", "Resources that some client subscribes to, each for all clients that get the same.", nil, nil)
	namesDesc   = prometheus.NewDesc("weft_xds_subscriptions", "Subscriptions of all clients.", nil, nil)
	staleDesc   = prometheus.NewDesc("weft_xds_stale_seconds",
		"How long a proxy has been without the newest configuration; there is none for those that have it.", []string{"proxy", "namespace", "state"}, nil)
)

// Describe implements prometheus.Collector.
func (c connected) Describe(out chan<- *prometheus.Desc) {
	out <- clientsDesc
	out <- cachedDesc
	out <- namesDesc
	out <- staleDesc
}

// maxStale bounds the proxies that are told apart.
const maxStale = 1000

// Collect implements prometheus.Collector.
func (c connected) Collect(out chan<- prometheus.Metric) {
	type stale struct {
		proxy, namespace string
		state            State
		since            time.Time
	}
	s, now := c.server, time.Now()
	var late []stale
	names := 0
	s.cache.mu.Lock()
	clients, resources := len(s.streams), s.cache.size
	for x := range s.streams {
		for _, w := range x.watches {
			names += len(w.subs)
		}
		if state, since, _ := x.state(now); state != Synced && now.Sub(since) > slowAfter && len(late) < maxStale {
			late = append(late, stale{x.claim.name, x.who.Namespace, state, since})
		}
	}
	s.cache.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(clientsDesc, float64(clients))
	gauge(cachedDesc, float64(resources))
	gauge(namesDesc, float64(names))
	seen := map[[3]string]bool{}
	for _, l := range late {
		key := [3]string{l.proxy, l.namespace, string(l.state)}
		if !seen[key] { // a proxy may have two streams for a moment
			seen[key] = true
			gauge(staleDesc, now.Sub(l.since).Seconds(), key[:]...)
		}
	}
}
