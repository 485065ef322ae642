package routing

import (
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// The retries of routes that do not speak of them: as Istio's, without the codes of gRPC, by which a call that may have been acted on
// would be repeated unasked, plus connections that the server closed before it saw the request, and requests that ask for nothing to be
// done whose endpoint died. Envoys do not know the last one, and pass over it.
const (
	defaultRetryOn      = "connect-failure,refused-stream,reset-before-request,safe-reset"
	defaultRetries      = 2
	hostSelectionTrials = 5
	triesOfPriority     = 2 // before the next one is preferred, as Istio has it
)

// previousHosts is the same for every route.
var previousHosts = message.Pack(&previoushostsv3.PreviousHostsPredicate{})

// Retries say when and how often a request is tried again.
func Retries(r *model.Retries) *routev3.RetryPolicy {
	if r == nil {
		r = &model.Retries{Attempts: defaultRetries}
	}
	if r.Attempts == 0 {
		return nil
	}
	out := &routev3.RetryPolicy{
		RetryOn:    defaultRetryOn,
		NumRetries: wrapperspb.UInt32(r.Attempts),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: previousHosts},
		}},
		HostSelectionRetryMaxAttempts: hostSelectionTrials,
	}
	if r.SameHosts {
		out.RetryHostPredicate, out.HostSelectionRetryMaxAttempts = nil, 0
	}
	if r.RetryOn != "" {
		out.RetryOn, out.RetriableStatusCodes = retryOn(r.RetryOn)
	}
	if r.PerTryTimeout > 0 {
		out.PerTryTimeout = durationpb.New(r.PerTryTimeout)
	}
	if r.BackOff > 0 {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.BackOff)}
	}
	if r.RemoteLocalities {
		out.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: message.Pack(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: triesOfPriority})},
		}
	}
	return out
}

// retryOn takes the status codes out of the conditions; Envoy wants them in a list of their own.
func retryOn(conditions string) (string, []uint32) {
	var names []string
	var statuses []uint32
	for _, c := range strings.Split(conditions, ",") {
		c = strings.TrimSpace(c)
		if n, err := strconv.ParseUint(c, 10, 16); err == nil {
			statuses = append(statuses, uint32(n))
		} else if c != "" {
			names = append(names, c)
		}
	}
	const byStatus = "retriable-status-codes"
	if len(statuses) > 0 && !slices.Contains(names, byStatus) {
		names = append(names, byStatus)
	}
	return strings.Join(names, ","), statuses
}
