package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

// patience bounds waits for answers.
const patience = 2 * time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var names = map[string]Answer{
	"reviews":                           {Addrs: addrs("240.0.0.1")},
	"reviews.default.svc.cluster.local": {Addrs: addrs("240.0.0.1")},
	"both.default.svc.cluster.local":    {Addrs: addrs("240.0.0.2", "fd00::2"), TTL: time.Minute},
	"six.default.svc.cluster.local":     {Addrs: addrs("fd00::3")},
	"empty.default.svc.cluster.local":   {},
	"api.example.com":                   {Addrs: addrs("240.0.0.9")},
	"many.default.svc.cluster.local":    {Addrs: manyAddrs(120)},
	"out":                               {Alias: "www.example.com"},
	"out.default.svc.cluster.local":     {Alias: "www.example.com", TTL: time.Minute},
	"twice.default.svc.cluster.local":   {Alias: "out.default.svc.cluster.local"},
	"known.default.svc.cluster.local":   {Alias: "api.example.com"},
	"nowhere.default.svc.cluster.local": {Alias: "absent.default.svc.cluster.local"},
	"loop.default.svc.cluster.local":    {Alias: "loop.default.svc.cluster.local"},
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func manyAddrs(n int) (out []netip.Addr) {
	for i := range n {
		out = append(out, netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}))
	}
	return out
}

func lookup(_ context.Context, name string) (Answer, bool, error) {
	a, ok := names[name]
	return a, ok, nil
}

// start runs a server on sockets of its own and gives their address, the same port number not being needed.
func start(t *testing.T, o Options) (server *Server, udp, tcp string) {
	t.Helper()
	if o.Lookup == nil {
		o.Lookup = lookup
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, pc, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, pc.LocalAddr().String(), l.Addr().String()
}

func ask(t *testing.T, network, server string, query *dns.Msg) *dns.Msg {
	t.Helper()
	client := &dns.Client{Net: network, Timeout: patience}
	r, _, err := client.Exchange(query, server)
	if err != nil {
		t.Fatalf("%s query %v: %v", network, query.Question, err)
	}
	return r
}

func question(name string, kind uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), kind)
}

func brief(r *dns.Msg) string {
	var parts []string
	for _, rr := range r.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			parts = append(parts, rr.A.String())
		case *dns.AAAA:
			parts = append(parts, rr.AAAA.String())
		default:
			parts = append(parts, rr.String())
		}
	}
	return strings.TrimSpace(dns.RcodeToString[r.Rcode] + " " + strings.Join(parts, " "))
}

func TestAnswers(t *testing.T) {
	forward := func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		r := new(dns.Msg).SetReply(q)
		r.Id++ // the server restores the id
		rr, err := dns.NewRR(q.Question[0].Name + ` 60 IN TXT "upstream"`)
		r.Answer = append(r.Answer, rr)
		return r, err
	}
	_, udp, tcp := start(t, Options{Forward: forward})
	upstream := func(name string) string { return "NOERROR " + name + ".\t60\tIN\tTXT\t\"upstream\"" }
	for _, c := range []struct {
		name string
		kind uint16
		want string
	}{
		{"reviews", dns.TypeA, "NOERROR 240.0.0.1"},
		{"REVIEWS.default.SVC.cluster.local", dns.TypeA, "NOERROR 240.0.0.1"},
		{"reviews.default.svc.cluster.local", dns.TypeAAAA, "NOERROR"},
		{"both.default.svc.cluster.local", dns.TypeA, "NOERROR 240.0.0.2"},
		{"both.default.svc.cluster.local", dns.TypeAAAA, "NOERROR fd00::2"},
		{"both.default.svc.cluster.local", dns.TypeANY, "NOERROR 240.0.0.2 fd00::2"},
		{"both.default.svc.cluster.local", dns.TypeMX, "NOERROR"},
		{"six.default.svc.cluster.local", dns.TypeA, "NOERROR"},
		{"empty.default.svc.cluster.local", dns.TypeA, "NOERROR"},
		{"absent.default.svc.cluster.local", dns.TypeA, "NXDOMAIN"},
		{"cluster.local", dns.TypeA, "NXDOMAIN"},
		{"notcluster.local", dns.TypeTXT, upstream("notcluster.local")},
		{"api.example.com", dns.TypeA, "NOERROR 240.0.0.9"},
		{"api.example.com", dns.TypeHTTPS, "NOERROR"},
		{"api.example.com", dns.TypeTXT, upstream("api.example.com")},
		{"www.example.com", dns.TypeTXT, upstream("www.example.com")},
	} {
		for network, server := range map[string]string{"udp": udp, "tcp": tcp} {
			t.Run(fmt.Sprintf("%s/%s/%s", network, c.name, dns.TypeToString[c.kind]), func(t *testing.T) {
				q := question(c.name, c.kind)
				r := ask(t, network, server, q)
				if got := brief(r); got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
				if r.Question[0] != q.Question[0] || r.Id != q.Id || !r.RecursionAvailable {
					t.Errorf("the answer's head does not fit the query: %v", r)
				}
				if local := !strings.Contains(c.want, "upstream"); local && len(r.Answer) == 0 && (len(r.Ns) != 1 || r.Ns[0].Header().Rrtype != dns.TypeSOA) {
					t.Errorf("a negative answer has no SOA: %v", r.Ns)
				}
			})
		}
	}
}

