package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source/etcd"
	"github.com/weftmesh/weft/internal/identity"
)

// vault keeps the authority's files for all replicas.
type vault interface {
	// Files gives them, none when there are none yet.
	Files(ctx context.Context) (map[string][]byte, error)
	// CreateFiles keeps them, unless somebody else was quicker.
	CreateFiles(ctx context.Context, files map[string][]byte) error
}

// share makes the authority in a directory the one in the vault. The first replica makes the authority, or brings one that was
// plugged in; an authority of the directory's own that is another is an error, since its certificates would be good nowhere else.
// One that has none of its own first waits for replicas that run, since an etcd that has lost everything looks like a new one; it
// says so.
func share(ctx context.Context, v vault, dir, domain string, waits func(reason string)) error {
	own, err := ca.ReadFiles(dir)
	if err != nil {
		return err
	}
	files, err := v.Files(ctx)
	if err == nil && len(files) == 0 && own == nil {
		waits("it has no authority; a control plane that runs puts back what was lost within " + etcd.ReturnTime.String() + ", otherwise one is made")
		files, err = returned(ctx, v)
	}
	if err != nil {
		return err
	}
	if len(files) == 0 {
		if files, err = found(ctx, v, dir, domain); err != nil {
			return err
		}
	} else if own != nil && !maps.EqualFunc(own, files, bytes.Equal) {
		return fmt.Errorf("the authority in %s is not the one that the replicas share, which has %s; move it away to join them", dir, difference(own, files))
	}
	return ca.WriteFiles(dir, files)
}

// returnedEvery is between looks at whether a replica has put the authority back.
const returnedEvery = 200 * time.Millisecond

// returned gives replicas that run the time to put the authority into the vault, and gives what is there in the end.
func returned(ctx context.Context, v vault) (map[string][]byte, error) {
	tick := time.NewTicker(returnedEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(etcd.ReturnTime); ; {
		files, err := v.Files(ctx)
		if err != nil || len(files) > 0 || time.Now().After(deadline) {
			return files, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// found puts the directory's authority, made now if need be, into the vault, and gives what is there in the end.
func found(ctx context.Context, v vault, dir, domain string) (map[string][]byte, error) {
	authority, _, err := openCA(dir, domain, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if err := authority.Close(); err != nil {
		return nil, err
	}
	files, err := ca.ReadFiles(dir)
	if err != nil {
		return nil, err
	}
	if err := v.CreateFiles(ctx, files); err != nil {
		return nil, err
	}
	return v.Files(ctx)
}

// keepAuthority has the authority that this replica signs with stay in etcd, and tells of another one there.
func (r *replica) keepAuthority(ctx context.Context) error {
	dir := r.authorityDir()
	own, err := ca.ReadFiles(dir)
	if err == nil && own == nil {
		err = errors.New("ca: the authority is gone from " + dir)
	}
	if err != nil {
		return err
	}
	r.etcd.KeepFiles(ctx, own, func(there map[string][]byte) model.Finding {
		return model.Finding{Severity: model.Error, Code: "AuthorityDiffers", File: "etcd",
			Message: "there is another authority in etcd than this control plane has, and proxies of the two refuse each other: in etcd is " + difference(own, there),
			Hint: "keep one of them. For that in etcd: stop this control plane, move " + dir + " away, and start it again. For this one: stop those that have the other, and: etcdctl del --prefix " +
				r.etcd.AuthorityAt()}
	})
	return nil
}

func (r *replica) authorityDir() string { return filepath.Join(r.StateDir, "ca") }

// difference says what others have in place of our authority's files.
func difference(own, there map[string][]byte) string {
	theirs, ours := roots(there), roots(own)
	if theirs != ours {
		return fmt.Sprintf("%s, here %s", theirs, ours)
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(union(own, there))) {
		if !bytes.Equal(own[name], there[name]) {
			names = append(names, name)
		}
	}
	return fmt.Sprintf("another %s beneath the same %s", strings.Join(names, ", "), ours)
}

func union(a, b map[string][]byte) map[string][]byte {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

// roots names those of an authority's files by their fingerprints, as openssl x509 -fingerprint -sha256 writes them.
func roots(files map[string][]byte) string {
	certificates, err := identity.ParseCertificates(ca.Roots(files))
	if err != nil || len(certificates) == 0 {
		return "no root that can be read"
	}
	var all []string
	for _, c := range certificates {
		all = append(all, fingerprint(c))
	}
	return "root " + strings.Join(all, " and ")
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum[:]), " ", ":")
}
