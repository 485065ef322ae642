package peers

import (
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weftmesh/weft/internal/wire"
	"github.com/weftmesh/weft/test/envoy"
)

// inNamespace is set in the process that runs a test in a network of its own.
const inNamespace = "WEFT_TEST_NAMESPACE"

// captured runs the calling test once more, in a process with its own network, and reports whether this is that process. What an
// Envoy captures is told apart by marks there: see capture.
func captured(t *testing.T) bool {
	t.Helper()
	if os.Getenv(inNamespace) != "" {
		return true
	}
	program := envoy.Find(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1", "ENVOY="+program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Skipf("the kernel allows no network of its own: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return false
}

// appMark is on the connections of an Envoy's own programs.
const appMark = 1

// capture makes loopback the whole network, with the addresses of services and of the outside, and redirects what is an Envoy's:
//
//	from envoy.LoopSource -> leave; marked -> 15001; to one of the pods -> 15006
func capture(t *testing.T, outside netip.Addr, pods ...netip.Addr) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{"10.78.255.1/16", outside.String() + "/32"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			t.Fatal(err)
		}
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: "peers"})
	chain := c.AddChain(&nftables.Chain{Table: table, Name: "output", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput,
		Priority: nftables.ChainPriorityNATDest})
	rule := func(e ...expr.Any) { c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: e}) }
	is := func(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }
	address := func(offset uint32, a netip.Addr) []expr.Any {
		return []expr.Any{&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4}, is(a.AsSlice())}
	}
	tcp := []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, is([]byte{unix.IPPROTO_TCP})}
	redirect := func(port uint16) []expr.Any {
		return []expr.Any{&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(port)}, &expr.Redir{RegisterProtoMin: 1}}
	}
	rule(append(address(12, netip.MustParseAddr("127.0.0.6")), &expr.Verdict{Kind: expr.VerdictReturn})...)
	marked := []expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, is(binaryutil.NativeEndian.PutUint32(appMark))}
	rule(append(append(marked, tcp...), redirect(wire.OutboundPort)...)...)
	for _, p := range pods {
		rule(append(append(address(16, p), tcp...), redirect(wire.InboundPort)...)...)
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}
