package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// sample is one measurement of one contestant. All are written to the results, also those that do not count.
type sample struct {
	Scenario   string             `json:"scenario"`
	Contestant string             `json:"contestant"`
	Round      int                `json:"round"`
	At         time.Time          `json:"at"`
	Values     map[string]float64 `json:"values,omitempty"`
	// Foreign is the share of the proxies' core that others used. Disturbed says that it is too large to count.
	Foreign   float64 `json:"foreign"`
	Disturbed bool    `json:"disturbed,omitempty"`
	Error     string  `json:"error,omitempty"`
}

// outcome is a scenario with what was measured.
type outcome struct {
	scenario
	samples []sample
	notes   []string
}

// runner plays scenarios.
type runner struct {
	site     *site
	field    []contestant
	rounds   int
	duration time.Duration
	log      io.Writer // progress
	profiles string    // folder for CPU profiles of weft-proxy; empty for none
}

const (
	// maxForeign is the share of the core above which a round does not count.
	maxForeign = 0.10
	// patience bounds the rounds: that many times as many as wanted.
	patience = 3
)

// with adds the other builds of weft-proxy, which no scenario names.
func (sc scenario) with(field []contestant) scenario {
	for _, c := range field {
		if c.build {
			sc.contestants = append(slices.Clip(sc.contestants), c.name)
		}
	}
	return sc
}

// play measures all contestants of a scenario in turn, round by round, until each has enough undisturbed rounds.
func (r *runner) play(ctx context.Context, sc scenario) (*outcome, error) {
	o := &outcome{scenario: sc.with(r.field)}
	sc = o.scenario
	fmt.Fprintf(r.log, "%s ", sc.key)
	defer fmt.Fprintln(r.log)
	running, err := r.launch(ctx, o)
	defer func() {
		for _, d := range running {
			if err := d.stop(); err != nil {
				o.notes = append(o.notes, err.Error())
			}
		}
	}()
	if err != nil {
		return o, err
	}
	rounds := r.rounds
	if sc.once {
		rounds = 1
	} else {
		r.warm(ctx, sc, running)
	}
	for round := 1; round <= rounds*patience && ctx.Err() == nil; round++ {
		for _, name := range sc.contestants {
			if d := running[name]; d != nil && o.lacks(name, rounds) {
				o.samples = append(o.samples, r.measure(ctx, sc, name, d, round))
			}
		}
	}
	o.derive()
	return o, errors.Join(r.profile(ctx, o, running[weftOut]), ctx.Err())
}

// launch starts the contestants; those that cannot take part are left out with a note.
func (r *runner) launch(ctx context.Context, o *outcome) (map[string]*deployment, error) {
	running := map[string]*deployment{}
	for _, c := range r.field {
		if !slices.Contains(o.contestants, c.name) || c.start[o.topology] == nil {
			continue
		}
		if c.program != "" && !inPath(c.program) {
			continue // the report says it once for all scenarios
		}
		d, err := c.launch(ctx, r.site, o.topology)
		if err != nil {
			o.notes = append(o.notes, "left out: "+err.Error())
			continue
		}
		running[c.name] = d
	}
	return running, ctx.Err()
}

// warm lets pools and heaps grow before anything counts.
func (r *runner) warm(ctx context.Context, sc scenario, running map[string]*deployment) {
	for _, name := range sc.contestants {
		if d := running[name]; d != nil {
			_, err := sc.run(ctx, r.site, d, min(time.Second, r.duration))
			_ = err // the rounds meet it again
		}
	}
}

func (r *runner) measure(ctx context.Context, sc scenario, name string, d *deployment, round int) sample {
	s := sample{Scenario: sc.key, Contestant: name, Round: round, At: time.Now().UTC()}
	m, err := sc.run(ctx, r.site, d, r.duration)
	switch s.Values, s.Foreign = m.values, m.foreign; {
	case err != nil:
		s.Error = err.Error()
		fmt.Fprint(r.log, "E")
	case m.foreign > maxForeign:
		s.Disturbed = true
		fmt.Fprint(r.log, "x")
	default:
		fmt.Fprint(r.log, ".")
	}
	return s
}

