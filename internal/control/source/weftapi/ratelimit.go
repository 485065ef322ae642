// Package weftapi holds the objects that are Weft's own, in the form in which users write them. They exist for what the objects of
// Istio and the Gateway API cannot say.
package weftapi

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// GroupNetworking and Version are those of RateLimit.
const (
	GroupNetworking = "networking.weft.dev"
	Version         = "v1alpha1"
)

// RateLimit limits the requests to workloads. Each proxy counts for itself, or a service that all of them ask does.
type RateLimit struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec RateLimitSpec `json:"spec"`
}

// RateLimitSpec says for whom, and how much.
type RateLimitSpec struct {
	// Selector picks workloads of the namespace, sidecars and gateways alike; none picks all. In the root namespace it is for all
	// namespaces.
	Selector *WorkloadSelector `json:"selector,omitempty"`
	// Service is asked about requests that rules describe to it; it knows the limits. Without it the limits are those of the rules.
	Service *RateLimitService `json:"service,omitempty"`
	// Rules all hold: a request is refused when it is over the limit of one.
	Rules []RateLimitRule `json:"rules"`
	// Status of refused requests, 400 to 599; 429 when 0.
	Status int32 `json:"status,omitempty"`
	// ReportQuota tells clients what is left, by the fields x-ratelimit-limit, x-ratelimit-remaining and x-ratelimit-reset.
	ReportQuota bool `json:"reportQuota,omitempty"`
}

// WorkloadSelector picks workloads that have all of the labels.
type WorkloadSelector struct {
	MatchLabels map[string]string `json:"matchLabels"`
}

// RateLimitRule is a limit for some requests.
type RateLimitRule struct {
	// Name is unique in the object.
	Name string `json:"name"`
	// Match picks requests; none picks all.
	Match *RateLimitMatch `json:"match,omitempty"`
	// Each gives each value of a key, or combination of values of several, a limit of its own. Requests without one of the keys are
	// not limited by the rule.
	Each  []RateLimitKey `json:"each,omitempty"`
	Limit RateLimitValue `json:"limit"`
	// Descriptor is how requests are described to a service, in place of Each and Limit. A request that lacks one of the values is not
	// described by the rule.
	Descriptor []RateLimitEntry `json:"descriptor,omitempty"`
	// DryRun counts and refuses nothing.
	DryRun bool `json:"dryRun,omitempty"`
}

// RateLimitService speaks the protocol of envoy.service.ratelimit.v3.
type RateLimitService struct {
	// Host is a service of the mesh, by its short name in the namespace or in full.
	Host string `json:"host"`
	Port uint32 `json:"port"`
	// Domain names the service's set of limits.
	Domain string `json:"domain"`
	// Timeout bounds the question, a duration; 20ms when empty.
	Timeout string `json:"timeout,omitempty"`
	// OnFailure says what becomes of requests of which the service says nothing in time: Allow, the default, or Deny.
	OnFailure string `json:"onFailure,omitempty"`
}

// RateLimitEntry is a part of a description: a value that is given, or one of the others. The key of ClientAddress is remote_address,
// with prefix lengths masked_remote_address, and not to be given.
type RateLimitEntry struct {
	Key          string `json:"key,omitempty"`
	Value        string `json:"value,omitempty"`
	RateLimitKey `json:",inline"`
}

// RateLimitMatch matches when each list that is not empty has a value that does.
type RateLimitMatch struct {
	Methods []string `json:"methods,omitempty"`
	// Paths are exact, or prefixes that end in "*". Queries do not count.
	Paths []string `json:"paths,omitempty"`
	// Headers all match.
	Headers []RateLimitHeader `json:"headers,omitempty"`
}

// RateLimitHeader is a condition on a field: one of Exact, Prefix and Regex, or presence when none is given.
type RateLimitHeader struct {
	Name   string `json:"name"`
	Exact  string `json:"exact,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	Regex  string `json:"regex,omitempty"`
}

// RateLimitKey is one of its fields.
type RateLimitKey struct {
	Header string `json:"header,omitempty"`
	Query  string `json:"query,omitempty"`
	// ClientAddress is the client's address, or its network if prefix lengths are given.
	ClientAddress *RateLimitNetwork `json:"clientAddress,omitempty"`
}

// RateLimitNetwork holds prefix lengths; 0 takes the whole address.
type RateLimitNetwork struct {
	IPv4PrefixLength uint32 `json:"ipv4PrefixLength,omitempty"`
	IPv6PrefixLength uint32 `json:"ipv6PrefixLength,omitempty"`
}

// RateLimitValue is a number of requests in a time.
type RateLimitValue struct {
	Requests uint32 `json:"requests"`
	// Per is a duration: "1s", "1m", "1h".
	Per string `json:"per"`
	// Burst is how many may come at once; 0 for as many as Requests.
	Burst uint32 `json:"burst,omitempty"`
}

// DeepCopyObject makes a RateLimit a Kubernetes object.
func (r *RateLimit) DeepCopyObject() runtime.Object {
	out := *r
	r.ObjectMeta.DeepCopyInto(&out.ObjectMeta)
	if s := r.Spec.Selector; s != nil {
		labels := make(map[string]string, len(s.MatchLabels))
		for k, v := range s.MatchLabels {
			labels[k] = v
		}
		out.Spec.Selector = &WorkloadSelector{MatchLabels: labels}
	}
	if s := r.Spec.Service; s != nil {
		service := *s
		out.Spec.Service = &service
	}
	out.Spec.Rules = nil
	for _, rule := range r.Spec.Rules {
		if m := rule.Match; m != nil {
			rule.Match = &RateLimitMatch{Methods: append([]string(nil), m.Methods...), Paths: append([]string(nil), m.Paths...),
				Headers: append([]RateLimitHeader(nil), m.Headers...)}
		}
		keys := append([]RateLimitKey(nil), rule.Each...)
		for i := range keys {
			if n := keys[i].ClientAddress; n != nil {
				network := *n
				keys[i].ClientAddress = &network
			}
		}
		rule.Each = keys
		rule.Descriptor = append([]RateLimitEntry(nil), rule.Descriptor...)
		for i := range rule.Descriptor {
			if n := rule.Descriptor[i].ClientAddress; n != nil {
				network := *n
				rule.Descriptor[i].ClientAddress = &network
			}
		}
		out.Spec.Rules = append(out.Spec.Rules, rule)
	}
	return &out
}
