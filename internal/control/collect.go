package control

import "runtime/debug"

// How much garbage there may be, against what is in use. startPercent is for while the first mesh is read and compiled: nearly all that
// is allocated then stays, and by the default of 100 the collector would let a large mesh take up to twice the memory that it needs,
// which is what a container's limit has to be above. Later there is more garbage and less growth, and servePercent costs less CPU. It
// is below the default because of proxies that connect: what they leave behind lies between garbage, in memory that cannot be given back.
const (
	startPercent = 30
	servePercent = 50
)

// collector is the setting of the process's garbage collector, as a control plane makes it. A lower setting, of GOGC or of another
// control plane in this process, stays; so does what somebody else sets meanwhile.
type collector struct {
	before int // what is set again at the end
	now    int // what we set; before if nothing
}

// collectOften has garbage collected early, as is right for the start.
func collectOften() *collector {
	before := debug.SetGCPercent(startPercent)
	c := &collector{before: before, now: before}
	if before <= startPercent {
		debug.SetGCPercent(before) // less than ours, or off
		return c
	}
	c.now = startPercent
	return c
}

// started goes over to what is right for serving.
func (c *collector) started() { c.change(min(c.before, servePercent)) }

// end sets what was set before.
func (c *collector) end() { c.change(c.before) }

func (c *collector) change(percent int) {
	if c.now == c.before { // not ours
		return
	}
	if now := debug.SetGCPercent(percent); now != c.now {
		debug.SetGCPercent(now)
		percent = c.before
	}
	c.now = percent
}
