package local

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/internal/unixsocket"
	"github.com/weftmesh/weft/internal/wire"
)

// What a proxy may take to tell its clusters, and how much is read of that, in bytes.
const (
	maxAsking   = 2 * time.Second
	maxClusters = 64 << 20
)

// Ejected implements Host: the proxy of the instance is asked. One that does not answer is as one that cannot be asked.
func (m *Mesh) Ejected(ctx context.Context, w *model.Workload) map[explain.Ejected]string {
	for _, t := range m.targets() {
		if t.Pod == w.Name && t.Namespace == w.Namespace {
			out, err := ejectedBy(ctx, t.Socket)
			if err != nil {
				m.log.Debug("a proxy does not tell what it ejected", "pod", t.Pod, "error", err)
			}
			return out
		}
	}
	return nil
}

// ejectedBy asks a proxy by the socket of its admin interface. It is nil with an error only.
func ejectedBy(ctx context.Context, socket string) (map[explain.Ejected]string, error) {
	ctx, cancel := context.WithTimeout(ctx, maxAsking)
	defer cancel()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: unixsocket.Dialer(socket)}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/clusters?format=json", nil)
	if err != nil {
		return nil, err
	}
	answer, err := tr.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("clusters: %s", answer.Status)
	}
	var all struct {
		Clusters []struct {
			Name  string `json:"name"`
			Hosts []struct {
				Address struct {
					Socket struct {
						Address string `json:"address"`
						Port    uint16 `json:"port_value"`
					} `json:"socket_address"`
				} `json:"address"`
				Health struct {
					Outlier bool `json:"failed_outlier_check"`
				} `json:"health_status"`
				Condition string `json:"condition"`
			} `json:"host_statuses"`
		} `json:"cluster_statuses"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxClusters)).Decode(&all); err != nil {
		return nil, fmt.Errorf("clusters: %w", err)
	}
	out := map[explain.Ejected]string{}
	for _, c := range all.Clusters {
		for _, h := range c.Hosts {
			if a := h.Address.Socket; h.Health.Outlier {
				out[explain.Ejected{Cluster: c.Name, Address: wire.EndpointName(a.Address, a.Port)}] = strings.TrimSuffix(strings.TrimPrefix(h.Condition, "ejected ("), ")")
			}
		}
	}
	return out, nil
}
