package explain

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weftmesh/weft/internal/printable"
)

// The colours of a terminal (ECMA-48 SGR).
const (
	green = "\x1b[32m"
	red   = "\x1b[31m"
	faint = "\x1b[2m"
	bold  = "\x1b[1m"
	reset = "\x1b[0m"
)

// cell is a piece of text in a column.
type cell struct{ text, color string }

// sheet lays out rows whose cells line up within a section.
type sheet struct {
	color    bool
	sections []section
}

type section struct {
	label string
	rows  [][]cell
}

func (s *sheet) add(label string, rows ...[]cell) {
	if len(rows) > 0 {
		s.sections = append(s.sections, section{label, rows})
	}
}

func (s *sheet) line(label, text string) {
	if text != "" {
		s.add(label, []cell{{text: text}})
	}
}

// WriteText writes the report for people, in colours if wanted.
func (r *Report) WriteText(w io.Writer, color bool) error {
	s := &sheet{color: color}
	r.lay(s)
	var b strings.Builder
	from := r.From.Workload + "." + r.From.Namespace
	fmt.Fprintf(&b, "%s from %s\n\n", s.paint(bold, strings.TrimSpace(r.Request.Method+" "+r.Request.URL)), printable.Text(from))
	s.write(&b)
	mark, c := "=>", green
	if r.Outcome == "refuse" || r.Status >= 400 {
		c = red
	}
	fmt.Fprintf(&b, "\n%s %s\n", s.paint(c, mark), printable.Text(r.conclusion()))
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s %s\n", s.paint(bold, "--"), printable.Text(n))
	}
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "%s %s\n", s.paint(red, "!!"), printable.Text(p))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) conclusion() string {
	switch {
	case r.Status == 0 && r.Flag == "":
		return r.Summary
	case r.Flag == "":
		return fmt.Sprintf("%d: %s", r.Status, r.Summary)
	case r.Status == 0:
		return fmt.Sprintf("%s: %s", r.Flag, r.Summary)
	}
	return fmt.Sprintf("%d %s: %s", r.Status, r.Flag, r.Summary)
}

func (r *Report) lay(s *sheet) {
	for _, f := range r.Request.Headers {
		s.line("header", f.Name+": "+f.Value)
	}
	s.line("identity", r.From.Identity)
	s.line("listener", strings.TrimSpace(r.Listener+"  "+r.Protocol))
	s.line("tls", r.TLS)
	if r.Policy != nil {
		s.add("policy", verdictRows(r.Policy)...)
	}
	s.add("limit", limitRows(r.Limits)...)
	if r.RouteTable != "" {
		s.line("routes", r.RouteTable+"  host "+r.Domain)
	}
	var tried [][]cell
	list, left := nearest(r.Tried)
	for _, t := range list {
		tried = append(tried, t.row())
	}
	label := ""
	if r.RouteTable == "" { // rules for connections, of no table
		label = "routes"
	}
	s.add(label, tried...)
	if left > 0 {
		s.line("", fmt.Sprintf("and %d more that do not match (all are listed with -o json)", left))
	}
	if r.Route != nil {
		r.Route.lay(s)
	}
	if r.Tunnel != "" {
		s.line("tunnel", r.Tunnel)
	}
	for _, p := range r.Before {
		s.line("besides", p.String())
	}
	for i := range r.Destinations {
		r.Destinations[i].lay(s)
	}
}

// maxTried bounds the routes that people read of.
const maxTried = 20

// nearest are, of many routes, those that match and those that come near it, in their order, with how many are left out.
func nearest(all []Try) (list []Try, left int) {
	if len(all) <= maxTried {
		return all, 0
	}
	places := make([]int, len(all))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return cmp.Compare(all[b].nearness(), all[a].nearness()) })
	places = places[:maxTried]
	slices.Sort(places)
	for _, i := range places {
		list = append(list, all[i])
	}
	return list, len(all) - len(list)
}

// nearness is greater the more of a route's conditions the request fulfils: the path is asked for first, of which it is how much is the
// same.
func (t *Try) nearness() int {
	switch {
	case t.Matched:
		return math.MaxInt
	case t.Condition != "path":
		return math.MaxInt - 1
	}
	_, want, _ := strings.Cut(t.Want, "/")
	_, got, _ := strings.Cut(t.Got, "/")
	n := 0
	for n < min(len(want), len(got)) && want[n] == got[n] {
		n++
	}
	return n
}

func (t *Try) row() []cell {
	from := cell{strings.TrimSpace(t.Object + " " + t.Field), faint}
	if t.Matched {
		return []cell{{"✓", green}, {t.Name, ""}, {"matches", green}, from}
	}
	why := fmt.Sprintf("%s: want %s, got %s", t.Condition, t.Want, t.Got)
	if t.Condition == "share" {
		why = "takes " + t.Want
	}
	return []cell{{"✗", red}, {t.Name, ""}, {why, ""}, from}
}

func (r *Route) lay(s *sheet) {
	for _, f := range r.Fault {
		s.add("fault", []cell{{f, red}})
	}
	if r.Timeout != "" {
		s.line("limits", "timeout "+r.Timeout+"  retries "+r.Retries)
	}
	for _, c := range r.Changes {
		s.line("change", c)
	}
	if r.path != "" {
		s.line("change", "the path is "+r.path)
	}
	for _, m := range r.Mirrors {
		s.line("mirror", m)
	}
}

