package rpc

import (
	"encoding/binary"
	"fmt"
)

// frameType of RFC 9113, section 6.
type frameType uint8

const (
	frameData         frameType = 0x0
	frameHeaders      frameType = 0x1
	framePriority     frameType = 0x2
	frameReset        frameType = 0x3
	frameSettings     frameType = 0x4
	framePush         frameType = 0x5
	framePing         frameType = 0x6
	frameGoAway       frameType = 0x7
	frameWindow       frameType = 0x8
	frameContinuation frameType = 0x9
)

// Flags of frames. ACK and END_STREAM are the same bit of different types.
const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

// code of RFC 9113, section 7.
type code uint32

const (
	codeNone            code = 0x0
	codeProtocol        code = 0x1
	codeInternal        code = 0x2
	codeFlowControl     code = 0x3
	codeStreamClosed    code = 0x5
	codeFrameSize       code = 0x6
	codeRefused         code = 0x7
	codeCompression     code = 0x9
	codeEnhanceYourCalm code = 0xb
)

// Settings of RFC 9113, section 6.5.2.
const (
	settingTableSize  = 0x1
	settingPush       = 0x2
	settingStreams    = 0x3
	settingWindow     = 0x4
	settingFrameSize  = 0x5
	settingHeaderList = 0x6
)

const (
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	headSize      = 9
	maxFrame      = 16 << 10 // of both directions: what everybody takes without being asked
	defaultWindow = 65535
	maxWindow     = 1<<31 - 1
)

// connError ends a connection with a GOAWAY.
type connError struct {
	code   code
	reason string
}

// Error implements error.
func (e connError) Error() string { return fmt.Sprintf("HTTP/2 error %d: %s", e.code, e.reason) }

func violation(format string, args ...any) error {
	return connError{codeProtocol, fmt.Sprintf(format, args...)}
}

// frame is one frame of the client; its payload is valid while it is handled.
type frame struct {
	kind    frameType
	flags   uint8
	stream  uint32
	payload []byte
}

func (f *frame) has(flag uint8) bool { return f.flags&flag != 0 }

// readFrame gives the first frame of what was read, and its size; 0 when it is not all there.
func readFrame(b []byte) (f frame, size int, err error) {
	if len(b) < headSize {
		return frame{}, 0, nil
	}
	length := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
	if length > maxFrame {
		return frame{}, 0, connError{codeFrameSize, fmt.Sprintf("a frame of %d bytes", length)}
	}
	if len(b) < headSize+length {
		return frame{}, 0, nil
	}
	f = frame{kind: frameType(b[3]), flags: b[4], stream: binary.BigEndian.Uint32(b[5:]) & maxWindow, payload: b[headSize : headSize+length : headSize+length]}
	return f, headSize + length, nil
}

// unpadded takes the padding and the priority out of a payload (RFC 9113, sections 6.1 and 6.2).
func (f *frame) unpadded() ([]byte, error) {
	b, padding := f.payload, 0
	if f.has(flagPadded) {
		if len(b) < 1 {
			return nil, connError{codeFrameSize, "a padded frame without its length"}
		}
		padding, b = int(b[0]), b[1:]
	}
	if f.kind == frameHeaders && f.has(flagPriority) {
		if len(b) < 5 {
			return nil, connError{codeFrameSize, "HEADERS with half a priority"}
		}
		if binary.BigEndian.Uint32(b)&maxWindow == f.stream {
			return nil, violation("stream %d depends on itself", f.stream)
		}
		b = b[5:]
	}
	if padding > len(b) {
		return nil, violation("more padding than payload")
	}
	return b[:len(b)-padding], nil
}

// appendFrame appends the head of a frame.
func appendFrame(b []byte, kind frameType, flags uint8, stream uint32, length int) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(kind), flags)
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendSetting(b []byte, id uint16, value uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), value)
}

// appendField appends a header field as HPACK's literal without indexing (RFC 7541, section 6.2.2), which changes no table.
func appendField(b []byte, name, value string) []byte {
	return appendString(appendString(append(b, 0), name), value)
}

// appendString appends a string that is not Huffman coded (RFC 7541, section 5.2).
func appendString(b []byte, s string) []byte {
	n := len(s)
	if n < 127 {
		return append(append(b, byte(n)), s...)
	}
	b = append(b, 127)
	for n -= 127; n >= 128; n >>= 7 {
		b = append(b, byte(n)|128)
	}
	return append(append(b, byte(n)), s...)
}
