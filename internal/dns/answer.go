package dns

import (
	"context"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxUDP bounds the answers sent over UDP, in bytes, whatever the client offers: the size that passes networks without fragments
// (RFC 9715, section 3).
const maxUDP = 1400

// udpLimit is how long an answer over UDP may be (RFC 6891, section 6.2.3).
func udpLimit(query *dns.Msg) int {
	opt := query.IsEdns0()
	if opt == nil {
		return dns.MinMsgSize
	}
	return min(max(int(opt.UDPSize()), dns.MinMsgSize), maxUDP)
}

// answer works out the response, of at most limit bytes; nil when the server is stopping.
func (s *Server) answer(ctx context.Context, query *dns.Msg, limit int) *dns.Msg {
	s.queries.Add(1)
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	default:
		s.overload.Add(1)
		return finish(query, failure(query, dns.RcodeServerFailure), limit)
	}
	stopping := ctx
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	response := s.resolve(ctx, query, 0)
	if stopping.Err() != nil {
		return nil
	}
	return finish(query, response, limit)
}

// maxAliases bounds the aliases that are followed from one name, as an alias of itself would not end.
const maxAliases = 8

// resolve answers a query, to whose name so many aliases have led.
func (s *Server) resolve(ctx context.Context, query *dns.Msg, aliases int) *dns.Msg {
	question := query.Question[0]
	if refused := s.refuse(query); refused != nil {
		return refused
	}
	name := canonical(question.Name)
	found, known, err := s.options.Lookup(ctx, name)
	switch {
	case err != nil && s.mayBeService(name):
		// To say that it does not exist would be believed, and remembered.
		s.failed.Add(1)
		return failure(query, dns.RcodeServerFailure)
	case known && s.isOurs(question.Qtype, name):
		s.answered.Add(1)
		if found.Alias != "" {
			return s.alias(ctx, query, found, aliases)
		}
		return s.records(query, found)
	case !known && s.inCluster(name):
		s.answered.Add(1)
		return s.negative(query, dns.RcodeNameError)
	default:
		return s.forward(ctx, query)
	}
}

// refuse answers what no part of the mesh serves: other classes than the Internet's, zone transfers and unknown EDNS versions.
func (s *Server) refuse(query *dns.Msg) *dns.Msg {
	question := query.Question[0]
	code := dns.RcodeSuccess
	switch opt := query.IsEdns0(); {
	case opt != nil && opt.Version() != 0:
		code = dns.RcodeBadVers // RFC 6891, section 6.1.3
	case question.Qclass != dns.ClassINET, question.Qtype == dns.TypeAXFR, question.Qtype == dns.TypeIXFR:
		code = dns.RcodeRefused
	default:
		return nil
	}
	s.refused.Add(1)
	return failure(query, code)
}

// isOurs reports whether the mesh answers this kind of question for a name it knows. Of names outside of the cluster (external
// services) it knows the addresses only, so mail and text records come from upstream. HTTPS and SVCB records stay ours: their
// address hints would lead clients past the virtual address.
func (s *Server) isOurs(kind uint16, name string) bool {
	switch kind {
	case dns.TypeA, dns.TypeAAAA, dns.TypeANY, dns.TypeHTTPS, dns.TypeSVCB:
		return true
	default:
		return s.inCluster(name) || !strings.Contains(name, ".")
	}
}

func (s *Server) inCluster(name string) bool {
	return strings.HasSuffix(name, s.suffix) || name == s.options.ClusterDomain
}

// mayBeService reports whether a name has the form of a service's: "reviews" or "reviews.default.svc.cluster.local". Of other names
// in the cluster, most are made by resolvers that append their search domains to external names; a failure would end that search.
func (s *Server) mayBeService(name string) bool {
	labels := strings.Split(name, ".")
	return len(labels) == 1 || len(labels) > 3 && labels[2] == "svc" && strings.Join(labels[3:], ".") == s.options.ClusterDomain
}

