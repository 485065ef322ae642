// Package takeover hands the listening sockets of a running proxy to its successor, a new process of the same proxy, over a unix
// socket. The old process serves until the new one says that it is ready, and goes on as if nothing had happened when that never
// comes. No connection waits in a queue that nobody accepts from: both processes hold the same sockets meanwhile.
//
// A conversation, in packets: the new process asks (take); the old one gives each socket (socket, with its descriptor) and says that
// these were all (handed), or why not (err). The new one says that it serves (ready). The old one stops accepting and says so
// (yielded); from here the new one owns what both have on disk. Then the old one says how many connections it still has (open),
// until it ends.
package takeover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// version of the conversation. A proxy of another version is not taken over.
const version = 1

// Process says who is at one end.
type Process struct {
	PID     int    `json:"pid"`
	Release string `json:"release"` // the program's version
	// Epoch counts the takeovers since the first process: 0 for that one.
	Epoch int `json:"epoch"`
}

type packet struct {
	Verb    string   `json:"verb"` // take, socket, handed, ready, yielded, open, err
	Version int      `json:"version,omitempty"`
	Process *Process `json:"process,omitempty"` // take, handed

	Network string `json:"network,omitempty"` // socket
	Address string `json:"address,omitempty"`
	Count   int    `json:"count,omitempty"` // handed: sockets; open: connections
	Text    string `json:"text,omitempty"`  // err
}

const maxPacket = 4096 // bytes

func send(c *net.UnixConn, p packet, fds ...int) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	_, _, err = c.WriteMsgUnix(raw, rights, nil)
	return err
}

// receive reads one packet and the descriptor that may come with it, nil for none. It is the caller's to close. An end of the
// connection is io.EOF or an error of package net.
func receive(c *net.UnixConn) (packet, *os.File, error) {
	buf, oob := make([]byte, maxPacket), make([]byte, unix.CmsgSpace(4))
	n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return packet{}, nil, err
	}
	file, err := descriptor(oob[:oobn])
	if err != nil {
		return packet{}, nil, err
	}
	var p packet
	switch {
	case n == 0:
		return packet{}, nil, net.ErrClosed
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("packet too long")
	default:
		err = json.Unmarshal(buf[:n], &p)
	}
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return packet{}, nil, fmt.Errorf("takeover: %w", err)
	}
	return p, file, nil
}

func descriptor(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) == 0 {
		return nil, err
	}
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	for _, fd := range fds[1:] { // there is room for one
		_ = unix.Close(fd)
	}
	return os.NewFile(uintptr(fds[0]), "socket"), nil
}

// sameUser reports whether the process at the other end is ours: of the same user, or root's.
func sameUser(c *net.UnixConn) (bool, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false, err
	}
	ours := false
	failed := raw.Control(func(fd uintptr) { ours, err = peerIsOurs(int(fd)) })
	return ours, errors.Join(failed, err)
}
