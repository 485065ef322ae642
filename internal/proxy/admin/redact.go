package admin

import (
	"encoding/json"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

// redacted gives a snapshot in a form for dumps: what JSON can show, without private keys.
func redacted(s *conf.Snapshot) any {
	raw, err := json.Marshal(s)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		return map[string]string{"error": err.Error()}
	}
	return scrub(v)
}

// scrub drops empty values, which are most of a snapshot, and the keys of key pairs.
func scrub(v any) any {
	switch v := v.(type) {
	case map[string]any:
		_, pair := v["Certificate"]
		if _, ok := v["Key"]; ok && pair {
			v["Key"] = "redacted"
		}
		delete(v, "Index") // says nothing that the hosts do not
		for k, e := range v {
			if e = scrub(e); empty(e) {
				delete(v, k)
			} else {
				v[k] = e
			}
		}
		return v
	case []any:
		for i := range v {
			v[i] = scrub(v[i])
		}
	}
	return v
}

func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case map[string]any:
		return len(v) == 0
	case []any:
		return len(v) == 0
	case string:
		return v == ""
	case float64:
		return v == 0
	case bool:
		return !v
	}
	return false
}
