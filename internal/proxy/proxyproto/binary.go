package proxyproto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
)

// Numbers of section 2.2: version and command, family and transport, and the extensions that are looked at.
const (
	command2Local = 0x20
	command2Proxy = 0x21
	familyUnspec  = 0x00
	familyTCP4    = 0x11
	familyUDP4    = 0x12
	familyTCP6    = 0x21
	familyUDP6    = 0x22
	familyStream  = 0x31 // unix sockets
	familyDgram   = 0x32
	typeChecksum  = 0x03
)

// parse2 reads the binary header of version 2 (section 2.2).
func parse2(b []byte) (h Header, n int, err error) {
	if len(b) < fixed2 {
		return h, 0, nil
	}
	command, family := b[len(begin2)], b[len(begin2)+1]
	extra := int(binary.BigEndian.Uint16(b[fixed2-2:]))
	switch {
	case command != command2Local && command != command2Proxy:
		return h, 0, fmt.Errorf("version 2: version and command are %#x", command)
	case extra > maxExtra:
		return h, 0, fmt.Errorf("version 2: length %d is more than %d", extra, maxExtra)
	case len(b) < fixed2+extra:
		return h, 0, nil
	}
	n = fixed2 + extra
	h, addresses, err := endpoints(command, family, b[fixed2:n])
	if err == nil {
		err = extensions(b[:n], fixed2+addresses)
	}
	if err != nil {
		return Header{}, 0, fmt.Errorf("version 2: %w", err)
	}
	return h, n, nil
}

// endpoints reads the addresses, and gives how many bytes they take.
func endpoints(command, family byte, b []byte) (h Header, n int, err error) {
	h = Header{Version: 2, Local: true}
	switch family {
	case familyUnspec:
		return h, len(b), nil // the receiver ignores what follows
	case familyTCP4, familyUDP4:
		n = 12
	case familyTCP6, familyUDP6:
		n = 36
	case familyStream, familyDgram:
		n = 216
	default:
		return h, 0, fmt.Errorf("family %#x is not known", family)
	}
	if len(b) < n {
		if command == command2Local {
			return h, len(b), nil
		}
		return h, 0, fmt.Errorf("%d bytes are too few for addresses of family %#x", len(b), family)
	}
	if command == command2Local || family != familyTCP4 && family != familyTCP6 {
		return h, n, nil
	}
	width := (n - 4) / 2
	src, _ := netip.AddrFromSlice(b[:width])
	dst, _ := netip.AddrFromSlice(b[width : 2*width])
	h.Local = false
	h.Source = netip.AddrPortFrom(src, binary.BigEndian.Uint16(b[2*width:]))
	h.Destination = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(b[2*width+2:]))
	return h, n, nil
}

var errExtensions = errors.New("its extensions are longer than the header")

// extensions walks the type-length-value vectors (section 2.2.1) of a whole header from an offset on. A checksum is verified;
// all others are passed over.
func extensions(header []byte, from int) error {
	summed := false
	for at := from; at < len(header); {
		if len(header)-at < 3 {
			return errExtensions
		}
		kind, length := header[at], int(binary.BigEndian.Uint16(header[at+1:]))
		at += 3
		if length > len(header)-at {
			return errExtensions
		}
		if kind == typeChecksum {
			if summed || length != crc32.Size {
				return fmt.Errorf("a checksum of %d bytes, or a second one", length)
			}
			if summed = true; !intact(header, at) {
				return errors.New("its checksum is wrong")
			}
		}
		at += length
	}
	return nil
}

// intact verifies the CRC32C at an offset, which counts as zero (section 2.2.3).
func intact(header []byte, at int) bool {
	var zero [crc32.Size]byte
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum(header[:at], table)
	sum = crc32.Update(sum, table, zero[:])
	sum = crc32.Update(sum, table, header[at+crc32.Size:])
	return sum == binary.BigEndian.Uint32(header[at:])
}

func append2(b []byte, src, dst netip.AddrPort, known bool) []byte {
	b = append(b, begin2...)
	switch {
	case !known:
		return append(b, command2Local, familyUnspec, 0, 0)
	case src.Addr().Is4():
		b = append(b, command2Proxy, familyTCP4, 0, 12)
	default:
		b = append(b, command2Proxy, familyTCP6, 0, 36)
	}
	b = append(b, src.Addr().AsSlice()...)
	b = append(b, dst.Addr().AsSlice()...)
	b = binary.BigEndian.AppendUint16(b, src.Port())
	return binary.BigEndian.AppendUint16(b, dst.Port())
}
