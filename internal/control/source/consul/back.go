package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"time"
)

// listed is how the list of services was read last: its index, which only grows in one Consul, and the services with their tags.
type listed struct {
	index uint64
	names map[string][]string
}

// list gives the services of an answer. When its index is below that of an earlier one, whatever failed in between, Consul has to confirm
// that: a server that is behind the others may have answered, where the agent lets each of them do so (discovery_max_stale). What it confirms
// is the end of what it had before.
func (r *run) list(ctx context.Context, body []byte, index uint64) (names map[string][]string, err error) {
	back := index < r.listed.index
	if back {
		if body, index, err = r.get(ctx, servicesPath, url.Values{"consistent": {""}}, 0); err != nil {
			return nil, err
		}
		back = index < r.listed.index
	}
	if err := json.Unmarshal(body, &names); err != nil {
		return nil, err
	}
	for _, tags := range names {
		slices.Sort(tags) // Consul gives them in any order
	}
	now := listed{index, names}
	if back {
		r.tellWentBack(now)
	}
	r.listed = now
	return names, nil
}

// tellWentBack says for a while that Consul is not what it was, and how much is there now.
func (r *run) tellWentBack(now listed) {
	message := fmt.Sprintf("Consul went back from index %d to %d at or before %s, as after a restore or a loss of its data; what it has is in force: services in its catalog then %d, before %d",
		r.listed.index, now.index, time.Now().UTC().Format(time.RFC3339), len(now.names), len(r.listed.names))
	r.log.Warn(message, "address", r.options.Address)
	r.intake.WentBack(message, "services that are missing have to be registered again")
}
