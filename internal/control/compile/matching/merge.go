// Package matching compares what rules of routes match, and joins it.
package matching

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/control/model"
)

// JoinNames gives both names, as Istio writes them.
func JoinNames(outer, inner string) string {
	if outer == "" || inner == "" {
		return outer + inner
	}
	return outer + "-" + inner
}

// Merge gives each inner match narrowed by every outer one that it agrees with; false when an inner one agrees with none. Without
// any inner one it gives the outer ones, whose place is then the inner rule's.
func Merge(outer, inner []model.HTTPMatch) ([]model.HTTPMatch, bool) {
	if len(outer) == 0 {
		return inner, true
	}
	var out []model.HTTPMatch
	if len(inner) == 0 {
		for _, o := range outer {
			out = append(out, narrowed(o, model.HTTPMatch{}))
		}
		return out, true
	}
	for _, in := range inner {
		before := len(out)
		for _, o := range outer {
			if agree(&o, &in) {
				out = append(out, narrowed(o, in))
			}
		}
		if len(out) == before {
			return nil, false
		}
	}
	return out, true
}

// agree reports whether every condition of an inner match can hold beside the outer's of the same kind.
func agree(outer, inner *model.HTTPMatch) bool {
	if outer.Port != 0 && inner.Port != 0 && outer.Port != inner.Port {
		return false
	}
	return clientsWithin(outer, inner) && gatewaysWithin(outer, inner) && within(outer.Path, inner.Path) && within(outer.Scheme, inner.Scheme) && within(outer.Method, inner.Method) &&
		within(outer.Authority, inner.Authority) && allWithin(outer.Headers, inner.Headers) &&
		allWithin(outer.WithoutHeaders, inner.WithoutHeaders) && allWithin(outer.Query, inner.Query)
}

// clientsWithin reports whether an inner match may be for clients of the outer's. As in Istio, it has to name the outer's namespace
// itself, where labels that it does not name are the outer's.
func clientsWithin(outer, inner *model.HTTPMatch) bool {
	if outer.SourceNamespace != "" && inner.SourceNamespace != outer.SourceNamespace {
		return false
	}
	for label, value := range inner.SourceLabels {
		if v, ok := outer.SourceLabels[label]; ok && v != value {
			return false
		}
	}
	return true
}

// gatewaysWithin reports whether the outer match names all gateways that an inner one does, where both name any.
func gatewaysWithin(outer, inner *model.HTTPMatch) bool {
	if !namesGateways(outer) || !namesGateways(inner) {
		return true
	}
	return (outer.Mesh || !inner.Mesh) &&
		!slices.ContainsFunc(inner.Gateways, func(g model.GatewayRef) bool { return !slices.Contains(outer.Gateways, g) })
}

func namesGateways(m *model.HTTPMatch) bool { return m.Mesh || len(m.Gateways) > 0 }

// within reports whether what an inner condition takes is part of what the outer takes. Of regular expressions, and of presence
// beside anything, it is not believed.
func within(outer, inner model.StringMatch) bool {
	switch {
	case outer.IsZero() || inner.IsZero():
		return true
	case outer.Regex+inner.Regex != "" || outer.Present || inner.Present || outer.IgnoreCase != inner.IgnoreCase:
		return false
	case outer.IsExact:
		return inner.IsExact && inner.Exact == outer.Exact
	}
	return strings.HasPrefix(inner.Exact+inner.Prefix, outer.Prefix)
}

func allWithin(outer, inner []model.NamedMatch) bool {
	for _, in := range inner {
		for _, o := range outer {
			if o.Name == in.Name && !within(o.Match, in.Match) {
				return false
			}
		}
	}
	return true
}

// narrowed gives both matches in one. The place is the inner's.
func narrowed(outer, inner model.HTTPMatch) model.HTTPMatch {
	inner.Name = JoinNames(outer.Name, inner.Name)
	for _, m := range []struct{ to, from *model.StringMatch }{{&inner.Path, &outer.Path}, {&inner.Scheme, &outer.Scheme},
		{&inner.Method, &outer.Method}, {&inner.Authority, &outer.Authority}} {
		if m.to.IsZero() {
			*m.to = *m.from
		}
	}
	inner.Headers = both(outer.Headers, inner.Headers)
	inner.WithoutHeaders = both(outer.WithoutHeaders, inner.WithoutHeaders)
	inner.Query = both(outer.Query, inner.Query)
	inner.Port = cmp.Or(inner.Port, outer.Port)
	inner.StatPrefix = cmp.Or(inner.StatPrefix, outer.StatPrefix)
	inner.SourceLabels = bothLabels(outer.SourceLabels, inner.SourceLabels)
	inner.SourceNamespace = cmp.Or(inner.SourceNamespace, outer.SourceNamespace)
	if !namesGateways(&inner) {
		inner.Gateways, inner.Mesh = outer.Gateways, outer.Mesh
	}
	return inner
}

func bothLabels(outer, inner map[string]string) map[string]string {
	switch {
	case len(outer) == 0:
		return inner
	case len(inner) == 0:
		return outer
	}
	out := maps.Clone(outer)
	maps.Copy(out, inner)
	return out
}

// both joins conditions by name, the inner's where both have one.
func both(outer, inner []model.NamedMatch) []model.NamedMatch {
	out := slices.Clone(inner)
	for _, o := range outer {
		if !slices.ContainsFunc(inner, func(n model.NamedMatch) bool { return n.Name == o.Name }) {
			out = append(out, o)
		}
	}
	slices.SortStableFunc(out, func(a, b model.NamedMatch) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
