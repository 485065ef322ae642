package scenario

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/test/mesh"
)

// ofResponse makes an expectation of each response of a step.
func ofResponse(check func(*run, *mesh.Response) error) func(*run, *outcome) error {
	return func(r *run, out *outcome) error {
		if out == nil || len(out.responses) == 0 {
			return fmt.Errorf("it is about a request, and this step makes none")
		}
		for _, resp := range out.responses {
			if resp.Err != nil {
				return fmt.Errorf("no response: %w", resp.Err)
			}
			if err := check(r, resp); err != nil {
				return err
			}
		}
		return nil
	}
}

func expectationOf(words []string) (func(*run, *outcome) error, error) {
	verb, args := words[0], words[1:]
	wants := map[string]int{"status": 1, "from": 1, "header": 2, "body": 2, "echo": 2, "took": 2, "share": 2, "served": 3, "receives": 1, "address": 1, "vip": 1, "pods": 1}
	if len(args) < wants[verb] {
		return nil, fmt.Errorf("%s wants %d words", verb, wants[verb])
	}
	switch verb {
	case "status":
		return status(args[0])
	case "from":
		return ofResponse(func(r *run, resp *mesh.Response) error { return servedBy(r, resp, args[0]) }), nil
	case "header":
		return fieldOf(args, func(resp *mesh.Response, name string) (string, bool, error) {
			v := resp.Header.Values(name)
			return strings.Join(v, ", "), len(v) > 0, nil
		})
	case "body":
		return bodyOf(args)
	case "echo":
		return echoOf(args)
	case "took":
		return took(args)
	case "fails":
		return fails(strings.Join(args, " ")), nil
	case "share":
		return shareOf(args[1:])
	case "served":
		return servedBySome(args)
	case "receives":
		return receives(args[0]), nil
	case "refused":
		return refused, nil
	case "address", "vip", "pods", "nothing":
		return resolvesTo(verb, args), nil
	}
	return nil, fmt.Errorf("no expectation is called %q", verb)
}

func status(word string) (func(*run, *outcome) error, error) {
	want, err := strconv.Atoi(word)
	return ofResponse(func(_ *run, resp *mesh.Response) error {
		if resp.Status != want {
			return fmt.Errorf("status %d", resp.Status)
		}
		return nil
	}), err
}

func servedBy(r *run, resp *mesh.Response, workload string) error {
	ok, err := r.mesh.Is(resp.ServedBy, workload)
	if err == nil && !ok {
		err = fmt.Errorf("answered by %q", resp.ServedBy)
	}
	return err
}

// fieldOf reads "NAME = VALUE" or "NAME absent".
func fieldOf(words []string, get func(*mesh.Response, string) (string, bool, error)) (func(*run, *outcome) error, error) {
	absent := len(words) == 2 && words[1] == "absent"
	if !absent && (len(words) < 3 || words[1] != "=" && words[1] != "contains") {
		return nil, fmt.Errorf("want NAME = VALUE, NAME contains VALUE, or NAME absent")
	}
	want := strings.Join(words[2:], " ")
	fits := func(got string) bool { return got == want || words[1] == "contains" && strings.Contains(got, want) }
	return ofResponse(func(_ *run, resp *mesh.Response) error {
		got, present, err := get(resp, words[0])
		switch {
		case err != nil:
			return err
		case absent && present, !absent && (!present || !fits(got)):
			return fmt.Errorf("it is %q (present: %v)", got, present)
		}
		return nil
	}), nil
}

func bodyOf(args []string) (func(*run, *outcome) error, error) {
	if args[0] != "contains" && args[0] != "lacks" {
		return nil, fmt.Errorf("body contains, or lacks")
	}
	return ofResponse(func(_ *run, resp *mesh.Response) error {
		if strings.Contains(resp.Body, args[1]) != (args[0] == "contains") {
			return fmt.Errorf("the body is\n%s", resp.Body)
		}
		return nil
	}), nil
}

// echoOf is about the request that the program echo reports in its answer.
func echoOf(args []string) (func(*run, *outcome) error, error) {
	decode := func(resp *mesh.Response) (mesh.Echo, error) {
		var e mesh.Echo
		err := json.NewDecoder(strings.NewReader(resp.Body)).Decode(&e)
		return e, err
	}
	if args[0] == "header" {
		return fieldOf(args[1:], func(resp *mesh.Response, name string) (string, bool, error) {
			e, err := decode(resp)
			v, ok := e.Header[strings.ToLower(name)]
			return v, ok, err
		})
	}
	if !slices.Contains([]string{"path", "host", "method", "body"}, args[0]) {
		return nil, fmt.Errorf("echo path, host, method, body or header")
	}
	return fieldOf(args, func(resp *mesh.Response, name string) (string, bool, error) {
		e, err := decode(resp)
		return map[string]string{"path": e.Path, "host": e.Host, "method": e.Method, "body": e.Body}[name], true, err
	})
}

