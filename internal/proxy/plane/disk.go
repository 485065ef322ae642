package plane

import "sync"

// disk lets one process at a time write to the state directory that a proxy and its successor share. What may not be written now
// is written once it may, in its newest form.
type disk struct {
	mu      sync.Mutex
	yielded bool
	waiting map[string]func() // by file
}

// store gives the func by which the keeper of one file writes it.
func (d *disk) store(file string) func(write func()) {
	return func(write func()) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !d.yielded {
			write()
			return
		}
		if d.waiting == nil {
			d.waiting = map[string]func(){}
		}
		d.waiting[file] = write
	}
}

// yield leaves the directory to the other process, with last written before.
func (d *disk) yield(last func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.yielded {
		last()
	}
	d.yielded = true
}

// own takes the directory, and writes what has waited.
func (d *disk) own() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.yielded = false
	for _, write := range d.waiting {
		write()
	}
	d.waiting = nil
}
