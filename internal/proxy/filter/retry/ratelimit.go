package retry

import (
	"strconv"
	"strings"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Wait is how long to wait before retry n: what the response of the failed attempt asks for, where the policy listens to that, else
// the back-off. random is uniform over all of uint64; h is nil where there was no response.
func Wait(p *conf.Retry, n int, h *message.Header, now time.Time, random uint64) time.Duration {
	if p.RateLimited != nil && h != nil {
		if asked, ok := reset(p.RateLimited, h, now); ok {
			// Never earlier, and up to half as late again, so that those who were told the same do not come back together.
			return asked + time.Duration(random%uint64(asked/2+1))
		}
	}
	return BackOff(p, n, random)
}

// reset reads the first field that asks for a time up to the longest one allowed.
func reset(l *conf.RateLimited, h *message.Header, now time.Time) (time.Duration, bool) {
	for i := range l.Headers {
		v, ok := h.Get(l.Headers[i].Name)
		if !ok {
			continue
		}
		seconds, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		if err != nil {
			continue
		}
		if l.Headers[i].Unix {
			seconds -= now.Unix()
		}
		if seconds > 0 && seconds <= int64(l.Max/time.Second) {
			return time.Duration(seconds) * time.Second, true
		}
	}
	return 0, false
}
