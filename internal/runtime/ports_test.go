package runtime

import "testing"

func TestPortsAreNotThoseGivenByChance(t *testing.T) {
	r := &Runtime{ports: map[uint16]bool{}}
	for range 200 {
		port, err := r.freePort()
		if err != nil {
			t.Fatal(err)
		}
		if port < lowestPort || port > highestPort {
			t.Fatalf("port %d: want %d to %d, which no other program is given for port 0", port, lowestPort, highestPort)
		}
	}
	if len(r.ports) != 200 {
		t.Errorf("200 ports, %d of them different", len(r.ports))
	}
}
