package app

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode/utf8"
)

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// view is what the page's template reads.
type view struct {
	User, Initial string // who is signed in; both empty for nobody
	Version       string // of this productpage
	Title         string
	Description   template.HTML // our own text, never an upstream's
	Details       *bookDetails  // nil if unavailable
	DetailsSorry  string
	Reviews       []reviewView // nil if unavailable
	ServedBy      string       // the instance of reviews
	Cluster       string       // of that instance; may be empty
	ReviewsSorry  string
	Calls         []callView
}

type reviewView struct {
	Reviewer, Initial, Text string
	Rated                   bool
	Full, Empty             string // star glyphs, five together
	Stars                   int
	Color                   string
	Error                   string
}

// callView is one line of the page's "who answered".
type callView struct {
	Service, Version, Outcome, Took string
	Failed                          bool
}

func renderPage(v view) ([]byte, error) {
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, v); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func newView(user, version string, p product, details, reviews finding) view {
	v := view{
		User: user, Initial: initial(user), Version: version, Title: p.Title, Description: template.HTML(p.DescriptionHTML),
		DetailsSorry: details.sorry, ReviewsSorry: reviews.sorry,
		Calls: []callView{newCallView(details), newCallView(reviews)},
	}
	if details.ok() {
		v.Details = &bookDetails{}
		if err := json.Unmarshal(details.body, v.Details); err != nil {
			v.Details, v.DetailsSorry = nil, "Sorry, product details came in a form that this page cannot read."
		}
	}
	if reviews.ok() {
		v.addReviews(reviews)
	}
	return v
}

func (v *view) addReviews(f finding) {
	var got bookReviews
	if err := json.Unmarshal(f.body, &got); err != nil {
		v.ReviewsSorry = "Sorry, product reviews came in a form that this page cannot read."
		return
	}
	v.ServedBy = got.PodName
	if got.ClusterName != "null" {
		v.Cluster = got.ClusterName
	}
	v.Reviews = make([]reviewView, 0, len(got.Reviews))
	for _, r := range got.Reviews {
		v.Reviews = append(v.Reviews, newReviewView(r))
	}
}

func newReviewView(r review) reviewView {
	v := reviewView{Reviewer: r.Reviewer, Initial: initial(r.Reviewer), Text: r.Text}
	switch {
	case r.Rating == nil:
	case r.Rating.Stars == nil:
		v.Error = r.Rating.Error
	default:
		v.Rated, v.Stars, v.Color = true, min(max(*r.Rating.Stars, 0), 5), r.Rating.Color
		v.Full, v.Empty = strings.Repeat("★", v.Stars), strings.Repeat("☆", 5-v.Stars)
	}
	return v
}

func newCallView(f finding) callView {
	v := callView{Service: f.service, Version: f.version, Failed: !f.ok()}
	v.Outcome = fmt.Sprint("answered ", f.status)
	if f.silent {
		v.Outcome = "did not answer"
	}
	if f.tries > 1 {
		v.Outcome += fmt.Sprintf(", %d tries", f.tries)
	}
	if f.took >= time.Second {
		v.Took = fmt.Sprintf("%.1f s", f.took.Seconds())
	} else {
		v.Took = fmt.Sprintf("%.1f ms", float64(f.took)/float64(time.Millisecond))
	}
	return v
}

// initial is what is shown in place of a portrait: the name's first letter, and its last character if that is a digit.
func initial(name string) string {
	first, _ := utf8.DecodeRuneInString(name)
	if first == utf8.RuneError {
		return ""
	}
	letter := strings.ToUpper(string(first))
	if last := name[len(name)-1]; len(name) > 1 && '0' <= last && last <= '9' {
		letter += string(last)
	}
	return letter
}
