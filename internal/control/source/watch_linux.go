package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// watch tells of changes in folders, and of a file that is written, when it is complete. Its methods but close are for one goroutine.
type watch struct {
	notices chan notice // set once, as file and done
	file    *os.File
	done    chan struct{}

	mu   sync.Mutex
	dirs map[string]int32 // what is watched
}

const watched = unix.IN_CREATE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_ATTRIB | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE |
	unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

func newWatch() (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch files: %w", err)
	}
	w := &watch{notices: make(chan notice), file: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{}), dirs: map[string]int32{}}
	go w.run() // ends with close
	return w, nil
}

func (w *watch) close() {
	close(w.done)
	_ = w.file.Close() // which ends run; there is nothing to be lost
}

// follow watches these folders and no others. What cannot be watched is left out.
func (w *watch) follow(dirs map[string]bool) {
	raw, err := w.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { w.change(int(fd), dirs) }) // fails when it is closed
}

func (w *watch) change(fd int, dirs map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.dirs
	w.dirs = make(map[string]int32, len(dirs))
	used := map[int32]bool{}
	for dir := range dirs {
		if wd, err := unix.InotifyAddWatch(fd, dir, watched); err == nil {
			w.dirs[dir] = int32(wd)
			used[int32(wd)] = true
		}
	}
	for _, wd := range before {
		if !used[wd] {
			_, _ = unix.InotifyRmWatch(fd, uint32(wd)) // the folder may be gone already, and its watch with it
		}
	}
}

func (w *watch) run() {
	buffer := make([]byte, 64<<10)
	for {
		n, err := w.file.Read(buffer)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			n = 0
			w.say(notice{unclear: true})
		}
		for rest := buffer[:n]; len(rest) >= unix.SizeofInotifyEvent; {
			wd, mask := int32(binary.NativeEndian.Uint32(rest)), binary.NativeEndian.Uint32(rest[4:])
			end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
			if end > len(rest) {
				break
			}
			name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:end], []byte{0})
			w.tell(wd, mask, string(name))
			rest = rest[end:]
		}
	}
}

// tell makes notices of an event: the same folder may be watched by several names.
func (w *watch) tell(wd int32, mask uint32, name string) {
	if mask&(unix.IN_Q_OVERFLOW|unix.IN_ISDIR|unix.IN_DELETE_SELF|unix.IN_MOVE_SELF|unix.IN_UNMOUNT) != 0 || name == "" {
		w.say(notice{unclear: true})
		return
	}
	w.mu.Lock()
	var files []string
	for dir, is := range w.dirs {
		if is == wd {
			files = append(files, filepath.Join(dir, name))
		}
	}
	w.mu.Unlock()
	for _, file := range files {
		n := notice{name: file}
		if mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0 {
			var opened bool
			n.link, opened = look(file)
			n.partial = opened && mask&unix.IN_CREATE != 0
		}
		n.partial = n.partial || mask&unix.IN_MODIFY != 0
		w.say(n)
	}
}

// look says of a file that came whether it is a symbolic link, and whether it was made by opening it, so that it will be closed.
func look(file string) (link, opened bool) {
	var st unix.Stat_t
	if unix.Lstat(file, &st) != nil {
		return false, false
	}
	kind := st.Mode & unix.S_IFMT
	return kind == unix.S_IFLNK, kind == unix.S_IFREG && st.Nlink == 1
}

func (w *watch) say(n notice) {
	select {
	case w.notices <- n:
	case <-w.done:
	}
}
