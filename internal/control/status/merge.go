package status

import (
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	meta "istio.io/api/meta/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/source"
)

// Of gives the status that an object has; nil where its kind has none that we write. It must not be changed.
func Of(o source.Kube) Status {
	v := reflect.Indirect(reflect.ValueOf(o)).FieldByName("Status")
	if !v.IsValid() || !v.CanAddr() {
		return nil
	}
	switch st := v.Addr().Interface().(type) {
	case *gatewayv1.HTTPRouteStatus:
		return &st.RouteStatus
	case *gatewayv1.GRPCRouteStatus:
		return &st.RouteStatus
	case *gatewayv1.TLSRouteStatus:
		return &st.RouteStatus
	case *gatewayv1.TCPRouteStatus:
		return &st.RouteStatus
	case *gatewayv1.UDPRouteStatus:
		return &st.RouteStatus
	case *gatewayv1.GatewayClassStatus, *gatewayv1.GatewayStatus, *gatewayv1.ListenerSetStatus, *gatewayv1.PolicyStatus, *networkingv1.IngressStatus,
		*meta.IstioStatus, *networkingapi.ServiceEntryStatus:
		return st
	}
	return nil
}

// Merge gives what an object's status becomes: what it has (of Of, perhaps nil) with what is wanted (of Compute) in place of what we
// said before. Conditions that are as they were keep their time, others get now. Conditions of types that are not ours, and the
// entries of other controllers, stay. A condition that was made of a newer generation than ours stays as well. Both arguments are
// left as they are; changed reports whether the result differs from what the object has. What is older than the object, which was born
// then (zero: nobody knows), was said of one before it that had its name, and counts for nothing.
func Merge(has, wanted Status, born, now time.Time) (merged Status, changed bool) {
	if born = born.Truncate(time.Second); now.Before(born) {
		now = born // by another machine's clock
	}
	m := merger{born, metav1.NewTime(now.Truncate(time.Second))}
	switch want := wanted.(type) {
	case *gatewayv1.GatewayClassStatus:
		have := existing[gatewayv1.GatewayClassStatus](has)
		out := *want
		out.Conditions = m.conditions(have.Conditions, want.Conditions)
		return result(have, &out)
	case *gatewayv1.GatewayStatus:
		have := existing[gatewayv1.GatewayStatus](has)
		out := *want
		out.Conditions = m.conditions(have.Conditions, want.Conditions)
		out.Listeners = m.listeners(have.Listeners, want.Listeners)
		return result(have, &out)
	case *gatewayv1.ListenerSetStatus:
		have := existing[gatewayv1.ListenerSetStatus](has)
		out := *want
		out.Conditions = m.conditions(have.Conditions, want.Conditions)
		out.Listeners = m.entries(have.Listeners, want.Listeners)
		return result(have, &out)
	case *gatewayv1.RouteStatus:
		have := existing[gatewayv1.RouteStatus](has)
		return result(have, &gatewayv1.RouteStatus{Parents: m.parents(have.Parents, want.Parents)})
	case *gatewayv1.PolicyStatus:
		have := existing[gatewayv1.PolicyStatus](has)
		return result(have, &gatewayv1.PolicyStatus{Ancestors: m.ancestors(have.Ancestors, want.Ancestors)})
	case *networkingv1.IngressStatus:
		return result(existing[networkingv1.IngressStatus](has), want)
	case *meta.IstioStatus:
		return m.istio(has, want)
	case *networkingapi.ServiceEntryStatus:
		return m.serviceEntry(has, want)
	}
	return has, false
}

// Withdrawn gives what is wanted of an object (of Of) that is not ours any more: that what we have said of it goes. Nil when we have
// said nothing that others would take for still true.
func Withdrawn(has Status) Status {
	switch st := has.(type) {
	case *gatewayv1.RouteStatus:
		if slices.ContainsFunc(st.Parents, func(p gatewayv1.RouteParentStatus) bool { return ours(p.ControllerName) }) {
			return &gatewayv1.RouteStatus{}
		}
	case *gatewayv1.PolicyStatus:
		if slices.ContainsFunc(st.Ancestors, func(a gatewayv1.PolicyAncestorStatus) bool { return ours(a.ControllerName) }) {
			return &gatewayv1.PolicyStatus{}
		}
	}
	return nil
}

// existing gives a status of that type, or an empty one.
func existing[T any](has Status) *T {
	if st, ok := has.(*T); ok && st != nil {
		return st
	}
	return new(T)
}

func result[T any](have, out *T) (Status, bool) { return out, !reflect.DeepEqual(have, out) }

type merger struct {
	born time.Time
	now  metav1.Time
}

// types of conditions that are ours to set, and to take away.
var types = []string{accepted, programmed, resolvedRefs, conflicted, string(gatewayv1.RouteConditionPartiallyInvalid),
	string(gatewayv1.GatewayConditionInsecureFrontendValidationMode)}

