package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/document"
)

// Files is a source that reads files and directories (their *.yaml, *.yml and *.json, not those of sub-directories, nor hidden
// ones) and follows edits in them. The fields are set before Run.
//
// A document that is refused leaves in force what was accepted under its name before; a file that is not YAML at all leaves all
// that it held. An AuthorizationPolicy that is refused and was never accepted is replaced by one that denies everything to its
// workloads. An object that is written nowhere any more is gone, once it has stayed away for Settle: editors and copy tools
// truncate and rename files on their way to the new content.
//
// A large file that changes is decoded and judged aside, and holds what it held before until it is through: changes of others do not wait.
//
// A path of Paths that held something and is gone, or cannot be listed, is a source that is away: what it held stays in force until it
// is back.
type Files struct {
	Paths []string
	// Check judges one decoded object (compile.Check); an error finding refuses it. Nil accepts everything.
	Check func(*Object) []model.Finding
	// Births gives the time at which each object was first seen, so that ages survive a restart (Store.Births); nil uses the
	// time of this process.
	Births func([]Key) (map[Key]time.Time, error)
	// Debounce is how long after a first event the files are read, where they are not known to be complete sooner; default 50 ms.
	Debounce time.Duration
	// Settle is how long an object must be away before it is believed; default 300 ms.
	Settle time.Duration
	// Rescan is how often files are looked at without an event, for file systems that report none; default 3 s.
	Rescan time.Duration

	// memory keeps what was accepted over restarts, so that a file that is broken when the control plane starts is no worse than
	// one that breaks while it runs. NewSet sets it; nil keeps nothing.
	memory *Store
}

// Layer implements Source.
func (f *Files) Layer() string { return LayerFile }

// Run implements Source. A path that does not exist yet is waited for.
func (f *Files) Run(ctx context.Context, publish func(Change)) error {
	w, err := newWatch()
	if err != nil {
		return err
	}
	defer w.close()
	r := &reader{Files: f, files: map[string]*readFile{}, accepted: map[Key]*Object{}, missing: map[Key]time.Time{},
		births: map[Key]time.Time{}, folders: map[string]os.FileInfo{}, aside: map[string]time.Time{}, decoding: make(chan struct{}, 1),
		came: make(chan aside), agenda: agenda{debounce: orDefault(f.Debounce, 50*time.Millisecond), writing: map[string]time.Time{}}, watcher: w, publish: publish}
	r.recall()
	r.agenda.soon(time.Now())
	tick := time.NewTicker(orDefault(f.Rescan, 3*time.Second))
	defer tick.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-w.notices:
			r.hear(n)
		case <-tick.C:
			if !r.agenda.pending() && r.differs() {
				r.agenda.soon(time.Now())
			}
		case a := <-r.came:
			r.take(a)
			r.agenda.soon(time.Now())
		case <-next.C:
			now := time.Now()
			if at, due := r.agenda.due(); !due || at.After(now) {
				break
			}
			r.agenda.done()
			if r.scan(ctx, now) {
				r.agenda.settles = now.Add(f.settling())
			}
		}
		if at, due := r.agenda.due(); due {
			next.Reset(time.Until(at))
		}
	}
}

// hear takes notice of a change, if it may matter: folders may be busy with what is not ours, such as files on their way to their names.
func (r *reader) hear(n notice) {
	if name := filepath.Base(n.name); !n.unclear && !isManifest(name) && !slices.ContainsFunc(r.Paths, func(path string) bool { return leadsThrough(path, name) }) {
		if !n.link {
			return
		}
		n.unclear = true // files may be reached through it
	}
	r.agenda.hear(n, time.Now())
	if f := r.files[n.name]; f != nil {
		f.at = time.Time{}
	}
}

// leadsThrough reports whether a path has an element.
func leadsThrough(path, element string) bool {
	for ; path != filepath.Dir(path); path = filepath.Dir(path) {
		if filepath.Base(path) == element {
			return true
		}
	}
	return false
}