// TestAliases asks for names that are further ones for others, of the mesh or from outside.
func TestAliases(t *testing.T) {
	_, udp, _ := start(t, Options{Forward: func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		r := new(dns.Msg).SetReply(q)
		if q.Question[0].Name != "www.example.com." {
			r.Rcode = dns.RcodeNameError
			return r, nil
		}
		text := map[uint16]string{dns.TypeA: "A 192.0.2.1", dns.TypeAAAA: "AAAA 2001:db8::1", dns.TypeTXT: "TXT x"}[q.Question[0].Qtype]
		rr, err := dns.NewRR("www.example.com. 60 IN " + text)
		r.Answer = append(r.Answer, rr)
		return r, err
	}})
	for _, c := range []struct {
		name string
		kind uint16
		want string // the answers without their first name, class and time
	}{
		{"out", dns.TypeA, "NOERROR CNAME www.example.com., A 192.0.2.1"},
		{"OUT.default.svc.cluster.local", dns.TypeA, "NOERROR CNAME www.example.com., A 192.0.2.1"},
		{"out.default.svc.cluster.local", dns.TypeAAAA, "NOERROR CNAME www.example.com., AAAA 2001:db8::1"},
		{"out.default.svc.cluster.local", dns.TypeTXT, `NOERROR CNAME www.example.com., TXT "x"`},
		{"out.default.svc.cluster.local", dns.TypeCNAME, "NOERROR CNAME www.example.com."},
		{"twice.default.svc.cluster.local", dns.TypeA, "NOERROR CNAME out.default.svc.cluster.local., CNAME www.example.com., A 192.0.2.1"},
		{"known.default.svc.cluster.local", dns.TypeA, "NOERROR CNAME api.example.com., A 240.0.0.9"},
		{"nowhere.default.svc.cluster.local", dns.TypeA, "NXDOMAIN CNAME absent.default.svc.cluster.local."},
		{"loop.default.svc.cluster.local", dns.TypeA, "SERVFAIL" + strings.Repeat(" CNAME loop.default.svc.cluster.local.,", maxAliases-1) + " CNAME loop.default.svc.cluster.local."},
	} {
		r := ask(t, "udp", udp, question(c.name, c.kind))
		var parts []string
		for _, rr := range r.Answer {
			parts = append(parts, strings.Join(strings.Fields(rr.String())[3:], " "))
		}
		if got := strings.TrimSpace(dns.RcodeToString[r.Rcode] + " " + strings.Join(parts, ", ")); got != c.want {
			t.Errorf("%s %s: got %q, want %q", c.name, dns.TypeToString[c.kind], got, c.want)
		}
		if r.Question[0].Name != dns.Fqdn(c.name) {
			t.Errorf("%s: the answer is to %s", c.name, r.Question[0].Name)
		}
	}
}

