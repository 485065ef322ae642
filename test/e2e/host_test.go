package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// traces is what a mesh could leave on the host, found while it runs.
type traces struct {
	links, tables []string          // of the host, before
	processes     map[int]string    // by pid, with the start time
	namespaces    map[string]string // of the network, with what runs there
	addresses     []string          // where it listens
}

// hostNetwork lists the links and nftables tables of the host's network.
func hostNetwork(t *testing.T) (links, tables []string) {
	t.Helper()
	all, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range all {
		links = append(links, l.Attrs().Name)
	}
	if os.Geteuid() != 0 {
		return links, nil // the tables are root's to see, and to make
	}
	nft, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	list, err := nft.ListTables()
	if err != nil {
		t.Logf("nftables are not compared: %v", err)
	}
	for _, table := range list {
		tables = append(tables, fmt.Sprintf("%d %s", table.Family, table.Name))
	}
	return links, tables
}

// statFields splits /proc/PID/stat behind the program's name, which may hold anything.
func statFields(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	_, rest, _ := strings.Cut(string(raw[max(0, strings.LastIndexByte(string(raw), ')')):]), " ")
	return strings.Fields(rest)
}

// Positions in statFields.
const (
	statState  = 0
	statParent = 1
	statStart  = 19
)

func allProcesses() []int {
	var pids []int
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// family finds a process and everything it started, with start times.
func family(root int) map[int]string {
	parents, starts := map[int]int{}, map[int]string{}
	for _, pid := range allProcesses() {
		if f := statFields(pid); len(f) > statStart {
			parents[pid], _ = strconv.Atoi(f[statParent])
			starts[pid] = f[statStart]
		}
	}
	found := map[int]string{root: starts[root]}
	for grown := true; grown; {
		grown = false
		for pid, parent := range parents {
			if _, in := found[parent]; in && found[pid] == "" {
				found[pid], grown = starts[pid], true
			}
		}
	}
	return found
}

// traces looks at a running mesh.
func (m *mesh) traces(links, tables []string) traces {
	m.Helper()
	tr := traces{links: links, tables: tables, processes: family(m.up.cmd.Process.Pid), namespaces: map[string]string{}}
	hosts, err := os.Readlink("/proc/self/ns/net")
	m.check(err)
	for pid := range tr.processes {
		id, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
		if err != nil || id == hosts {
			continue
		}
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		tr.namespaces[id] = strings.ReplaceAll(string(command), "\x00", " ")
	}
	s := m.status()
	for _, g := range s.Gateways {
		tr.addresses = append(tr.addresses, g.Address)
	}
	if _, after, ok := strings.Cut(s.Metrics, "http://"); ok {
		address, _, _ := strings.Cut(after, "/")
		tr.addresses = append(tr.addresses, address)
	}
	return tr
}

// left is an error that names everything that is still there.
func (tr traces) left(t *testing.T, runDir string) error {
	var left []error
	found := func(format string, args ...any) { left = append(left, fmt.Errorf(format, args...)) }
	for _, pid := range allProcesses() {
		f := statFields(pid)
		if len(f) <= statStart || f[statState] == "Z" {
			continue
		}
		if tr.processes[pid] == f[statStart] {
			found("process %d lives", pid)
		}
		command, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.Contains(string(command), runDir) {
			found("process %d lives: %s", pid, strings.ReplaceAll(string(command), "\x00", " "))
		}
		if id, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil && tr.namespaces[id] != "" {
			found("network namespace %s is used by process %d", id, pid)
		}
	}
	links, tables := hostNetwork(t)
	for _, l := range links {
		if !slices.Contains(tr.links, l) {
			found("link %s", l)
		}
	}
	for _, table := range tables {
		if !slices.Contains(tr.tables, table) {
			found("nftables table %s", table)
		}
	}
	for _, a := range tr.addresses {
		if l, err := net.Listen("tcp", a); err != nil {
			found("address %s is not free: %w", a, err)
		} else {
			l.Close()
		}
	}
	return errors.Join(left...)
}

// nothingLeft waits until the mesh is gone without a trace; but files in the run folder stay where keepFiles says so.
func (m *mesh) nothingLeft(tr traces, keepFiles bool) {
	m.Helper()
	m.eventually(10*time.Second, "nothing is left of the mesh", func() error {
		err := tr.left(m.T, m.runDir)
		if keepFiles {
			return err
		}
		_ = filepath.WalkDir(m.runDir, func(path string, _ os.DirEntry, _ error) error {
			if _, there := os.Lstat(path); there == nil {
				err = errors.Join(err, fmt.Errorf("file %s", path))
			}
			return nil
		})
		return err
	})
}

// lines counts the lines of a file.
func lines(t *testing.T, path string) int {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(raw), "\n")
}
