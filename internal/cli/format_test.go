package cli

import (
	"encoding/json"
	"reflect"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestFormats holds YAML against JSON: the same in two ways to write it, and other formats refused before anything is done.
func TestFormats(t *testing.T) {
	for _, args := range [][]string{
		{"analyze", bookinfo},
		{"test", bookinfo + "/test"},
		{"diff", "--from", bookinfo, "--to", bookinfo, "--to", bookinfo + "/try/reviews-jason-v2.yaml"},
		{"explain", "-f", bookinfo, "--from", "productpage", "http://reviews:9080/reviews/0"},
	} {
		var j, y any
		code, out, errOut := files(t, "", append(args, "-o", "json")...)
		if err := json.Unmarshal([]byte(out), &j); err != nil || code != 0 {
			t.Errorf("%v: code %d, %v\n%s", args, code, err, errOut)
		}
		code, out, errOut = files(t, "", append(args, "-o", "yaml")...)
		if err := yaml.Unmarshal([]byte(out), &y); err != nil || code != 0 || out[0] == '{' {
			t.Errorf("%v: code %d, %v\n%s", args, code, err, errOut)
		}
		again, err := json.Marshal(y)
		if err != nil {
			t.Fatal(err)
		}
		y = nil
		if err := json.Unmarshal(again, &y); err != nil || !reflect.DeepEqual(j, y) {
			t.Errorf("%v: YAML says something else than JSON (%v)", args, err)
		}
		if code, out, _ := files(t, "", append(args, "-o", "xml")...); code != 2 || out != "" {
			t.Errorf("%v -o xml: code %d, %q", args, code, out)
		}
	}
}