// TestLookupFails checks that of a service that may be there it is not said that there is none, and that the searches of resolvers
// for external names go on.
func TestLookupFails(t *testing.T) {
	away := func(_ context.Context, name string) (Answer, bool, error) {
		if a, ok := names[name]; ok {
			return a, true, nil
		}
		return Answer{}, false, errors.New("control plane unreachable")
	}
	forward := func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		r := new(dns.Msg).SetReply(q)
		rr, err := dns.NewRR(q.Question[0].Name + " 60 IN A 192.0.2.1")
		r.Answer = append(r.Answer, rr)
		return r, err
	}
	s, udp, _ := start(t, Options{Lookup: away, Forward: forward})
	for name, want := range map[string]string{
		"reviews.default.svc.cluster.local":         "NOERROR 240.0.0.1",
		"ratings.default.svc.cluster.local":         "SERVFAIL",
		"ratings":                                   "SERVFAIL",
		"ratings.svc.cluster.local":                 "NXDOMAIN",
		"ratings.cluster.local":                     "NXDOMAIN",
		"ratings.default.default.svc.cluster.local": "NXDOMAIN",
		"www.example.com.default.svc.cluster.local": "NXDOMAIN",
		"www.example.com.svc.cluster.local":         "NXDOMAIN",
		"www.example.com":                           "NOERROR 192.0.2.1",
		"a.b.svc.example.com":                       "NOERROR 192.0.2.1",
	} {
		if got := brief(ask(t, "udp", udp, question(name, dns.TypeA))); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	if got := s.Stats(); got.Failed != 2 || got.Answered != 6 || got.Forwarded != 2 {
		t.Errorf("stats %+v", got)
	}
}

// wireLen is the length with names compressed, as the server sends it.
func wireLen(t *testing.T, m *dns.Msg) int {
	t.Helper()
	m.Compress = true
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return len(packet)
}

func TestTTL(t *testing.T) {
	_, udp, _ := start(t, Options{TTL: 7 * time.Second})
	if got := ask(t, "udp", udp, question("reviews", dns.TypeA)).Answer[0].Header().Ttl; got != 7 {
		t.Errorf("default TTL is %d, want 7", got)
	}
	if got := ask(t, "udp", udp, question("both.default.svc.cluster.local", dns.TypeA)).Answer[0].Header().Ttl; got != 60 {
		t.Errorf("the answer's own TTL is %d, want 60", got)
	}
}

func TestTruncation(t *testing.T) {
	_, udp, tcp := start(t, Options{})
	plain := question("many.default.svc.cluster.local", dns.TypeA)
	cut := ask(t, "udp", udp, plain)
	if !cut.Truncated || wireLen(t, cut) > dns.MinMsgSize || len(cut.Answer) == 0 {
		t.Errorf("without EDNS: truncated=%v, %d bytes, %d records", cut.Truncated, wireLen(t, cut), len(cut.Answer))
	}
	client := &dns.Client{Net: "udp", UDPSize: 4096}
	larger, _, err := client.Exchange(plain.Copy().SetEdns0(4096, false), udp)
	if err != nil {
		t.Fatal(err)
	}
	if len(larger.Answer) <= len(cut.Answer) || larger.IsEdns0() == nil || !larger.Truncated || wireLen(t, larger) > maxUDP {
		t.Errorf("with EDNS of 4096: %d records, truncated=%v, %d bytes", len(larger.Answer), larger.Truncated, wireLen(t, larger))
	}
	if whole := ask(t, "tcp", tcp, plain); whole.Truncated || len(whole.Answer) != 120 {
		t.Errorf("over TCP: %d records, truncated=%v", len(whole.Answer), whole.Truncated)
	}
}

