package etcd

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/weftmesh/weft/internal/control/source"
)

// Parts of the keys, below the prefix.
const (
	objectsPart   = "objects/"
	aboutPart     = "about/"
	appliedPart   = "applied"
	authorityPart = "authority/"
	leaderPart    = "leader/"
	statusesPart  = "statuses/"
)

// view is what etcd held at a revision.
type view struct {
	revision  int64
	cluster   uint64 // etcd's id; 0 before the first reading
	epoch     int    // counts how often etcd turned out to be another, or to have gone back
	applied   int64  // the revision at which something was applied last; 0 for never
	documents map[source.Key]*document
	abouts    map[source.Key]about
	statuses  map[source.Key]string
	authority map[string][]byte // by file
	claims    map[string]int64  // to the lead, by key: the revision at which each was made
	others    map[string]stamp  // of applied, authority and claims, by key
}

type document struct {
	stamp
	text    []byte
	seen    time.Time      // by this process, first
	refused *source.Object // what stands there, when that is not in force and its kind has a status
}

// stamp has the revisions at which a key was made and was changed last; it is zero where there is no key.
type stamp struct{ created, changed int64 }

func stampOf(kv *mvccpb.KeyValue) stamp { return stamp{kv.CreateRevision, kv.ModRevision} }

// follows reports whether a key that is there can be what has become of the one that was there at a revision.
func (s stamp) follows(was stamp, revision int64) bool {
	if s.changed <= revision {
		return s == was
	}
	return s.created == was.created || s.created > revision
}

// follows reports whether what etcd holds can be what has become of what it held before. Its revision alone does not tell: an etcd that was
// restored from a backup counts on, and may be past the one that was read before.
func (v *view) follows(before *view) bool {
	if before.cluster == 0 {
		return true
	}
	if v.cluster != before.cluster || v.revision < before.revision {
		return false
	}
	for k, d := range v.documents {
		var was stamp
		if b := before.documents[k]; b != nil {
			was = b.stamp
		}
		if !d.follows(was, before.revision) {
			return false
		}
	}
	for k, s := range v.others {
		if !s.follows(before.others[k], before.revision) {
			return false
		}
	}
	return true
}

// about is what is known of an applied object besides its text.
type about struct {
	File       string    `json:"file"` // as the user named it
	Line       int       `json:"line"`
	Born       time.Time `json:"born"`
	Changed    time.Time `json:"changed"`
	Generation int64     `json:"generation"` // counts changes, from 1
}

// sameAs takes over since when an object has been seen, if it is still the same.
func (d *document) sameAs(before *document) {
	if before != nil && before.created == d.created {
		d.seen = before.seen
	}
}

func newView() view {
	return view{documents: map[source.Key]*document{}, abouts: map[source.Key]about{}, statuses: map[source.Key]string{},
		authority: map[string][]byte{}, claims: map[string]int64{}, others: map[string]stamp{}}
}

// put takes a key and its value, and says which object it is about, if it is.
func (v *view) put(prefix string, kv *mvccpb.KeyValue, now time.Time) (source.Key, bool) {
	part, k, ok := parse(prefix, string(kv.Key))
	if part == appliedPart || part == authorityPart || part == leaderPart {
		v.others[string(kv.Key)] = stampOf(kv)
	}
	switch {
	case part == appliedPart:
		v.applied = kv.ModRevision
	case part == authorityPart:
		v.authority[k.Name] = kv.Value
	case part == leaderPart:
		v.claims[string(kv.Key)] = kv.CreateRevision
	case part == objectsPart:
		d := &document{stamp: stampOf(kv), text: kv.Value, seen: now}
		d.sameAs(v.documents[k])
		v.documents[k] = d
		return k, true
	case ok && part == aboutPart:
		var a about
		if json.Unmarshal(kv.Value, &a) == nil { // one that cannot be read says nothing
			v.abouts[k] = a
		}
		return k, v.documents[k] != nil
	case ok && part == statusesPart:
		v.statuses[k] = string(kv.Value)
	}
	return source.Key{}, false
}

func (v *view) remove(prefix, key string) (source.Key, bool) {
	part, k, ok := parse(prefix, key)
	delete(v.others, key)
	switch {
	case part == appliedPart:
		v.applied = 0
	case part == authorityPart:
		delete(v.authority, k.Name)
	case part == leaderPart:
		delete(v.claims, key)
	case part == objectsPart:
		delete(v.documents, k)
		return k, true
	case ok && part == aboutPart:
		delete(v.abouts, k)
		return k, v.documents[k] != nil
	case ok && part == statusesPart:
		delete(v.statuses, k)
	}
	return source.Key{}, false
}

// coreGroup and noNamespace stand for what would be empty in a path.
const (
	coreGroup   = "core"
	noNamespace = "_"
)

// path of an object below the part: "GROUP/KIND/NAMESPACE/NAME".
func path(k source.Key) string {
	if misplaced(k) {
		return k.Name
	}
	if k.Group == "" {
		k.Group = coreGroup
	}
	if k.Namespace == "" {
		k.Namespace = noNamespace
	}
	return k.Group + "/" + k.Kind + "/" + k.Namespace + "/" + k.Name
}

// misplaced reports a key that names no object. It goes by all that stands below the part, so that there is something to tell.
func misplaced(k source.Key) bool { return k.Kind == "" }

// parse takes a key apart; ok says that it names an object, otherwise k has all that stands below the part as its name.
func parse(prefix, key string) (part string, k source.Key, ok bool) {
	rest := strings.TrimPrefix(key, prefix)
	if rest == appliedPart {
		return appliedPart, k, false
	}
	for _, part := range []string{objectsPart, aboutPart, statusesPart, authorityPart, leaderPart} {
		below, is := strings.CutPrefix(rest, part)
		if !is {
			continue
		}
		if part == authorityPart || part == leaderPart {
			return part, source.Key{Name: below}, false
		}
		words := strings.Split(below, "/")
		if len(words) != 4 || slices.Contains(words, "") {
			return part, source.Key{Name: below}, false
		}
		k = source.Key{Group: words[0], Kind: words[1], Namespace: words[2], Name: words[3]}
		if k.Group == coreGroup {
			k.Group = ""
		}
		if k.Namespace == noNamespace {
			k.Namespace = ""
		}
		return part, k, true
	}
	return "", k, false
}
