package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/weftmesh/weft/internal/proxy/ads"
	"github.com/weftmesh/weft/internal/wire"
)

// saveFile holds the used configuration in StateDir; saveVersion is the version of its format.
const (
	saveFile    = "config.json"
	saveVersion = 1
	maxSaveFile = 256 << 20 // bytes; a larger file is not read
	saveShare   = 20
)

// saved is the content of saveFile: resources as they came, so that decode checks them again when they are read.
type saved struct {
	Version   int             `json:"version"`
	Node      string          `json:"node"`
	Names     []string        `json:"names,omitempty"`
	DNS       []string        `json:"dns,omitempty"`
	Listeners []string        `json:"listeners,omitempty"`
	Resources []savedResource `json:"resources,omitempty"`
}

type savedResource struct {
	Type    string `json:"type"`
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	Absent  bool   `json:"absent,omitempty"`
	Body    []byte `json:"body,omitempty"`
}

// owner says whose configuration a file is: instances of one workload may inherit it from each other, others may not.
func owner(n wire.Node) string {
	return strings.Join([]string{string(n.Role), n.Namespace, n.ServiceAccount, n.Workload}, "~")
}

// unsaved notes that there is something to save.
func (l *Live) unsaved() {
	select {
	case l.dirty <- struct{}{}:
	default:
	}
}

// keepSaved writes the configuration soon after it changed, and a last time at the end. It spends at most one part in saveShare of
// the time on it: a large configuration that changes all the time is written less often.
func (l *Live) keepSaved(ctx context.Context) {
	if l.opts.StateDir == "" {
		return
	}
	delay := l.opts.SaveDelay
	for {
		select {
		case <-ctx.Done():
			select {
			case <-l.dirty:
				l.save()
			default:
			}
			return
		case <-l.dirty:
		}
		t := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			t.Stop()
			l.save()
			return
		case <-t.C:
			began := time.Now()
			l.save()
			delay = max(l.opts.SaveDelay, saveShare*time.Since(began))
		}
	}
}

func (l *Live) save() {
	if l.opts.Store != nil {
		l.opts.Store(l.Save)
		return
	}
	l.Save()
}

// Save writes the configuration now, whatever Options.Store says: it is for who decides about that.
func (l *Live) Save() {
	if l.opts.StateDir == "" {
		return
	}
	raw, err := json.Marshal(l.collect())
	if err == nil {
		err = writeFile(l.opts.StateDir, saveFile, raw)
	}
	if err != nil {
		l.opts.Log.Error("live: configuration not saved", "error", err)
	}
}

// collect takes what is settled. Resources refused in their newest version are saved in the version that is held.
func (l *Live) collect() *saved {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &saved{Version: saveVersion, Node: owner(l.opts.Node)}
	s.Names, s.DNS, s.Listeners = doneNames(l.names), doneNames(l.dns), doneNames(l.listeners)
	for k, r := range l.resources {
		if r.body == nil && !r.absent {
			continue
		}
		s.Resources = append(s.Resources, savedResource{k.typeURL, k.name, r.version, r.absent, r.body.GetValue()})
	}
	return s
}

func doneNames(roots map[string]*root) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(roots)) {
		if roots[name].done {
			names = append(names, name)
		}
	}
	return names
}

// writeFile replaces a file in one step; a crash leaves the old one or the new one.
func writeFile(dir, name string, data []byte) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, name+".*.tmp") // made with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, name))
}

// restore takes what an earlier run saved. Called with mu held, before Run.
func (l *Live) restore() error {
	s, err := l.readSaved()
	if s == nil || err != nil {
		return err
	}
	bad := 0
	for _, sr := range s.Resources {
		res := &resource{version: sr.Version, absent: sr.Absent, restored: true, users: map[*root]struct{}{}}
		if !sr.Absent {
			res.body = &anypb.Any{TypeUrl: sr.Type, Value: sr.Body}
			if res.value, err = decodeResource(ads.Resource{Name: sr.Name, Version: sr.Version, Body: res.body}); err != nil {
				bad++
				continue // it is asked for like one that was never there
			}
		}
		l.adopt(key{sr.Type, sr.Name}, res)
	}
	if bad > 0 {
		l.opts.Log.Warn("live: saved resources not usable", "count", bad)
	}
	l.restoreRoots(s)
	return nil
}

// adopt puts a restored resource in place. One that a root has asked for already (the inbound listener) is held from now on.
func (l *Live) adopt(k key, res *resource) {
	if there := l.resources[k]; there != nil {
		res.users = there.users
		l.subscribe(k, res)
	}
	l.resources[k] = res
}

func (l *Live) restoreRoots(s *saved) {
	for _, r := range l.listeners {
		l.evaluate(r)
	}
	if l.opts.Node.Role == wire.Gateway {
		for _, name := range s.Listeners {
			l.listeners[name] = l.addRoot(gatewayRoot, key{listenerType, name})
		}
		l.listed = len(s.Listeners) > 0
	} else {
		for _, name := range s.Names[:min(len(s.Names), l.opts.MaxNames)] {
			l.names[name] = l.addRoot(outboundRoot, key{listenerType, name})
		}
	}
	for _, name := range s.DNS[:min(len(s.DNS), l.opts.MaxNames)] {
		l.dns[name] = l.addRoot(dnsRoot, key{namesType, name})
	}
	for k, res := range l.resources {
		if len(res.users) == 0 {
			delete(l.resources, k)
		}
	}
}

// readSaved gives nil when there is nothing of this node.
func (l *Live) readSaved() (*saved, error) {
	if l.opts.StateDir == "" {
		return nil, nil
	}
	path := filepath.Join(l.opts.StateDir, saveFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSaveFile {
		return nil, fmt.Errorf("%s: has %d bytes, more than %d", path, info.Size(), maxSaveFile)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var s saved
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if s.Version != saveVersion {
		return nil, fmt.Errorf("%s: has format %d, want %d", path, s.Version, saveVersion)
	}
	if s.Node != owner(l.opts.Node) {
		return nil, fmt.Errorf("%s: is of %s, not of %s", path, s.Node, owner(l.opts.Node))
	}
	return &s, nil
}
