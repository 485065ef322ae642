package routing

import (
	"math"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// CORS is what a route answers to other origins.
func CORS(c *model.CORS) *corsv3.CorsPolicy {
	out := &corsv3.CorsPolicy{
		AllowMethods: strings.Join(c.Methods, ","), AllowHeaders: strings.Join(c.Headers, ","), ExposeHeaders: strings.Join(c.Expose, ","),
		FilterEnabled: &corev3.RuntimeFractionalPercent{DefaultValue: Percent(100)},
	}
	for _, o := range c.Origins {
		out.AllowOriginStringMatch = append(out.AllowOriginStringMatch, message.StringMatch(o))
	}
	if c.MaxAge != nil {
		out.MaxAge = strconv.FormatInt(int64(c.MaxAge.Seconds()), 10)
	}
	if c.Credentials {
		out.AllowCredentials = wrapperspb.Bool(true)
	}
	if c.AnswerUnmatched {
		out.ForwardNotMatchingPreflights = wrapperspb.Bool(false)
	}
	return out
}

// Fault translates fault injection; nil when there is nothing to inject.
func Fault(f *model.Fault) *faultv3.HTTPFault {
	out := &faultv3.HTTPFault{}
	if f.Delay > 0 {
		out.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: durationpb.New(f.Delay)},
			Percentage:         Percent(f.DelayPercent),
		}
	}
	switch {
	case f.AbortStatus != 0:
		out.Abort = &faultv3.FaultAbort{ErrorType: &faultv3.FaultAbort_HttpStatus{HttpStatus: uint32(f.AbortStatus)},
			Percentage: Percent(f.AbortPercent)}
	case f.AbortGRPC != "":
		var code codes.Code
		if err := code.UnmarshalJSON([]byte(`"` + f.AbortGRPC + `"`)); err != nil {
			code = codes.Unknown
		}
		out.Abort = &faultv3.FaultAbort{ErrorType: &faultv3.FaultAbort_GrpcStatus{GrpcStatus: uint32(code)},
			Percentage: Percent(f.AbortPercent)}
	}
	if out.Delay == nil && out.Abort == nil {
		return nil
	}
	return out
}

// Percent translates a percentage from 0 to 100 into millionths.
func Percent(p float64) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: uint32(math.Round(p * 10000)), Denominator: typev3.FractionalPercent_MILLION}
}
