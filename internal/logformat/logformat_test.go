package logformat_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/logformat"
)

func TestRefusals(t *testing.T) {
	for format, want := range map[string]string{
		"":                           "is empty",
		"%NOSUCH%":                   "%NOSUCH%: this operator is not supported",
		"100% sure":                  "the final % is missing",
		"%DURATION":                  "the final % is missing",
		"%REQ(X%":                    "the closing parenthesis is missing",
		"%REQ(X)":                    "the final % is missing",
		"%REQ()%":                    "is no header field",
		"%REQ%":                      "is no header field",
		"%REQ(A?B?C:)%":              "is no header field",
		"%REQ(:SCHEME)%":             "is not supported",
		"%REQ(X):0%":                 "is no length",
		"%REQ(X)7%":                  "is no length",
		"%DURATION(X)%":              "takes no argument",
		"%START_TIME(%Q)%":           "%Q in a time is not supported",
		"%START_TIME(%)%":            "ends in a percent sign",
		"%START_TIME(%3)%":           "%3 in a time is not supported",
		"%DYNAMIC_METADATA(a:b)%":    "this operator is not supported",
		"%FILTER_STATE(a:PLAIN):10%": "this operator is not supported",
	} {
		if _, err := logformat.ParseText(format); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", format, err, want)
		}
	}
	if _, err := logformat.ParseObject(map[string]any{"a": map[string]any{"b": []any{"%X%"}}}); err == nil || err.Error() != "a: b: [0]: %X%: this operator is not supported" {
		t.Errorf("in an object: %v", err)
	}
}

func TestHeadersToKeepAreNamedOnce(t *testing.T) {
	f, err := logformat.ParseText("%REQ(X-A?:PATH)%%REQ(x-a)%%REQ(USER-AGENT)%%RESP(Server):3%")
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Request) != 1 || f.Request[0] != "x-a" || len(f.Response) != 1 || f.Response[0] != "server" {
		t.Errorf("kept are %q and %q", f.Request, f.Response)
	}
}

func TestTimes(t *testing.T) {
	at := time.Date(2026, 11, 28, 6, 5, 4, 123456789, time.FixedZone("", 3600))
	for layout, want := range map[string]string{"%Y-%m-%dT%H:%M:%S.%3fZ": "2026-11-28T05:05:04.123Z", "%s.%f": "1795842304.123456789", "%F %T%z %%": "2026-11-28 05:05:04+0000 %"} {
		if _, err := logformat.ParseText("%START_TIME(" + layout + ")%"); err != nil {
			t.Errorf("%s: %v", layout, err)
		}
		if got := string(logformat.AppendTime(nil, at, layout)); got != want {
			t.Errorf("%s: %s, want %s", layout, got, want)
		}
	}
}

func FuzzParseText(f *testing.F) {
	for _, s := range []string{"%REQ(A?B):3%x%%", "%START_TIME(%s.%3f)%", "%DURATION%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		parsed, err := logformat.ParseText(s)
		if err != nil {
			return
		}
		for _, p := range parsed.Text {
			if p.Operator == logformat.StartTime {
				logformat.AppendTime(nil, time.Unix(0, 0), p.Name)
			}
		}
	})
}
