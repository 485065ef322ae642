package datagram

import (
	"sync/atomic"

	"github.com/weftmesh/weft/internal/telemetry"
)

// counts are those of one port.
type counts struct {
	total, denied, evicted, idle, noRoute atomic.Int64 // sessions
	dropped, receiveErrors, sendErrors    atomic.Int64 // datagrams

	receivedDatagrams, receivedBytes, sentDatagrams, sentBytes atomic.Int64
}

func (c *counts) received(n int) {
	c.receivedDatagrams.Add(1)
	c.receivedBytes.Add(int64(n))
}

func (c *counts) sent(n int) {
	c.sentDatagrams.Add(1)
	c.sentBytes.Add(int64(n))
}

// Stats appends the counters of a port, by the names of Envoy's filter; those of what it does not count are ours.
func (s *Server) Stats(list []telemetry.Stat, instance string) []telemetry.Stat {
	add := func(name string, gauge bool, value int64) {
		list = append(list, telemetry.Stat{Scope: "udp", Instance: instance, Name: name, Gauge: gauge, Value: value})
	}
	c := &s.counts
	add("downstream_sess_active", true, int64(s.Open()))
	add("downstream_sess_denied", false, c.denied.Load())
	add("downstream_sess_evicted", false, c.evicted.Load())
	add("downstream_sess_no_route", false, c.noRoute.Load())
	add("downstream_sess_rx_bytes", false, c.receivedBytes.Load())
	add("downstream_sess_rx_datagrams", false, c.receivedDatagrams.Load())
	add("downstream_sess_rx_dropped", false, c.dropped.Load())
	add("downstream_sess_rx_errors", false, c.receiveErrors.Load())
	add("downstream_sess_total", false, c.total.Load())
	add("downstream_sess_tx_bytes", false, c.sentBytes.Load())
	add("downstream_sess_tx_datagrams", false, c.sentDatagrams.Load())
	add("downstream_sess_tx_errors", false, c.sendErrors.Load())
	add("idle_timeout", false, c.idle.Load())
	return list
}
