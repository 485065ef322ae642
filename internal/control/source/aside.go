package source

import (
	"context"
	"time"
)

// asideSize is from how many bytes on a changed file is read aside: they may be objects that take seconds to decode and judge.
const asideSize = 64 << 10

// aside is a file that was read aside.
type aside struct {
	name string
	file *readFile // nil when it could not be read
}

// readAside reads a large file while others go on. One is decoded at a time, for what that takes of memory.
func (r *reader) readAside(ctx context.Context, name string) {
	if r.underway(name) {
		return // when it is through, the next scan finds that there is more
	}
	r.aside[name] = time.Now()
	go func() { // ends with the file, or the context
		select {
		case r.decoding <- struct{}{}:
		case <-ctx.Done():
			return
		}
		a := aside{name: name}
		mark, now := markOf(name), time.Now()
		if data, err := readLimited(name); err == nil {
			a.file = &readFile{mark: mark, at: now, data: data, docs: r.decode(name, data)}
		}
		<-r.decoding
		select {
		case r.came <- a:
		case <-ctx.Done():
		}
	}()
}

// take takes a file that was read aside; what could not be read is left to the next scan.
func (r *reader) take(a aside) {
	delete(r.aside, a.name)
	if a.file != nil && r.files[a.name] != nil {
		r.files[a.name] = a.file
	}
}

// underway reports whether a file is being read aside.
func (r *reader) underway(name string) bool { return !r.aside[name].IsZero() }

// readSince reports whether a file is still being read that was so at a time.
func (r *reader) readSince(t time.Time) bool {
	for _, since := range r.aside {
		if !since.After(t) {
			return true
		}
	}
	return false
}
