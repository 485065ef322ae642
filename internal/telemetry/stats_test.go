package telemetry

import "testing"

func TestStatsAreGroupedByName(t *testing.T) {
	p := &Page{}
	p.Stats([]Stat{
		{"cluster", "outbound|80||a", "upstream_cx_total", false, 3}, {"cluster", "outbound|80||a", "upstream_cx_active", true, 1},
		{"cluster", "outbound|80||b", "upstream_cx_total", false, 4}, {"server", "", "live", true, 1},
		{"cluster", "outbound|80||a", "upstream_rq_2xx", false, 5}, {"cluster", "outbound|80||a", "upstream_rq_5xx", false, 6},
		{"cluster", "outbound|80||b", "upstream_rq_2xx", false, 7},
	})
	const want = `# HELP envoy_cluster_upstream_cx_active As in Envoy.
# TYPE envoy_cluster_upstream_cx_active gauge
envoy_cluster_upstream_cx_active{cluster_name="outbound|80||a"} 1
# HELP envoy_cluster_upstream_cx_total As in Envoy.
# TYPE envoy_cluster_upstream_cx_total counter
envoy_cluster_upstream_cx_total{cluster_name="outbound|80||a"} 3
envoy_cluster_upstream_cx_total{cluster_name="outbound|80||b"} 4
# HELP envoy_cluster_upstream_rq As in Envoy.
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{cluster_name="outbound|80||a",response_code_class="2xx"} 5
envoy_cluster_upstream_rq{cluster_name="outbound|80||b",response_code_class="2xx"} 7
envoy_cluster_upstream_rq{cluster_name="outbound|80||a",response_code_class="5xx"} 6
# HELP envoy_server_live As in Envoy.
# TYPE envoy_server_live gauge
envoy_server_live 1
`
	if got := string(p.b); got != want {
		t.Errorf("got\n%s", got)
	}
	if got := (Stat{Scope: "listener", Instance: "0.0.0.0:15006", Name: "downstream_cx_total"}).Path(); got != "listener.0.0.0.0_15006.downstream_cx_total" {
		t.Error(got)
	}
}
