//go:build !linux

package source

import (
	"fmt"

	"github.com/fsnotify/fsnotify"
)

// watch tells of changes in folders. Its methods but close are for one goroutine.
type watch struct {
	notices chan notice // set once, as watcher and done
	watcher *fsnotify.Watcher
	done    chan struct{}
}

func newWatch() (*watch, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w := &watch{notices: make(chan notice), watcher: watcher, done: make(chan struct{})}
	go w.run() // ends with close
	return w, nil
}

func (w *watch) close() {
	close(w.done)
	_ = w.watcher.Close() // there is nothing to be lost
}

// follow watches these folders and no others. What cannot be watched is left out.
func (w *watch) follow(dirs map[string]bool) {
	for _, dir := range w.watcher.WatchList() {
		if !dirs[dir] {
			_ = w.watcher.Remove(dir) // it may be gone already, and its watch with it
		}
	}
	for dir := range dirs {
		_ = w.watcher.Add(dir)
	}
}

func (w *watch) run() {
	for {
		n := notice{unclear: true}
		select {
		case e := <-w.watcher.Events:
			n.name = e.Name
		case <-w.watcher.Errors: // events were lost
		case <-w.done:
			return
		}
		select {
		case w.notices <- n:
		case <-w.done:
			return
		}
	}
}
