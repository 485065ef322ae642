package loopback

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestMain has the test's own program draw ports as another process.
func TestMain(m *testing.M) {
	if os.Getenv("DRAW") == "" {
		os.Exit(m.Run())
	}
	var p Ports
	for range 40 {
		port, err := p.Take()
		fmt.Println(port, err)
	}
	fmt.Println("drawn")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the parent ends
}

// TestNobodyElseGetsThem: two processes and two users of one process that draw at once have no port in common, and none that systems
// give by chance.
func TestNobodyElseGetsThem(t *testing.T) {
	seen := map[string]bool{}
	take := func(port string) {
		t.Helper()
		if seen[port] {
			t.Errorf("port %s was given twice", port)
		}
		seen[port] = true
	}
	for range 3 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "DRAW=1")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
		for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "drawn"; {
			port, ok := strings.CutSuffix(lines.Text(), " <nil>")
			if !ok {
				t.Fatal(lines.Text())
			}
			take(port)
		}
	}
	var a, b Ports
	t.Cleanup(a.Close)
	t.Cleanup(b.Close)
	for range 40 {
		for _, p := range []*Ports{&a, &b} {
			port, err := p.Take()
			if err != nil {
				t.Fatal(err)
			}
			if port < lowest || port > highest {
				t.Fatalf("port %d: want %d to %d, which no other program is given for port 0", port, lowest, highest)
			}
			take(fmt.Sprint(port))
		}
	}
	if len(seen) != 200 {
		t.Errorf("%d ports, want 200", len(seen))
	}
}

// TestUsedPortsAreLeftOut: what somebody listens on who knows nothing of this is not given, and what was returned is.
func TestUsedPortsAreLeftOut(t *testing.T) {
	var p Ports
	t.Cleanup(p.Close)
	first, err := p.Take()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address(int(first)+1)) // the one that would come next
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	p.Give(first)
	p.Give(first)
	p.Give(1)
	counts := map[uint16]int{}
	for range blockSize - 1 {
		port, err := p.Take()
		if err != nil {
			t.Fatal(err)
		}
		counts[port]++
	}
	if counts[first] != 1 || counts[first+1] != 0 || counts[1] != 0 {
		t.Errorf("returned: %d times, used: %d times, never given: %d times", counts[first], counts[first+1], counts[1])
	}
}
