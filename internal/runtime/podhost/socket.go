package podhost

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// maxPacket is what a unix socket takes in one packet with the kernel's default buffer (net.core.wmem_max, 208 KiB), less its
// bookkeeping.
const maxPacket = 200 << 10

// socket is one end of the SOCK_SEQPACKET pair. Sends may be concurrent; receives may not.
type socket struct{ conn *net.UnixConn }

func newSocket(f *os.File) (*socket, error) {
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	f.Close()
	uc, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not a unix socket")
	}
	uc.SetWriteBuffer(2 * maxPacket) // the kernel's limit is enough
	return &socket{uc}, nil
}

func (s *socket) send(v any, fds ...int) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(raw) > maxPacket {
		return fmt.Errorf("command and environment take %d bytes, more than %d", len(raw), maxPacket)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err = s.conn.WriteMsgUnix(raw, oob, nil)
	return err
}

// receive reads one packet and its descriptors, which are then the caller's. io.EOF is the other end's death.
func (s *socket) receive(buf []byte, into any) ([]int, error) {
	oob := make([]byte, unix.CmsgSpace(3*4))
	n, oobn, flags, _, err := s.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	fds, err := descriptors(oob[:oobn])
	switch {
	case err != nil:
	case n == 0:
		err = io.EOF
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = errors.New("packet too long")
	default:
		err = json.Unmarshal(buf[:n], into)
	}
	if err != nil {
		closeAll(fds)
		return nil, err
	}
	return fds, nil
}

func descriptors(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(cmsgs) == 0 {
		return nil, err
	}
	fds, err := unix.ParseUnixRights(&cmsgs[0])
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
