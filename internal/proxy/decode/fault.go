package decode

import (
	faultcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
)

func (d *decoder) fault(m *faultv3.HTTPFault) *conf.Fault {
	d.only(m, "delay", "abort")
	f := &conf.Fault{}
	if m.GetDelay() != nil {
		d.at("delay", func() {
			d.only(m.GetDelay(), "fixed_delay", "percentage")
			delay, ok := m.GetDelay().GetFaultDelaySecifier().(*faultcommonv3.FaultDelay_FixedDelay)
			if !ok {
				d.fail("fixed_delay: is required")
				return
			}
			f.Delay = d.duration("fixed_delay", delay.FixedDelay)
			f.DelayFraction = d.fraction("percentage", m.GetDelay().GetPercentage())
		})
	}
	if m.GetAbort() != nil {
		d.at("abort", func() { d.abort(m.GetAbort(), f) })
	}
	return f
}

func (d *decoder) abort(m *faultv3.FaultAbort, f *conf.Fault) {
	d.only(m, "http_status", "grpc_status", "percentage")
	switch e := m.GetErrorType().(type) {
	case *faultv3.FaultAbort_HttpStatus:
		if e.HttpStatus < 200 || e.HttpStatus > 599 {
			d.at("http_status", func() { d.fail("%d is not a final status", e.HttpStatus) })
		}
		f.AbortStatus = int(e.HttpStatus)
	case *faultv3.FaultAbort_GrpcStatus:
		if e.GrpcStatus > 16 {
			d.at("grpc_status", func() { d.fail("%d is not a gRPC status", e.GrpcStatus) })
		}
		f.AbortGRPC = int(e.GrpcStatus)
	default:
		d.fail("error_type: is required")
	}
	f.AbortFraction = d.fraction("percentage", m.GetPercentage())
}
