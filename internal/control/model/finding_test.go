package model

import (
	"encoding/json"
	"testing"
)

// TestFindingAsJSON: its keys are written as those of the interfaces, small at first.
func TestFindingAsJSON(t *testing.T) {
	got, err := json.Marshal(Finding{Severity: Error, Code: "X", Object: Ref{"Service", "shop", "db"}, Message: "m"})
	if want := `{"severity":"error","code":"X","object":{"kind":"Service","namespace":"shop","name":"db"},"message":"m"}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}
