package matching

import (
	"fmt"
	"testing"

	"github.com/weftmesh/weft/internal/control/model"
)

// TestLooser finds the matches that ask for less by wider conditions on the same things, and no more than are bounded.
func TestLooser(t *testing.T) {
	header := func(name string, c model.StringMatch) model.NamedMatch { return model.NamedMatch{Name: name, Match: c} }
	exact := func(v string) model.StringMatch { return model.StringMatch{Exact: v, IsExact: true} }
	var l Looser
	l.Add(&model.HTTPMatch{Method: model.StringMatch{Prefix: "P"}, Headers: []model.NamedMatch{header("x", model.StringMatch{Prefix: "a"}), header("y", exact("z"))}})
	l.Add(&model.HTTPMatch{Headers: []model.NamedMatch{header("X", model.StringMatch{Present: true}), header("y", model.StringMatch{Prefix: "b"})}})
	m := &model.HTTPMatch{Method: exact("POST"), Headers: []model.NamedMatch{header("x", exact("ab")), header("y", exact("z"))}}
	var got []string
	for _, v := range l.Variants(m) {
		got = append(got, fmt.Sprint(v.Method.Prefix, v.Headers[0].Match.Prefix, v.Headers[0].Match.Present, v.Headers[1].Match.Exact))
	}
	if want := "[falsez Pfalsez afalsez Pafalsez truez Ptruez]"; fmt.Sprint(got) != want {
		t.Errorf("variants %v", got)
	}
	if m.Headers[0].Match != exact("ab") || m.Method != exact("POST") {
		t.Errorf("the match itself became %+v", m)
	}
	var many Looser
	wide := &model.HTTPMatch{}
	for i := range 20 {
		name := fmt.Sprint("h", i)
		many.Add(&model.HTTPMatch{Headers: []model.NamedMatch{header(name, model.StringMatch{Present: true})}})
		wide.Headers = append(wide.Headers, header(name, exact("v")))
	}
	if n := len(many.Variants(wide)); n != maxVariants {
		t.Errorf("%d variants of one match", n)
	}
}
