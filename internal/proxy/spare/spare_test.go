package spare

import "testing"

func TestOnlySoMuchIsTaken(t *testing.T) {
	t.Cleanup(func() { Limit(0); Short(false) })
	if !Take(1<<40) || Taken() != 1<<40 {
		t.Error("without a limit there is none")
	}
	Give(1 << 40)
	Limit(100)
	if !Take(60) || Take(60) || !Take(40) || Taken() != 100 {
		t.Errorf("%d taken of 100", Taken())
	}
	Give(60)
	Short(true)
	if Take(1) || !IsShort() {
		t.Error("taken where memory is short")
	}
	Short(false)
	if !Take(60) {
		t.Error("what was given back cannot be taken")
	}
	Give(100)
	if Taken() != 0 {
		t.Errorf("%d left", Taken())
	}
}
