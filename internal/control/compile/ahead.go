package compile

import (
	"runtime"
	"sync"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Ahead is what objects were converted to before a compiler takes them, so that what is large is converted once for judging and for
// keeping it, and while nobody waits. It is immutable.
type Ahead struct {
	settings model.Settings
	parts    map[source.Kube]*part // by typed value, which copies of an object share
}

// largeText is from how many bytes an object brings along what it was converted to when it was checked, and is not converted again while
// others wait.
const largeText = 16 << 10

// mayBeLarge names the kind of which there are large ones, and whose parts can be handed on.
func mayBeLarge(o *source.Object) bool {
	_, ok := o.Kube.(*networking.VirtualService)
	return ok
}

// ConvertAhead converts the objects that may be large, in a mesh with the given settings.
func ConvertAhead(objects []*source.Object, s model.Settings) *Ahead {
	a := &Ahead{settings: withDefaults(s), parts: map[source.Kube]*part{}}
	var mu sync.Mutex
	var wait sync.WaitGroup
	places := make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) // the others share the machine
	for _, o := range objects {
		if !mayBeLarge(o) {
			continue
		}
		places <- struct{}{}
		wait.Go(func() {
			p := convert.Object(o, a.settings)
			mu.Lock()
			a.parts[o.Kube] = p
			mu.Unlock()
			<-places
		})
	}
	wait.Wait()
	return a
}

// part gives what an object was converted to; nil when it was not, or otherwise.
func (a *Ahead) part(o *source.Object, s *model.Settings) *part {
	was := a.parts[o.Kube]
	if was == nil || !a.settings.Equal(s) {
		return nil
	}
	p := *was // what it points to is copied before it is changed; see own
	p.Object = o
	if p.Routes != nil {
		routes := *p.Routes
		routes.Created = o.Born
		p.Routes = &routes
	}
	return &p
}

// keep takes what a record was converted to, if it may be large and is there.
func (a *Ahead) keep(r *record) {
	if mayBeLarge(r.Object) && r.part != nil {
		p := *r.part
		p.Findings = r.found
		a.parts[r.Kube] = &p
	}
}

// Expect has the compiler use what was converted ahead, until the function that it gives is called. As with all of a Compiler's methods, the
// calls are one at a time.
func (k *Compiler) Expect(a *Ahead) (done func()) {
	k.ahead[a] = struct{}{}
	return func() { delete(k.ahead, a) }
}
