package logformat

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// verbs of strftime, as layouts of package time.
var verbs = map[byte]string{'Y': "2006", 'm': "01", 'd': "02", 'H': "15", 'M': "04", 'S': "05", 'F': "2006-01-02", 'T': "15:04:05",
	'z': "-0700", 'Z': "MST", 'b': "Jan", 'a': "Mon", 'e': "_2", 'y': "06"}

// checkLayout refuses what AppendTime does not write.
func checkLayout(layout string) error {
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' {
			continue
		}
		i++
		for i < len(layout) && layout[i] >= '1' && layout[i] <= '9' && i+1 < len(layout) && layout[i+1] == 'f' {
			i++
		}
		if i == len(layout) {
			return fmt.Errorf("%q ends in a percent sign", layout)
		}
		if c := layout[i]; verbs[c] == "" && !strings.ContainsRune("%fs", rune(c)) {
			return fmt.Errorf("%%%c in a time is not supported", c)
		}
	}
	return nil
}

// AppendTime writes t, in UTC, by a layout that the parser has accepted: strftime's, with Envoy's %s for the seconds since 1970 and
// %f (%3f) for their fraction in nine (three) digits.
func AppendTime(b []byte, t time.Time, layout string) []byte {
	t = t.UTC()
	for i := 0; i < len(layout); i++ {
		if layout[i] != '%' {
			b = append(b, layout[i])
			continue
		}
		i++
		digits := 9
		if c := layout[i]; c >= '1' && c <= '9' {
			digits = int(c - '0')
			i++
		}
		switch c := layout[i]; c {
		case '%':
			b = append(b, '%')
		case 's':
			b = strconv.AppendInt(b, t.Unix(), 10)
		case 'f':
			b = append(b, fmt.Sprintf("%09d", t.Nanosecond())[:digits]...)
		default:
			b = t.AppendFormat(b, verbs[c])
		}
	}
	return b
}
