package http2

import "encoding/binary"

// Frame types of RFC 9113 section 6.
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	framePriority     = 0x2
	frameRST          = 0x3
	frameSettings     = 0x4
	framePush         = 0x5
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindow       = 0x8
	frameContinuation = 0x9
)

const (
	flagEndStream  = 0x1
	flagAck        = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20
)

const (
	settingTable    = 0x1
	settingPush     = 0x2
	settingStreams  = 0x3
	settingWindow   = 0x4
	settingFrame    = 0x5
	settingHeadList = 0x6
	settingConnect  = 0x8 // RFC 8441
)

const (
	frameHeader    = 9
	minMaxFrame    = 16 << 10 // also what we take
	defaultWindow  = 65535
	maxWindow      = 1<<31 - 1
	maxStreamID    = 1<<31 - 1
	clientPreface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	drainPing      = 0x5765667464726e31 // the payload of the PING that Drain sends
	keepAlivePing  = 0x576566746b656570
	bulkFrameBytes = 64 << 10 // a longer frame than that would hold up others without saving anything
)

func appendFrame(b []byte, length int, kind, flags byte, id uint32) []byte {
	return append(b, byte(length>>16), byte(length>>8), byte(length), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendRST(b []byte, id uint32, code ErrCode) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameRST, 0, id), uint32(code))
}

func appendWindow(b []byte, id uint32, n int) []byte {
	return binary.BigEndian.AppendUint32(appendFrame(b, 4, frameWindow, 0, id), uint32(n))
}

func appendPing(b []byte, flags byte, payload uint64) []byte {
	return binary.BigEndian.AppendUint64(appendFrame(b, 8, framePing, flags, 0), payload)
}

func appendGoAway(b []byte, last uint32, code ErrCode) []byte {
	b = appendFrame(b, 8, frameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendSetting(b []byte, id uint16, value int) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(b, id), uint32(value))
}

// unpad takes the padding off a DATA or HEADERS payload (section 6.1).
func unpad(p []byte, flags byte) ([]byte, *ConnError) {
	if flags&flagPadded == 0 {
		return p, nil
	}
	if len(p) == 0 {
		return nil, connError(FrameSizeError, "padded frame without a pad length")
	}
	pad := int(p[0])
	if pad >= len(p) {
		return nil, connError(ProtocolError, "padding is longer than the frame")
	}
	return p[1 : len(p)-pad], nil
}
