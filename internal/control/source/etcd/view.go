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
}

type document struct {
	text             []byte
	created, changed int64          // revisions
	seen             time.Time      // by this process, first
	refused          *source.Object // what stands there, when that is not in force and its kind has a status
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
		authority: map[string][]byte{}, claims: map[string]int64{}}
}

// put takes a key and its value, and says which object it is about, if it is.
func (v *view) put(prefix string, kv *mvccpb.KeyValue, now time.Time) (source.Key, bool) {
	part, k, ok := parse(prefix, string(kv.Key))
	switch {
	case part == appliedPart:
		v.applied = kv.ModRevision
	case part == authorityPart:
		v.authority[k.Name] = kv.Value
	case part == leaderPart:
		v.claims[string(kv.Key)] = kv.CreateRevision
	case part == objectsPart:
		d := &document{text: kv.Value, created: kv.CreateRevision, changed: kv.ModRevision, seen: now}
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
