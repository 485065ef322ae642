package scenario

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/test/mesh"
)

// run is one scenario under way.
type run struct {
	t     *testing.T
	ctx   context.Context
	mesh  *mesh.Mesh
	files map[string]string
	past  map[string]int // requests that seen does not count any more, by pod
}

// poll is how often eventually tries.
const poll = 20 * time.Millisecond

// play does the steps in order and stops at the first that fails.
func (r *run) play(s *script) {
	for _, st := range s.steps {
		err := r.try(st)
		for end := time.Now().Add(st.within); err != nil && time.Now().Before(end); {
			time.Sleep(poll)
			err = r.try(st)
		}
		if err != nil {
			r.t.Errorf("%s: %s\n%v", st.place, st.text, err)
			return
		}
	}
}

// try does a step once.
func (r *run) try(st *step) error {
	out, err := st.do(r)
	if err != nil {
		return err
	}
	var wrong []string
	for _, e := range st.expect {
		if err := e.hold(r, out); err != nil {
			wrong = append(wrong, fmt.Sprintf("  %s: %s: %v", e.place, e.text, err))
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s\n%s", strings.Join(wrong, "\n"), describe(out))
	}
	return nil
}

// describe tells what there was instead of what was expected.
func describe(out *outcome) string {
	if out == nil || len(out.responses) == 0 {
		return ""
	}
	r := out.responses[0]
	if r.Err != nil {
		return fmt.Sprintf("  no response after %v: %v", r.Took, r.Err)
	}
	body := r.Body
	if len(body) > 600 {
		body = body[:600] + "..."
	}
	return fmt.Sprintf("  got status %d from %q after %v, header %v\n  %s", r.Status, r.ServedBy, r.Took, r.Header, body)
}

func apply(files []string) action {
	return func(r *run) (*outcome, error) {
		for _, f := range files {
			findings, err := r.mesh.Apply(r.ctx, f, r.files[f])
			if err != nil {
				return nil, err
			}
			if len(findings) > 0 {
				return nil, fmt.Errorf("accepted, but with findings:\n%s", strings.Join(findings, "\n"))
			}
		}
		pass(settle)
		return nil, nil
	}
}

// applyFinds wants findings with the texts, of an object that is refused or accepted.
func applyFinds(file string, refused bool, texts []string) action {
	return func(r *run) (*outcome, error) {
		findings, err := r.mesh.Apply(r.ctx, file, r.files[file])
		said := strings.Join(findings, "\n")
		if err != nil {
			said += "\n" + err.Error()
		}
		if refused != (err != nil) {
			return nil, fmt.Errorf("refused: %v, want %v:\n%s", err != nil, refused, said)
		}
		for _, text := range texts {
			if !strings.Contains(said, text) {
				return nil, fmt.Errorf("no %q in:\n%s", text, said)
			}
		}
		pass(settle)
		return nil, nil
	}
}

func remove(args []string) action {
	return func(r *run) (*outcome, error) {
		if err := r.mesh.Delete(r.ctx, args[0], args[1]); err != nil {
			return nil, err
		}
		pass(settle)
		return nil, nil
	}
}

func request(st *step, q mesh.Request) action {
	return func(r *run) (*outcome, error) {
		out := &outcome{}
		for range max(st.repeat, 1) {
			out.responses = append(out.responses, r.mesh.Do(r.ctx, q))
		}
		return out, nil
	}
}

func talk(args []string) action {
	return func(r *run) (*outcome, error) {
		received, err := r.mesh.Talk(r.ctx, args[0], args[1], args[2])
		return &outcome{received: received, ended: err}, nil
	}
}

func resolve(args []string) action {
	return func(r *run) (*outcome, error) {
		addrs, err := r.mesh.Resolve(r.ctx, args[0], args[1])
		if err != nil {
			return nil, err
		}
		out := &outcome{}
		for _, a := range addrs {
			out.addresses = append(out.addresses, a.String())
		}
		slices.Sort(out.addresses)
		return out, nil
	}
}

func change(verb string, args []string) action {
	return func(r *run) (*outcome, error) {
		switch verb {
		case "kill":
			return nil, r.mesh.Kill(args[0])
		case "crash":
			return nil, r.mesh.Crash(args[0])
		case "add":
			return nil, r.mesh.Add(args[0])
		case "restart":
			return nil, r.mesh.RestartProxy(args[0])
		}
		return nil, r.mesh.SetReady(args[0], verb == "ready")
	}
}

func control(start bool) action {
	return func(r *run) (*outcome, error) {
		if start {
			return nil, r.mesh.StartControl()
		}
		return nil, r.mesh.StopControl()
	}
}

func wait(d time.Duration) action {
	return func(*run) (*outcome, error) {
		time.Sleep(d)
		return nil, nil
	}
}

func log(workload string, contains bool, text string) action {
	return func(r *run) (*outcome, error) {
		pass(settle) // the log is written in pieces
		lines, err := r.mesh.Log(workload)
		if err != nil {
			return nil, err
		}
		if strings.Contains(lines, text) != contains {
			return nil, fmt.Errorf("the access log of %s is\n%s", workload, lines)
		}
		return nil, nil
	}
}

func seen(workload string, want int, text string) action {
	return func(r *run) (*outcome, error) {
		all, err := r.mesh.Seen(workload)
		if err != nil {
			return nil, err
		}
		n, lines := 0, []string(nil)
		for pod, requests := range all {
			for _, s := range requests[min(r.past[pod], len(requests)):] {
				line := fmt.Sprintf("%s %s %s %s %v", pod, s.Method, s.Host, s.Path, s.Header)
				lines = append(lines, line)
				if strings.Contains(line, text) {
					n++
				}
			}
		}
		if n != want {
			return nil, fmt.Errorf("%d requests, want %d; seen:\n%s", n, want, strings.Join(lines, "\n"))
		}
		return nil, nil
	}
}

func forget(r *run) (*outcome, error) {
	all, err := r.mesh.Seen("")
	if err != nil {
		return nil, err
	}
	for pod, requests := range all {
		r.past[pod] = len(requests)
	}
	return nil, nil
}

func metricOf(args []string) (action, error) {
	want, err := strconv.ParseFloat(args[3], 64)
	if err != nil {
		return nil, err
	}
	holds, ok := map[string]func(float64) bool{
		"=":  func(v float64) bool { return v == want },
		">=": func(v float64) bool { return v >= want },
		"<=": func(v float64) bool { return v <= want },
		">":  func(v float64) bool { return v > want },
		"<":  func(v float64) bool { return v < want },
	}[args[2]]
	if !ok {
		return nil, fmt.Errorf("%q compares nothing", args[2])
	}
	name, labels, err := series(args[1])
	if err != nil {
		return nil, err
	}
	return func(r *run) (*outcome, error) {
		got, all, err := r.mesh.Metric(args[0], name, labels)
		if err != nil {
			return nil, err
		}
		if !holds(got) {
			return nil, fmt.Errorf("it is %v; the series are\n%s", got, strings.Join(all, "\n"))
		}
		return nil, nil
	}, nil
}

// series reads NAME or NAME{LABEL="VALUE",...}.
func series(text string) (name string, labels map[string]string, err error) {
	name, rest, ok := strings.Cut(text, "{")
	if !ok {
		return name, nil, nil
	}
	rest, ok = strings.CutSuffix(rest, "}")
	if !ok {
		return "", nil, fmt.Errorf("series %s has no end", text)
	}
	labels = map[string]string{}
	for _, pair := range strings.Split(rest, ",") {
		k, quoted, _ := strings.Cut(pair, "=")
		v, err := strconv.Unquote(quoted)
		if err != nil {
			return "", nil, fmt.Errorf("series %s: label %s: want name=\"value\"", text, pair)
		}
		labels[k] = v
	}
	return name, labels, nil
}
