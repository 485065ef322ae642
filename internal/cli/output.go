package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weftmesh/weft/internal/printable"
)

// output writes to the terminal, with colour where there is one.
type output struct {
	out, err io.Writer
	color    bool // of out
	live     bool // err is a terminal, on which a line can be written again
}

func newOutput(out, err io.Writer) *output {
	return &output{out: out, err: err, color: isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb",
		live: isTerminal(err) && os.Getenv("TERM") != "dumb"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// paint is an SGR colour.
type paint string

const (
	plain  paint = ""
	bold   paint = "1"
	dim    paint = "2"
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
	cyan   paint = "36"
)

func (o *output) paint(p paint, s string) string {
	if !o.color || p == plain {
		return s
	}
	return "\x1b[" + string(p) + "m" + s + "\x1b[0m"
}

func (o *output) printf(format string, args ...any) { fmt.Fprintf(o.out, format, args...) }

func (o *output) fail(message, hint string) {
	fmt.Fprintf(o.err, "%s %s\n", o.paint(red, "error:"), printable.Lines(message))
	if hint != "" {
		fmt.Fprintf(o.err, "       %s\n", printable.Lines(hint))
	}
}

// patienceTime is how long a command may be silent.
const patienceTime = time.Second

// working says on a terminal, once it takes long, what is being done, and for how many seconds. The caller calls done before it prints.
func (o *output) working(what string) (done func()) {
	if !o.live {
		return func() {}
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends with done
		defer close(ended)
		tick := time.NewTicker(patienceTime)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-tick.C:
				fmt.Fprintf(o.err, "\r%s ... %d s", what, int((time.Duration(n) * patienceTime).Seconds()))
			case <-stop:
				if n > 1 {
					fmt.Fprint(o.err, "\r\x1b[K")
				}
				return
			}
		}
	}()
	return func() { close(stop); <-ended }
}

func (o *output) json(v any) error {
	enc := json.NewEncoder(o.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// cell is one field of a table.
type cell struct {
	text  string
	paint paint
	right bool
}

func text(s string) cell               { return cell{text: printable.Text(s)} }
func painted(p paint, s string) cell   { return cell{text: printable.Text(s), paint: p} }
func number(format string, a any) cell { return cell{text: fmt.Sprintf(format, a), right: true} }

// table prints rows whose columns line up, whatever their colours.
func (o *output) table(head []string, rows [][]cell) {
	width := make([]int, len(head))
	for i, h := range head {
		width[i] = utf8.RuneCountInString(h)
	}
	for _, r := range rows {
		for i, c := range r {
			width[i] = max(width[i], utf8.RuneCountInString(c.text))
		}
	}
	line := func(cells []cell) {
		var b strings.Builder
		for i, c := range cells {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.text))
			s := o.paint(c.paint, c.text)
			switch {
			case c.right:
				s = pad + s
			case i < len(cells)-1:
				s += pad
			}
			b.WriteString(s)
			if i < len(cells)-1 {
				b.WriteString("   ")
			}
		}
		fmt.Fprintln(o.out, strings.TrimRight(b.String(), " "))
	}
	top := make([]cell, len(head))
	for i, h := range head {
		top[i] = cell{text: h, paint: dim, right: len(rows) > 0 && rows[0][i].right}
	}
	line(top)
	for _, r := range rows {
		line(r)
	}
}

// age is a duration as people say it: "8s", "3m", "5h", "2d".
func age(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// milliseconds prints a latency with three significant digits.
func milliseconds(ms float64) string {
	switch {
	case ms <= 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10_000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}
