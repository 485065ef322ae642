package proxy

import (
	"sync"
	"time"

	"github.com/weftmesh/weft/internal/proxy/conn"
	"github.com/weftmesh/weft/internal/proxy/listen"
	"github.com/weftmesh/weft/internal/proxy/upstream"
)

// detected is what a connection turned out to be.
type detected struct {
	listen.Sniffed
	conn conn.Conn
	// early is the connection to the upstream that was opened to hear who speaks first; nil if it was not. When Protocol is
	// Silent the server spoke, or both were silent until one of them ended.
	early *upstream.Conn
}

const (
	// patience is how long a client on an unknown port may stay silent before the upstream is opened to see whether the
	// server speaks first; a client that once spoke there gets longer.
	patience      = 30 * time.Millisecond
	knownPatience = time.Second
	// talkTime bounds the first message once it has begun.
	talkTime = 10 * time.Second
)

// memory keeps who spoke first, by destination, so that it is found out once.
type memory struct {
	mu    sync.Mutex
	first map[string]remembered
}

type remembered struct {
	speaker listen.Speaker
	at      time.Time
	eager   int // clients in a row that spoke first where the server does
}

const (
	// maxRemembered bounds the memory; when it is full it starts anew.
	maxRemembered = 4096
	// remembering is how long a destination is believed to be what it was: another program may listen there one day.
	remembering = 10 * time.Minute
	// unlearning is how many clients in a row have to speak first until a server that spoke is not believed to do so any more. One says
	// little: a probe, or a client that does not wait for the greeting, as every one may.
	unlearning = 16
)

func (m *memory) get(where string, now time.Time) listen.Speaker {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.first[where]; now.Sub(r.at) < remembering {
		return r.speaker
	}
	return listen.Neither
}

func (m *memory) set(where string, s listen.Speaker, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.first[where]
	if s == listen.ClientFirst && r.speaker == listen.ServerFirst && now.Sub(r.at) < remembering && r.eager+1 < unlearning {
		r.eager++
		m.first[where] = r
		return
	}
	if m.first == nil || len(m.first) >= maxRemembered {
		m.first = map[string]remembered{}
	}
	m.first[where] = remembered{speaker: s, at: now}
}

// detect looks at the first bytes of a connection. Where open is not nil the protocol may be one whose server speaks first:
// then the upstream is opened if the client does not speak soon, and whoever speaks first decides. where names the
// destination for the memory. The error is the connection's, or open's.
func (p *Proxy) detect(c conn.Conn, where string, open func() (*upstream.Conn, error)) (detected, error) {
	if open == nil {
		s, sniffed, err := listen.Sniff(c, defaultIdle, talkTime)
		return detected{Sniffed: s, conn: sniffed}, err
	}
	wait := patience
	switch p.memory.get(where, p.opt.Now()) {
	case listen.ServerFirst:
		wait = 0
	case listen.ClientFirst:
		wait = knownPatience
	}
	s, sniffed, err := listen.Sniff(c, wait, talkTime)
	if err != nil || s.Protocol != listen.Silent {
		p.memory.set(where, listen.ClientFirst, p.opt.Now())
		return detected{Sniffed: s, conn: sniffed}, err
	}
	early, err := open()
	if err != nil {
		return p.detectAlone(c, err)
	}
	first, err := listen.First(c, early.Conn)
	if err != nil {
		early.Close()
		return detected{conn: c}, err
	}
	p.memory.set(where, first, p.opt.Now())
	d := detected{Sniffed: s, conn: c, early: early}
	if first == listen.ClientFirst {
		d.Sniffed, d.conn, err = listen.Sniff(c, talkTime, talkTime)
	}
	return d, err
}

// detectAlone gives a client whose upstream cannot be opened a little more time: one that speaks HTTP gets an answer.
func (p *Proxy) detectAlone(c conn.Conn, cause error) (detected, error) {
	s, sniffed, err := listen.Sniff(c, knownPatience, talkTime)
	if err == nil && s.Protocol == listen.Silent {
		err = cause
	}
	return detected{Sniffed: s, conn: sniffed}, err
}

// drop closes the early connection if there is one: the protocol needs another.
func (d *detected) drop() {
	if d.early != nil {
		d.early.Close()
		d.early = nil
	}
}
