package addresses

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestServices(t *testing.T) {
	cidr := netip.MustParsePrefix("10.78.0.0/29") // six addresses
	file := filepath.Join(t.TempDir(), "ips.json")
	s, err := LoadServices(cidr, file)
	if err != nil {
		t.Fatal(err)
	}
	got := map[netip.Addr]string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		ip, changed, err := s.Assign("default/"+name, netip.Addr{})
		if err != nil || !changed || got[ip] != "" || !cidr.Contains(ip) || ip == cidr.Addr() || ip == netip.MustParseAddr("10.78.0.7") {
			t.Fatalf("%s: %v %v %v", name, ip, changed, err)
		}
		got[ip] = name
	}
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if s, err = LoadServices(cidr, file); err != nil {
		t.Fatal(err)
	}
	for ip, name := range got {
		if again, changed, err := s.Assign("default/"+name, netip.Addr{}); again != ip || changed || err != nil {
			t.Errorf("%s: %v, then %v %v %v", name, ip, again, changed, err)
		}
	}
	taken, _, _ := s.Assign("default/a", netip.Addr{})
	if ip, changed, err := s.Assign("default/explicit", taken); ip != taken || !changed || err != nil {
		t.Errorf("explicit address: %v %v %v", ip, changed, err)
	}
	if ip, _, err := s.Assign("default/a", netip.Addr{}); ip == taken || err != nil {
		t.Errorf("its former owner: %v %v", ip, err)
	}
	if ip, _, err := s.Assign("default/more", netip.Addr{}); err == nil {
		t.Errorf("a seventh of six: %v", ip)
	}
	if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadServices(cidr, file); err == nil {
		t.Error("a broken file is taken")
	}
}

func TestPodsComeInTurn(t *testing.T) {
	p := NewPods(netip.MustParsePrefix("10.77.0.0/29"))
	if p.Gateway().String() != "10.77.0.6/29" || p.Host().String() != "10.77.0.1" {
		t.Error(p.Gateway(), p.Host())
	}
	first, err := p.Take()
	if err != nil || first.String() != "10.77.0.2" {
		t.Fatal(first, err)
	}
	p.Give(first)
	for i := range 4 {
		if ip, err := p.Take(); err != nil || i < 3 && ip == first {
			t.Fatal(i, ip, err)
		}
	}
	if ip, err := p.Take(); err == nil {
		t.Errorf("a fifth of four: %v", ip)
	}
}
