package relay

// Messages counts the messages of gRPC in a body as it passes: each is a flag, a length of four bytes and as many bytes of data
// (github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). The zero value is at the beginning of a body. It keeps no data.
type Messages struct {
	n    int64
	left uint32 // data to come of the current message
	head [4]byte
	have uint8 // bytes of the prefix seen, its flag included
}

// Count is the number of messages that have begun, their prefix seen whole.
func (m *Messages) Count() int64 { return m.n }

// See takes the next bytes of the body.
func (m *Messages) See(p []byte) {
	for len(p) > 0 {
		if m.left > 0 {
			skip := min(uint64(m.left), uint64(len(p)))
			m.left -= uint32(skip)
			p = p[skip:]
			continue
		}
		if m.have > 0 {
			m.head[m.have-1] = p[0]
		}
		p = p[1:]
		if m.have++; m.have == 5 {
			m.have = 0
			m.n++
			m.left = uint32(m.head[0])<<24 | uint32(m.head[1])<<16 | uint32(m.head[2])<<8 | uint32(m.head[3])
		}
	}
}
