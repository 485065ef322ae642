package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What TestMain builds, and the account that root's tests use for the ordinary user's part.
var (
	binaries   string // folder with weft, weft-proxy, bookinfo and program
	repository string // root of the source
)

// programName is what the test binary is called where it serves as a workload; see program_test.go.
const programName = "program"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == programName {
		os.Exit(programMain(os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "weft-e2e-")
	if err != nil {
		return fail(err)
	}
	defer os.RemoveAll(dir)
	binaries = dir
	if repository, err = filepath.Abs(filepath.Join("..", "..")); err != nil {
		return fail(err)
	}
	if err := build(); err != nil {
		return fail(err)
	}
	return m.Run()
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	return 1
}

// build makes the programs where every user may run them: the folder of the test binary is its owner's alone. WEFT_E2E_BINARIES
// names a folder of built ones, to test a release.
func build() error {
	if err := os.Chmod(binaries, 0o755); err != nil {
		return err
	}
	if ready := os.Getenv("WEFT_E2E_BINARIES"); ready != "" {
		if err := copyPrograms(ready); err != nil {
			return err
		}
		return copyProgram("/proc/self/exe", programName)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", binaries+"/", "./cmd/weft", "./cmd/weft-proxy", "./examples/bookinfo/cmd/bookinfo")
	cmd.Dir = repository
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return copyProgram("/proc/self/exe", programName)
}

func copyPrograms(from string) error {
	for _, name := range []string{"weft", "weft-proxy", "bookinfo"} {
		if err := copyProgram(filepath.Join(from, name), name); err != nil {
			return err
		}
	}
	return nil
}

func copyProgram(from, name string) error {
	raw, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(binaries, name), raw, 0o755)
}
