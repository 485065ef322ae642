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

// choice is of what a page of counters shows: those whose names the filter takes, nil for all, and perhaps not those that are 0.
type choice struct {
	filter   *regexp.Regexp
	usedOnly bool
}

func (c choice) takes(name string, zero bool) bool {
	return (c.filter == nil || c.filter.MatchString(name)) && !(c.usedOnly && zero)
}

// chosenBy reads a choice from the parameters; where it cannot it answers and ok is false.
func chosenBy(w http.ResponseWriter, r *http.Request) (c choice, ok bool) {
	c.usedOnly = r.URL.Query().Has("usedonly")
	c.filter, ok = pattern(w, r, "filter")
	return c, ok
}

// pattern reads a parameter that is a regular expression (RE2); nil without one. Where it cannot it answers and ok is false.
func pattern(w http.ResponseWriter, r *http.Request, name string) (p *regexp.Regexp, ok bool) {
	text := r.FormValue(name)
	if text == "" {
		return nil, true
	}
	p, err := regexp.Compile(text)
	if err != nil {
		http.Error(w, name+": "+err.Error(), http.StatusBadRequest)
	}
	return p, err == nil
}

// stats serves the counters by Envoy's names, and all metrics in Prometheus' form.
func (f *Facts) stats(w http.ResponseWriter, r *http.Request) {
	c, ok := chosenBy(w, r)
	if !ok {
		return
	}
	switch format := r.FormValue("format"); format {
	case "prometheus":
		f.prometheus(w, c)
	case "json":
		stats := []any{}
		for _, s := range f.chosen(c) {
			stats = append(stats, map[string]any{"name": s.Path(), "value": s.Value})
		}
		f.writeJSON(w, map[string]any{"stats": stats})
	case "", "text":
		w.Header().Set("Content-Type", plainText)
		for _, s := range f.chosen(c) {
			fmt.Fprintf(w, "%s: %d\n", s.Path(), s.Value)
		}
	default:
		http.Error(w, fmt.Sprintf("format %q is none of text, json and prometheus", format), http.StatusBadRequest)
	}
}

const plainText = "text/plain; charset=utf-8"

// chosen gives the stats that the choice takes, sorted by name.
func (f *Facts) chosen(c choice) []telemetry.Stat {
	list := slices.DeleteFunc(f.Stats(), func(s telemetry.Stat) bool { return !c.takes(s.Path(), s.Value == 0) })
	slices.SortFunc(list, func(a, b telemetry.Stat) int { return cmp.Compare(a.Path(), b.Path()) })
	return list
}

func (f *Facts) metrics(w http.ResponseWriter, r *http.Request) {
	if c, ok := chosenBy(w, r); ok {
		f.prometheus(w, c)
	}
}

func (f *Facts) prometheus(w http.ResponseWriter, c choice) {
	w.Header().Set("Content-Type", telemetry.ContentType)
	if c == (choice{}) {
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
		if end := strings.IndexAny(name, " {"); end > 0 && c.takes(name[:end], line[0] != '#' && strings.HasSuffix(line, " 0\n")) {
			fmt.Fprint(w, line)
		}
	}
}
