package model

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestFindingAsJSON: its keys are written as those of the interfaces, small at first.
func TestFindingAsJSON(t *testing.T) {
	got, err := json.Marshal(Finding{Severity: Error, Code: "X", Object: Ref{"Service", "shop", "db"}, Message: "m"})
	if want := `{"severity":"error","code":"X","object":{"kind":"Service","namespace":"shop","name":"db"},"message":"m"}`; err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

// TestLongFindings are cut where they are shown: of a name of megabytes its ends are told, and what is wrong with it.
func TestLongFindings(t *testing.T) {
	long := strings.Repeat("ü", 1<<20)
	f := Finding{Severity: Error, Code: "InvalidName", Object: Ref{"Service", long, long}, File: "a.yaml", Field: long, Message: `"` + long + `" is not valid`, Hint: "not " + long}
	text := f.String()
	if !utf8.ValidString(text) || len(text) > 6000 || !strings.HasPrefix(text, "a.yaml: error: Service/ü") || !strings.Contains(text, `" is not valid`) || !strings.HasSuffix(text, "[InvalidName]") {
		t.Errorf("%d bytes: %.300q", len(text), text)
	}
	if fine := (Finding{Object: Ref{"Service", "shop", strings.Repeat("a", 253)}, Message: "m"}); fine.Shown() != fine {
		t.Errorf("%+v", fine.Shown())
	}
}
