package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// results are what a run found.
type results struct {
	options *options
	machine string

	start                  time.Duration
	first                  reply
	connecting, connectCPU time.Duration
	residentEach, liveEach int64
	bytesEach              int64
	settled, connected     reply

	endpoint, fewer, unused, route, unusedRoute change

	storms []storm
	end    reply
}

// goal is one line of the table of goals.
type goal struct {
	what, limit, reached, verdict string
}

// goals are the limits that the control plane is held to, on one core.
func (r *results) goals() []goal {
	o := r.options
	mesh := fmt.Sprintf("%d services x %d endpoints", o.size.services, o.size.endpoints)
	proportion := float64(r.endpoint.cpu) / float64(r.fewer.cpu)
	fewest, most := r.storms[0].live, r.storms[0].live
	kept, lag := true, time.Duration(0)
	for _, s := range r.storms {
		fewest, most, lag = min(fewest, s.live), max(most, s.live), max(lag, s.lag)
		kept = kept && s.changes >= int(0.98*float64(o.rate)*o.storm.Seconds()/3) && s.lag < 300*time.Millisecond
	}
	growth := float64(r.storms[len(r.storms)-1].live)/float64(r.storms[0].live) - 1
	return []goal{
		{mesh + ": start to serving", "<= 5 s", seconds(r.start), verdict(r.start <= 5*time.Second)},
		{mesh + ": resident memory, at its peak", "<= 600 MiB", mib(r.first.Peak), verdict(r.first.Peak <= 600<<20)},
		{fmt.Sprintf("memory for each of %d proxies that use %d services", o.clients, o.uses), "<= 60 KiB", kib(r.residentEach), r.memoryVerdict()},
		{fmt.Sprintf("one endpoint change, %d of %d proxies interested: the last one has it", r.endpoint.interested, o.clients), "<= 300 ms",
			fmt.Sprintf("%s (worst %s)", ms(r.endpoint.last), ms(r.endpoint.latest)), verdict(r.endpoint.last <= 300*time.Millisecond)},
		{fmt.Sprintf("its CPU, against one with %d interested", r.fewer.interested), fmt.Sprintf("<= %.0fx", 1.2*ratio(r.endpoint.interested, r.fewer.interested)),
			fmt.Sprintf("%.1fx", proportion), verdict(proportion <= 1.2*ratio(r.endpoint.interested, r.fewer.interested))},
		{"its responses to proxies that do not use the service", "0", fmt.Sprint(r.endpoint.strays + r.fewer.strays + r.unused.strays), verdict(r.endpoint.strays+r.fewer.strays+r.unused.strays == 0)},
		{"a route change is compiled and published", "<= 5 ms", ms(r.unusedRoute.published), verdict(r.unusedRoute.published <= 5*time.Millisecond)},
		{"its responses to proxies that do not use the host", "0", fmt.Sprint(r.route.strays + r.unusedRoute.strays), verdict(r.route.strays+r.unusedRoute.strays == 0)},
		{fmt.Sprintf("%d endpoint changes per second for %v: behind at the end", o.rate, o.storm), "<= 300 ms", ms(lag), verdict(kept)},
		{"the same: memory in use, the last third against the first", "<= 3 % more", fmt.Sprintf("%+.1f %%", 100*growth), verdict(growth <= 0.03)},
	}
}

// memoryVerdict is given from the number of proxies on that the goal is for. With fewer, what is made once for all of them is most of it.
func (r *results) memoryVerdict() string {
	if r.options.clients < 10_000 {
		return "no verdict with fewer than 10000 proxies"
	}
	return verdict(r.residentEach <= 60<<10)
}

func ratio(a, b int) float64 { return float64(a) / float64(max(b, 1)) }

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
func ms(d time.Duration) string      { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
func mib(n int64) string             { return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20)) }
func kib(n int64) string             { return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10)) }

// report prints the tables, and puts them into the document that is to be renewed.
func (r *results) report(out io.Writer) error {
	text := r.markdown()
	if _, err := io.WriteString(out, align(text)); err != nil {
		return err
	}
	if r.options.publish == "" {
		return nil
	}
	return replace(r.options.publish, text)
}

func (r *results) markdown() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("- %s, weft %s", time.Now().Format("2006-01-02 15:04"), revision())
	if r.options.note != "" {
		line("- %s", r.options.note)
	}
	line("- %s, %s", r.machine, runtime.Version())
	line("- control plane alone on core %d with GOMAXPROCS=1; %d clients on core %d; mutual TLS over loopback", r.options.planeCPU, r.options.clients, r.options.loadCPU)
	line("")
	line("| goal | limit | reached | verdict |")
	line("|---|---|---:|---|")
	for _, g := range r.goals() {
		line("| %s | %s | %s | %s |", g.what, g.limit, g.reached, g.verdict)
	}
	line("")
	line("| single changes, medians of %d | proxies that use it | published | last proxy has it | CPU | sent |", r.options.changes)
	line("|---|---:|---:|---:|---:|---:|")
	for _, c := range []struct {
		name string
		change
	}{{"endpoint replaced", r.endpoint}, {"endpoint replaced", r.fewer}, {"endpoint replaced", r.unused}, {"route changed", r.route}, {"route changed", r.unusedRoute}} {
		line("| %s | %d | %s | %s | %s | %s in %d responses |", c.name, c.interested, ms(c.published), ms(c.last), ms(c.cpu), kib(c.bytes), c.responses)
	}
	line("")
	line("| storm of %d endpoint changes per second | changes | behind at the end | of the core | in use | resident |", r.options.rate)
	line("|---|---:|---:|---:|---:|---:|")
	for i, s := range r.storms {
		line("| third %d | %d | %s | %.0f %% | %s | %s |", i+1, s.changes, ms(s.lag), 100*s.cpu, mib(s.live), mib(s.resident))
	}
	line("")
	line("| memory and start | |")
	line("|---|---:|")
	line("| resident when it served: peak, after collection | %s, %s |", mib(r.first.Peak), mib(r.settled.Resident))
	line("| each proxy: resident, in use | %s, %s |", kib(r.residentEach), kib(r.liveEach))
	line("| each proxy: CPU to connect and get all, bytes of it | %s, %s |", ms(r.connectCPU), kib(r.bytesEach))
	line("| all %d proxies connected and synced in | %s |", r.options.clients, seconds(r.connecting))
	line("| resident with all proxies; peak of the run | %s, %s |", mib(r.connected.Resident), mib(r.end.Peak))
	return b.String()
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "not met"
}

// revision names what is measured.
func revision() string {
	out, err := exec.Command("git", "describe", "--tags", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// align makes Markdown's tables readable on a terminal.
func align(text string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	for line := range strings.Lines(text) {
		if cells, ok := strings.CutPrefix(line, "| "); ok {
			line = strings.ReplaceAll(strings.TrimSuffix(strings.TrimSpace(cells), " |"), " | ", "\t") + "\n"
		} else if strings.HasPrefix(line, "|--") {
			continue
		}
		io.WriteString(w, line) //nolint:errcheck // into memory
	}
	w.Flush() //nolint:errcheck // into memory
	return b.String()
}

// Where a document has the tables.
const (
	begin = "<!-- begin: written by make bench-control -->\n"
	end   = "<!-- end: written by make bench-control -->"
)

func replace(file, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok1 := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no place for the tables: a line %q and one %q", file, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}
