package proxy

import (
	"net/http"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// TestSessions keeps clients at their endpoints: by cookie and by header, across the clusters of a split, until the endpoint is gone.
func TestSessions(t *testing.T) {
	m := newMesh(t)
	client := m.pod("productpage", "10.0.0.1", nil)
	var pods []*pod
	for i, name := range []string{"one", "two", "three"} {
		p := m.pod(name, "10.0.0.1"+string(rune('0'+i)), nil)
		p.serve(9080, hello(name))
		pods = append(pods, p)
	}
	client.cluster("v1", 9080, pods[0], pods[1])
	client.cluster("v2", 9080, pods[2])
	keeps := func(s *conf.Session) {
		client.knows("reviews", 9080, forwardTo("v1", "v2"))
		client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
			target := names[vip+":9080"]
			target.Routes.Hosts[0].Routes[0].Session = s
			target.Listener.Chains[0].HTTP.Sessions = true
			names["reviews:9080"] = target
		})
	}
	c := client.client()
	ask := func(header ...string) (by, told string) {
		status, body, h := client.get(c, "http://reviews:9080/", header...)
		if status != 200 {
			t.Errorf("%d %s", status, body)
		}
		by, _, _ = strings.Cut(body, " ")
		if told = h.Get("x-session"); told == "" {
			told, _, _ = strings.Cut(h.Get("Set-Cookie"), ";")
		}
		return by, told
	}
	for name, s := range map[string]*conf.Session{"x-session": {Header: "x-session"}, "Cookie": {Cookie: "session", Path: "/"}} {
		keeps(s)
		seen := map[string]bool{}
		for range 30 {
			first, told := ask()
			if seen[first] = true; told == "" {
				t.Fatalf("%s: the client is not told where its session belongs", name)
			}
			for range 5 {
				if by, again := ask(name, told); by != first || again != "" {
					t.Fatalf("%s: after %s, %s answers, and tells %q", name, first, by, again)
				}
			}
		}
		if len(seen) != 3 {
			t.Errorf("%s: only %v were used", name, seen)
		}
		for _, foreign := range []string{"session=?", "MTkyLjAuMi4xOjk=", "session=MTkyLjAuMi4xOjk="} {
			if by, told := ask(name, foreign); by == "" || told == "" {
				t.Errorf("%s: %q is taken for a session", name, foreign)
			}
		}
	}
	// The endpoint goes: the session moves, unless it may not.
	keeps(&conf.Session{Header: "x-session"})
	by, told := ask()
	for by != "two" {
		by, told = ask()
	}
	client.cluster("v1", 9080, pods[0])
	if moved, again := ask("x-session", told); moved == "two" || again == "" || again == told {
		t.Errorf("%s answers, and tells %q", moved, again)
	}
	keeps(&conf.Session{Header: "x-session", Strict: true})
	if status, _, _ := client.get(c, "http://reviews:9080/", "x-session", told); status != http.StatusServiceUnavailable {
		t.Errorf("a strict session whose endpoint is gone: %d", status)
	}
	eventually(t, "the log says why", func() bool { return client.logged(" UH ", "10.0.0.11:9080, to which the client's session belongs") })
}
