package decode

import (
	faultcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func (d *decoder) fault(m *faultv3.HTTPFault) *conf.Fault {
	d.Only(m, "delay", "abort")
	f := &conf.Fault{}
	if m.GetDelay() != nil {
		d.At("delay", func() {
			d.Only(m.GetDelay(), "fixed_delay", "percentage")
			delay, ok := m.GetDelay().GetFaultDelaySecifier().(*faultcommonv3.FaultDelay_FixedDelay)
			if !ok {
				d.Fail("fixed_delay: is required")
				return
			}
			f.Delay = d.Duration("fixed_delay", delay.FixedDelay)
			f.DelayFraction = d.Fraction("percentage", m.GetDelay().GetPercentage())
		})
	}
	if m.GetAbort() != nil {
		d.At("abort", func() { d.abort(m.GetAbort(), f) })
	}
	return f
}

func (d *decoder) abort(m *faultv3.FaultAbort, f *conf.Fault) {
	d.Only(m, "http_status", "grpc_status", "percentage")
	switch e := m.GetErrorType().(type) {
	case *faultv3.FaultAbort_HttpStatus:
		if e.HttpStatus < 200 || e.HttpStatus > 599 {
			d.At("http_status", func() { d.Fail("%d is not a final status", e.HttpStatus) })
		}
		f.AbortStatus = int(e.HttpStatus)
	case *faultv3.FaultAbort_GrpcStatus:
		if e.GrpcStatus > 16 {
			d.At("grpc_status", func() { d.Fail("%d is not a gRPC status", e.GrpcStatus) })
		}
		f.AbortGRPC = int(e.GrpcStatus)
	default:
		d.Fail("error_type: is required")
	}
	f.AbortFraction = d.Fraction("percentage", m.GetPercentage())
}
