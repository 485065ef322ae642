package source

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// errReplaced is why a folder is away in whose place there is another one without files, as an unmount leaves behind.
var errReplaced = errors.New("another folder is in its place, without files")

// listing is what the paths of a source hold at one moment.
type listing struct {
	names    []string               // files to read, and those that paths which are away held, in order of precedence
	kept     map[string]bool        // those of names that are not to be read, for their path is away
	away     map[string]string      // the paths that held something and cannot be read, and why
	folders  map[string]os.FileInfo // the folders that were listed
	findings []model.Finding
}

// list looks at each path. One that held something and is gone, or cannot be listed, is a source that is away: what it held stays.
// Files that are gone from a folder that is there are deletions.
func (r *reader) list() listing {
	l := listing{kept: map[string]bool{}, away: map[string]string{}, folders: map[string]os.FileInfo{}}
	for _, path := range r.Paths {
		names, info, err := r.listPath(path)
		switch {
		case err == nil:
			if info.IsDir() {
				l.folders[path] = info
			}
		case r.held(path):
			l.away[path] = reason(err)
			names = r.under(path)
			for _, n := range names {
				l.kept[n] = true
			}
		case info == nil:
			l.findings = append(l.findings, model.Finding{Severity: model.Warning, Code: "FileMissing", File: path,
				Message: "cannot be read: " + reason(err), Hint: "it is read as soon as it is there"})
		default:
			f := unreadable(path, err)
			f.Hint = "it is read as soon as it can be"
			l.findings = append(l.findings, f)
		}
		l.names = append(l.names, names...)
	}
	seen := map[string]bool{}
	l.names = slices.DeleteFunc(l.names, func(n string) bool {
		again := seen[n]
		seen[n] = true
		return again
	})
	return l
}

// listPath names the files of a path. With an error, the information is nil when there is nothing at the path.
func (r *reader) listPath(path string) (names []string, info os.FileInfo, err error) {
	if info, err = os.Stat(path); err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		return []string{path}, info, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, info, err
	}
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		// A folder may have a file's name; in the place of one that was read it keeps what that held.
		if isManifest(e.Name()) && (!e.IsDir() || r.files[name] != nil) {
			names = append(names, name)
		}
	}
	if was := r.folders[path]; len(names) == 0 && was != nil && !os.SameFile(was, info) && r.held(path) {
		return nil, info, errReplaced
	}
	return names, info, nil
}

// under names the files that a path held.
func (r *reader) under(path string) []string {
	var names []string
	for _, n := range r.order {
		if belongs(path, n) {
			names = append(names, n)
		}
	}
	return names
}

// belongs reports whether a file is the path itself, or in it as a folder.
func belongs(path, file string) bool {
	return file == path || filepath.Dir(file) == filepath.Clean(path)
}

// held reports whether a path held anything: when it was read last, or before this process started.
func (r *reader) held(path string) bool {
	if len(r.under(path)) > 0 {
		return true
	}
	for _, o := range r.accepted {
		if belongs(path, o.Origin.File) {
			return true
		}
	}
	return false
}

// note takes what a listing found to be away. It tells of what is away for longer than Settle: a file that is replaced may be absent
// for a moment. It asks for another scan when there will be more to tell.
func (r *reader) note(l listing, now time.Time) (findings []model.Finding, again bool) {
	maps.Copy(r.folders, l.folders)
	was := r.away
	r.away = make(map[string]outage, len(l.away))
	for path, reason := range l.away {
		o := outage{reason, now}
		if before, known := was[path]; known {
			o.since = before.since
		}
		r.away[path] = o
		if now.Sub(o.since) < r.settling() {
			again = true
			continue
		}
		findings = append(findings, model.Finding{Severity: model.Warning, Code: "SourceUnreadable", File: path,
			Message: fmt.Sprintf("cannot be read since %s: %s", o.since.UTC().Format(time.RFC3339), reason),
			Hint: "what it held stays in force, and it is read again once it is back; to take that away, put it back without objects: " +
				"an empty file, or a folder with one",
		})
	}
	return findings, again
}

// keepAway adds to the wanted objects what was accepted from paths that are away and is not in a file that was read by this process,
// or was deleted just before.
func (r *reader) keepAway(objects map[Key]*Object) {
	for path := range r.away {
		for k, o := range r.accepted {
			if objects[k] == nil && belongs(path, o.Origin.File) {
				objects[k] = o
			}
		}
	}
}

// returned reports whether another set of paths is away than was noted.
func (r *reader) returned(l listing) bool {
	return !maps.EqualFunc(r.away, l.away, func(o outage, reason string) bool { return o.reason == reason })
}
