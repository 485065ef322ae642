package admin

import (
	"bytes"
	"cmp"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/weftmesh/weft/internal/telemetry"
)

// stats serves the counters by Envoy's names, and all metrics in Prometheus' form. filter is a regular expression (RE2) on the name.
func (f *Facts) stats(w http.ResponseWriter, r *http.Request) {
	var filter *regexp.Regexp
	if text := r.FormValue("filter"); text != "" {
		var err error
		if filter, err = regexp.Compile(text); err != nil {
			http.Error(w, "filter: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	switch format := r.FormValue("format"); format {
	case "prometheus":
		f.prometheus(w, filter)
	case "json":
		stats := []any{}
		for _, s := range f.chosen(filter) {
			stats = append(stats, map[string]any{"name": s.Path(), "value": s.Value})
		}
		f.writeJSON(w, map[string]any{"stats": stats})
	case "", "text":
		w.Header().Set("Content-Type", plainText)
		for _, s := range f.chosen(filter) {
			fmt.Fprintf(w, "%s: %d\n", s.Path(), s.Value)
		}
	default:
		http.Error(w, fmt.Sprintf("format %q is none of text, json and prometheus", format), http.StatusBadRequest)
	}
}

const plainText = "text/plain; charset=utf-8"

// chosen gives the stats whose names the filter takes, sorted by name; nil takes all.
func (f *Facts) chosen(filter *regexp.Regexp) []telemetry.Stat {
	list := slices.DeleteFunc(f.Stats(), func(s telemetry.Stat) bool { return filter != nil && !filter.MatchString(s.Path()) })
	slices.SortFunc(list, func(a, b telemetry.Stat) int { return cmp.Compare(a.Path(), b.Path()) })
	return list
}

func (f *Facts) prometheus(w http.ResponseWriter, filter *regexp.Regexp) {
	w.Header().Set("Content-Type", telemetry.ContentType)
	if filter == nil {
		if _, err := f.Metrics(w); err != nil {
			f.Log.Debug("metrics page", "error", err)
		}
		return
	}
	var page bytes.Buffer
	if _, err := f.Metrics(&page); err != nil {
		f.Log.Debug("metrics page", "error", err)
		return
	}
	for line := range strings.Lines(page.String()) {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE ")
		if end := strings.IndexAny(name, " {"); end > 0 && filter.MatchString(name[:end]) {
			fmt.Fprint(w, line)
		}
	}
}
