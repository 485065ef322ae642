package source

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFilesUnreadable(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.yaml", service("a", "1"))
	l := listen(t, quick(dir))
	l.await(t, "a=1")
	// A directory in the file's place cannot be read; what the file held stays. It comes at once: between removal and creation the file
	// would be seen to be gone.
	if err := unix.Renameat2(unix.AT_FDCWD, t.TempDir(), unix.AT_FDCWD, filepath.Join(dir, "a.yaml"), unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	l.await(t, "a=1 !FileUnreadable")
}
