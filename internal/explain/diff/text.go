package diff

import (
	"fmt"
	"io"
	"slices"
	"strings"

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

// The most that is listed of one thing.
const (
	maxNames = 5
	maxLines = 12
)

// WriteText writes the report for people, in colours if wanted.
func (r *Report) WriteText(w io.Writer, color bool) error {
	paint := func(c, s string) string {
		if s = printable.Text(s); !color {
			return s
		}
		return c + s + reset
	}
	var b strings.Builder
	changes := 0
	for _, g := range r.Groups {
		fmt.Fprintf(&b, "%s  %s\n", paint(bold, some(g.Destinations)), paint(faint, "from "+some(g.From)))
		for _, c := range g.Changes {
			changes++
			for i, text := range c.Requests {
				if i == maxLines {
					fmt.Fprintf(&b, "  and %d more\n", len(c.Requests)-maxLines)
					break
				}
				fmt.Fprintf(&b, "  %s\n", printable.Text(text))
			}
			fmt.Fprintf(&b, "    %s  %s\n    %s   %s\n", paint(red, "before"), printable.Text(c.Before), paint(green, "after"), printable.Text(c.After))
		}
		b.WriteByte('\n')
	}
	r.writeSettings(&b, paint)
	if len(r.Untold) > 0 {
		fmt.Fprintf(&b, "patterns or address ranges differ, of which only samples were tried, and none showed a difference:\n")
		for _, u := range r.Untold {
			fmt.Fprintf(&b, "  %s\n", printable.Text(u))
		}
	}
	if len(r.Undecided) > 0 {
		fmt.Fprintf(&b, "what decides differs, of the requests only a part was tried, and none showed a difference:\n")
		for _, u := range r.Undecided {
			fmt.Fprintf(&b, "  %s\n", printable.Text(u))
		}
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "%s %s\n", paint(faint, "--"), printable.Text(n))
	}
	b.WriteString(r.summary(changes))
	_, err := io.WriteString(w, b.String())
	return err
}

// writeSettings lists them by what they are about.
func (r *Report) writeSettings(b *strings.Builder, paint func(color, text string) string) {
	if len(r.Settings) == 0 {
		return
	}
	b.WriteString("settings that change, without a request that shows it:\n")
	where := ""
	for _, s := range r.Settings {
		if at := s.Where + "\x00" + s.From; at != where {
			where = at
			fmt.Fprintf(b, "  %s", paint(bold, s.Where))
			if s.From != "" {
				fmt.Fprintf(b, "  %s", paint(faint, "for "+s.From))
			}
			b.WriteByte('\n')
		}
		fmt.Fprintf(b, "    %s\n", printable.Text(strings.TrimSpace(s.Field+"  "+s.Before+" -> "+s.After)))
	}
	b.WriteByte('\n')
}

func (r *Report) summary(changes int) string {
	compared := fmt.Sprintf(" (%s of %s to %s compared)\n", count(r.Requests, "request"), count(r.Clients, "kind of client"), count(r.Destinations, "destination"))
	if r.Untried {
		return "nothing was tried: no workload is known on both sides that could send requests. Run the clients, or give their Deployments, Pods or WorkloadEntries on both sides" + compared
	}
	if changes == 0 && len(r.Settings) > 0 {
		return "no request that was tried behaves differently; others may, for settings change" + compared
	}
	if changes == 0 && len(r.Untold)+len(r.Undecided) > 0 {
		return "no request that was tried behaves differently; others may" + compared
	}
	if changes == 0 {
		return "no request behaves differently" + compared
	}
	return count(changes, "kind of request") + map[bool]string{true: " behaves", false: " behave"}[changes == 1] + " differently" + compared
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if kind, of, ok := strings.Cut(what, " "); ok {
		return fmt.Sprintf("%d %ss %s", n, kind, of)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// some lists names; where all are at one gateway, this once.
func some(names []string) string {
	if _, at, ok := strings.Cut(names[0], " at "); ok && len(names) > 1 {
		if at = " at " + at; !slices.ContainsFunc(names, func(n string) bool { return !strings.HasSuffix(n, at) }) {
			bare := make([]string, len(names))
			for i, n := range names {
				bare[i] = strings.TrimSuffix(n, at)
			}
			return some(bare) + at
		}
	}
	if len(names) <= maxNames+1 {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
}
