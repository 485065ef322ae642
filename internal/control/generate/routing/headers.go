// Package routing says what a route does with its requests in Envoy's messages: retries, rewrites, header changes, faults, CORS, sessions.
package routing

import (
	"maps"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// ApplyHeaders adds header changes to a route, and gives the authority that they set.
func ApplyHeaders(out *routev3.Route, request, response model.HeaderChange) (host string) {
	add, remove, host := Headers(request)
	out.RequestHeadersToAdd = append(out.RequestHeadersToAdd, add...)
	out.RequestHeadersToRemove = append(out.RequestHeadersToRemove, remove...)
	add, remove, _ = Headers(response)
	out.ResponseHeadersToAdd = append(out.ResponseHeadersToAdd, add...)
	out.ResponseHeadersToRemove = append(out.ResponseHeadersToRemove, remove...)
	return host
}

// Headers translates header changes. Envoy changes neither pseudo-headers nor Host this way: setting Host becomes a rewrite of the
// authority, the rest is left out, as Istio does.
func Headers(c model.HeaderChange) (add []*corev3.HeaderValueOption, remove []string, host string) {
	write := func(values map[string]string, how corev3.HeaderValueOption_HeaderAppendAction) (authority string) {
		if len(values) == 0 {
			return "" // nearly always
		}
		for _, k := range slices.Sorted(maps.Keys(values)) {
			if strings.EqualFold(k, "host") || k == ":authority" {
				authority = values[k]
			}
			if internalHeader(k) {
				continue
			}
			add = append(add, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: k, Value: values[k]}, AppendAction: how,
				KeepEmptyValue: values[k] == ""})
		}
		return authority
	}
	host = write(c.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	if added := write(c.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD); host == "" {
		host = added
	}
	for _, k := range c.Remove {
		if !internalHeader(k) {
			remove = append(remove, k)
		}
	}
	return add, remove, host
}

func internalHeader(name string) bool {
	return strings.HasPrefix(name, ":") || strings.EqualFold(name, "host")
}
