package podhost

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is the bridge's in the pod host's own network namespace.
const bridgeName = "weft0"

// base is the pod host's own network: a bridge that joins the pods.
type base struct {
	links   *netlink.Handle // works in the base namespace from any thread
	netns   int
	bridge  int // link index
	gateway netip.Prefix
	next    int // number of the next veth; guarded by host.podsMu
}

func newBase(gateway netip.Prefix) (*base, error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	// A container whose /proc is partly covered refuses a new one; the old one shows other pids but works.
	_ = unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	noIPv6()
	links, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("network namespace: %w", err)
	}
	b := &base{links: links, netns: fd, gateway: gateway}
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName}}
	if err := links.LinkAdd(br); err != nil {
		return nil, fmt.Errorf("make bridge: %w", err)
	}
	b.bridge = br.Index
	if err := links.AddrAdd(br, &netlink.Addr{IPNet: ipNet(gateway)}); err != nil {
		return nil, fmt.Errorf("bridge address %s: %w", gateway, err)
	}
	if err := links.LinkSetUp(br); err != nil {
		return nil, fmt.Errorf("bridge up: %w", err)
	}
	return b, up(links, "lo")
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func up(links *netlink.Handle, name string) error {
	l, err := links.LinkByName(name)
	if err == nil {
		err = links.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("%s up: %w", name, err)
	}
	return nil
}

// noIPv6 keeps links made later in this thread's network namespace free of IPv6 addresses, which the IPv4 rules do not cover.
// A kernel without IPv6 has no such file.
func noIPv6() { _ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) }

// pod is a pod's namespaces, held by descriptors, and the thread that starts its applications. In ports mode there is only the
// thread.
type pod struct {
	base          *base
	net, mnt, uts int    // mnt is the sidecar's; that of the applications is held by their thread
	netID         string // as /proc/PID/ns/net reads
	veth          string
	notes         []string

	jobs          chan func()   // for the thread
	leaving, left chan struct{} // asks the thread to end; says that it did
}

// newPod makes a pod on the thread that starts its applications afterwards.
func (h *host) newPod(spec Pod) (*pod, error) {
	p := &pod{base: h.base, net: -1, mnt: -1, uts: -1, jobs: make(chan func()), leaving: make(chan struct{}), left: make(chan struct{})}
	result := make(chan error)
	go func() { // ends with the pod
		defer close(p.left)
		runtime.LockOSThread() // never unlocked: the thread lives in the pod
		err := h.build(p, spec)
		result <- err
		if err == nil {
			p.work()
		}
	}()
	if err := <-result; err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

func (p *pod) work() {
	for {
		select {
		case f := <-p.jobs:
			f()
		case <-p.leaving:
			return
		}
	}
}

// do runs f on the thread that starts applications; false means that the pod leaves.
func (p *pod) do(f func()) bool {
	select {
	case p.jobs <- f:
		return true
	case <-p.leaving:
		return false
	}
}

func (h *host) build(p *pod, spec Pod) error {
	if h.base != nil {
		h.base.next++
		p.veth = "veth" + strconv.Itoa(h.base.next)
		if err := p.build(spec, h.setup); err != nil {
			return err
		}
		if err := hide(h.setup.Hidden); err != nil {
			return err
		}
	}
	return h.confine()
}

func (p *pod) build(spec Pod, s Setup) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("new namespaces: %w", err)
	}
	for _, ns := range []struct {
		name string
		fd   *int
	}{{"net", &p.net}, {"mnt", &p.mnt}, {"uts", &p.uts}} {
		fd, err := unix.Open("/proc/thread-self/ns/"+ns.name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("namespace %s: %w", ns.name, err)
		}
		*ns.fd = fd
	}
	id, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("network namespace: %w", err)
	}
	p.netID = id
	if err := unix.Sethostname([]byte(spec.Hostname)); err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	p.mount(spec.Files)
	if err := p.link(spec.Address, s); err != nil {
		return err
	}
	if !spec.Capture {
		return nil
	}
	return capture(s)
}

// mount puts files over the host's. A target that is not there is noted: the pod works without.
func (p *pod) mount(files []File) {
	for _, f := range files {
		if err := unix.Mount(f.Source, f.Target, "", unix.MS_BIND, ""); err != nil {
			p.notes = append(p.notes, fmt.Sprintf("%s is the host's: %v", f.Target, err))
		}
	}
}

