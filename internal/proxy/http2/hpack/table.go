package hpack

import "unsafe"

// Field is a decoded header field. Tag is what the Tags' function said of it.
type Field struct {
	Name, Value string
	Tag         uint8
	// Sensitive fields must never be put into a table by anyone (section 7.1.3).
	Sensitive bool
}

// overhead is what a field costs in a table beside its bytes (section 4.1).
const overhead = 32

// Size is what a field counts in tables and in SETTINGS_MAX_HEADER_LIST_SIZE.
func Size(name, value string) int { return len(name) + len(value) + overhead }

type pair struct{ name, value string }

// static is appendix A; index 0 is not used.
var static = [...]pair{{},
	{":authority", ""}, {":method", "GET"}, {":method", "POST"}, {":path", "/"}, {":path", "/index.html"}, {":scheme", "http"},
	{":scheme", "https"}, {":status", "200"}, {":status", "204"}, {":status", "206"}, {":status", "304"}, {":status", "400"},
	{":status", "404"}, {":status", "500"}, {"accept-charset", ""}, {"accept-encoding", "gzip, deflate"}, {"accept-language", ""},
	{"accept-ranges", ""}, {"accept", ""}, {"access-control-allow-origin", ""}, {"age", ""}, {"allow", ""}, {"authorization", ""},
	{"cache-control", ""}, {"content-disposition", ""}, {"content-encoding", ""}, {"content-language", ""}, {"content-length", ""},
	{"content-location", ""}, {"content-range", ""}, {"content-type", ""}, {"cookie", ""}, {"date", ""}, {"etag", ""},
	{"expect", ""}, {"expires", ""}, {"from", ""}, {"host", ""}, {"if-match", ""}, {"if-modified-since", ""},
	{"if-none-match", ""}, {"if-range", ""}, {"if-unmodified-since", ""}, {"last-modified", ""}, {"link", ""}, {"location", ""},
	{"max-forwards", ""}, {"proxy-authenticate", ""}, {"proxy-authorization", ""}, {"range", ""}, {"referer", ""}, {"refresh", ""},
	{"retry-after", ""}, {"server", ""}, {"set-cookie", ""}, {"strict-transport-security", ""}, {"transfer-encoding", ""},
	{"user-agent", ""}, {"vary", ""}, {"via", ""}, {"www-authenticate", ""},
}

const staticLen = len(static) - 1

// Tags finds out about fields once, when they come into a table, what would otherwise be asked at every message.
type Tags struct {
	of     func(name, value string) uint8
	static [len(static)]uint8
}

// NewTags prepares of, which must depend on its arguments alone.
func NewTags(of func(name, value string) uint8) *Tags {
	t := &Tags{of: of}
	for i := 1; i < len(static); i++ {
		t.static[i] = of(static[i].name, static[i].value)
	}
	return t
}

// table is the dynamic table of a decoder: a ring whose oldest entry is at first.
type table struct {
	ring      []Field // length is a power of two, or 0
	first, n  int
	size, max int
	chunk     []byte // free space for strings; never written twice
}

const chunkSize = 4 << 10

// at gives entry i, 1 being the newest.
func (t *table) at(i int) *Field {
	return &t.ring[(t.first+t.n-i)&(len(t.ring)-1)]
}

func (t *table) setMax(max int) {
	t.max = max
	t.evict(0)
}

// evict makes room for an entry of that size.
func (t *table) evict(room int) {
	for t.n > 0 && t.size+room > t.max {
		e := &t.ring[t.first]
		t.size -= Size(e.Name, e.Value)
		*e = Field{}
		t.first = (t.first + 1) & (len(t.ring) - 1)
		t.n--
	}
}

// add copies the field into the table. One larger than the table empties it (section 4.4). known says that its name is one of a
// table's, which live on where their entry has to go.
func (t *table) add(f *Field, known bool) {
	size := Size(f.Name, f.Value)
	if size > t.max {
		t.evict(size)
		return
	}
	name := f.Name
	if !known {
		name = t.keep(name)
	}
	value := t.keep(f.Value)
	t.evict(size)
	if t.n == len(t.ring) {
		t.grow()
	}
	t.ring[(t.first+t.n)&(len(t.ring)-1)] = Field{Name: name, Value: value, Tag: f.Tag}
	t.n++
	t.size += size
}

func (t *table) grow() {
	next := make([]Field, max(8, 2*len(t.ring)))
	for i := range t.n {
		next[i] = t.ring[(t.first+i)&(len(t.ring)-1)]
	}
	t.ring, t.first = next, 0
}

func (t *table) keep(s string) string {
	if len(s) > len(t.chunk) {
		if len(s) > chunkSize/4 {
			return string([]byte(s))
		}
		t.chunk = make([]byte, chunkSize)
	}
	n := copy(t.chunk, s)
	kept := str(t.chunk[:n])
	t.chunk = t.chunk[n:]
	return kept
}

// str gives b as a string that shares its memory.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
