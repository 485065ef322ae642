package runtime

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/netip"
	"os"
	"path/filepath"
)

// serviceAddresses assigns virtual addresses: by hash of the service's name, so that they are the same on every machine unless
// two collide, and remembered in a file, so that they never change. Not safe for concurrent use.
type serviceAddresses struct {
	cidr netip.Prefix
	file string
	byID map[string]netip.Addr
	used map[netip.Addr]string
}

func loadServiceAddresses(cidr netip.Prefix, file string) (*serviceAddresses, error) {
	s := &serviceAddresses{cidr: cidr, file: file, byID: map[string]netip.Addr{}, used: map[netip.Addr]string{}}
	kept := map[string]netip.Addr{}
	if err := readJSON(file, &kept); err != nil {
		return nil, err
	}
	for id, ip := range kept {
		if cidr.Contains(ip) && s.used[ip] == "" {
			s.byID[id], s.used[ip] = ip, id
		}
	}
	return s, nil
}

// assign gives each service its address. Wanted addresses come first, then those that services already have. It reports
// whether something is to be saved.
func (s *serviceAddresses) assign(k key, wanted netip.Addr) (ip netip.Addr, changed bool, err error) {
	id := k.String()
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

func (s *serviceAddresses) take(id string, ip netip.Addr) {
	if old, ok := s.byID[id]; ok {
		delete(s.used, old)
	}
	s.byID[id], s.used[ip] = ip, id
}

func (s *serviceAddresses) save() error { return writeJSON(s.file, s.byID) }

// offset is the nth address of an IPv4 network.
func offset(p netip.Prefix, n uint64) netip.Addr {
	b := p.Masked().Addr().As4()
	v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	v += uint32(n)
	return netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
}

// podAddresses gives addresses in turn, so that one just left is not given again soon. Not safe for concurrent use.
type podAddresses struct {
	cidr netip.Prefix
	next uint64
	used map[netip.Addr]bool
}

// gateway is the bridge's address, the network's first.
func (p *podAddresses) gateway() netip.Prefix {
	return netip.PrefixFrom(offset(p.cidr, 1), p.cidr.Bits())
}

func (p *podAddresses) take() (netip.Addr, error) {
	size := uint64(1)<<(32-p.cidr.Bits()) - 3 // without network, gateway and broadcast address
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

func (p *podAddresses) give(ip netip.Addr) { delete(p.used, ip) }

// readJSON leaves into as it is when the file does not exist.
func readJSON(file string, into any) error {
	raw, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}

// writeJSON replaces a file at once, with mode 0600.
func writeJSON(file string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".tmp*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(raw); err == nil {
		err = tmp.Sync()
	}
	if closed := tmp.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return nil
}
