package replica

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/ca"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
	"github.com/weftmesh/weft/internal/control/source/etcd"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
)

// store opens what replicas share.
func store(t *testing.T, server *etcdtest.Server) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(etcd.Options{Endpoints: []string{server.Endpoint}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// authority makes one in a directory of its own, and gives its files.
func authority(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	a, _, err := openCA(dir, "cluster.local", 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	files, err := ca.ReadFiles(dir)
	if err := errors.Join(err, a.Close()); err != nil {
		t.Fatal(err)
	}
	return files
}

// TestNewcomerWaitsForTheAuthority: one without an authority of its own finds none in etcd, and takes that of one that runs rather than
// make a second; one that has its own brings it at once, and one whose own is another does not start and says which they are.
func TestNewcomerWaitsForTheAuthority(t *testing.T) {
	v := store(t, etcdtest.Start(t))
	dir, ran := t.TempDir(), filepath.Join(t.TempDir(), "ca")
	files := authority(t, ran)
	waited := 0
	err := share(t.Context(), v, dir, "cluster.local", func(string) {
		waited++
		if err := share(t.Context(), v, ran, "cluster.local", func(string) { t.Error("who has an authority need not wait") }); err != nil {
			t.Error(err)
		}
	})
	got, failed := ca.ReadFiles(dir)
	if err := errors.Join(err, failed); err != nil || waited != 1 || !maps.EqualFunc(got, files, bytes.Equal) {
		t.Errorf("%v; it has waited %d times, and has %q", err, waited, slices.Collect(maps.Keys(got)))
	}
	other := filepath.Join(t.TempDir(), "ca")
	its := authority(t, other)
	err = share(t.Context(), v, other, "cluster.local", nil)
	if err == nil || !strings.Contains(err.Error(), "has "+roots(files)+", here "+roots(its)) || !strings.Contains(err.Error(), other) {
		t.Errorf("got %v", err)
	}
}

// TestOtherAuthorityIsTold: a replica that runs says that etcd has come to have another authority, by its root or by what else differs.
func TestOtherAuthorityIsTold(t *testing.T) {
	server := etcdtest.Start(t)
	r := &replica{Options: Options{StateDir: t.TempDir()}, etcd: store(t, server)}
	own, other := authority(t, r.authorityDir()), authority(t, t.TempDir()+"/ca")
	for name, text := range other {
		if _, err := server.Client.Put(t.Context(), r.etcd.AuthorityAt()+name, string(text)); err != nil {
			t.Fatal(err)
		}
	}
	findings := make(chan model.Finding, 100)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { // these end with stop
		ended <- r.etcd.Run(ctx, func(c source.Change) {
			for _, f := range c.Findings {
				if f.Code == "AuthorityDiffers" {
					findings <- f
				}
			}
		})
	}()
	go func() { ended <- r.keepAuthority(ctx) }()
	defer func() {
		stop()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	}()
	told := func(want string) {
		t.Helper()
		for late := time.After(3 * time.Minute); ; {
			select {
			case f := <-findings:
				if strings.Contains(f.Message, want) && strings.Contains(f.Hint, r.authorityDir()) && strings.Contains(f.Hint, "/weft/authority/") {
					return
				}
			case <-late:
				t.Fatalf("it is not told: %s", want)
			}
		}
	}
	told("in etcd is " + roots(other) + ", here " + roots(own))
	for name, text := range own {
		if name == "token-key.pem" {
			continue
		}
		if _, err := server.Client.Put(t.Context(), r.etcd.AuthorityAt()+name, string(text)); err != nil {
			t.Fatal(err)
		}
	}
	told("in etcd is another token-key.pem beneath the same " + roots(own))
}