func TestRefused(t *testing.T) {
	s, udp, tcp := start(t, Options{})
	chaos := question("version.bind", dns.TypeTXT)
	chaos.Question[0].Qclass = dns.ClassCHAOS
	two := question("reviews", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	notify := question("reviews", dns.TypeA)
	notify.Opcode = dns.OpcodeNotify
	version := question("reviews", dns.TypeA).SetEdns0(1400, false)
	version.IsEdns0().SetVersion(1)
	for _, c := range []struct {
		name  string
		query *dns.Msg
		want  int
	}{
		{"class", chaos, dns.RcodeRefused},
		{"transfer", question("cluster.local", dns.TypeAXFR), dns.RcodeRefused},
		{"two questions", two, dns.RcodeFormatError},
		{"no question", new(dns.Msg), dns.RcodeFormatError},
		{"opcode", notify, dns.RcodeNotImplemented},
		{"EDNS version", version, dns.RcodeBadVers},
		{"no upstream", question("www.example.com", dns.TypeA), dns.RcodeRefused},
	} {
		t.Run(c.name, func(t *testing.T) {
			for network, server := range map[string]string{"udp": udp, "tcp": tcp} {
				if r := ask(t, network, server, c.query); r.Rcode != c.want {
					t.Errorf("%s: got %s, want %s", network, dns.RcodeToString[r.Rcode], dns.RcodeToString[c.want])
				}
			}
		})
	}
	if got := s.Stats(); got.Refused != 10 || got.Malformed != 4 {
		t.Errorf("stats %+v, want 10 refused and 4 malformed", got)
	}
}

// Answers and noise are dropped, and the server still serves afterwards.
func TestNoise(t *testing.T) {
	s, udp, tcp := start(t, Options{})
	c, err := net.Dial("udp", udp)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	response := question("reviews", dns.TypeA)
	response.Response = true
	packed, err := response.Pack()
	if err != nil {
		t.Fatal(err)
	}
	cut, err := question("reviews", dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, packet := range [][]byte{packed, {1, 2, 3}, cut[:len(cut)-3], make([]byte, 5000)} {
		if _, err := c.Write(packet); err != nil {
			t.Fatal(err)
		}
	}
	stream, err := net.Dial("tcp", tcp)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write([]byte{0xff, 0xff, 1}); err != nil { // a frame that never comes whole
		t.Fatal(err)
	}
	defer func() { _ = stream.Close() }()
	if got := brief(ask(t, "udp", udp, question("reviews", dns.TypeA))); got != "NOERROR 240.0.0.1" {
		t.Errorf("after noise: %s", got)
	}
	if got := s.Stats(); got.Queries != 1 {
		t.Errorf("stats %+v, want one query", got)
	}
}

func TestForwardFailures(t *testing.T) {
	forward := func(ctx context.Context, q *dns.Msg) (*dns.Msg, error) {
		switch q.Question[0].Name {
		case "error.example.":
			return nil, errors.New("no route")
		case "nil.example.":
			return nil, nil
		case "unpackable.example.":
			r := new(dns.Msg).SetReply(q)
			r.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: strings.Repeat("a", 64) + ".", Rrtype: dns.TypeTXT, Class: 1}}}
			return r, nil
		default:
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	s, udp, _ := start(t, Options{Forward: forward, Timeout: 50 * time.Millisecond})
	for _, name := range []string{"error.example", "nil.example", "unpackable.example", "slow.example"} {
		if r := ask(t, "udp", udp, question(name, dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %s, want SERVFAIL", name, dns.RcodeToString[r.Rcode])
		}
	}
	if got := s.Stats().Failed; got != 4 {
		t.Errorf("%d failures counted, want 4", got)
	}
}

func TestOverload(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	forward := func(_ context.Context, q *dns.Msg) (*dns.Msg, error) {
		close(entered)
		<-release
		return new(dns.Msg).SetReply(q), nil
	}
	s, udp, _ := start(t, Options{Forward: forward, MaxQueries: 1, Timeout: time.Minute})
	first := make(chan *dns.Msg, 1)
	go func() {
		r, _, err := (&dns.Client{Timeout: patience}).Exchange(question("a.example", dns.TypeA), udp)
		if err != nil {
			t.Error(err)
		}
		first <- r
	}()
	<-entered
	if r := ask(t, "udp", udp, question("reviews", dns.TypeA)); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("over the bound: %s, want SERVFAIL", dns.RcodeToString[r.Rcode])
	}
	close(release)
	if r := <-first; r == nil || r.Rcode != dns.RcodeSuccess {
		t.Errorf("the query under way got %v", r)
	}
	if got := s.Stats().Overload; got != 1 {
		t.Errorf("%d overloads counted, want 1", got)
	}
}

// A socket that the caller closes ends Serve with an error rather than silently.
func TestSocketFailure(t *testing.T) {
	s, err := New(Options{Lookup: lookup})
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(t.Context(), pc, nil) }()
	ask(t, "udp", pc.LocalAddr().String(), question("reviews", dns.TypeA))
	_ = pc.Close()
	if err := <-ended; err == nil {
		t.Error("Serve returned nil though its socket was closed under it")
	}
}

