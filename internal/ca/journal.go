package ca

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/identity"
)

const journalFile = "journal.jsonl"

// Entry is one line of the journal.
type Entry struct {
	Time     time.Time `json:"time"`
	Serial   string    `json:"serial"` // hexadecimal, as openssl prints it
	ID       string    `json:"id"`     // SPIFFE
	Instance string    `json:"instance,omitempty"`
	NotAfter time.Time `json:"notAfter"`
	Proof    Proof     `json:"proof"`
}

// journal appends entries to a file and rotates it: journal.jsonl is the newest, journal.jsonl.1 the one before.
type journal struct {
	path  string // these are set once
	limit int64
	keep  int

	mu   sync.Mutex
	file *os.File
	size int64
}

func openJournal(dir string, limit int64, keep int) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalFile), limit: limit, keep: keep}
	return j, j.open()
}

func (j *journal) open() error {
	f, err := os.OpenFile(j.path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("ca: journal: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // nothing was written
		return fmt.Errorf("ca: journal: %w", err)
	}
	j.file, j.size = f, info.Size()
	return j.endLine()
}

// endLine closes a last line that a crash cut off, so that the next entry does not grow onto it.
func (j *journal) endLine() error {
	if j.size == 0 {
		return nil
	}
	var last [1]byte
	if _, err := j.file.ReadAt(last[:], j.size-1); err != nil {
		return fmt.Errorf("ca: journal: %w", err)
	}
	if last[0] == '\n' {
		return nil
	}
	n, err := j.file.WriteString("\n")
	j.size += int64(n)
	if err != nil {
		return fmt.Errorf("ca: journal: %w", err)
	}
	return nil
}

func (j *journal) record(now time.Time, leaf *x509.Certificate, peer identity.Peer, proof Proof) error {
	line, err := json.Marshal(Entry{
		Time: now.UTC(), Serial: leaf.SerialNumber.Text(16), ID: peer.ID.String(), Instance: peer.Instance,
		NotAfter: leaf.NotAfter.UTC(), Proof: proof,
	})
	if err != nil {
		return fmt.Errorf("ca: journal: %w", err)
	}
	line = append(line, '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return fmt.Errorf("ca: journal: %w", fs.ErrClosed)
	}
	if j.size > 0 && j.size+int64(len(line)) > j.limit {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	if n, err := j.file.Write(line); err != nil {
		if n > 0 && j.file.Truncate(j.size) != nil {
			j.size += int64(n) // the torn line stays; readers skip what is not JSON
		}
		return fmt.Errorf("ca: journal: %w", err)
	}
	j.size += int64(len(line))
	return nil
}

// rotate moves every file up by one number; the last is overwritten.
func (j *journal) rotate() error {
	for n := j.keep - 1; n >= 0; n-- {
		err := os.Rename(j.numbered(n), j.numbered(n+1))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("ca: journal: %w", err)
		}
	}
	old := j.file
	if err := j.open(); err != nil {
		return err
	}
	if err := old.Close(); err != nil {
		return fmt.Errorf("ca: journal: %w", err)
	}
	return nil
}

func (j *journal) numbered(n int) string {
	if n == 0 {
		return j.path
	}
	return j.path + "." + strconv.Itoa(n)
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	err := j.file.Close()
	j.file = nil
	if err != nil {
		return fmt.Errorf("ca: journal: %w", err)
	}
	return nil
}