func took(args []string) (func(*run, *outcome) error, error) {
	want, err := time.ParseDuration(args[1])
	if err != nil {
		return nil, err
	}
	if args[0] != ">=" && args[0] != "<" {
		return nil, fmt.Errorf("took >=, or <")
	}
	return func(_ *run, out *outcome) error {
		for _, resp := range out.responses {
			if (resp.Took >= want) != (args[0] == ">=") {
				return fmt.Errorf("it took %v", resp.Took)
			}
		}
		return nil
	}, nil
}

func fails(text string) func(*run, *outcome) error {
	return func(_ *run, out *outcome) error {
		for _, resp := range out.responses {
			if resp.Err == nil || !strings.Contains(resp.Err.Error(), text) {
				return fmt.Errorf("status %d, error %v", resp.Status, resp.Err)
			}
		}
		return nil
	}
}

// share is one "WORKLOAD=PERCENT±PERCENT".
type share struct {
	workload        string
	percent, spread float64
}

// shareOf wants every request answered with 200, and by whom.
func shareOf(words []string) (func(*run, *outcome) error, error) {
	var shares []share
	for _, w := range words {
		name, numbers, _ := strings.Cut(w, "=")
		percent, spread, _ := strings.Cut(numbers, "±")
		s := share{workload: name}
		var err1, err2 error
		s.percent, err1 = strconv.ParseFloat(percent, 64)
		if spread != "" {
			s.spread, err2 = strconv.ParseFloat(spread, 64)
		}
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("share %q: want WORKLOAD=PERCENT±PERCENT", w)
		}
		shares = append(shares, s)
	}
	return func(r *run, out *outcome) error { return r.checkShares(out, shares) }, nil
}

func (r *run) checkShares(out *outcome, shares []share) error {
	counts := map[string]int{}
	for _, resp := range out.responses {
		if resp.Err != nil || resp.Status != http.StatusOK {
			return fmt.Errorf("status %d, error %v", resp.Status, resp.Err)
		}
		counts[resp.ServedBy]++
	}
	for _, s := range shares {
		n := 0
		for pod, c := range counts {
			ok, err := r.mesh.Is(pod, s.workload)
			if err != nil {
				return err
			}
			if ok {
				n += c
			}
		}
		if got := 100 * float64(n) / float64(len(out.responses)); math.Abs(got-s.percent) > s.spread {
			return fmt.Errorf("%s got %.1f %%; all: %v", s.workload, got, counts)
		}
	}
	return nil
}

// servedBySome is for "served N by COUNT": how many instances have answered.
func servedBySome(args []string) (func(*run, *outcome) error, error) {
	want, err := strconv.Atoi(args[2])
	if err != nil || args[1] != "by" {
		return nil, fmt.Errorf("want: served N by COUNT")
	}
	return func(_ *run, out *outcome) error {
		counts := map[string]int{}
		for _, resp := range out.responses {
			if resp.Err != nil || resp.Status != http.StatusOK {
				return fmt.Errorf("status %d, error %v", resp.Status, resp.Err)
			}
			counts[resp.ServedBy]++
		}
		if len(counts) != want {
			return fmt.Errorf("served by %d: %v", len(counts), counts)
		}
		return nil
	}, nil
}

func receives(text string) func(*run, *outcome) error {
	return func(_ *run, out *outcome) error {
		if !strings.Contains(out.received, text) {
			return fmt.Errorf("received %q, then %v", out.received, out.ended)
		}
		return nil
	}
}

// refused wants a connection that gave nothing, whether it was never made, reset or closed.
func refused(_ *run, out *outcome) error {
	if out.received != "" {
		return fmt.Errorf("received %q", out.received)
	}
	return nil
}

func resolvesTo(verb string, args []string) func(*run, *outcome) error {
	return func(r *run, out *outcome) error {
		var want []string
		switch verb {
		case "address":
			want = args
		case "vip":
			ip, err := r.mesh.ServiceAddress(args[0])
			if err != nil {
				return err
			}
			want = []string{ip.String()}
		case "pods":
			for _, p := range r.mesh.Pods(args[0]) {
				want = append(want, p.IP.String())
			}
		}
		slices.Sort(want)
		if !slices.Equal(out.addresses, want) {
			return fmt.Errorf("resolved to %v, want %v", out.addresses, want)
		}
		return nil
	}
}
