package model

import (
	"fmt"
	"strings"
)

// Severity of a finding.
type Severity string

// The severities. An object with an error is refused; what was accepted before it stays in force.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
	Info    Severity = "info"
)

// Finding is one thing to tell the user about an object: shown by apply, get and analyze, and written to statuses.
type Finding struct {
	Severity Severity `json:"severity"`
	Code     string   `json:"code"` // stable, in CamelCase: "UnknownField", "SubsetNotFound"
	Object   Ref      `json:"object"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`  // 1-based; 0 when unknown
	Field    string   `json:"field,omitempty"` // "spec.http[0].route[1].destination.subset"
	Message  string   `json:"message"`
	Hint     string   `json:"hint,omitempty"` // what to do
}

// MaxFindings bounds what is said about one object.
const MaxFindings = 200

// AndMore makes of a finding one about the same place that says that there are more than MaxFindings.
func (f Finding) AndMore() Finding {
	f.Severity, f.Code, f.Field = Info, "MoreFindings", ""
	f.Message, f.Hint = "there is more to say than this", "put these right first"
	return f
}

// What is quoted in a finding may be of any length; what is shown of it is bounded, in bytes: names, which have 253 at most where they
// are right, field paths, and sentences.
const (
	maxName     = 300
	maxField    = 1000
	maxSentence = 2000
)

// Shown is the finding as it is shown, with what is too long cut out of its middle. It may name no object any more.
func (f Finding) Shown() Finding {
	f.Object = Ref{Kind: shorten(f.Object.Kind, maxName), Namespace: shorten(f.Object.Namespace, maxName), Name: shorten(f.Object.Name, maxName)}
	f.Field, f.Message, f.Hint = shorten(f.Field, maxField), shorten(f.Message, maxSentence), shorten(f.Hint, maxSentence)
	return f
}

// shorten cuts out the middle: quotations stand between what a sentence is about and what it says.
func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	const gap = " ... "
	half := (most - len(gap)) / 2
	return strings.ToValidUTF8(s[:half], "") + gap + strings.ToValidUTF8(s[len(s)-half:], "")
}

// String gives "file:12: error: VirtualService/default/reviews: spec.http[0]: message (hint) [Code]".
func (f Finding) String() string {
	f = f.Shown()
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d", f.Line)
		}
		b.WriteString(": ")
	}
	b.WriteString(string(f.Severity) + ": ")
	if f.Object != (Ref{}) {
		b.WriteString(f.Object.String() + ": ")
	}
	if f.Field != "" {
		b.WriteString(f.Field + ": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		b.WriteString(" (" + f.Hint + ")")
	}
	if f.Code != "" {
		b.WriteString(" [" + f.Code + "]")
	}
	return b.String()
}
