package mesh

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metric sums the series of a metric that have all the labels, over the proxies of a workload's running pods. Of a histogram it is
// the number of observations. All lists the metric's series as text.
func (m *Mesh) Metric(workload, name string, labels map[string]string) (sum float64, all []string, err error) {
	found := m.Pods(workload)
	if len(found) == 0 {
		return 0, nil, fmt.Errorf("no pod runs for %s", workload)
	}
	for _, p := range found {
		page, err := p.sidecar.metrics()
		if err != nil {
			return 0, nil, err
		}
		parser := expfmt.NewTextParser(model.UTF8Validation)
		families, err := parser.TextToMetricFamilies(bytes.NewReader(page))
		if err != nil {
			return 0, nil, fmt.Errorf("metrics of %s: %w", p.Name, err)
		}
		for _, s := range families[name].GetMetric() {
			value := s.GetCounter().GetValue() + s.GetGauge().GetValue() + float64(s.GetHistogram().GetSampleCount())
			all = append(all, fmt.Sprintf("%s %s %v", p.Name, text(s), value))
			if has(s, labels) {
				sum += value
			}
		}
	}
	slices.Sort(all)
	return sum, all, nil
}

func has(s *dto.Metric, labels map[string]string) bool {
	n := 0
	for _, l := range s.GetLabel() {
		want, ok := labels[l.GetName()]
		if ok && want != l.GetValue() {
			return false
		}
		if ok {
			n++
		}
	}
	return n == len(labels)
}

func text(s *dto.Metric) string {
	var b strings.Builder
	for _, l := range s.GetLabel() {
		fmt.Fprintf(&b, "%s=%q ", l.GetName(), l.GetValue())
	}
	return b.String()
}