func (f *Files) settling() time.Duration { return orDefault(f.Settle, 300*time.Millisecond) }

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// reader is the state of one Run; its one goroutine owns it.
type reader struct {
	*Files
	watcher *watch
	publish func(Change)
	agenda  agenda

	files    map[string]*readFile
	order    []string // names in files, in order of precedence
	accepted map[Key]*Object
	missing  map[Key]time.Time // accepted objects that are written nowhere, and since when
	births   map[Key]time.Time
	folders  map[string]os.FileInfo // the paths that are folders, as they were listed last
	away     map[string]outage      // the paths that held something and cannot be read
	aside    map[string]time.Time   // the files that are being read aside, and since when
	decoding chan struct{}          // has room for one of them
	came     chan aside             // what they held
	last     *Change                // as published
	// remembered are the objects that the memory was given last; nil before.
	remembered []*Object
	forgetful  []model.Finding // that they were not kept
}

// readFile is what one file held when it was read last.
type readFile struct {
	mark fileMark
	at   time.Time // when it was read; zero when it could not be
	data []byte
	docs []decoded
}

// restless is how long a file's time of change may stay the same while the file changes: file systems count it in steps.
const restless = 3 * time.Second

// stays reports whether a file need not be read again: it looks as it did when it was read, and had not changed just before.
func (f *readFile) stays(m fileMark) bool {
	return !f.at.IsZero() && f.mark.same(m) && f.at.Sub(m.changed) > restless
}

// fileMark tells whether a file may have changed since it was read.
type fileMark struct {
	size    int64
	changed time.Time
	info    os.FileInfo
}

func (m fileMark) same(n fileMark) bool {
	if m.info == nil || n.info == nil {
		return m.info == nil && n.info == nil
	}
	return m.size == n.size && m.changed.Equal(n.changed) && os.SameFile(m.info, n.info)
}

// scan reads everything and publishes what changed. It asks for another scan when an object has gone just now.
func (r *reader) scan(ctx context.Context, now time.Time) (again bool) {
	r.watch() // before reading, so that what changes meanwhile is seen
	l := r.list()
	for name := range r.files {
		if !slices.Contains(l.names, name) {
			delete(r.files, name)
		}
	}
	r.order = l.names
	told, soon := r.note(l, now)
	findings := append(l.findings, told...)
	for _, name := range l.names {
		if l.kept[name] {
			continue
		}
		if problem := r.read(ctx, name); problem != nil {
			findings = append(findings, *problem)
		}
	}
	objects, more := r.collect()
	r.keepAway(objects)
	closed, shut := r.close(objects)
	more = append(more, shut...)
	if r.last == nil {
		r.accepted = map[Key]*Object{} // what was taken away before the start is gone at once
	}
	again = r.settle(objects, now) || soon
	aged := r.aged(now)
	bornNow(closed, nil, now)
	set := append(slices.Clip(aged), closed...)
	if r.last != nil {
		r.tell(set, slices.Concat(findings, more, r.forgetful))
	}
	r.remember(aged) // which writes to a disk: nobody has to wait for that, but at the start
	r.tell(set, slices.Concat(findings, more, r.forgetful))
	return again
}

// tell publishes what there is, if it is other than before.
func (r *reader) tell(set []*Object, findings []model.Finding) {
	ch := Change{Reset: true, Set: set, Findings: SortFindings(findings)}
	if r.last == nil || !slices.Equal(ch.Set, r.last.Set) || !slices.Equal(ch.Findings, r.last.Findings) {
		r.last = &ch
		r.publish(ch)
	}
}

// recall starts from what was accepted when the process ended.
func (r *reader) recall() {
	if r.memory == nil {
		return
	}
	for _, o := range r.memory.recall() {
		r.accepted[o.Key()] = o
	}
}

// remember keeps what is accepted for the next start.
func (r *reader) remember(objects []*Object) {
	if r.memory == nil || r.remembered != nil && slices.Equal(objects, r.remembered) {
		return
	}
	r.forgetful = nil
	if err := r.memory.remember(r.remembered, objects); err != nil {
		r.remembered = nil
		r.forgetful = []model.Finding{{Severity: model.Warning, Code: "NotRemembered", Message: err.Error(),
			Hint: "the files are in force, but a restart will not know what was accepted"}}
		return
	}
	r.remembered = append([]*Object{}, objects...)
}

