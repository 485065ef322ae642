package decode

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	connlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	netlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// connectionLimit gives nil for a filter that is turned off.
func (d *decoder) connectionLimit(m *connlimitv3.ConnectionLimit) []conf.Gate {
	d.Only(m, "max_connections", "runtime_enabled",
		"stat_prefix") // without effect: a name of statistics
	n := m.GetMaxConnections().GetValue()
	if n == 0 {
		d.At("max_connections", func() { d.Fail("must be more than 0") })
	}
	if !d.turnedOn("runtime_enabled", m.GetRuntimeEnabled()) {
		return nil
	}
	return []conf.Gate{{Key: d.place(), MaxConnections: n}}
}

// connectionRate gives nil for a filter that is turned off.
func (d *decoder) connectionRate(m *netlimitv3.LocalRateLimit) []conf.Gate {
	d.Only(m, "token_bucket", "runtime_enabled", "share_key",
		"stat_prefix") // without effect: a name of statistics
	l := &conf.LocalLimit{Key: d.limitKey(m)}
	d.At("token_bucket", func() { l.Bucket = d.tokenBucket(m.GetTokenBucket()) })
	if k := m.GetShareKey(); k != "" {
		l.Key = fmt.Sprintf("shared|%s|%v", k, *l.Bucket)
	}
	if !d.turnedOn("runtime_enabled", m.GetRuntimeEnabled()) {
		return nil
	}
	return []conf.Gate{{Key: d.place(), Rate: l}}
}

func (d *decoder) place() string { return d.resource + "|" + d.Path() }

// turnedOn reads a flag that is on where nothing is said. There is no runtime whose keys could change it.
func (d *decoder) turnedOn(field string, m *corev3.RuntimeFeatureFlag) bool {
	if m == nil {
		return true
	}
	d.At(field, func() {
		d.Only(m, "default_value",
			"runtime_key") // without effect: there is no runtime
	})
	return m.GetDefaultValue().GetValue()
}
