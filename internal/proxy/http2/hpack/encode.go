package hpack

import "hash/maphash"

// Encoder encodes the header blocks of one connection in one direction. One goroutine at a time may use it.
type Encoder struct {
	seed maphash.Seed
	max  int  // the table's size now
	low  int  // the smallest size since the last block, to be told
	tell bool // low and max are to be told

	// The dynamic table. Entry number i, counted from 1 over the connection's life, is at ring[i%len(ring)].
	ring        []entry
	oldest, end uint32 // numbers: oldest <= entry < end
	size        int
	slots       []slot // by hash
}

type entry struct {
	b    []byte // name and value
	name int
	hash uint64
}

// slot remembers a field by its hash; at is its number in the table, or 0 when it was only met.
type slot struct {
	hash uint64
	at   uint32
}

const (
	encoderMax   = 4096 // more is never used, whatever the peer offers
	encoderRing  = encoderMax / overhead
	encoderSlots = 2 * encoderRing
	// maxIndexed is the longest value that goes into the table.
	maxIndexed = 512
)

// NewEncoder makes an encoder with the table that a peer has at first: 4096 bytes.
func NewEncoder() *Encoder {
	return &Encoder{seed: maphash.MakeSeed(), max: encoderMax, low: encoderMax, oldest: 1, end: 1}
}

// SetMax takes the size that the peer's SETTINGS_HEADER_TABLE_SIZE allows. The next block tells the peer what is used.
func (e *Encoder) SetMax(n int) {
	n = min(n, encoderMax)
	if n == e.max && !e.tell {
		return
	}
	if !e.tell {
		e.low = n
	}
	e.low, e.max, e.tell = min(e.low, n), n, true
	e.evict(0)
}

// Begin starts a header block at the end of b.
func (e *Encoder) Begin(b []byte) []byte {
	if !e.tell {
		return b
	}
	e.tell = false
	if e.low < e.max {
		b = appendInt(b, 0x20, 5, e.low)
	}
	return appendInt(b, 0x20, 5, e.max)
}

// Static appends a field of the static table.
func Static(b []byte, index int) []byte { return append(b, 0x80|byte(index)) }

// Indices of the static table that a message's pseudo-header fields use.
const (
	Authority  = 1
	MethodGet  = 2
	MethodPost = 3
	PathRoot   = 4
	SchemeHTTP = 6
	SchemeTLS  = 7
	Status200  = 8
)

// StatusIndex gives the index of a status that the static table has, or 0.
func StatusIndex(status int) int {
	switch status {
	case 200:
		return Status200
	case 204, 206:
		return Status200 + (status-202)/2
	case 304:
		return 11
	case 400:
		return 12
	case 404:
		return 13
	case 500:
		return 14
	}
	return 0
}

// Field appends a field whose name is in lower case.
func (e *Encoder) Field(b []byte, name, value string) []byte {
	index := nameIndex(name)
	if neverIndexed(index) {
		return e.literal(b, 0x10, 4, index, name, value)
	}
	if len(value) > maxIndexed || len(name) > maxIndexed {
		return e.literal(b, 0, 4, index, name, value)
	}
	h := maphash.String(e.seed, value) * 31
	if index != 0 {
		h ^= uint64(index) << 32
	} else {
		h ^= maphash.String(e.seed, name)
	}
	if e.slots == nil {
		e.slots, e.ring = make([]slot, encoderSlots), make([]entry, encoderRing)
	}
	s := &e.slots[h%encoderSlots]
	if s.hash != h {
		*s = slot{hash: h}
		return e.literal(b, 0, 4, index, name, value)
	}
	if s.at >= e.oldest {
		if x := &e.ring[s.at%encoderRing]; string(x.b[:x.name]) == name && string(x.b[x.name:]) == value {
			return appendInt(b, 0x80, 7, staticLen+int(e.end-s.at))
		}
		return e.literal(b, 0, 4, index, name, value)
	}
	if size := Size(name, value); size <= e.max {
		b = e.literal(b, 0x40, 6, index, name, value)
		e.add(name, value, h, size)
		s.at = e.end - 1
		return b
	}
	return e.literal(b, 0, 4, index, name, value)
}

// Sensitive appends a field that nobody may index.
func (e *Encoder) Sensitive(b []byte, name, value string) []byte {
	return e.literal(b, 0x10, 4, nameIndex(name), name, value)
}

func (e *Encoder) add(name, value string, h uint64, size int) {
	e.evict(size)
	x := &e.ring[e.end%encoderRing]
	x.b = append(append(x.b[:0], name...), value...)
	x.name, x.hash = len(name), h
	e.size += size
	e.end++
}

func (e *Encoder) evict(room int) {
	for e.oldest < e.end && e.size+room > e.max {
		e.size -= len(e.ring[e.oldest%encoderRing].b) + overhead
		e.oldest++
	}
}

func (e *Encoder) literal(b []byte, kind byte, prefix uint, index int, name, value string) []byte {
	b = appendInt(b, kind, prefix, index)
	if index == 0 {
		b = e.text(b, name, kind == 0x40)
	}
	return e.text(b, value, kind == 0x40)
}

func (e *Encoder) text(b []byte, s string, code bool) []byte {
	if code {
		if n := huffmanLength(s); n < len(s) {
			return appendHuffman(appendInt(b, 0x80, 7, n), s)
		}
	}
	return append(appendInt(b, 0, 7, len(s)), s...)
}

func appendInt(b []byte, kind byte, prefix uint, n int) []byte {
	mask := 1<<prefix - 1
	if n < mask {
		return append(b, kind|byte(n))
	}
	b = append(b, kind|byte(mask))
	for n -= mask; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// neverIndexed: what authorizes must not be guessable through the size of what is sent (section 7.1.3), and cookies are long and
// seldom the same for two users of a connection.
func neverIndexed(index int) bool {
	switch index {
	case 23, 49: // authorization, proxy-authorization
		return true
	case 32, 55: // cookie, set-cookie
		return true
	}
	return false
}

// staticNames finds the first static entry of a name by its length and two of its bytes; the name is compared.
var staticNames = func() (t [1024]uint8) {
	for i := staticLen; i > 0; i-- {
		name := static[i].name
		at := nameSlot(name)
		for t[at] != 0 && static[t[at]].name != name {
			at = (at + 1) % len(t)
		}
		t[at] = uint8(i)
	}
	return t
}()

func nameSlot(name string) int {
	n := len(name)
	return (n*37 ^ int(name[n-1])*5 ^ int(name[n/2])<<3) & 1023
}

func nameIndex(name string) int {
	if name == "" {
		return 0
	}
	for at := nameSlot(name); staticNames[at] != 0; at = (at + 1) % len(staticNames) {
		if i := staticNames[at]; static[i].name == name {
			return int(i)
		}
	}
	return 0
}
