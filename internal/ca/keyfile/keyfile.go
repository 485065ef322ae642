// Package keyfile reads and writes files that hold secrets: whole or not at all, and for their owner only.
package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrMode is wrapped by Read's error for a file that others than its owner may reach.
var ErrMode = errors.New("others may reach the key")

// Read reads a file and refuses one whose mode lets anybody but its owner read or write it.
func Read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: mode is %04o and %w; run: chmod 600 %s", path, mode, ErrMode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxSize)
	}
	return text, nil
}

// maxSize bounds what Read takes in, in bytes; no key, certificate or token of ours comes near.
const maxSize = 1 << 20

// Create writes a new file. One that is there already stays as it is and is no error, so that of two processes that start at
// once both go on with the same file.
func Create(path string, text []byte, mode fs.FileMode) error {
	temporary, err := write(path, text, mode)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary) }() // a leftover name is harmless
	if err := os.Link(temporary, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(path)
}

// Replace writes a file in place of the one that may be there; a reader sees the old or the new, never a part.
func Replace(path string, text []byte, mode fs.FileMode) error {
	temporary, err := write(path, text, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		_ = os.Remove(temporary) // the first error is the one to report
		return err
	}
	return syncDir(path)
}

// write puts text into a new file beside path. os.CreateTemp makes it with mode 0600, so it is at no time open to others unless
// mode says so.
func write(path string, text []byte, mode fs.FileMode) (name string, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return "", err
	}
	defer func() {
		if closing := f.Close(); err == nil {
			err = closing
		}
		if err != nil {
			_ = os.Remove(f.Name()) // the first error is the one to report
		}
	}()
	if err := f.Chmod(mode); err != nil {
		return "", err
	}
	if _, err := f.Write(text); err != nil {
		return "", err
	}
	return f.Name(), f.Sync()
}

// syncDir makes the name last as the contents do.
func syncDir(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	err = d.Sync()
	if closing := d.Close(); err == nil {
		err = closing
	}
	return err
}
