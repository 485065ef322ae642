package live

import (
	"cmp"
	"encoding/json"
	"slices"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
)

// Resource is one that is held, as the control plane sent it.
type Resource struct {
	Type, Name, Version string
	// Body is the message in protobuf's JSON form, with "@type". Secrets are in it.
	Body json.RawMessage
}

// Resources lists what is held, sorted by type and name. It is for dumps: it is slow.
func (l *Live) Resources() []Resource {
	type held struct {
		key
		version string
		body    *anypb.Any
	}
	var all []held
	l.mu.Lock()
	for k, r := range l.resources {
		if r.body != nil {
			all = append(all, held{k, r.version, r.body}) // bodies do not change
		}
	}
	l.mu.Unlock()
	slices.SortFunc(all, func(a, b held) int { return cmp.Or(cmp.Compare(a.typeURL, b.typeURL), cmp.Compare(a.name, b.name)) })
	list := make([]Resource, 0, len(all))
	for _, h := range all {
		raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(h.body)
		if err != nil { // a message within that this program does not know
			raw, _ = json.Marshal(map[string]string{"@type": h.typeURL, "error": err.Error()})
		}
		list = append(list, Resource{h.typeURL, h.name, h.version, raw})
	}
	return list
}
