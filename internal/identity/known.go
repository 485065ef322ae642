package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"sync"
	"time"
)

// known remembers the chains that a bundle's roots have vouched for: to verify one again costs as much as all else of a handshake that
// is not its key exchange, and the peers of a workload come again with the same chain until they renew it. It forgets nothing that
// matters: roots that change are another bundle's, and a chain is believed only while all of its certificates, the root among them,
// are valid. That the peer holds the key is proven in each handshake in any case.
type known struct {
	mu     sync.Mutex
	chains map[[sha256.Size]byte]vouched
}

// vouched is what Verify found.
type vouched struct {
	peer        Peer
	from, until time.Time
}

// maxKnown bounds the chains of a bundle; when there are as many, it begins anew.
const maxKnown = 1024

// chainKey stands for a chain in one use.
func chainKey(chain []*x509.Certificate, usage x509.ExtKeyUsage) (key [sha256.Size]byte) {
	h := sha256.New()
	var n [8]byte
	binary.LittleEndian.PutUint64(n[:], uint64(usage))
	h.Write(n[:])
	for _, c := range chain {
		binary.LittleEndian.PutUint64(n[:], uint64(len(c.Raw)))
		h.Write(n[:])
		h.Write(c.Raw)
	}
	h.Sum(key[:0])
	return key
}

// get gives what is known of a chain that is valid now.
func (k *known) get(key [sha256.Size]byte, now time.Time) (Peer, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.chains[key]
	return v.peer, ok && !now.Before(v.from) && !now.After(v.until)
}

// add takes note of a chain with the ways in which it leads to roots.
func (k *known) add(key [sha256.Size]byte, peer Peer, ways [][]*x509.Certificate) {
	v := vouched{peer: peer}
	for _, way := range ways {
		if from, until := validity(way); until.After(v.until) {
			v.from, v.until = from, until
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.chains == nil || len(k.chains) >= maxKnown {
		k.chains = map[[sha256.Size]byte]vouched{}
	}
	k.chains[key] = v
}

// validity is when all certificates of a way are valid.
func validity(way []*x509.Certificate) (from, until time.Time) {
	for i, c := range way {
		if i == 0 || c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if i == 0 || c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return from, until
}