// conditions replaces ours in the list of an object.
func (m merger) conditions(have, want []metav1.Condition) []metav1.Condition {
	out := []metav1.Condition{}
	have = slices.DeleteFunc(slices.Clone(have), func(h metav1.Condition) bool { return h.LastTransitionTime.Time.Before(m.born) })
	for _, h := range have {
		i := slices.IndexFunc(want, func(w metav1.Condition) bool { return w.Type == h.Type })
		switch {
		case i >= 0 && h.ObservedGeneration > want[i].ObservedGeneration:
			out = append(out, h)
		case i >= 0:
			w := want[i]
			if w.LastTransitionTime = m.now; w.Status == h.Status {
				w.LastTransitionTime = h.LastTransitionTime
			}
			out = append(out, w)
		case !slices.Contains(types, h.Type):
			out = append(out, h)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(have, func(h metav1.Condition) bool { return h.Type == w.Type }) {
			w.LastTransitionTime = m.now
			out = append(out, w)
		}
	}
	return out
}

func (m merger) listeners(have, want []gatewayv1.ListenerStatus) []gatewayv1.ListenerStatus {
	out := slices.Clone(want)
	for i := range out {
		var old []metav1.Condition
		if j := slices.IndexFunc(have, func(h gatewayv1.ListenerStatus) bool { return h.Name == out[i].Name }); j >= 0 {
			old = have[j].Conditions
		}
		out[i].Conditions = m.conditions(old, out[i].Conditions)
	}
	return out
}

func (m merger) entries(have, want []gatewayv1.ListenerEntryStatus) []gatewayv1.ListenerEntryStatus {
	var h, w []gatewayv1.ListenerStatus
	for _, e := range have {
		h = append(h, gatewayv1.ListenerStatus(e))
	}
	for _, e := range want {
		w = append(w, gatewayv1.ListenerStatus(e))
	}
	var out []gatewayv1.ListenerEntryStatus
	for _, l := range m.listeners(h, w) {
		out = append(out, gatewayv1.ListenerEntryStatus(l))
	}
	return out
}

// stated is what a route's parent and a policy's ancestor have in common.
type stated struct {
	controller gatewayv1.GatewayController
	about      gatewayv1.ParentReference
	conditions *[]metav1.Condition
}

func (m merger) parents(have, want []gatewayv1.RouteParentStatus) []gatewayv1.RouteParentStatus {
	return besideOthers(m, have, want, func(p *gatewayv1.RouteParentStatus) stated {
		return stated{p.ControllerName, p.ParentRef, &p.Conditions}
	})
}

func (m merger) ancestors(have, want []gatewayv1.PolicyAncestorStatus) []gatewayv1.PolicyAncestorStatus {
	out := besideOthers(m, have, want, func(a *gatewayv1.PolicyAncestorStatus) stated {
		return stated{a.ControllerName, a.AncestorRef, &a.Conditions}
	})
	return out[:min(len(out), mostAncestors)]
}

// besideOthers keeps those of other controllers where they are, and puts ours in place of ours.
func besideOthers[S any](m merger, have, want []S, of func(*S) stated) []S {
	out := []S{}
	for i := range have {
		if !ours(of(&have[i]).controller) {
			out = append(out, have[i])
		}
	}
	for _, w := range want {
		s := of(&w)
		var old []metav1.Condition
		if j := slices.IndexFunc(have, func(h S) bool {
			o := of(&h)
			return o.controller == s.controller && reflect.DeepEqual(o.about, s.about)
		}); j >= 0 {
			old = *of(&have[j]).conditions
		}
		*s.conditions = m.conditions(old, *s.conditions)
		out = append(out, w)
	}
	return out
}

func (m merger) istio(has Status, want *meta.IstioStatus) (Status, bool) {
	have := existing[meta.IstioStatus](has)
	out := proto.Clone(want).(*meta.IstioStatus)
	out.Conditions = m.istioConditions(have.GetConditions(), out.GetConditions())
	return out, !proto.Equal(have, out)
}

func (m merger) serviceEntry(has Status, want *networkingapi.ServiceEntryStatus) (Status, bool) {
	have := existing[networkingapi.ServiceEntryStatus](has)
	out := proto.Clone(want).(*networkingapi.ServiceEntryStatus)
	out.Conditions = m.istioConditions(have.GetConditions(), out.GetConditions())
	out.Addresses = have.GetAddresses()
	return out, !proto.Equal(have, out)
}

func (m merger) istioConditions(have, want []*meta.IstioCondition) []*meta.IstioCondition {
	out := slices.Clone(want)
	for _, h := range have {
		if h.GetLastTransitionTime().AsTime().Before(m.born) {
			continue
		}
		i := slices.IndexFunc(want, func(w *meta.IstioCondition) bool { return w.GetType() == h.GetType() })
		switch {
		case i < 0:
			out = append(out, h)
		case want[i].GetStatus() == h.GetStatus():
			want[i].LastTransitionTime = h.GetLastTransitionTime()
		}
	}
	for _, c := range out {
		if c.GetLastTransitionTime() == nil {
			c.LastTransitionTime = timestamppb.New(m.now.Time)
		}
	}
	return out
}
