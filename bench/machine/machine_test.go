package machine

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestParseCore(t *testing.T) {
	const stat = "cpu  9 9 9 9\ncpu0 1 2 3 400 0 7 8 9 0 0\ncpu1 100 20 3 4 5 6 7 8 9 10\nintr 1\n"
	if got, err := parseCore([]byte(stat), 1); err != nil || got != 1230*time.Millisecond {
		t.Errorf("core 1: %v, %v; want 1.23 s", got, err)
	}
	if _, err := parseCore([]byte(stat), 2); err == nil {
		t.Error("core 2 is not there, and no error")
	}
	if _, err := parseCore([]byte("cpu1 1 x 1\n"), 1); err == nil {
		t.Error("no error for text that is no number")
	}
}

// TestCPUTimeSeesWork compares the clock of this process, by its number, with work that it does.
func TestCPUTimeSeesWork(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for {
		after, err := CPUTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after-before > 5*time.Millisecond {
			break // each look costs CPU, so the clock gets there if it moves at all
		}
		if after < before {
			t.Fatalf("the clock went back from %v to %v", before, after)
		}
	}
	if _, err := CPUTime(1 << 22); err == nil {
		t.Error("no error for a process that cannot exist")
	}
}

func TestFamilyHasChildren(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if all := Family(os.Getpid()); all[0] != os.Getpid() || !slices.Contains(all, cmd.Process.Pid) {
		t.Errorf("family %v of %d lacks %d", all, os.Getpid(), cmd.Process.Pid)
	}
	if n, err := Resident(cmd.Process.Pid); err != nil || n < 4096 {
		t.Errorf("resident memory of the child: %d, %v", n, err)
	}
}
