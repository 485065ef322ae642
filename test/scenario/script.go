package scenario

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/weftmesh/weft/test/mesh"
)

// script is a parsed scenario.
type script struct {
	manifests []string // of the step mesh
	steps     []*step
	used      []string // files that a step names
}

// step is one line with what is expected of it.
type step struct {
	place  string // "file:12"
	text   string
	within time.Duration // of eventually; 0 for a single try
	do     action
	expect []expectation
	repeat int // of share and served; 0 for one request
}

// action does a step and gives what expectations are about. An error is a failed step.
type action func(*run) (*outcome, error)

// outcome is what came of a step.
type outcome struct {
	responses []*mesh.Response
	received  string
	ended     error // why a TCP connection gave nothing
	addresses []string
}

type expectation struct {
	place, text string
	hold        func(*run, *outcome) error
}

// parse reads a script. The names of the archive's files are needed to refuse steps about others.
func parse(file, text string, files map[string]string) (*script, error) {
	s := &script{}
	for n, line := range strings.Split(text, "\n") {
		place := fmt.Sprintf("%s:%d", file, n+1)
		words, err := split(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
		if len(words) == 0 {
			continue
		}
		if unicode.IsSpace(rune(line[0])) {
			err = s.addExpectation(place, strings.TrimSpace(line), words)
		} else {
			err = s.addStep(place, line, words, files)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", place, err)
		}
	}
	if len(s.steps) == 0 {
		return nil, fmt.Errorf("%s: no steps", file)
	}
	return s, nil
}

func (s *script) addStep(place, text string, words []string, files map[string]string) error {
	if words[0] == "mesh" {
		if len(s.steps) > 0 || s.manifests != nil {
			return fmt.Errorf("mesh is the first step or none")
		}
		s.manifests = words[1:]
		return s.use(files, words[1:]...)
	}
	st := &step{place: place, text: text}
	if words[0] == "eventually" {
		if len(words) < 3 {
			return fmt.Errorf("eventually wants a duration and a step")
		}
		d, err := time.ParseDuration(words[1])
		if err != nil {
			return err
		}
		st.within, words = d, words[2:]
	}
	switch words[0] {
	case "apply", "test":
		if err := s.use(files, words[1:]...); err != nil {
			return err
		}
	case "warns", "apply-fails":
		if err := s.use(files, words[1:min(2, len(words))]...); err != nil {
			return err
		}
	}
	var err error
	st.do, err = actionOf(st, words)
	if err != nil {
		return err
	}
	s.steps = append(s.steps, st)
	return nil
}

// use notes that a step names files.
func (s *script) use(files map[string]string, names ...string) error {
	for _, name := range names {
		if _, ok := files[name]; !ok {
			return fmt.Errorf("there is no file %s", name)
		}
		s.used = append(s.used, name)
	}
	return nil
}

func (s *script) addExpectation(place, text string, words []string) error {
	if len(s.steps) == 0 {
		return fmt.Errorf("an expectation of no step")
	}
	st := s.steps[len(s.steps)-1]
	if words[0] == "share" || words[0] == "served" {
		if len(words) < 3 {
			return fmt.Errorf("%s wants a number of requests and more", words[0])
		}
		n, err := strconv.Atoi(words[1])
		if err != nil || n < 1 {
			return fmt.Errorf("%s: %q is no number of requests", words[0], words[1])
		}
		st.repeat = n
	}
	hold, err := expectationOf(words)
	if err != nil {
		return err
	}
	st.expect = append(st.expect, expectation{place, text, hold})
	return nil
}

// verb is how a kind of step is read: it wants a number of words at least, which are what.
type verb struct {
	least int
	what  string
	read  func(st *step, verb string, args []string) (action, error)
}

// plain is the verb of a step that can be done with any words.
func plain(least int, what string, do func(args []string) action) verb {
	return verb{least, what, func(_ *step, _ string, args []string) (action, error) { return do(args), nil }}
}

// verbs are all that there are. They are never changed.
var verbs = map[string]verb{
	"apply":       plain(1, "files", func(args []string) action { return apply(args) }),
	"warns":       plain(2, "a file and texts", func(args []string) action { return applyFinds(args[0], false, args[1:]) }),
	"apply-fails": plain(2, "a file and texts", func(args []string) action { return applyFinds(args[0], true, args[1:]) }),
	"test":        plain(1, "files", func(args []string) action { return offlineTests(args) }),
	"delete":      plain(2, "a kind and a name", func(args []string) action { return remove(args) }),
	"request":     {3, "a workload, a method and a URL", readRequest},
	"tcp":         plain(3, "a workload, host:port and a text", func(args []string) action { return talk(args) }),
	"resolve":     plain(2, "a workload and a name", func(args []string) action { return resolve(args) }),
	"kill":        {1, "a workload", readChange},
	"crash":       {1, "a workload", readChange},
	"add":         {1, "a workload", readChange},
	"ready":       {1, "a workload", readChange},
	"unready":     {1, "a workload", readChange},
	"restart":     {1, "a workload", readChange},
	"control":     {1, "stop or start", readControl},
	"wait":        {1, "a duration", readWait},
	"log":         {3, "a workload, contains or lacks, and a text", readLog},
	"seen":        {2, "a workload and a number", readSeen},
	"forget":      plain(0, "", func([]string) action { return forget }),
	"metric":      {4, "a workload, a series, an operator and a number", func(_ *step, _ string, args []string) (action, error) { return metricOf(args) }},
}

func actionOf(st *step, words []string) (action, error) {
	name, args := words[0], words[1:]
	v, ok := verbs[name]
	if !ok {
		return nil, fmt.Errorf("no step is called %q", name)
	}
	if len(args) < v.least {
		return nil, fmt.Errorf("%s wants %s", name, v.what)
	}
	return v.read(st, name, args)
}

func readRequest(st *step, _ string, args []string) (action, error) {
	r, err := requestOf(args)
	return request(st, r), err
}

func readChange(_ *step, verb string, args []string) (action, error) { return change(verb, args), nil }

func readControl(_ *step, _ string, args []string) (action, error) {
	if args[0] != "stop" && args[0] != "start" {
		return nil, fmt.Errorf("control stop, or control start")
	}
	return control(args[0] == "start"), nil
}

func readWait(_ *step, _ string, args []string) (action, error) {
	d, err := time.ParseDuration(args[0])
	return wait(d), err
}

func readLog(_ *step, _ string, args []string) (action, error) {
	if args[1] != "contains" && args[1] != "lacks" {
		return nil, fmt.Errorf("log %s contains, or lacks", args[0])
	}
	return log(args[0], args[1] == "contains", args[2]), nil
}

func readSeen(_ *step, _ string, args []string) (action, error) {
	n, err := strconv.Atoi(args[1])
	return seen(args[0], n, strings.Join(args[2:], " ")), err
}

// requestOf reads "FROM METHOD URL [NAME: VALUE]... [body TEXT]".
func requestOf(args []string) (mesh.Request, error) {
	r := mesh.Request{From: args[0], Method: args[1], URL: args[2], Header: http.Header{}}
	for rest := args[3:]; len(rest) > 0; {
		if len(rest) < 2 && !strings.Contains(rest[0], ":") {
			return r, fmt.Errorf("%q is neither a header nor a body", rest[0])
		}
		name, value, ok := strings.Cut(rest[0], ":")
		used := 1
		switch {
		case rest[0] == "body":
			r.Body, used = rest[1], 2
			rest = rest[used:]
			continue
		case !ok:
			return r, fmt.Errorf("%q is no header", rest[0])
		case value == "":
			if len(rest) < 2 {
				return r, fmt.Errorf("header %s has no value", name)
			}
			value, used = rest[1], 2
		}
		r.Header.Add(name, strings.TrimSpace(value))
		rest = rest[used:]
	}
	return r, nil
}

// split cuts a line into words at white space. A word, or a part of one, may be quoted as in Go.
func split(line string) ([]string, error) {
	var words []string
	word, inWord := "", false
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == ' ' || c == '\t':
			if inWord {
				words, word, inWord = append(words, word), "", false
			}
			i++
		case c == '#' && !inWord:
			return words, nil
		case c == '"' && !inWord:
			quoted, err := strconv.QuotedPrefix(line[i:])
			if err != nil {
				return nil, fmt.Errorf("unfinished quotation %s", line[i:])
			}
			text, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, fmt.Errorf("quotation %s: %w", quoted, err)
			}
			word, inWord = word+text, true
			i += len(quoted)
		default:
			word, inWord = word+line[i:i+1], true
			i++
		}
	}
	if inWord {
		words = append(words, word)
	}
	return words, nil
}
