package explained

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weftmesh/weft/internal/explain"
	"github.com/weftmesh/weft/test/mesh"
)

var (
	seed  = flag.Uint64("seed", 1, "of the configurations of TestExplained")
	times = flag.Int("times", 60, "configurations of TestExplained")
)

// TestExplained sends requests under configurations at random, and compares what became of them with what explain said. Requests that may
// or may not fail are sent so often that neither stays away by chance.
func TestExplained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*24*time.Hour) // virtual
		defer cancel()
		m := mesh.Start(t, mesh.Options{Manifests: []mesh.File{{Name: "workloads.yaml", Text: workloads}}})
		d := draw{rand.New(rand.NewPCG(*seed, 0))}
		told := 0
		for range *times {
			names, text := d.objects()
			if _, err := m.Apply(ctx, "random.yaml", text); err != nil {
				continue // what is refused changes nothing
			}
			settle()
			told += compare(ctx, t, m, d, text)
			for _, n := range names {
				if err := m.Delete(ctx, n[0], n[1]); err != nil {
					t.Fatal(err)
				}
			}
			settle()
		}
		if told < *times {
			t.Errorf("%d requests were compared: too few to tell anything", told)
		}
	})
}

// settle lets changes arrive, and what was learnt of endpoints be forgotten, in virtual time.
func settle() {
	time.Sleep(5 * time.Minute)
	synctest.Wait()
}

// compare asks and sends requests of all clients.
func compare(ctx context.Context, t *testing.T, m *mesh.Mesh, d draw, text string) (told int) {
	compiled, err := m.Model()
	if err != nil {
		t.Fatal(err)
	}
	asker := explain.Over(compiled)
	asker.Virtual = true
	shown := false
	for _, from := range []string{"a-v1", "shop/c-v1"} {
		for range 6 {
			r := mesh.Request{From: from, Method: one(d, "GET", "POST", "PUT"), URL: "http://b.default:" + one(d, "8000", "8000", "8001", "8003", "8004", "8005") + one(d, "/", "/a", "/ab")}
			if d.IntN(4) == 0 {
				r.URL = strings.Replace(r.URL, "b.default", "e.shop", 1)
			}
			asked := explain.Request{From: from, Method: r.Method, URL: r.URL}
			if media := one(d, "", "", "application/grpc", "application/grpc-web"); media == "application/grpc" && r.Method == "POST" {
				r.URL = strings.Replace(r.URL, "http:", "grpc:", 1)
				asked.URL = r.URL
			} else if media != "" {
				r.Header = http.Header{"Content-Type": {media}}
				asked.Headers = []explain.Field{{Name: "Content-Type", Value: media}}
			}
			report, err := asker.Ask(asked)
			if err != nil {
				t.Fatal(err)
			}
			f := foretold(report)
			if f == nil {
				continue
			}
			told++
			if wrong := f.hold(ctx, m, r); wrong != "" {
				if t.Errorf("%s %s %s from %s: %s\ntold: %d %s %s", r.Method, r.URL, r.Header.Get("Content-Type"), from, wrong, report.Status, report.Flag, report.Summary); !shown {
					t.Log(text)
					shown = true
				}
			}
		}
	}
	return told
}

// foretelling is what explain says of all requests of a kind. A status of 0 is a connection that was closed, or never came about.
type foretelling struct {
	statuses []int  // of those that fail
	flag     string // in the client's access log, if all fail in one manner
	failing  float64
	// learns says that the proxy avoids endpoints once it has found that it cannot connect to them: then fewer fail than are told.
	learns bool
}

// foretold is nil for what nothing is told of.
func foretold(r *explain.Report) *foretelling {
	switch r.Outcome {
	case "pass through":
		return nil
	case "refuse":
		f := &foretelling{statuses: []int{r.Status}, flag: r.Flag, failing: 1}
		for i := range r.Destinations {
			for j := range r.Destinations[i].Ways {
				if f.flag == "" && r.Status == 0 { // chance decides how they fail
					f.statuses = append(f.statuses, r.Destinations[i].Ways[j].Status)
				}
			}
			if r.Flag == "UF" && r.Destinations[i].HTTP != "" {
				f.flag = "" // UC where the end of the connection is noticed before the alert that says why
			}
		}
		return f
	}
	f := &foretelling{}
	for i := range r.Destinations {
		dest := &r.Destinations[i]
		if dest.Share == 0 {
			continue
		}
		f.failing += dest.Share * dest.Failing
		for j := range dest.Ways {
			if w := &dest.Ways[j]; w.Inbound != nil && w.Inbound.Relayed && !w.MTLS && strings.HasPrefix(w.Transport, "TLS") && w.Inbound.Verdict.Allowed {
				return nil // whether the program speaks TLS is its own matter
			}
			if dest.Failing > 0 {
				f.statuses = append(f.statuses, dest.Ways[j].Status)
				f.learns = f.learns || dest.Ways[j].Flag == "UF" || dest.HTTP != ""
			}
		}
	}
	return f
}

// The number of requests: few where all of them end alike, else so many that a third of them cannot fail to show by chance.
const (
	few  = 4
	many = 60
)

// hold sends requests and says what is not as it was told.
func (f *foretelling) hold(ctx context.Context, m *mesh.Mesh, r mesh.Request) string {
	n := few
	if f.failing > 0 && f.failing < 1 {
		n = many
	}
	failed, why, told := 0, "", 0
	before, _ := m.Log(r.From)
	if r.Header = r.Header.Clone(); r.Header == nil {
		r.Header = http.Header{}
	}
	r.Header.Set("Connection", "close") // connections that are relayed have destinations too
	for range n {
		answer := m.Do(ctx, r)
		status := meaning(answer)
		if answer.Err == nil && status == 200 {
			continue
		}
		if failed++; !slices.Contains(f.statuses, status) {
			return fmt.Sprintf("got %d %v %s", status, answer.Err, answer.Header.Get("x-weft-reason"))
		}
		told = answer.Status
		why = fmt.Sprint(status, answer.Header.Get("x-weft-reason"))
	}
	switch {
	case failed == 0 && f.failing > .33 && !f.learns || failed == 0 && f.failing == 1:
		return "none fails"
	case failed == n && f.failing < .67:
		return "all fail: " + why
	case f.failing == 1 && f.statuses[0] != 0 && f.flag != "":
		time.Sleep(time.Second) // virtual: lines are written together
		synctest.Wait()
		if after, err := m.Log(r.From); err != nil || !strings.Contains(after[len(before):], fmt.Sprintf("%d %s", told, f.flag)) {
			return fmt.Sprintf("the access log does not say %d %s: %v\n%s", told, f.flag, err, after[len(before):])
		}
	}
	return ""
}

// meaning is the status of an answer, as HTTP has it where it is told in gRPC's terms.
func meaning(r *mesh.Response) int {
	switch r.Header.Get("Grpc-Status") {
	case "7":
		return http.StatusForbidden
	case "14":
		return http.StatusServiceUnavailable
	case "12":
		return http.StatusNotFound
	}
	return r.Status
}
