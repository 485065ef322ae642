package etcd

import (
	"bytes"
	"context"
	"maps"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weftmesh/weft/internal/control/model"
)

// AuthorityAt is the prefix of the keys that have the authority's files.
func (s *Store) AuthorityAt() string { return s.options.Prefix + authorityPart }

// Files gives the authority's files, by name; none when there are none yet.
func (s *Store) Files(ctx context.Context) (map[string][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	prefix := s.AuthorityAt()
	answer, err := s.client.Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, s.failed("read", prefix, err)
	}
	files := map[string][]byte{}
	for _, kv := range answer.Kvs {
		files[strings.TrimPrefix(string(kv.Key), prefix)] = kv.Value
	}
	return files, nil
}

// CreateFiles keeps the authority's files, unless somebody else has been quicker: then nothing happens, and Files has theirs.
func (s *Store) CreateFiles(ctx context.Context, files map[string][]byte) error {
	_, err := s.addFiles(ctx, nil, files)
	return err
}

// addFiles adds some of the authority's files to those that are there, if no others are, and gives the revision of that; 0 when there are.
func (s *Store) addFiles(ctx context.Context, there, files map[string][]byte) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	prefix := s.AuthorityAt()
	var as []clientv3.Cmp
	if len(there) == 0 {
		as = append(as, clientv3.Compare(clientv3.CreateRevision(prefix), "=", 0).WithPrefix())
	}
	for name, text := range there {
		as = append(as, clientv3.Compare(clientv3.Value(prefix+name), "=", string(text)))
	}
	var ops []clientv3.Op
	for name, text := range files {
		as = append(as, clientv3.Compare(clientv3.CreateRevision(prefix+name), "=", 0))
		ops = append(ops, clientv3.OpPut(prefix+name, string(text)))
	}
	answer, err := s.client.Txn(ctx).If(as...).Then(ops...).Commit()
	if err != nil {
		return 0, s.failed("write", prefix, err)
	}
	if !answer.Succeeded {
		return 0, nil
	}
	return answer.Header.Revision, nil
}

// theAuthority is the topic of findings about the authority's files.
const theAuthority = "authority"

// KeepFiles has the authority's files stay in etcd until the context ends, for whoever starts later: it puts back those that are gone, as
// after a loss of etcd's data, and tells of others, which it leaves alone, by what differ says of them. It goes by what Run reads.
func (s *Store) KeepFiles(ctx context.Context, own map[string][]byte, differ func(there map[string][]byte) model.Finding) {
	for ctx.Err() == nil {
		s.mu.Lock()
		read, there, moved := s.view.cluster != 0, maps.Clone(s.view.authority), s.moved
		s.mu.Unlock()
		var again <-chan time.Time
		if read && !s.keepFiles(ctx, own, there, differ) {
			again = time.After(lastPause)
		}
		select {
		case <-ctx.Done():
		case <-moved:
		case <-again:
		}
	}
}

// keepFiles reports whether the files are there, or others are; else it is to be called again.
func (s *Store) keepFiles(ctx context.Context, own, there map[string][]byte, differ func(map[string][]byte) model.Finding) bool {
	gone := missing(own, there)
	switch {
	case len(there)+len(gone) > len(own):
		f := differ(there)
		s.intake.Remark(theAuthority, &f)
		return true
	case len(gone) == 0:
		s.intake.Remark(theAuthority, nil)
		return true
	}
	revision, err := s.addFiles(ctx, there, gone)
	if err == nil && revision != 0 {
		s.log.Warn("the authority was gone from etcd, and is back: a control plane that starts finds it there")
		err = s.await(ctx, revision)
	}
	if err != nil && ctx.Err() == nil {
		s.intake.Remark(theAuthority, &model.Finding{Severity: model.Error, Code: "AuthorityLost", File: "etcd",
			Message: "the authority's keys are gone from etcd, and cannot be put back: " + err.Error(),
			Hint:    "until they are, start no other control plane on this etcd: it would make an authority of its own, whose proxies and ours refuse each other"})
	}
	return err == nil && revision != 0
}

// missing gives those of our files that are not there as they are here.
func missing(own, there map[string][]byte) map[string][]byte {
	gone := maps.Clone(own)
	maps.DeleteFunc(gone, func(name string, text []byte) bool { return bytes.Equal(there[name], text) })
	return gone
}
