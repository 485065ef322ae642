package replica

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"

	"github.com/weftmesh/weft/internal/ca"
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
func share(ctx context.Context, v vault, dir, domain string) error {
	own, err := ca.ReadFiles(dir)
	if err != nil {
		return err
	}
	files, err := v.Files(ctx)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		if files, err = found(ctx, v, dir, domain); err != nil {
			return err
		}
	} else if own != nil && !maps.EqualFunc(own, files, bytes.Equal) {
		return fmt.Errorf("the authority in %s is not the one that the replicas share; move it away to join them", dir)
	}
	return ca.WriteFiles(dir, files)
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
