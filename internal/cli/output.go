package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/weftmesh/weft/internal/printable"
)

// output writes to the terminal, with colour where there is one.
type output struct {
	out, err io.Writer
	color    bool // of out
	errColor bool
	live     bool // err is a terminal, on which a line can be written again
}

func newOutput(out, err io.Writer) *output {
	plain := os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb"
	return &output{out: out, err: err, color: isTerminal(out) && !plain, errColor: isTerminal(err) && !plain,
		live: isTerminal(err) && os.Getenv("TERM") != "dumb"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
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

// paint is for what is printed to out, and paintErr to err.
func (o *output) paint(p paint, s string) string    { return p.on(s, o.color) }
func (o *output) paintErr(p paint, s string) string { return p.on(s, o.errColor) }

func (p paint) on(s string, terminal bool) string {
	if !terminal || p == plain {
		return s
	}
	return "\x1b[" + string(p) + "m" + s + "\x1b[0m"
}

func (o *output) printf(format string, args ...any) { fmt.Fprintf(o.out, format, args...) }

func (o *output) fail(message, hint string) {
	fmt.Fprintf(o.err, "%s %s\n", o.paintErr(red, "error:"), printable.Lines(message))
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
