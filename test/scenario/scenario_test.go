package scenario

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestScenarios(t *testing.T) {
	files := ReadTree(t, "../../examples/bookinfo")
	maps.Copy(files, ReadTree(t, "testdata"))
	for _, archive := range Archives(t, "testdata") {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".txtar"), func(t *testing.T) {
			t.Parallel()
			Play(t, archive, files)
		})
	}
}

// TestOffline runs the files of tests of all scenarios, which need no mesh.
func TestOffline(t *testing.T) {
	files := ReadTree(t, "../../examples/bookinfo")
	maps.Copy(files, ReadTree(t, "testdata"))
	for _, archive := range Archives(t, "testdata") {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".txtar"), func(t *testing.T) {
			s, all, _ := read(t, archive, files)
			for _, name := range s.used {
				if !strings.HasSuffix(name, "_test.yaml") {
					continue
				}
				if _, err := offlineTests([]string{name})(&run{files: all}); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestSplit(t *testing.T) {
	for line, want := range map[string]string{
		`a b  c`:                   "a|b|c",
		`a "b c" "d\n"`:            "a|b c|d\n",
		`a # comment`:              "a",
		`http://h/#x`:              "http://h/#x",
		`m{a="b",c="d e"} ± 8`:     "",
		`x{a="b"} reviews-v1=90±8`: `x{a="b"}|reviews-v1=90±8`,
		``:                         "",
	} {
		words, err := split(line)
		if err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if want != "" && strings.Join(words, "|") != want {
			t.Errorf("%s: %q", line, words)
		}
	}
	for _, bad := range []string{`a "b`, `"\q"`} {
		if words, err := split(bad); err == nil {
			t.Errorf("%s: %q", bad, words)
		}
	}
}

func TestParseRefusesWhatItDoesNotKnow(t *testing.T) {
	for text, want := range map[string]string{
		"jump":                                  "s:1: no step is called",
		"  status 200":                          "an expectation of no step",
		"forget\n  stauts 200":                  "s:2: no expectation is called",
		"apply nothing.yaml":                    "there is no file nothing.yaml",
		"test nothing.yaml":                     "there is no file nothing.yaml",
		"forget\nmesh a.yaml":                   "first step",
		"request a GET":                         "wants a workload, a method and a URL",
		"request a GET http://b x":              "neither a header nor a body",
		"request a GET http://b\n  share 0 v=1": "no number",
		"metric a b ~ 3":                        "compares nothing",
		"wait long":                             "invalid duration",
		"control pause":                         "control stop",
		"":                                      "no steps",
	} {
		if _, err := parse("s", text, map[string]string{"a.yaml": ""}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestEveryExampleIsProven finds files to try, of the example, that no scenario applies.
func TestEveryExampleIsProven(t *testing.T) {
	scripts := ""
	for _, archive := range Archives(t, "testdata") {
		data, err := os.ReadFile(archive)
		if err != nil {
			t.Fatal(err)
		}
		scripts += string(data)
	}
	for name := range ReadTree(t, "../../examples/bookinfo") {
		if strings.HasPrefix(name, "test/") {
			continue // what `weft test` runs; internal/cli proves it
		}
		if !strings.Contains(scripts, name) {
			t.Errorf("no scenario applies %s", name)
		}
	}
}
