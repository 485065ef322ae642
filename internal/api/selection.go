package api

import (
	"net/url"
	"slices"
	"strings"
)

// Pattern means objects: a kind as people write it, and a name, in any namespace, or as NAMESPACE/NAME; all of the kind where it is empty.
type Pattern struct{ Kind, Name string }

// Matches reports whether an object is meant.
func (p Pattern) Matches(r Ref) bool {
	return KindMatches(r.Kind, p.Kind) && (p.Name == "" || p.Name == r.Name || p.Name == r.Namespace+"/"+r.Name)
}

// Selection is some of the objects: those of a namespace, unless that is empty, which fulfil one of the patterns, unless there are none.
type Selection struct {
	Namespace string
	Patterns  []Pattern
}

// Has reports whether an object is selected.
func (s Selection) Has(r Ref) bool {
	if s.Namespace != "" && s.Namespace != r.Namespace {
		return false
	}
	return len(s.Patterns) == 0 || slices.ContainsFunc(s.Patterns, func(p Pattern) bool { return p.Matches(r) })
}

// query writes a selection into a URL: ?namespace=NAMESPACE&object=KIND&object=KIND/NAME. No kind has a slash.
func (s Selection) query() url.Values {
	q := url.Values{}
	if s.Namespace != "" {
		q.Set("namespace", s.Namespace)
	}
	for _, p := range s.Patterns {
		text := p.Kind
		if p.Name != "" {
			text += "/" + p.Name
		}
		q.Add("object", text)
	}
	return q
}

func selectionOf(q url.Values) Selection {
	s := Selection{Namespace: q.Get("namespace")}
	for _, text := range q["object"] {
		kind, name, _ := strings.Cut(text, "/")
		s.Patterns = append(s.Patterns, Pattern{kind, name})
	}
	return s
}
