package hpack

import "encoding/binary"

// The code of RFC 7541 appendix B is canonical: codes of one length are consecutive, in the order of their symbols, and follow
// those of the next shorter length. So the lengths say it all.
var codeLengths = [257]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
	30,
}

const (
	longest = 30
	fastLen = 9 // bits that the table decodes at once: every letter and digit takes 8 or fewer
)

// huffman is what follows from the lengths.
type huffman struct {
	codes [257]uint32
	// fast gives symbol<<4 | length for the codes of up to fastLen bits, by the bits that begin with the code; 0 for longer ones.
	fast [1 << fastLen]uint16
	// Of each length: one past the last code, aligned to the left of 32 bits; and the place of its first symbol in symbols less
	// its first code.
	limit   [longest + 1]uint64
	base    [longest + 1]int32
	symbols [257]uint16
}

var code = makeHuffman()

func makeHuffman() *huffman {
	h := &huffman{}
	var next uint32
	place := 0
	for n := uint8(1); n <= longest; n++ {
		next <<= 1
		h.base[n] = int32(place) - int32(next)
		for sym, length := range codeLengths {
			if length != n {
				continue
			}
			h.codes[sym] = next
			h.symbols[place] = uint16(sym)
			if n <= fastLen {
				first := next << (fastLen - n)
				for i := range uint32(1) << (fastLen - n) {
					h.fast[first+i] = uint16(sym)<<4 | uint16(n)
				}
			}
			next++
			place++
		}
		h.limit[n] = uint64(next) << (32 - n)
	}
	return h
}

// huffmanLength gives the bytes that s takes when coded.
func huffmanLength(s string) int {
	bits := 0
	for i := 0; i < len(s); i++ {
		bits += int(codeLengths[s[i]])
	}
	return (bits + 7) / 8
}

func appendHuffman(b []byte, s string) []byte {
	var acc uint64
	var n uint
	for i := 0; i < len(s); i++ {
		length := uint(codeLengths[s[i]])
		acc = acc<<length | uint64(code.codes[s[i]])
		for n += length; n >= 8; {
			n -= 8
			b = append(b, byte(acc>>n))
		}
	}
	if n > 0 { // the most significant bits of EOS, which are ones
		b = append(b, byte(acc<<(8-n))|0xff>>n)
	}
	return b
}

// maxDecoded bounds what n coded bytes decode to: the shortest code has five bits.
func maxDecoded(n int) int { return n*8/5 + 1 }

// appendDecoded appends what in stands for; false means that in breaks section 5.2. b has room.
func appendDecoded(b, in []byte) ([]byte, bool) {
	var acc uint64 // the next bits, from the left
	n := 0         // how many of them are there
	for {
		if n <= 32 && len(in) >= 4 {
			acc |= uint64(binary.BigEndian.Uint32(in)) << (32 - n)
			in = in[4:]
			n += 32
		} else {
			for n <= 56 && len(in) > 0 {
				acc |= uint64(in[0]) << (56 - n)
				in = in[1:]
				n += 8
			}
		}
		for n >= longest || len(in) == 0 {
			e := code.fast[acc>>(64-fastLen)]
			sym, length := int(e>>4), int(e&15)
			if length == 0 {
				if n < fastLen && paddingOnly(acc, n) {
					return b, true
				}
				if sym, length = slowSymbol(acc >> 32); sym > 255 {
					return b, false
				}
			}
			if length > n {
				return b, paddingOnly(acc, n)
			}
			b = append(b, byte(sym))
			acc <<= length
			n -= length
		}
	}
}

// paddingOnly reports whether the n bits left are a proper end: fewer than eight, all ones.
func paddingOnly(acc uint64, n int) bool {
	return n < 8 && acc>>(64-n) == 1<<n-1
}

func slowSymbol(top uint64) (sym, length int) {
	for n := fastLen + 1; n <= longest; n++ {
		if top < code.limit[n] {
			return int(code.symbols[int32(top>>(32-n))+code.base[n]]), n
		}
	}
	return 256, longest
}
