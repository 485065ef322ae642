package http1

import "unsafe"

// str gives b as a string that shares its memory.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// raw gives the memory of s for reading.
func raw(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

func trimOWS(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
