package source

import "time"

// notice is what the system says of a file: that it is complete or gone, unless something else is set.
type notice struct {
	name    string
	partial bool // it is being written, and another notice follows at the end
	unclear bool // something else changed that files may be reached by, or it is not known whether it is complete
	link    bool // it is a symbolic link that came
}

const (
	// quiet is how long files that are complete wait for others to be read with.
	quiet = time.Millisecond
	// writingTime is how long a file that is being written is left alone.
	writingTime = 3 * time.Second
)

// agenda says when the files are to be read next: when those of which there was notice are complete, and nothing was heard for a moment,
// or debounce after the first notice.
type agenda struct {
	debounce time.Duration
	first    time.Time // notice since the files were read last; zero for none
	last     time.Time
	unclear  bool                 // one of them was so
	writing  map[string]time.Time // the files that are being written, and since when
	settles  time.Time            // when something may have settled; zero for nothing
}

// hear takes a notice.
func (a *agenda) hear(n notice, now time.Time) {
	if a.first.IsZero() {
		a.first = now
	}
	a.last = now
	a.unclear = a.unclear || n.unclear
	if !n.partial {
		delete(a.writing, n.name)
		return
	}
	if _, known := a.writing[n.name]; !known {
		a.writing[n.name] = now
	}
}

// soon has the files read at once.
func (a *agenda) soon(now time.Time) {
	a.first, a.last, a.writing = now.Add(-a.debounce), now, map[string]time.Time{}
}

// done is after the files were read.
func (a *agenda) done() { a.first, a.unclear, a.settles = time.Time{}, false, time.Time{} }

// pending reports whether there was notice of something that was not read yet.
func (a *agenda) pending() bool { return !a.first.IsZero() }

// due is when the files are to be read; false for no time.
func (a *agenda) due() (at time.Time, any bool) {
	sooner := func(t time.Time) {
		if !any || t.Before(at) {
			at, any = t, true
		}
	}
	wait := a.unclear
	for _, since := range a.writing {
		sooner(since.Add(writingTime))
		wait = wait || !since.Before(a.first)
	}
	if a.pending() {
		sooner(a.first.Add(a.debounce))
		if !wait {
			sooner(a.last.Add(quiet))
		}
	}
	if !a.settles.IsZero() {
		sooner(a.settles)
	}
	return at, any
}

// busy reports whether a file is being written.
func (a *agenda) busy(name string, now time.Time) bool {
	since, writing := a.writing[name]
	if writing && now.Sub(since) >= writingTime {
		delete(a.writing, name) // it will not be said when it is complete
		return false
	}
	return writing
}
