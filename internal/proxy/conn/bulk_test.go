package conn_test

import (
	"bytes"
	"io"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
)

// BenchmarkTLSBulk moves a long stream through TLS in the pieces in which the relay does.
func BenchmarkTLSBulk(b *testing.B) {
	const piece = 128 << 10
	from, to := overTLS(b, overNet2(tcpPair(b)))
	go func() { // ends with the connection
		p := make([]byte, piece)
		for {
			if _, err := from.Write(p); err != nil {
				return
			}
		}
	}()
	p := make([]byte, piece)
	b.SetBytes(piece)
	reads := 0
	for b.Loop() {
		for n := 0; n < piece; {
			k, err := to.Read(p[:piece-n])
			if err != nil {
				b.Fatal(err)
			}
			n += k
			reads++
		}
	}
	b.ReportMetric(float64(reads)/float64(b.N), "reads/op")
	from.Close()
}

// TestTLSDoesNotWaitForMore sends long streams that end in short messages: every byte must come without a further one being
// sent.
func TestTLSDoesNotWaitForMore(t *testing.T) {
	from, to := overTLS(t, overNet2(tcpPair(t)))
	for size := 1; size < 4<<20; size = size*3 + 7 {
		sent := bytes.Repeat([]byte{byte(size)}, size)
		wrote := make(chan error, 1)
		go func() {
			_, err := from.Write(sent)
			if err == nil {
				_, err = from.Write([]byte("short"))
			}
			wrote <- err
		}()
		got := make([]byte, 0, size+5)
		for len(got) < cap(got) {
			n, err := to.Read(got[len(got):cap(got)])
			if err != nil {
				t.Fatal(err)
			}
			got = got[:len(got)+n]
		}
		if !bytes.Equal(got, append(sent, "short"...)) {
			t.Fatalf("%d bytes changed on the way", size)
		}
		if err := <-wrote; err != nil {
			t.Fatal(err)
		}
	}
}

// TestTLSWriteFailureLasts: once gathered records were lost, nothing may be written after them.
func TestTLSWriteFailureLasts(t *testing.T) {
	from, to := overTLS(t, overNet2(memPair(t)))
	from.SetWriteDeadline(time.Now().Add(time.Millisecond))
	if _, err := from.Write(make([]byte, 4<<20)); err == nil {
		t.Fatal("4 MiB fitted into the window")
	}
	from.SetWriteDeadline(time.Time{})
	go io.Copy(io.Discard, readerOf{to}) // ends with the connection
	if _, err := from.Write([]byte("x")); err == nil {
		t.Fatal("a write after the failure went through")
	}
}

type readerOf struct{ conn.Conn }

// TestWaitDoesNotSplitMessages: the byte that Wait takes off a record comes with the rest of it.
func TestWaitDoesNotSplitMessages(t *testing.T) {
	from, to := overTLS(t, overNet2(tcpPair(t)))
	for _, size := range []int{1, 2, 100, 16 << 10} {
		if _, err := from.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if err := to.Wait(); err != nil {
			t.Fatal(err)
		}
		if n, err := to.Read(make([]byte, 32<<10)); err != nil || n != size && size <= 100 || n < 1000 && size > 100 {
			t.Fatalf("a message of %d bytes came as %d, %v", size, n, err)
		} else if n < size {
			if _, err := io.ReadFull(readerOf{to}, make([]byte, size-n)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