// lacks reports whether a contestant needs another round. One whose rounds all fail has had enough.
func (o *outcome) lacks(name string, rounds int) bool {
	good, failed := 0, 0
	for _, s := range o.samples {
		if s.Contestant != name {
			continue
		}
		if s.Error != "" {
			failed++
		} else if !s.Disturbed {
			good++
		}
	}
	return good < rounds && failed < rounds
}

// counted gives a contestant's undisturbed values, sorted; when there is none, the disturbed ones and false.
func (o *outcome) counted(name, value string) (values []float64, quiet bool) {
	var disturbed []float64
	for _, s := range o.samples {
		v, ok := s.Values[value]
		switch {
		case !ok || s.Contestant != name || s.Error != "":
		case s.Disturbed:
			disturbed = append(disturbed, v)
		default:
			values = append(values, v)
		}
	}
	quiet = len(values) > 0 || len(disturbed) == 0
	if !quiet {
		values = disturbed
	}
	slices.Sort(values)
	return values, quiet
}

// median gives the middle of a contestant's counted values.
func (o *outcome) median(name, value string) (float64, bool) {
	values, _ := o.counted(name, value)
	return middle(values), len(values) > 0
}

// compare gives the ratio of two contestants' medians. When one of them has disturbed rounds only, the ratio is of all rounds of
// both, so that like is compared with like, and quiet is false.
func (o *outcome) compare(name, against, value string) (ratio float64, quiet, ok bool) {
	mine, quietA := o.counted(name, value)
	base, quietB := o.counted(against, value)
	if quiet = quietA && quietB; !quiet {
		mine, base = o.all(name, value), o.all(against, value)
	}
	if len(mine) == 0 || middle(base) <= 0 {
		return 0, quiet, false
	}
	return middle(mine) / middle(base), quiet, true
}

// all gives a contestant's values, disturbed ones too, sorted.
func (o *outcome) all(name, value string) (values []float64) {
	for _, s := range o.samples {
		if v, ok := s.Values[value]; ok && s.Contestant == name && s.Error == "" {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values
}

// middle is the median of sorted values; 0 of none.
func middle(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// derive adds the values that need all contestants: the latency that a pair adds to the path without one.
func (o *outcome) derive() {
	base, ok := o.median(direct, p99)
	if !ok {
		return
	}
	for _, s := range o.samples {
		if v, ok := s.Values[p99]; ok {
			s.Values[addedP99] = v - base
		}
	}
}

// profile takes CPU profiles of weft-proxy, of both of a pair, under the scenario's load, after the rounds, so that they are not disturbed by it.
func (r *runner) profile(ctx context.Context, o *outcome, d *deployment) error {
	if r.profiles == "" || d == nil || o.once {
		return nil
	}
	from := map[string]string{o.key: d.admin}
	if d.doorAdmin != "" {
		from[o.key+"-second"] = d.doorAdmin
	}
	if o.door {
		from = map[string]string{o.key: d.doorAdmin}
	}
	seconds := max(2, int(r.duration.Seconds()))
	fetched := make(chan error, len(from))
	for name, admin := range from {
		go func() { // ends with the profile
			fetched <- r.download(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, seconds), name)
		}()
	}
	_, err := o.run(ctx, r.site, d, time.Duration(seconds)*time.Second)
	for range from {
		err = errors.Join(err, <-fetched)
	}
	if err != nil {
		return fmt.Errorf("profile of %s: %w", o.key, err)
	}
	return nil
}

// download stores a profile, and what its functions use beside it.
func (r *runner) download(ctx context.Context, url, name string) error {
	file := filepath.Join(r.profiles, name+".pprof")
	if err := download(ctx, url, file); err != nil {
		return err
	}
	top, err := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-nodecount=40", filepath.Join(r.site.dir, "weft-proxy"), file).Output()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.profiles, name+"-top.txt"), top, 0o644)
}

func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, res.Body)
	return errors.Join(err, out.Close())
}
