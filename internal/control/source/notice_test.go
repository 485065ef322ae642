package source

import (
	"testing"
	"time"
)

// TestAgenda: files are read as soon as all of which there was notice are complete, and within the debounce otherwise.
func TestAgenda(t *testing.T) {
	const ms = time.Millisecond
	start := time.Now()
	type heard struct {
		after time.Duration
		n     notice
	}
	done, writes := notice{name: "a"}, notice{name: "a", partial: true}
	for name, c := range map[string]struct {
		heard []heard
		want  time.Duration // after start; 0 for never
	}{
		"nothing":                       {nil, 0},
		"a file is replaced":            {[]heard{{0, done}}, quiet},
		"a file is written and closed":  {[]heard{{0, writes}, {4 * ms, done}}, 4*ms + quiet},
		"a file is not closed":          {[]heard{{0, writes}, {9 * ms, writes}}, 50 * ms},
		"others are not closed yet":     {[]heard{{0, done}, {ms / 2, notice{name: "b", partial: true}}}, 50 * ms},
		"several, one after the other":  {[]heard{{0, done}, {ms / 2, notice{name: "b", partial: true}}, {7 * ms, notice{name: "b"}}}, 7*ms + quiet},
		"what it was is not clear":      {[]heard{{0, done}, {ms / 2, notice{unclear: true}}}, 50 * ms},
		"a storm lasts the debounce":    {[]heard{{0, done}, {49*ms + ms/2, done}}, 50 * ms},
		"one that was written for long": {[]heard{{-time.Second, writes}}, writingTime - time.Second},
	} {
		a := agenda{debounce: 50 * ms, writing: map[string]time.Time{}}
		for _, h := range c.heard {
			a.hear(h.n, start.Add(h.after))
			if h.after < 0 {
				a.done()
			}
		}
		if at, due := a.due(); due != (c.want > 0) || due && at.Sub(start) != c.want {
			t.Errorf("%s: %v %v, want %v", name, at.Sub(start), due, c.want)
		}
	}
}

// TestOthersDoNotWaitForAWriter: a file that was being written when the last ones were read holds nobody up, and is left alone until
// it is complete, or has been written for very long.
func TestOthersDoNotWaitForAWriter(t *testing.T) {
	start := time.Now()
	a := agenda{debounce: 50 * time.Millisecond, writing: map[string]time.Time{}}
	a.hear(notice{name: "slow", partial: true}, start)
	a.done()
	now := start.Add(time.Second)
	a.hear(notice{name: "a"}, now)
	if at, _ := a.due(); at != now.Add(quiet) {
		t.Errorf("read %v after the change", at.Sub(now))
	}
	if !a.busy("slow", now) || a.busy("a", now) {
		t.Error("what is being written is not known")
	}
	a.done()
	if at, due := a.due(); !due || a.busy("slow", at) {
		t.Errorf("it is left alone for ever: %v %v", at, due)
	}
	if _, due := a.due(); due {
		t.Error("it is looked at again and again")
	}
}
