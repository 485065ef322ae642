package etcd

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
)

// errAnew ends a watch because it may not tell what is there any more. An etcd that was restored from a backup, or has lost its data,
// counts revisions from an earlier one: a watch goes on in silence until that has passed the one it was at.
var errAnew = errors.New("etcd: to be read anew")

// position is up to where which etcd was read.
type position struct {
	cluster  uint64
	revision int64
}

func (v *view) at() position { return position{v.cluster, v.revision} }

func (s *Store) position() position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.at()
}

// ahead reports whether an answer to a request that was made later is of an etcd that cannot have been at p.
func (p position) ahead(h *etcdserverpb.ResponseHeader) bool {
	return p.cluster != 0 && (h.ClusterId != p.cluster || h.Revision < p.revision)
}

// again has Run read everything.
func (s *Store) again() {
	select {
	case s.anew <- struct{}{}:
	default:
	}
}

// tellWentBack says for a while that etcd is not what it was, and what is there now.
func (s *Store) tellWentBack(v *view) {
	now := s.now().UTC().Format(time.RFC3339)
	message := fmt.Sprintf("etcd went back from revision %d to %d at or before %s", s.view.revision, v.revision, now)
	if v.revision >= s.view.revision {
		message = fmt.Sprintf("etcd does not have what it had at revision %d, it went back before %s and is at revision %d", s.view.revision, now, v.revision)
	}
	message += fmt.Sprintf(", as after a restore or a loss of its data; its %d objects are in force, instead of %d before", len(v.documents), len(s.view.documents))
	if v.cluster != s.view.cluster {
		message += "; it is another cluster"
	}
	s.log.Warn(message, "endpoints", s.options.Endpoints)
	s.intake.WentBack(message, "what was applied since has to be applied again, policies too")
}