// records answers with the addresses of the kind asked for. A name without any of that kind exists all the same: NOERROR without
// records, or clients would take the name for missing (RFC 4074, section 4.2).
func (s *Server) records(query *dns.Msg, found Answer) *dns.Msg {
	question := query.Question[0]
	ttl := found.TTL
	if ttl <= 0 {
		ttl = s.options.TTL
	}
	r := reply(query)
	for _, address := range found.Addrs {
		address = address.Unmap()
		header := dns.RR_Header{Name: question.Name, Class: dns.ClassINET, Ttl: seconds(ttl)}
		switch {
		case address.Is4() && (question.Qtype == dns.TypeA || question.Qtype == dns.TypeANY):
			header.Rrtype = dns.TypeA
			r.Answer = append(r.Answer, &dns.A{Hdr: header, A: address.AsSlice()})
		case address.Is6() && (question.Qtype == dns.TypeAAAA || question.Qtype == dns.TypeANY):
			header.Rrtype = dns.TypeAAAA
			r.Answer = append(r.Answer, &dns.AAAA{Hdr: header, AAAA: address.AsSlice()})
		}
	}
	if len(r.Answer) == 0 {
		return s.negative(query, dns.RcodeSuccess)
	}
	return r
}

// alias answers with the canonical name, and with the records that this one has (RFC 1034, section 3.6.2).
func (s *Server) alias(ctx context.Context, query *dns.Msg, found Answer, aliases int) *dns.Msg {
	question := query.Question[0]
	if aliases == maxAliases {
		s.failed.Add(1)
		return failure(query, dns.RcodeServerFailure)
	}
	ttl := found.TTL
	if ttl <= 0 {
		ttl = s.options.TTL
	}
	target := dns.Fqdn(found.Alias)
	record := &dns.CNAME{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeCNAME, Class: dns.ClassINET, Ttl: seconds(ttl)}, Target: target}
	r := reply(query)
	if question.Qtype != dns.TypeCNAME && question.Qtype != dns.TypeANY {
		further := query.Copy()
		further.Question[0].Name = target
		r = s.resolve(ctx, further, aliases+1)
		r.Question = query.Question
		r.Authoritative = false
	}
	r.Answer = append([]dns.RR{record}, r.Answer...)
	return r
}

// negative carries the SOA record that says for how long the absence may be believed (RFC 2308, section 3).
func (s *Server) negative(query *dns.Msg, code int) *dns.Msg {
	r := failure(query, code)
	r.Authoritative = true
	zone := s.options.ClusterDomain
	if name := canonical(query.Question[0].Name); !s.inCluster(name) {
		zone = name
	}
	ttl := seconds(s.options.TTL)
	r.Ns = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: dns.Fqdn(zone), Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:  "ns.dns." + dns.Fqdn(s.options.ClusterDomain), Mbox: "hostmaster." + dns.Fqdn(s.options.ClusterDomain),
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}}
	return r
}

func (s *Server) forward(ctx context.Context, query *dns.Msg) *dns.Msg {
	if s.options.Forward == nil {
		s.refused.Add(1)
		return failure(query, dns.RcodeRefused)
	}
	upstream, err := s.options.Forward(ctx, query.Copy())
	if err != nil || upstream == nil {
		s.failed.Add(1)
		return failure(query, dns.RcodeServerFailure)
	}
	s.forwarded.Add(1)
	r := reply(query)
	r.Rcode, r.Authoritative, r.Truncated = upstream.Rcode, upstream.Authoritative, upstream.Truncated
	r.AuthenticatedData = upstream.AuthenticatedData
	r.Answer, r.Ns = upstream.Answer, upstream.Ns
	r.Extra = withoutOPT(upstream.Extra)
	return r
}

// finish makes a response fit for its query: EDNS if the query had it (RFC 6891, section 6.1.1), and no longer than limit.
func finish(query, response *dns.Msg, limit int) *dns.Msg {
	if opt := query.IsEdns0(); opt != nil {
		response.SetEdns0(maxUDP, opt.Do())
	} else {
		response.Rcode &= 0xf // the upper bits travel in EDNS only
	}
	response.Truncate(limit)
	return response
}

func reply(query *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(query)
	r.RecursionAvailable = true // stub resolvers insist on it
	return r
}

func failure(query *dns.Msg, code int) *dns.Msg {
	r := reply(query)
	r.Rcode = code
	return r
}

func withoutOPT(records []dns.RR) []dns.RR {
	kept := make([]dns.RR, 0, len(records)+1) // and one for ours
	for _, rr := range records {
		if rr.Header().Rrtype != dns.TypeOPT {
			kept = append(kept, rr)
		}
	}
	return kept
}

// canonical gives the form in which names are looked up.
func canonical(name string) string {
	return strings.ToLower(strings.TrimSuffix(name, "."))
}

func seconds(d time.Duration) uint32 {
	const longest = 1 << 31 // RFC 2181, section 8
	return uint32(min(max((d+time.Second-1)/time.Second, 1), longest-1))
}
