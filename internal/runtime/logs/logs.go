// Package logs keeps what the processes of pods write: for each process of each instance a bounded ring on disk (a file and its
// predecessor), readable by time across all of them and followed live.
package logs

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxLine is where a longer line is cut into several.
const maxLine = 16 << 10

// backlog is how many lines a follower may lag behind; what comes beyond is lost to it, and told.
const backlog = 4096

// Line is one line that a process wrote.
type Line struct {
	Time      time.Time
	Namespace string
	Workload  string
	Pod       string
	Process   string
	Stderr    bool
	Text      string // without the end of line
}

// Options say which lines Read gives.
type Options struct {
	Follow bool
	Tail   int       // last lines of each process; 0 for all
	Since  time.Time // zero for all
}

// Store is a folder of rings. Its methods may be called from any goroutine.
type Store struct {
	dir string
	max int64 // bytes of one file; a ring has two

	mu        sync.Mutex // held for each line, and by Read while it reads the files
	followers map[*follower]bool
}

type follower struct {
	lines chan Line
	lost  int
}

// Open makes a store in a folder, which may hold the lines of an earlier one. Each ring takes at most twice max bytes.
func Open(dir string, max int64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	return &Store{dir: dir, max: max, followers: map[*follower]bool{}}, nil
}

// Source is whose lines a Writer takes. Slot tells apart the instances of a workload that run at the same time; a later pod in
// the same slot continues the ring.
type Source struct {
	Namespace, Workload, Pod, Process string
	Slot                              int
}

// Writer appends to one ring. Close it when the process's pod is gone.
type Writer struct {
	s    *Store
	src  Source
	path string

	// guarded by Store.mu
	file *os.File
	size int64
}

// Writer opens the ring of a source.
func (s *Store) Writer(src Source) (*Writer, error) {
	dir := filepath.Join(s.dir, src.Namespace, src.Workload)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	w := &Writer{s: s, src: src, path: filepath.Join(dir, strconv.Itoa(src.Slot)+"-"+src.Process+".log")}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := w.open(); err != nil {
		return nil, fmt.Errorf("logs: %w", err)
	}
	return w, nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	w.file, w.size = f, fi.Size()
	return nil
}

// Close closes the file; lines written later are only seen by followers.
func (w *Writer) Close() error {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	if w.file == nil {
		return nil
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// Copy takes lines from a process's stream until its end.
func (w *Writer) Copy(r io.Reader, stderr bool) {
	br := bufio.NewReaderSize(r, maxLine)
	for {
		text, err := br.ReadSlice('\n')
		if len(text) > 0 {
			w.Write(string(bytes.TrimRight(text, "\r\n")), stderr)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// Write appends one line. A disk that is full costs the ring the line, not its followers.
func (w *Writer) Write(text string, stderr bool) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	l := Line{time.Now(), w.src.Namespace, w.src.Workload, w.src.Pod, w.src.Process, stderr, text}
	if w.file != nil {
		n, _ := w.file.WriteString(format(l))
		if w.size += int64(n); w.size > w.s.max {
			w.rotate()
		}
	}
	for f := range w.s.followers {
		f.offer(l)
	}
}

func (w *Writer) rotate() {
	w.file.Close()
	w.file = nil
	if _, err := os.Stat(w.path + ".1"); err == nil {
		_ = os.WriteFile(w.path+".lost", nil, 0o600) // no more than a remark depends on it
	}
	if os.Rename(w.path, w.path+".1") == nil {
		_ = w.open() // without a file, followers still see the lines
	}
}

func (f *follower) offer(l Line) {
	if f.lost > 0 {
		note := l
		note.Text = fmt.Sprintf("[%d lines lost: the reader is too slow]", f.lost)
		select {
		case f.lines <- note:
			f.lost = 0
		default:
			f.lost++
			return
		}
	}
	select {
	case f.lines <- l:
	default:
		f.lost++
	}
}

func format(l Line) string {
	stream := "O"
	if l.Stderr {
		stream = "E"
	}
	return l.Time.UTC().Format(time.RFC3339Nano) + " " + l.Pod + " " + stream + " " + l.Text + "\n"
}

// parse undoes format; the rest of the Line comes from the file's place.
func parse(row string, into Line) (Line, bool) {
	f := strings.SplitN(strings.TrimSuffix(row, "\n"), " ", 4)
	if len(f) != 4 {
		return Line{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, f[0])
	if err != nil {
		return Line{}, false
	}
	into.Time, into.Pod, into.Stderr, into.Text = t, f[1], f[2] == "E", f[3]
	return into, true
}

// Read gives the kept lines that match, by time, and with Follow those that come until the context ends.
func (s *Store) Read(ctx context.Context, match func(Line) bool, opt Options) iter.Seq[Line] {
	return func(yield func(Line) bool) {
		f := &follower{lines: make(chan Line, backlog)}
		s.mu.Lock()
		kept := s.kept(match, opt)
		if opt.Follow {
			s.followers[f] = true
		}
		s.mu.Unlock()
		defer func() {
			s.mu.Lock()
			delete(s.followers, f)
			s.mu.Unlock()
		}()
		for _, l := range kept {
			if ctx.Err() != nil || !yield(l) {
				return
			}
		}
		for opt.Follow {
			select {
			case <-ctx.Done():
				return
			case l := <-f.lines:
				if match(l) && !yield(l) {
					return
				}
			}
		}
	}
}

// kept reads the files, and says of which the beginning is gone, with mu held so that no line is given twice or missed at the seam to the followers.
func (s *Store) kept(match func(Line) bool, opt Options) []Line {
	var out []Line
	filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".log") {
			return nil
		}
		lines := s.file(path, match, opt.Since)
		if _, err := os.Stat(path + ".lost"); err == nil && opt.Tail == 0 && opt.Since.IsZero() && len(lines) > 0 {
			note := lines[0]
			note.Text = fmt.Sprintf("[earlier lines of this process are gone: the last %d KiB to %d KiB are kept]", s.max>>10, 2*s.max>>10)
			lines = append([]Line{note}, lines...)
		}
		if opt.Tail > 0 && len(lines) > opt.Tail {
			lines = lines[len(lines)-opt.Tail:]
		}
		out = append(out, lines...)
		return nil
	})
	slices.SortStableFunc(out, func(a, b Line) int { return a.Time.Compare(b.Time) })
	return out
}

func (s *Store) file(path string, match func(Line) bool, since time.Time) []Line {
	rel, err := filepath.Rel(s.dir, path)
	parts := strings.Split(rel, string(filepath.Separator))
	if err != nil || len(parts) != 3 {
		return nil
	}
	_, process, _ := strings.Cut(strings.TrimSuffix(parts[2], ".log"), "-")
	place := Line{Namespace: parts[0], Workload: parts[1], Process: process}
	var out []Line
	for _, p := range []string{path + ".1", path} {
		raw, err := os.ReadFile(p)
		if err != nil {
			continue
		}
		for row := range strings.Lines(string(raw)) {
			if l, ok := parse(row, place); ok && !l.Time.Before(since) && match(l) {
				out = append(out, l)
			}
		}
	}
	return out
}