func isManifest(name string) bool {
	return name[0] != '.' && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// watch follows the directories that matter now: each path's own when it is one, and that in which it appears and disappears.
func (r *reader) watch() {
	want := map[string]bool{}
	for _, path := range r.Paths {
		path = filepath.Clean(path)
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			want[path] = true
		}
		for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				want[dir] = true
				break
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	r.watcher.follow(want) // a folder that cannot be watched is still seen by the rescan
}

// differs reports whether a file looks other than when it was read.
func (r *reader) differs() bool {
	l := r.list()
	if !slices.Equal(l.names, r.order) || r.returned(l) {
		return true
	}
	return slices.ContainsFunc(l.names, func(n string) bool {
		f := r.files[n]
		return !l.kept[n] && (f == nil || !f.mark.same(markOf(n)))
	})
}

func markOf(name string) fileMark {
	info, err := os.Stat(name)
	if err != nil {
		return fileMark{}
	}
	return fileMark{size: info.Size(), changed: info.ModTime(), info: info}
}

// read reads a file and decodes it when its content has changed. When it cannot be read, what it held before stays.
func (r *reader) read(ctx context.Context, name string) *model.Finding {
	mark, old := markOf(name), r.files[name]
	if old != nil && old.stays(mark) {
		return nil
	}
	if old == nil {
		old = &readFile{mark: mark}
		r.files[name] = old
	}
	now := time.Now()
	if r.agenda.busy(name, now) {
		return nil // it may be half written
	}
	data, err := readLimited(name)
	switch {
	case err != nil:
		old.at = time.Time{}
		f := unreadable(name, err)
		return &f
	case old.data != nil && bytes.Equal(old.data, data):
		old.mark, old.at = mark, now
	case len(data) >= asideSize && r.last != nil:
		r.readAside(ctx, name)
	default:
		r.files[name] = &readFile{mark: mark, at: now, data: data, docs: r.decode(name, data)}
	}
	return nil
}

// decode reads the documents of a file. It uses nothing but what is set before Run, and may run beside it.
func (f *Files) decode(name string, data []byte) []decoded {
	if document.IsTest(name) && document.HoldsTests(data) {
		return nil
	}
	docs := Text{Layer: LayerFile, File: name}.decodeAll(data)
	for i := range docs {
		f.check(&docs[i])
		docs[i].closed = docs[i].denyAll(name)
		docs[i].root = nil // was needed for that alone
	}
	return docs
}

// check refuses an object that is wrong by itself. Warnings are left to the compiler, which finds them again.
func (f *Files) check(d *decoded) {
	d.judgeDraft(f.Check)
	if d.object == nil || f.Check == nil {
		return
	}
	if found := f.Check(d.object); HasErrors(found) {
		d.object, d.findings = nil, append(d.findings, found...)
	}
}

func readLimited(name string) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > document.MaxFileSize:
		return nil, fmt.Errorf("%d bytes are more than the limit of %d", info.Size(), document.MaxFileSize)
	}
	data, err := os.ReadFile(name)
	if data == nil {
		data = []byte{}
	}
	return data, err
}

func unreadable(name string, err error) model.Finding {
	return model.Finding{Severity: model.Error, Code: "FileUnreadable", File: name, Message: "cannot be read: " + reason(err),
		Hint: "what it held before stays in force"}
}

// reason leaves the path out of an error that is shown beside it.
func reason(err error) string {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}