// link joins the pod to the bridge: eth0 with its address and a default route, without which the kernel would refuse virtual
// addresses before the redirect sees them. The hardware address follows from the IP address, so that a neighbour's cache is
// right also when the address comes back.
func (p *pod) link(addr netip.Addr, s Setup) error {
	noIPv6()
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
		p.notes = append(p.notes, fmt.Sprintf("programs cannot listen on ports below 1024: %v", err))
	}
	ip := addr.As4()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: p.veth, MasterIndex: p.base.bridge},
		PeerName:  "eth0", PeerNamespace: netlink.NsFd(p.net),
		PeerHardwareAddr: net.HardwareAddr{0x02, 0x57, ip[0], ip[1], ip[2], ip[3]},
	}
	if err := p.base.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("make veth: %w", err)
	}
	if err := up(p.base.links, p.veth); err != nil {
		return err
	}
	links, err := netlink.NewHandle() // of this thread's namespace
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer links.Close()
	eth, err := links.LinkByName("eth0")
	if err != nil {
		return fmt.Errorf("eth0: %w", err)
	}
	if err := links.AddrAdd(eth, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, p.base.gateway.Bits()))}); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	if err := errors.Join(up(links, "lo"), up(links, "eth0")); err != nil {
		return err
	}
	if err := links.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: p.base.gateway.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("default route: %w", err)
	}
	if err := sidecarRoutes(links, eth.Attrs().Index, s); err != nil {
		p.notes = append(p.notes, fmt.Sprintf("first connections to the outside are slow: %v", err))
	}
	return nil
}

// sidecarTable is the routing table for marked packets.
const sidecarTable = 100

// sidecarRoutes leads what a sidecar sends to other pods, and nowhere else: where there is no way out it shall hear of it at once
// and not wait for an answer that never comes.
func sidecarRoutes(links *netlink.Handle, eth int, s Setup) error {
	rule := netlink.NewRule()
	rule.Family, rule.Mark, rule.Table, rule.Priority = unix.AF_INET, uint32(s.Mark), sidecarTable, sidecarTable
	if err := links.RuleAdd(rule); err != nil {
		return fmt.Errorf("routing rule: %w", err)
	}
	routes := []netlink.Route{
		{Table: sidecarTable, Dst: ipNet(s.Gateway.Masked()), LinkIndex: eth, Scope: unix.RT_SCOPE_LINK},
		{Table: sidecarTable, Dst: ipNet(netip.MustParsePrefix("0.0.0.0/0")), Type: unix.RTN_UNREACHABLE},
	}
	if s.Host.IsValid() {
		routes = append(routes, netlink.Route{Table: sidecarTable, Dst: ipNet(netip.PrefixFrom(s.Host, s.Host.BitLen())), Type: unix.RTN_UNREACHABLE})
	}
	for _, r := range routes {
		if err := links.RouteAdd(&r); err != nil {
			return fmt.Errorf("route %s: %w", r.Dst, err)
		}
	}
	return nil
}

// enter moves the calling thread, locked and never to be unlocked, into the pod, where nothing is hidden. It has a root of its own
// already, without which a mount namespace is not entered.
func (p *pod) enter() error {
	for _, ns := range []struct{ fd, kind int }{{p.net, unix.CLONE_NEWNET}, {p.uts, unix.CLONE_NEWUTS}, {p.mnt, unix.CLONE_NEWNS}} {
		if err := unix.Setns(ns.fd, ns.kind); err != nil {
			return fmt.Errorf("enter pod: %w", err)
		}
	}
	return nil
}

// killAll kills every process of the pod, the ones that left their process group too.
func (p *pod) killAll() {
	for range 1000 { // one may fork while we look; a process in an uninterruptible wait must not hold us forever
		found := false
		dirs, _ := os.ReadDir("/proc")
		for _, d := range dirs {
			pid, err := strconv.Atoi(d.Name())
			if err != nil || pid == os.Getpid() {
				continue
			}
			if id, err := os.Readlink("/proc/" + d.Name() + "/ns/net"); err == nil && id == p.netID && !zombie(d.Name()) {
				found = true
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if !found {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func zombie(pid string) bool {
	raw, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(raw), ") ")
	return strings.HasPrefix(after, "Z") || strings.HasPrefix(after, "X")
}

// close takes the link away at once (a namespace ends some time after its last user) and lets go of the namespaces.
func (p *pod) close() error {
	if p.base == nil {
		return nil
	}
	var err error
	if l, lookup := p.base.links.LinkByName(p.veth); lookup == nil {
		err = p.base.links.LinkDel(l)
	}
	for _, fd := range []*int{&p.net, &p.mnt, &p.uts} {
		if *fd >= 0 {
			unix.Close(*fd)
			*fd = -1
		}
	}
	return err
}

// dial begins a TCP connection inside a pod. The client waits for its end.
func (h *host) dial(req request) (int, error) {
	p, err := h.pod(req.Name)
	if err != nil {
		return -1, err
	}
	if h.base == nil || !req.Address.Addr().Is4() {
		return -1, fmt.Errorf("dial %s: only IPv4 inside a pod", req.Address)
	}
	fd, err := p.socket()
	if err != nil {
		return -1, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, h.setup.Mark)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(req.Address.Port()), Addr: req.Address.Addr().As4()})
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// socket makes a socket in the pod's network: a socket belongs to the network of the thread that made it.
func (p *pod) socket() (int, error) {
	runtime.LockOSThread()
	if err := unix.Setns(p.net, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return -1, fmt.Errorf("enter network: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if back := unix.Setns(p.base.netns, unix.CLONE_NEWNET); back == nil {
		runtime.UnlockOSThread() // else the thread ends with this goroutine
	}
	return fd, err
}