func TestOptions(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("New without lookup: no error")
	}
	for _, servers := range [][]string{nil, {"localhost:53"}, {"127.0.0.1"}} {
		if _, err := NewUpstreams(servers, 0, nil); err == nil {
			t.Errorf("upstreams %q: no error", servers)
		}
	}
}

func TestUpstreams(t *testing.T) {
	behind := func(_ context.Context, name string) (Answer, bool, error) {
		if name == "big.example" {
			return Answer{Addrs: manyAddrs(200)}, true, nil
		}
		return Answer{Addrs: addrs("192.0.2.1")}, true, nil
	}
	// One port for both transports, as upstream servers have.
	var pc net.PacketConn
	var l net.Listener
	for range 50 {
		var err error
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if pc, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
			break
		}
		_ = l.Close()
	}
	backend, err := New(Options{Lookup: behind})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- backend.Serve(ctx, pc, l) }()
	defer func() { cancel(); <-ended }()

	// The first upstream refuses everything, the second says nothing at all, the third answers.
	_, refusing, _ := start(t, Options{Lookup: func(context.Context, string) (Answer, bool, error) { return Answer{}, false, nil }})
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	upstreams, err := NewUpstreams([]string{refusing, silent.LocalAddr().String(), l.Addr().String()}, 1500*time.Millisecond, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, udp, tcp := start(t, Options{Forward: upstreams.Exchange})
	got := ""
	for try := 0; try < 20 && got != "NOERROR 192.0.2.1"; try++ { // the last one's answer may be late as well
		got = brief(ask(t, "udp", udp, question("www.example", dns.TypeA)))
	}
	if got != "NOERROR 192.0.2.1" {
		t.Errorf("forwarded: %s", got)
	}
	if got := len(ask(t, "tcp", tcp, question("big.example", dns.TypeA)).Answer); got != 200 {
		t.Errorf("over TCP: %d of 200 records", got)
	}
	if r := ask(t, "udp", udp, question("big.example", dns.TypeA)); !r.Truncated {
		t.Error("over UDP: not truncated")
	}
	none, err := NewUpstreams([]string{refusing}, time.Second, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := none.Exchange(t.Context(), question("www.example", dns.TypeA)); err == nil {
		t.Error("an upstream that refuses: no error")
	}
}

func TestUpstreamCheck(t *testing.T) {
	query := question("www.example", dns.TypeA)
	right := new(dns.Msg).SetReply(query)
	if err := check(query, right); err != nil {
		t.Errorf("a right answer: %v", err)
	}
	other := new(dns.Msg).SetReply(question("evil.example", dns.TypeA))
	if err := check(query, other); err == nil {
		t.Error("an answer to another question is accepted")
	}
	if err := check(query, query); err == nil {
		t.Error("a query is accepted as an answer")
	}
}

func FuzzPacket(f *testing.F) {
	for _, m := range []*dns.Msg{
		question("reviews", dns.TypeA), question("many.default.svc.cluster.local", dns.TypeANY).SetEdns0(512, true),
		question("www.example.com", dns.TypeMX), question("x.cluster.local", dns.TypeAAAA),
	} {
		packet, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(packet)
	}
	echo := func(_ context.Context, q *dns.Msg) (*dns.Msg, error) { return q, nil }
	s, err := New(Options{Lookup: lookup, Forward: echo})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, packet []byte) {
		query := new(dns.Msg)
		if err := query.Unpack(packet); err != nil || query.Response || len(query.Question) != 1 {
			return
		}
		limit := udpLimit(query)
		out := s.packet(t.Context(), query, limit)
		if len(out) > limit {
			t.Fatalf("%d bytes, more than %d", len(out), limit)
		}
		r := new(dns.Msg)
		if err := r.Unpack(out); err != nil {
			t.Fatalf("the answer to %v cannot be read: %v", query, err)
		}
		if r.Id != query.Id || !r.Response {
			t.Fatalf("the answer does not fit: %v", r)
		}
	})
}
