package wire

import "testing"

func TestKnownOperator(t *testing.T) {
	for op, want := range map[string]bool{"PROTOCOL": true, "REQ(x-a)": true, "REQ(:path)": true, "REQ(x-a?:path)": true, "RESP(server)": true,
		"": false, "REQ": false, "REQ()": false, "REQ(a b)": false, "REQ(a?b?c)": false, "RESP(a?b)": false, "REQ(a": false, "REQ(a):7": false, "OTHER": false} {
		if KnownOperator(op) != want {
			t.Errorf("KnownOperator(%q) = %v", op, !want)
		}
	}
}
