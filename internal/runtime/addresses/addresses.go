// Package addresses assigns the virtual addresses of services and the addresses of pods, IPv4.
package addresses

import (
	"fmt"
	"hash/fnv"
	"net/netip"

	"github.com/weftmesh/weft/internal/runtime/statefile"
)

// Services assigns virtual addresses: by hash of the service's name, so that they are the same on every machine unless
// two collide, and remembered in a file, so that they never change. Not safe for concurrent use.
type Services struct {
	cidr netip.Prefix
	file string
	byID map[string]netip.Addr
	used map[netip.Addr]string
}

// LoadServices reads what a file remembers; it need not exist yet.
func LoadServices(cidr netip.Prefix, file string) (*Services, error) {
	s := &Services{cidr: cidr, file: file, byID: map[string]netip.Addr{}, used: map[netip.Addr]string{}}
	kept := map[string]netip.Addr{}
	if err := statefile.Read(file, &kept); err != nil {
		return nil, err
	}
	for id, ip := range kept {
		if cidr.Contains(ip) && s.used[ip] == "" {
			s.byID[id], s.used[ip] = ip, id
		}
	}
	return s, nil
}

// Assign gives a service, named by id, its address: the wanted one if it is valid and inside the network, else the one it has,
// else a free one. A wanted address is taken from whoever has it, so services that want one come first. It reports whether
// something is to be saved.
func (s *Services) Assign(id string, wanted netip.Addr) (ip netip.Addr, changed bool, err error) {
	if wanted.IsValid() && s.cidr.Contains(wanted) {
		if owner := s.used[wanted]; owner != id {
			if owner != "" {
				delete(s.byID, owner) // it gets another at its turn
			}
			s.take(id, wanted)
			return wanted, true, nil
		}
		return wanted, false, nil
	}
	if ip, ok := s.byID[id]; ok {
		return ip, false, nil
	}
	size := uint64(1) << (32 - s.cidr.Bits())
	h := fnv.New64a()
	h.Write([]byte(id))
	for i := range size - 2 { // neither the network's own address nor the broadcast address
		ip := offset(s.cidr, 1+(h.Sum64()+i)%(size-2))
		if s.used[ip] == "" {
			s.take(id, ip)
			return ip, true, nil
		}
	}
	return netip.Addr{}, false, fmt.Errorf("service %s: no address is free in %s", id, s.cidr)
}

func (s *Services) take(id string, ip netip.Addr) {
	if old, ok := s.byID[id]; ok {
		delete(s.used, old)
	}
	s.byID[id], s.used[ip] = ip, id
}

// Save writes the file.
func (s *Services) Save() error { return statefile.Write(s.file, s.byID) }

// offset is the nth address of an IPv4 network.
func offset(p netip.Prefix, n uint64) netip.Addr {
	b := p.Masked().Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// Pods gives addresses in turn, so that one just left is not given again soon. Not safe for concurrent use.
type Pods struct {
	cidr netip.Prefix
	next uint64
	used map[netip.Addr]bool
}

// NewPods gives the addresses of a network with room for at least four.
func NewPods(cidr netip.Prefix) *Pods { return &Pods{cidr: cidr, used: map[netip.Addr]bool{}} }

// Host is the address that stands for the machine, the network's first. Nobody in the network has it.
func (p *Pods) Host() netip.Addr { return offset(p.cidr, 1) }

// Gateway is the bridge's address, the network's last.
func (p *Pods) Gateway() netip.Prefix {
	return netip.PrefixFrom(offset(p.cidr, uint64(1)<<(32-p.cidr.Bits())-2), p.cidr.Bits())
}

// Take gives a free address.
func (p *Pods) Take() (netip.Addr, error) {
	size := uint64(1)<<(32-p.cidr.Bits()) - 4 // without network, host, gateway and broadcast address
	for range size {
		ip := offset(p.cidr, 2+p.next%size)
		p.next++
		if !p.used[ip] {
			p.used[ip] = true
			return ip, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no pod address is free in %s", p.cidr)
}

// Give returns an address.
func (p *Pods) Give(ip netip.Addr) { delete(p.used, ip) }
