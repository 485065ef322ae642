package model

import "testing"

func TestVisibility(t *testing.T) {
	for _, c := range []struct {
		name      string
		v         Visibility
		owner, ns string
		want      bool
	}{
		{"zero exports to all", Visibility{}, "a", "b", true},
		{"private to itself", Visibility{Private: true}, "a", "a", true},
		{"private to others", Visibility{Private: true}, "a", "b", false},
		{"listed", Visibility{Namespaces: []string{"b"}}, "a", "b", true},
		{"star", Visibility{Namespaces: []string{"*"}}, "a", "b", true},
		{"not listed", Visibility{Namespaces: []string{"c"}}, "a", "b", false},
	} {
		if got := c.v.VisibleFrom(c.owner, c.ns); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
