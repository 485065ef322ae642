package ca

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/weftmesh/weft/internal/ca/keyfile"
)

// shared are the files that make an authority: control planes that have the same ones are one authority.
var shared = []string{keyFile, certFile, chainFile, rootFile, tokenFile}

// ReadFiles gives the files of an authority's directory, keys included, for other control planes of the mesh; none when there is no
// whole authority. The journal is each control plane's own.
func ReadFiles(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range shared {
		text, err := os.ReadFile(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist) && name == chainFile:
		case errors.Is(err, fs.ErrNotExist):
			return nil, nil
		case err != nil:
			return nil, fmt.Errorf("ca: %w", err)
		default:
			files[name] = text
		}
	}
	return files, nil
}

// Roots gives the certificates, in PEM, of the roots among an authority's files.
func Roots(files map[string][]byte) []byte { return files[rootFile] }

// WriteFiles makes a directory's authority the one that ReadFiles gave, in place of any other. The root comes last, since it makes
// an authority whole.
func WriteFiles(dir string, files map[string][]byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	for _, name := range []string{tokenFile, keyFile, certFile, chainFile, rootFile} {
		text, ok := files[name]
		if !ok {
			if name == chainFile {
				continue
			}
			return fmt.Errorf("ca: the authority that is shared has no %s", name)
		}
		mode := fs.FileMode(0o644)
		if name == keyFile || name == tokenFile {
			mode = 0o600
		}
		if err := keyfile.Replace(filepath.Join(dir, name), text, mode); err != nil {
			return fmt.Errorf("ca: %w", err)
		}
	}
	return nil
}
