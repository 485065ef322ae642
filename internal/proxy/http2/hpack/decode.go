package hpack

import "errors"

// What makes a header block undecodable: a connection error of type COMPRESSION_ERROR. The decoder cannot be used after it.
var (
	ErrTruncated = errors.New("hpack: header block ends within a field")
	ErrIndex     = errors.New("hpack: index beyond the tables")
	ErrInteger   = errors.New("hpack: integer is too large")
	ErrHuffman   = errors.New("hpack: invalid Huffman code")
	ErrTableSize = errors.New("hpack: table size update is too large or out of place")
)

// Decoder decodes the header blocks of one connection in one direction. One goroutine may use it.
type Decoder struct {
	tags  *Tags
	table table
	most  int // the size of the table that the peer was told of

	in      []byte
	store   []byte
	updates int // size updates that may still come; none after the first field
}

// NewDecoder makes a decoder whose peer was told of a table of max bytes. Until it was told it must not exceed 4096.
func NewDecoder(max int, tags *Tags) *Decoder {
	return &Decoder{tags: tags, most: max, table: table{max: min(max, 4096)}}
}

// StoreSize gives how long a store a block of n bytes may need.
func StoreSize(n int) int { return maxDecoded(n) + 16 }

// Begin starts a whole header block. Next decodes into store, which has room for StoreSize(len(block)), and reads block: both
// belong to the decoder until Next reports the end.
func (d *Decoder) Begin(block, store []byte) {
	d.in, d.store, d.updates = block, store[:0], 2
}

// Next gives the next field, or false at the end of the block or at an error.
func (d *Decoder) Next(f *Field) (ok bool, err error) {
	for len(d.in) > 0 {
		b := d.in[0]
		switch {
		case b >= 0x80:
			d.updates = 0
			err = d.indexed(f)
			return err == nil, err
		case b >= 0x40:
			d.updates = 0
			if err = d.literal(f, 6); err != nil {
				return false, err
			}
			d.table.add(f, b != 0x40)
			return true, nil
		case b >= 0x20:
			if err := d.resize(); err != nil {
				return false, err
			}
		default:
			d.updates = 0
			err = d.literal(f, 4)
			f.Sensitive = b >= 0x10
			return err == nil, err
		}
	}
	return false, nil
}

func (d *Decoder) resize() error {
	n, err := d.integer(5)
	if err != nil {
		return err
	}
	if d.updates == 0 || n > d.most {
		return ErrTableSize
	}
	d.updates--
	d.table.setMax(n)
	return nil
}

func (d *Decoder) indexed(f *Field) error {
	i := int(d.in[0] & 0x7f)
	if i < 0x7f {
		d.in = d.in[1:]
	} else {
		var err error
		if i, err = d.integer(7); err != nil {
			return err
		}
	}
	if i <= staticLen {
		if i == 0 {
			return ErrIndex
		}
		s := &static[i]
		*f = Field{Name: s.name, Value: s.value, Tag: d.tags.static[i]}
		return nil
	}
	if i -= staticLen; i > d.table.n {
		return ErrIndex
	}
	*f = *d.table.at(i)
	return nil
}

func (d *Decoder) literal(f *Field, prefix uint) error {
	i, err := d.integer(prefix)
	if err != nil {
		return err
	}
	switch {
	case i == 0:
		if f.Name, err = d.text(); err != nil {
			return err
		}
	case i <= staticLen:
		f.Name = static[i].name
	case i-staticLen <= d.table.n:
		f.Name = d.table.at(i - staticLen).Name
	default:
		return ErrIndex
	}
	if f.Value, err = d.text(); err != nil {
		return err
	}
	f.Tag, f.Sensitive = d.tags.of(f.Name, f.Value), false
	return nil
}

// maxInteger is far beyond any size or index that can be meant.
const maxInteger = 1 << 24

// integer is section 5.1.
func (d *Decoder) integer(prefix uint) (int, error) {
	mask := byte(1<<prefix - 1)
	n := int(d.in[0] & mask)
	d.in = d.in[1:]
	if n < int(mask) {
		return n, nil
	}
	for shift := uint(0); len(d.in) > 0; shift += 7 {
		b := d.in[0]
		d.in = d.in[1:]
		n += int(b&0x7f) << shift
		if n > maxInteger || shift > 28 {
			return 0, ErrInteger
		}
		if b < 0x80 {
			return n, nil
		}
	}
	return 0, ErrTruncated
}

// text decodes a string literal into the store.
func (d *Decoder) text() (string, error) {
	if len(d.in) == 0 {
		return "", ErrTruncated
	}
	coded := d.in[0]&0x80 != 0
	n, err := d.integer(7)
	if err != nil {
		return "", err
	}
	if n > len(d.in) {
		return "", ErrTruncated
	}
	at := len(d.store)
	if !coded {
		d.store = append(d.store, d.in[:n]...)
	} else {
		var ok bool
		if d.store, ok = appendDecoded(d.store, d.in[:n]); !ok {
			return "", ErrHuffman
		}
	}
	d.in = d.in[n:]
	return str(d.store[at:]), nil
}
