package explain

import (
	"fmt"
	"time"

	"github.com/weftmesh/weft/internal/explain/chance"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

// Report is the answer. Parts that the request does not get to are empty.
type Report struct {
	Request Request `json:"request"`
	From    Party   `json:"from"`
	// Listener is what the client's proxy resolves the destination by; Protocol is "http", "tls", "tcp" or
	// "udp".
	Listener string `json:"listener,omitempty"`
	Protocol string `json:"protocol,omitempty"`
	Chain    string `json:"chain,omitempty"`
	// TLS is what a gateway shows to clients whose TLS it ends, and asks of them.
	TLS string `json:"tls,omitempty"`
	// Policy is what the client's own proxy says; only gateways have one.
	Policy *Verdict `json:"policy,omitempty"`
	// RouteTable and Domain (of the virtual host that took the authority), and all routes that were tried; the last one matches if
	// Route is set.
	RouteTable string `json:"routeTable,omitempty"`
	Domain     string `json:"domain,omitempty"`
	Tried      []Try  `json:"tried,omitempty"`
	Route      *Route `json:"route,omitempty"`
	// Before are routes that take a share of such requests before Route gets the rest.
	Before []Portion `json:"before,omitempty"`
	// Destinations are the clusters that the request may go to, with their shares.
	Destinations []Destination `json:"destinations,omitempty"`
	// Limits are the rate limits of the client's own proxy that count the request; only gateways have any.
	Limits []Limit `json:"limits,omitempty"`
	// Location is where a redirect leads.
	Location string `json:"location,omitempty"`
	// Tunnel is what the destinations, which are proxies then, are asked for before bytes are relayed.
	Tunnel string `json:"tunnel,omitempty"`
	// Outcome is "forward", "redirect", "respond", "pass through", "refuse"; Status is the answer's where it is known (0: the
	// upstream's).
	Outcome string `json:"outcome"`
	Status  int    `json:"status,omitempty"`
	// Flag is the response flag of the access log ("NR", "UH", ...).
	Flag    string `json:"flag,omitempty"`
	Summary string `json:"summary"`
	// Notes are what the question leaves out and the asker should know.
	Notes []string `json:"notes,omitempty"`
	// Problems are things that are wrong, whether or not they stop this request.
	Problems []string `json:"problems,omitempty"`
}

// Party is a proxy's workload.
type Party struct {
	Workload  string `json:"workload"`
	Instance  string `json:"instance"`
	Namespace string `json:"namespace"`
	Identity  string `json:"identity"`
	Gateway   bool   `json:"gateway,omitempty"`
}

// Portion is the share of such requests, 0 to 1, that a route takes. Status is the answer, or 0 where the route forwards them.
type Portion struct {
	Share  float64 `json:"share"`
	Route  string  `json:"route"`
	Status int     `json:"status,omitempty"`
}

// String says it in words: "50% of such requests are answered with 500".
func (p Portion) String() string {
	if p.Status == 0 {
		return percent(p.Share) + " of such requests take route " + p.Route
	}
	return fmt.Sprintf("%s of such requests are answered with %d", percent(p.Share), p.Status)
}

// Try is one route and why it was not taken.
type Try struct {
	Name    string `json:"name"`
	Object  string `json:"object,omitempty"`
	Field   string `json:"field,omitempty"`
	Matched bool   `json:"matched"`
	// Condition that failed first, what it wants and what the request has.
	Condition string `json:"condition,omitempty"`
	Want      string `json:"want,omitempty"`
	Got       string `json:"got,omitempty"`
}

// Route is the chosen route.
type Route struct {
	Name    string   `json:"name"`
	Object  string   `json:"object,omitempty"`
	Field   string   `json:"field,omitempty"`
	Fault   []string `json:"fault,omitempty"`
	Timeout string   `json:"timeout,omitempty"`
	Retries string   `json:"retries,omitempty"`
	// Changes are rewrites and header changes, in words.
	Changes []string `json:"changes,omitempty"`
	Mirrors []string `json:"mirrors,omitempty"`

	Conf *conf.Route `json:"-"` // as the proxy has it
	path string      // that comes of a rewrite, with the query; Destination.Sent has it too
}

// Destination is one cluster.
type Destination struct {
	Cluster string  `json:"cluster"`
	Share   float64 `json:"share"` // 0 to 1
	Service string  `json:"service,omitempty"`
	Subset  string  `json:"subset,omitempty"`
	Port    uint16  `json:"port,omitempty"`
	// Missing says that there is no such cluster: 503 NC.
	Missing   bool       `json:"missing,omitempty"`
	noPort    bool       // of them: the service exists, and has no such port
	Dynamic   bool       `json:"dynamic,omitempty"` // goes wherever the client was connecting to
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	Ready     int        `json:"ready"`
	// Ejects says that the client's proxy may have ejected endpoints (outlier detection), but could not be asked: State and Share know
	// nothing of that.
	Ejects bool `json:"ejects,omitempty"`
	// Transport is how endpoints are reached, in words; mTLS whether it is the mesh's mutual TLS for all of them.
	Transport string `json:"transport,omitempty"`
	MTLS      bool   `json:"mtls"`
	Policy    string `json:"balancing,omitempty"`
	// HTTP is the version that endpoints are spoken to in where that is told: "HTTP/2".
	HTTP string `json:"http,omitempty"`
	// Inbound is what the proxy of the endpoint that gets the most requests does; nil when it has none.
	Inbound *Inbound `json:"inbound,omitempty"`
	// Ways are what becomes of requests, by the endpoint that they come to: one for all endpoints that treat them alike. The first is
	// that of Inbound.
	Ways []Way `json:"ways,omitempty"`
	// Changes are those of header fields that concern this destination alone; Sent is the request as it is sent there.
	Changes []string `json:"changes,omitempty"`
	Sent    *Sent    `json:"sent,omitempty"`
	// Failing is the part of its requests that fail at its endpoints, 0 to 1, once those that the proxy repeats were repeated.
	Failing float64 `json:"failing,omitempty"`

	Conf  *conf.Cluster `json:"-"` // as the proxy has it; nil where it has none
	panic bool          // endpoints are used though none is ready
	named int           // of Ready: those that the proxy looks up
	// again is how requests are tried again; last is a way like which all of them end, where all fail; nil where chance decides.
	again chance.Again
	last  *Way
}

// LookedUp is the state of an endpoint by name: the proxy finds out in use whether that leads anywhere.
const LookedUp = "looked up in DNS"

// Endpoint is an instance.
type Endpoint struct {
	Address  string `json:"address"`
	Workload string `json:"workload,omitempty"`
	Instance string `json:"instance,omitempty"`
	State    string `json:"state"`         // "ready", "not ready", "draining", "ejected", LookedUp
	Why      string `json:"why,omitempty"` // it is ejected
	Mesh     bool   `json:"mesh"`
	// Priority counts from 0, the most wanted; Locality is "region/zone/subzone". Share is the part of the destination's requests
	// that come here, 0 to 1, as long as all that is ready answers well.
	Priority uint32  `json:"priority"`
	Locality string  `json:"locality,omitempty"`
	Share    float64 `json:"share"`
}

func (e *Endpoint) ready() bool { return e.State == "ready" || e.State == LookedUp }

// Way is how some of a destination's endpoints are reached, and what becomes of requests there.
type Way struct {
	// Share is the part of the destination's requests that takes this way, 0 to 1.
	Share float64 `json:"share"`
	// Endpoints counts those that are alike; Instances and Workloads name them, each once. An endpoint that is nobody's is named by
	// its address.
	Endpoints int      `json:"endpoints"`
	Instances []string `json:"instances"`
	Workloads []string `json:"workloads"`
	Transport string   `json:"transport"`
	MTLS      bool     `json:"mtls"`
	// Inbound is what the proxy of the first of them does; nil where there is none.
	Inbound *Inbound `json:"inbound,omitempty"`
	// Status and Flag are what the client's proxy makes of an attempt that fails there; 0 and empty where it succeeds. Retried says that
	// it makes another one.
	Status  int    `json:"status,omitempty"`
	Flag    string `json:"flag,omitempty"`
	Retried bool   `json:"retried,omitempty"`

	unsafe string // the method that keeps it from being retried
}

// Inbound is the destination's side.
type Inbound struct {
	Party Party  `json:"party"`
	Port  uint16 `json:"port"`
	// To is where the proxy takes what it lets in, if that is not the port at the instance itself.
	To      string `json:"to,omitempty"`
	Chain   string `json:"chain,omitempty"`
	Refused string `json:"refused,omitempty"` // why no chain takes the connection
	// Plaintext says that the connection comes without identity.
	Plaintext bool `json:"plaintext,omitempty"`
	// Relayed says that bytes are let in, not requests: what policies deny is a connection, which is closed without an answer.
	Relayed bool    `json:"relayed,omitempty"`
	Verdict Verdict `json:"verdict"`
	// Limits are the rate limits that count the request.
	Limits []Limit `json:"limits,omitempty"`

	unshaken bool // what closes the connection does so before a TLS handshake is complete
}

// Sent is a request as it leaves the client's proxy.
type Sent struct {
	Path      string  `json:"path"` // with the query
	Authority string  `json:"authority"`
	Headers   []Field `json:"headers,omitempty"`
}

// Limit is a rate limit that counts a request.
type Limit struct {
	Object string `json:"object,omitempty"` // empty where the proxy cannot tell
	Rule   string `json:"rule,omitempty"`
	// Text says how many, and what becomes of the rest; Each what has a limit of its own for each value, with the request's.
	Text   string  `json:"text"`
	Each   []Field `json:"each,omitempty"`
	DryRun bool    `json:"dryRun,omitempty"`
}

// Verdict is what the policies say.
type Verdict struct {
	Allowed bool   `json:"allowed"`
	Rule    string `json:"rule"`             // in words
	Policy  string `json:"policy,omitempty"` // that decided
	DryRun  string `json:"dryRun,omitempty"` // what policies in dry run would have done
	// Missed are, where no ALLOW policy matches, the policies that there are and why each does not.
	Missed []Miss `json:"missed,omitempty"`
}

// Miss is a policy that does not match.
type Miss struct {
	Policy string `json:"policy"`
	Why    string `json:"why"`
}

func (p *Proxy) describe() Party {
	return Party{Workload: p.Workload, Instance: p.Name, Namespace: p.Namespace, Identity: p.Identity.String(), Gateway: p.Role == "router"}
}

// duration writes durations as people do, 0 as "none".
func duration(d time.Duration) string {
	if d == 0 {
		return "none"
	}
	return d.String()
}

var balancings = map[conf.Balancing]string{
	conf.RoundRobin: "round robin", conf.LeastRequest: "least requests", conf.Random: "random", conf.RingHash: "ring hash", conf.Maglev: "maglev",
	conf.PeakEWMA: "least latency times load (PEAK_EWMA)", conf.Probing: "least latency of the little loaded (PROBING)",
}
