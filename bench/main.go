// Command bench measures weft-proxy side by side with nginx, HAProxy, net/http's ReverseProxy, and Envoy where there is one. It is
// `make bench`; docs/bench.md says what each scenario measures and how to read the tables.
//
// The proxies run pinned to one core; load, backend and control plane share another. The contestants of a scenario are measured in
// turn, round by round, so that what changes on the machine meets all of them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/weftmesh/weft/bench/machine"
)

// options are the flags.
type options struct {
	rounds   int
	duration time.Duration
	only     string
	with     string
	builds   string
	proxyCPU int
	loadCPU  int
	out      string
	profile  bool
	publish  string
	from     string
	note     string
	hold     bool
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 3, "undisturbed rounds that each contestant needs")
	flag.DurationVar(&o.duration, "d", 4*time.Second, "duration of a round, in whole seconds")
	flag.StringVar(&o.only, "only", "", "scenarios to play, as `KEY,KEY` (default all: "+strings.Join(keys(), ",")+")")
	flag.StringVar(&o.with, "with", "", "contestants to measure, as `NAME+NAME` (default all)")
	flag.StringVar(&o.builds, "builds", "", "other builds of weft-proxy to measure as contestants of their own, as `NAME=FILE+NAME=FILE`")
	flag.IntVar(&o.proxyCPU, "proxy-cpu", runtime.NumCPU()-1, "core of the proxies")
	flag.IntVar(&o.loadCPU, "load-cpu", 0, "core of load and backend")
	flag.StringVar(&o.out, "out", filepath.Join("bench", "results"), "folder for the results; each run makes one in it")
	flag.BoolVar(&o.profile, "profile", false, "also take CPU profiles of weft-proxy")
	flag.StringVar(&o.publish, "publish", "", "Markdown `FILE` whose summary is to be replaced")
	flag.StringVar(&o.from, "from", "", "measure nothing: make the report again from the `FOLDER` of an earlier run")
	flag.StringVar(&o.note, "note", "", "what readers should know of this run")
	flag.BoolVar(&o.hold, "hold", false, "measure nothing: start the contestants of the scenarios, print where they are, and keep them until interrupted")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func keys() (all []string) {
	for _, sc := range scenarios() {
		all = append(all, sc.key)
	}
	return all
}

func run(ctx context.Context, o options) (err error) {
	if o.from != "" {
		return o.again()
	}
	wanted, err := choose(o.only)
	if err != nil {
		return err
	}
	field, err := o.field()
	if err != nil {
		return err
	}
	if o.proxyCPU == o.loadCPU {
		return errors.New("the proxies need a core of their own: at least two are required")
	}
	if _, err := os.Stat("bench/main.go"); err != nil {
		return errors.New("to be run from the repository's root, as make bench does")
	}
	notes, err := install(ctx)
	for _, n := range notes {
		fmt.Fprintln(os.Stderr, n)
	}
	if err != nil {
		return err
	}
	if err := machine.PinSelf(o.loadCPU); err != nil {
		return err
	}
	runtime.GOMAXPROCS(2) // the thread that paces requests must not wait for the one that reads answers
	s, err := openSite(ctx, o.proxyCPU, o.loadCPU)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if o.hold {
		return hold(ctx, s, field, wanted)
	}
	return o.measure(ctx, s, field, wanted, notes)
}

// hold keeps contestants running for whoever wants to look at them.
func hold(ctx context.Context, s *site, field []contestant, wanted []scenario) (err error) {
	r := &runner{site: s, field: field, log: os.Stderr}
	for _, sc := range wanted {
		o := &outcome{scenario: sc.with(field)}
		running, launchErr := r.launch(ctx, o)
		defer func() {
			for _, d := range running {
				err = errors.Join(err, d.stop())
			}
		}()
		if launchErr != nil {
			return launchErr
		}
		for name, d := range running {
			fmt.Printf("%s\t%s\thttp://%s/", sc.key, name, d.entry)
			for _, p := range d.proxies {
				fmt.Printf("\t%v", p.pids)
			}
			fmt.Printf("\t%s\t%s\n", d.admin, d.doorAdmin)
		}
		for _, n := range o.notes {
			fmt.Fprintln(os.Stderr, n)
		}
	}
	<-ctx.Done()
	return nil
}

// again reports an earlier run.
func (o options) again() error {
	rep, err := loadReport(o.from)
	if err != nil {
		return err
	}
	fmt.Print(rep.text())
	if o.publish == "" {
		return nil
	}
	return rep.publish(o.publish)
}

// choose gives the scenarios of a list of keys, all for an empty one.
func choose(only string) ([]scenario, error) {
	all := scenarios()
	if only == "" {
		return all, nil
	}
	var out []scenario
	for key := range strings.SplitSeq(only, ",") {
		i := slices.IndexFunc(all, func(s scenario) bool { return s.key == key })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q; there are %s", key, strings.Join(keys(), ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}

// field gives the contestants that are to be measured.
func (o options) field() ([]contestant, error) {
	all := contestants()
	for b := range strings.SplitSeq(o.builds, "+") {
		name, file, ok := strings.Cut(b, "=")
		if b == "" {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("-builds: %q is not NAME=FILE", b)
		}
		abs, err := filepath.Abs(file)
		if err != nil {
			return nil, err
		}
		all = append(all, otherBuild(name, abs))
	}
	if o.with == "" {
		return all, nil
	}
	var out []contestant
	for name := range strings.SplitSeq(o.with, "+") {
		i := slices.IndexFunc(all, func(c contestant) bool { return c.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-with: no contestant %q", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

// measure plays the scenarios and reports. What was measured before an error is reported too.
func (o options) measure(ctx context.Context, s *site, field []contestant, wanted []scenario, notes []string) error {
	now := time.Now()
	dir := filepath.Join(o.out, now.Format("2006-01-02T15-04-05"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	r := &runner{site: s, field: field, rounds: o.rounds, duration: o.duration, log: os.Stderr}
	if o.profile {
		r.profiles = dir
	}
	rep := &report{about: o.about(ctx, s, now, notes)}
	var failed error
	for _, sc := range wanted {
		played, err := r.play(ctx, sc)
		rep.played = append(rep.played, played)
		if failed = errors.Join(failed, err); ctx.Err() != nil {
			break
		}
	}
	fmt.Print(rep.text())
	failed = errors.Join(failed, rep.save(dir))
	fmt.Fprintln(os.Stderr, "results:", dir)
	if o.publish != "" && failed == nil {
		failed = rep.publish(o.publish)
	}
	return failed
}

// about describes the run.
func (o options) about(ctx context.Context, s *site, now time.Time, notes []string) []string {
	about := []string{fmt.Sprintf("%s; rounds of %v, %d of each contestant, interleaved; median, min to max", now.Format("2006-01-02 15:04"), o.duration, o.rounds)}
	if o.note != "" {
		about = append(about, o.note)
	}
	about = append(about, machine.Facts(),
		fmt.Sprintf("proxies on core %d; load, backend and control plane on core %d; everything on loopback", s.proxyCPU, s.loadCPU))
	about = append(about, versions(ctx)...)
	about = append(about, wiring)
	return append(about, notes...)
}
