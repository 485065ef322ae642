package grpc

import (
	"strconv"
	"time"
)

// units are those of grpc-timeout.
var units = map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second, 'm': time.Millisecond,
	'u': time.Microsecond, 'n': time.Nanosecond}

// ParseTimeout reads 1 to 8 digits and a unit. What is longer than a duration can be is the longest one.
func ParseTimeout(v string) (time.Duration, bool) {
	n := len(v) - 1
	if n < 1 || n > 8 {
		return 0, false
	}
	unit, ok := units[v[n]]
	if !ok {
		return 0, false
	}
	count := int64(0)
	for i := range n {
		if v[i] < '0' || v[i] > '9' {
			return 0, false
		}
		count = count*10 + int64(v[i]-'0')
	}
	if longest := int64(1<<63 - 1); count > longest/int64(unit) {
		return time.Duration(longest), true
	}
	return time.Duration(count) * unit, true
}

// AppendTimeout writes d with the finest unit for which 8 digits do.
func AppendTimeout(b []byte, d time.Duration) []byte {
	const most = 99999999
	for _, u := range [...]struct {
		unit time.Duration
		name byte
	}{{time.Microsecond, 'u'}, {time.Millisecond, 'm'}, {time.Second, 'S'}} {
		if n := max(int64(d/u.unit), 1); n <= most {
			return append(strconv.AppendInt(b, n, 10), u.name)
		}
	}
	return append(strconv.AppendInt(b, min(int64(d/time.Hour), most), 10), 'H')
}

const TimeoutHeader = "Grpc-Timeout"
