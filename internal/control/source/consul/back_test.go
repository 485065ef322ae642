package consul

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/sourcetest"
)

// TestLost: what a Consul has counts that lost its data, and it is said, with how many services there are and were.
func TestLost(t *testing.T) {
	s := start(t)
	for i := range 20 { // the index is one that a new Consul does not come to by itself
		s.register(t, "a", "a", fmt.Sprint(i), "passing")
	}
	s.register(t, "b", "b", "1", "passing")
	var log lines
	l := sourcetest.Listen(t, s.place(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) }))
	l.Await(t, "a=19 b=1")
	awaitTold(t, l, "")
	s.kill()
	s.begin(t)
	l.Await(t, "")
	awaitTold(t, l, source.WentBack)
	f := l.Last().Findings[0]
	if f.Severity != model.Warning || f.File != Layer || !strings.HasSuffix(f.Message, "services in its catalog then 1, before 3") || !strings.Contains(log.String(), f.Message) {
		t.Errorf("got %v, and the log:\n%s", f, log.String())
	}
	s.register(t, "c", "c", "1", "passing")
	l.Await(t, "c=1")
	awaitTold(t, l, source.WentBack)
}

// TestBehind: a server that is behind the others is not taken for a Consul that went back.
func TestBehind(t *testing.T) {
	var lists atomic.Int64
	behind := make(chan struct{}, 1000)
	servers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		index, services := 9, `{"a": [], "b": []}`
		switch {
		case r.URL.Path != servicesPath:
			services = `[]`
		case r.URL.Query().Has("consistent"):
		case lists.Add(1) > 1:
			index, services = 7, `{"a": []}`
			behind <- struct{}{}
		}
		w.Header().Set("X-Consul-Index", fmt.Sprint(index))
		_, _ = w.Write([]byte(services))
	}))
	defer servers.Close()
	s, err := New(Options{Address: servers.URL, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	l := sourcetest.Listen(t, &sourcetest.Place{Source: s})
	for range 3 { // with the third, what came of the first has been taken
		<-behind
	}
	awaitTold(t, l, "")
}