// collect gives what the files ask for: their good documents, and what stays in place of the refused ones.
func (r *reader) collect() (map[Key]*Object, []model.Finding) {
	objects := map[Key]*Object{}
	var findings []model.Finding
	for _, name := range r.order {
		for _, d := range r.files[name].docs {
			findings = append(findings, d.findings...)
			o := d.object
			if o == nil {
				continue
			}
			if first := objects[o.Key()]; first != nil {
				if r.underway(name) || r.underway(first.Origin.File) {
					continue // it may have moved from one to the other
				}
				findings = append(findings, o.Finding(model.Error, "DuplicateObject", "metadata.name",
					fmt.Sprintf("the same object is already in %s, line %d", first.Origin.File, first.Origin.Line),
					"keep one of them; the first, by order of files, is in force"))
				continue
			}
			objects[o.Key()] = o
		}
	}
	for _, name := range r.order {
		findings = append(findings, r.keepPrevious(name, objects)...)
	}
	return objects, findings
}

// keepPrevious adds the accepted versions of a file's refused documents: by name where it could be read, else all of the file's.
func (r *reader) keepPrevious(name string, objects map[Key]*Object) []model.Finding {
	var findings []model.Finding
	for _, d := range r.files[name].docs {
		if !HasErrors(d.findings) {
			continue
		}
		for _, old := range sorted(r.accepted) {
			k := old.Key()
			if objects[k] != nil || (d.key.Name != "" && k != d.key) || (d.key.Name == "" && old.Origin.File != name) {
				continue
			}
			objects[k] = old
			findings = append(findings, model.Finding{Severity: model.Info, Code: CodePreviousKept, Object: old.Ref(), File: name,
				Line: d.findings[0].Line, Message: "the version that was accepted before stays in force until this is put right"})
		}
	}
	return findings
}

// settle makes the wanted objects the accepted ones, save that those which are gone stay for a while.
func (r *reader) settle(want map[Key]*Object, now time.Time) (again bool) {
	for k := range r.missing {
		if want[k] != nil {
			delete(r.missing, k)
		}
	}
	for k, o := range r.accepted {
		if want[k] != nil {
			continue
		}
		since, ok := r.missing[k]
		if !ok {
			since = now
			r.missing[k] = now
		}
		if now.Sub(since) < r.settling() {
			want[k] = o
			again = true
			continue
		}
		if r.readSince(since.Add(r.settling())) {
			want[k] = o // it may have moved there; the end of reading brings the next scan
			continue
		}
		delete(r.missing, k)
	}
	r.accepted = want
	return again
}

// aged gives the accepted objects, in order, each with the time at which it was first seen.
func (r *reader) aged(now time.Time) []*Object {
	objects := sorted(r.accepted)
	births := map[Key]time.Time{}
	if r.Births != nil && !r.sameKeys() {
		// Without the record, ages are those of this process: order among old objects may differ, nothing else.
		if recorded, err := r.Births(keysOf(objects)); err == nil {
			births = recorded
		}
	}
	for i, o := range objects {
		k := o.Key()
		if !o.Born.IsZero() {
			births[k] = o.Born
			continue
		}
		if _, ok := births[k]; !ok {
			births[k] = now
			if t, ok := r.births[k]; ok {
				births[k] = t
			}
		}
		aged := *o
		aged.Born = births[k]
		objects[i] = &aged
		r.replace(k, o, &aged)
	}
	r.births = births
	return objects
}

// sameKeys reports whether the accepted objects are those of which the births are known.
func (r *reader) sameKeys() bool {
	if len(r.births) != len(r.accepted) {
		return false
	}
	for k := range r.accepted {
		if _, known := r.births[k]; !known {
			return false
		}
	}
	return true
}

// replace puts the aged copy wherever the object was, so that the next scan finds it again.
func (r *reader) replace(k Key, old, aged *Object) {
	r.accepted[k] = aged
	for _, f := range r.files {
		for i := range f.docs {
			if f.docs[i].object == old {
				f.docs[i].object = aged
			}
		}
	}
}

func sorted(objects map[Key]*Object) []*Object {
	return slices.SortedFunc(maps.Values(objects), func(a, b *Object) int { return a.Key().Compare(b.Key()) })
}

func keysOf(objects []*Object) []Key {
	keys := make([]Key, len(objects))
	for i, o := range objects {
		keys[i] = o.Key()
	}
	return keys
}