func (d *Destination) lay(s *sheet) {
	head := []cell{{share(d.Share), bold}, {d.Cluster, ""}}
	switch {
	case d.Missing:
		head = append(head, cell{d.Absence(), red})
	case d.Conf != nil && d.Conf.Refused != "":
		head = append(head, cell{"is not connected to", red})
	case !d.Dynamic && len(d.Endpoints) == 0:
		head = append(head, cell{"has no endpoints", red})
	default:
		head = append(head, cell{d.Policy, faint})
	}
	if d.HTTP != "" {
		head = append(head, cell{"in " + d.HTTP, faint})
	}
	s.add("send", head)
	var rows [][]cell
	for _, e := range d.Endpoints {
		c := cell{strings.TrimSuffix(e.State+": "+e.Why, ": "), green}
		switch e.State {
		case "ready":
		case LookedUp:
			c.color = ""
		default:
			c.color = red
		}
		rows = append(rows, append([]cell{{e.Address, ""}, {e.Instance, ""}, c}, d.standing(&e)...))
	}
	s.add("endpoints", rows...)
	if d.Ejects {
		s.line("ejected", "not known: each proxy ejects for itself what fails (outlierDetection), and its /clusters shows it")
	}
	for _, c := range d.Changes {
		s.line("change", c)
	}
	s.line("transport", d.Transport)
	for i := range d.Ways {
		if d.Ways[i].Inbound != nil {
			d.Ways[i].lay(s, len(d.Ways) > 1)
		}
	}
}

func (w *Way) lay(s *sheet, several bool) {
	in := w.Inbound
	row := in.row()
	if several {
		row[0].text = percent(w.Share) + " " + row[0].text
		if w.Endpoints > 1 {
			row[0].text += fmt.Sprintf(" and %d more", w.Endpoints-1)
		}
	}
	s.add("inbound", row)
	if in.Refused == "" {
		s.add("policy", in.verdictRows()...)
	}
	if in.Verdict.DryRun != "" {
		s.line("dry run", in.Verdict.DryRun)
	}
	s.add("limit", limitRows(in.Limits)...)
}

func limitRows(limits []Limit) (rows [][]cell) {
	for _, l := range limits {
		text := l.Text
		for i, f := range l.Each {
			text += map[bool]string{true: ", for each ", false: " and "}[i == 0] + f.Name + " (" + f.Value + ")"
		}
		row := []cell{{text, ""}, {strings.TrimSpace(l.Object + " " + l.Rule), faint}}
		if l.DryRun {
			row = append(row, cell{"in dry run", faint})
		}
		rows = append(rows, row)
	}
	return rows
}

// standing says why endpoints that are ready get different shares; nothing where they get the same.
func (d *Destination) standing(e *Endpoint) []cell {
	if !d.uneven() {
		return nil
	}
	where := fmt.Sprintf("priority %d", e.Priority)
	if e.Locality != "" {
		where += " in " + e.Locality
	}
	return []cell{{percent(e.Share), bold}, {where, faint}}
}

func (in *Inbound) row() []cell {
	who := cell{fmt.Sprintf("%s port %d", in.Party.Instance, in.Port), ""}
	if in.To != "" {
		who.text += ", which is taken to " + in.To
	}
	if in.Refused != "" {
		return []cell{who, {in.Refused, red}}
	}
	how := "with the client's identity"
	if in.Plaintext {
		how = "without identity"
	}
	return []cell{who, {how, ""}, {in.Chain, faint}}
}

func (in *Inbound) verdictRows() [][]cell {
	rows := verdictRows(&in.Verdict)
	if in.closes() {
		rows[0] = append(rows[0], cell{"by closing the connection", ""})
	}
	return rows
}

func verdictRows(v *Verdict) [][]cell {
	if v.Allowed {
		return [][]cell{{{"allowed", green}, {v.text(), ""}}}
	}
	rows := [][]cell{{{"denied", red}, {v.text(), ""}}}
	for _, m := range v.Missed {
		rows = append(rows, []cell{{"", ""}, {m.Policy, ""}, {m.Why, ""}})
	}
	return rows
}

func (s *sheet) paint(color, text string) string {
	text = printable.Text(text)
	if !s.color || color == "" || text == "" {
		return text
	}
	return color + text + reset
}

// write lays the sections out: a label once, then its rows; rows without label belong to the section before.
func (s *sheet) write(b *strings.Builder) {
	label := 0
	for _, sec := range s.sections {
		label = max(label, len(sec.label))
	}
	last := ""
	for _, sec := range s.sections {
		widths := columns(sec.rows)
		for i, row := range sec.rows {
			name := sec.label
			if i > 0 || name == last && name != "send" && name != "policy" && name != "limit" && name != "inbound" {
				name = ""
			}
			fmt.Fprintf(b, "  %s%s  ", s.paint(faint, name), strings.Repeat(" ", label-len(name)))
			for j, c := range row {
				b.WriteString(s.paint(c.color, c.text))
				if j < len(row)-1 && !blank(row[j+1:]) {
					b.WriteString(strings.Repeat(" ", widths[j]-utf8.RuneCountInString(printable.Text(c.text))+2))
				}
			}
			b.WriteByte('\n')
		}
		last = sec.label
	}
}

func blank(row []cell) bool {
	for _, c := range row {
		if c.text != "" {
			return false
		}
	}
	return true
}

func columns(rows [][]cell) []int {
	var w []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(w) {
				w = append(w, 0)
			}
			w[i] = max(w[i], utf8.RuneCountInString(printable.Text(c.text)))
		}
	}
	return w
}
