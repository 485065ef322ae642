package replica

import (
	"context"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

const (
	// tellPause keeps findings, which are costly to gather in a large mesh, from being gathered at each change.
	tellPause = time.Second
	// tellMost bounds the lines that one change can bring.
	tellMost = 20
)

// tell logs what comes to be wrong with objects and proxies, and what is right again.
func (r *replica) tell(ctx context.Context, changes <-chan struct{}) {
	told := map[string]bool{}
	for range changes {
		told = r.tellNews(told, r.control.Findings())
		select {
		case <-ctx.Done():
		case <-time.After(tellPause):
		}
	}
}

// tellNews logs how findings differ from those that were told, and gives them.
func (r *replica) tellNews(told map[string]bool, findings []model.Finding) map[string]bool {
	now := map[string]bool{}
	left := tellMost
	say := func(log func(string, ...any), message, finding string) {
		if left--; left >= 0 {
			log(message, "finding", finding)
		}
	}
	for _, f := range findings {
		text := f.String()
		if f.Severity == model.Info || now[text] {
			continue
		}
		now[text] = true
		if !told[text] {
			say(r.Log.Warn, "something is wrong", text)
		}
	}
	for text := range told {
		if !now[text] {
			say(r.Log.Info, "something is right again", text)
		}
	}
	if left < 0 {
		r.Log.Warn("more has changed in what is wrong; weft status shows everything", "more", -left)
	}
	return now
}
