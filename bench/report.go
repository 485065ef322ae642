package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// table is a part of the report.
type table struct {
	title string
	head  []string
	left  int // that many columns are text
	rows  [][]string
	notes []string
}

// tableOf shows a scenario: for each contestant the medians with their range, and the ratios of the first column.
func tableOf(o *outcome) table {
	t := table{title: o.title, head: []string{"contestant"}, left: 1, notes: o.notes}
	for _, c := range o.columns {
		t.head = append(t.head, c.title)
		if !o.once {
			t.head = append(t.head, "min to max")
		}
	}
	for _, r := range o.ratios {
		t.head = append(t.head, "vs "+r)
	}
	restless := false
	for _, name := range o.contestants {
		if name == envoyProxy && !inPath("envoy") {
			continue // nobody expects it
		}
		row, quiet := o.row(name)
		restless = restless || !quiet
		t.rows = append(t.rows, row)
	}
	if !o.once {
		t.notes = append(t.notes, o.discarded())
	}
	if restless {
		t.notes = append(t.notes, "! no undisturbed round of one or both: figures and ratios are from all rounds and decide nothing")
	}
	return t
}

func (o *outcome) row(name string) (row []string, quiet bool) {
	row, quiet = []string{name}, true
	for _, c := range o.columns {
		values, ok := o.counted(name, c.value)
		quiet = quiet && ok
		cells := []string{"-", "-"}
		if n := len(values); n > 0 {
			format := func(v float64) string {
				scale := math.Pow10(c.digits)
				return strconv.FormatFloat(math.Round(v*scale)/scale+0, 'f', c.digits, 64) // + 0 makes of -0 a 0
			}
			cells = []string{format(middle(values)), format(values[0]) + " to " + format(values[n-1])}
		}
		if o.once {
			cells = cells[:1]
		}
		row = append(row, cells...)
	}
	for _, r := range o.ratios {
		row = append(row, o.ratio(name, r))
	}
	if !quiet {
		row[0] += " !"
	}
	return row, quiet
}

func (o *outcome) ratio(name, against string) string {
	ratio, quiet, ok := o.compare(name, against, o.columns[0].value)
	switch {
	case !ok || name == direct:
		return "-"
	case !quiet:
		return fmt.Sprintf("%.2fx !", ratio)
	}
	return fmt.Sprintf("%.2fx", ratio)
}

// discarded counts the rounds that do not count, and gives the reason of those that failed.
func (o *outcome) discarded() string {
	disturbed, failed, why := 0, 0, ""
	for _, s := range o.samples {
		if s.Error != "" {
			failed++
			why = s.Contestant + ": " + s.Error
		} else if s.Disturbed {
			disturbed++
		}
	}
	text := fmt.Sprintf("%d rounds, %d discarded because others used the proxies' core", len(o.samples), disturbed)
	if failed > 0 {
		text += fmt.Sprintf(", %d failed (the last: %s)", failed, why)
	}
	return text
}

// text gives the table for a terminal.
func (t table) text() string {
	width := make([]int, len(t.head))
	for _, row := range append([][]string{t.head}, t.rows...) {
		for i, cell := range row {
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", t.title)
	for _, row := range append([][]string{t.head}, t.rows...) {
		line := ""
		for i, cell := range row {
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if i < t.left {
				line += "  " + cell + space
			} else {
				line += "  " + space + cell
			}
		}
		fmt.Fprintln(&b, strings.TrimRight(line, " "))
	}
	for _, n := range t.notes {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	return b.String()
}

// markdown gives the table for the manual.
func (t table) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**\n\n| %s |\n|", t.title, strings.Join(t.head, " | "))
	for i := range t.head {
		if i < t.left {
			b.WriteString("---|")
		} else {
			b.WriteString("---:|")
		}
	}
	b.WriteString("\n")
	for _, row := range t.rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
	}
	for _, n := range t.notes {
		fmt.Fprintf(&b, "\n%s.\n", strings.TrimSuffix(n, "."))
	}
	return b.String()
}

// report is all that a run has found.
type report struct {
	about  []string // of machine and run
	played []*outcome
}

func (r *report) tables() []table {
	var all []table
	for _, o := range r.played {
		all = append(all, tableOf(o))
	}
	return append(all, goalTable(r.played))
}

// text gives the report for a terminal.
func (r *report) text() string {
	var b strings.Builder
	for _, line := range r.about {
		fmt.Fprintln(&b, line)
	}
	for _, t := range r.tables() {
		fmt.Fprintf(&b, "\n%s", t.text())
	}
	return b.String()
}

// markdown gives the report for the manual, the goals first.
func (r *report) markdown() string {
	var b strings.Builder
	for _, line := range r.about {
		fmt.Fprintf(&b, "- %s\n", line)
	}
	all := r.tables()
	for _, t := range slices.Concat(all[len(all)-1:], all[:len(all)-1]) {
		fmt.Fprintf(&b, "\n%s", t.markdown())
	}
	return b.String()
}

// record is the form of samplesFile.
type record struct {
	About   []string            `json:"about"`
	Notes   map[string][]string `json:"notes,omitempty"` // by scenario
	Samples []sample            `json:"samples"`
}

// samplesFile has the raw data of a run.
const samplesFile = "samples.json"

// loadReport makes the report of an earlier run again from its folder.
func loadReport(dir string) (*report, error) {
	path := filepath.Join(dir, samplesFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var data record
	if err := json.Unmarshal(text, &data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r := &report{about: data.About}
	for _, sc := range scenarios() {
		o := &outcome{scenario: sc, notes: data.Notes[sc.key]}
		for _, s := range data.Samples {
			if s.Scenario == sc.key {
				o.samples = append(o.samples, s)
			}
		}
		if len(o.samples) > 0 {
			r.played = append(r.played, o)
		}
	}
	return r, nil
}

// save writes the report and the raw data into a folder.
func (r *report) save(dir string) error {
	data := record{About: r.about, Notes: map[string][]string{}, Samples: []sample{}}
	for _, o := range r.played {
		data.Samples = append(data.Samples, o.samples...)
		if len(o.notes) > 0 {
			data.Notes[o.key] = o.notes
		}
	}
	raw, err := json.MarshalIndent(data, "", " ")
	if err != nil {
		return err
	}
	var errs []error
	for name, text := range map[string]string{samplesFile: string(raw) + "\n", "tables.txt": r.text(), "summary.md": r.markdown()} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return errors.Join(errs...)
}

// The marks in a document between which publish puts the summary.
const (
	beginMark = "<!-- begin: written by make bench -->"
	endMark   = "<!-- end: written by make bench -->"
)

// publish replaces the summary in a document.
func (r *report) publish(path string) error {
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(old), beginMark)
	_, after, ok2 := strings.Cut(rest, endMark)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no place for the summary (%s ... %s)", path, beginMark, endMark)
	}
	return os.WriteFile(path, []byte(before+beginMark+"\n"+r.markdown()+endMark+after), 0o644)
}
