// Package status says what the status of each object should be, in the shapes of Kubernetes, the Gateway API and Istio: findings
// and the compiled mesh, told where users of those look for it. It is pure; who writes statuses, and where to, is up to others.
//
// Compute gives what is wanted now. Merge puts that into what an object has: conditions that did not change keep their time, and
// what other controllers wrote stays.
package status

import (
	"cmp"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/weftmesh/weft/internal/control/compile/convert/parts"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// Input is what statuses are made from: objects, and what came of them.
type Input struct {
	Objects []*source.Object
	Mesh    *model.Mesh
	// Findings of sources and compiler.
	Findings []model.Finding
	// Addresses of the ingress gateway, where no Service tells them: IP addresses or host names.
	Addresses []string
	// Only tells the objects of which the status is asked for; nil for all.
	Only func(*source.Object) bool
}

// Status is the value of an object's status field: a pointer to the type that the object's own type has there.
type Status any

// Compute gives the status that each object should have. Objects of kinds without one, and those that belong to other
// implementations, are left out. Times are not set: Merge does that.
func Compute(in Input) map[source.Key]Status {
	s := newState(in)
	out := map[source.Key]Status{}
	for _, o := range in.Objects {
		if in.Only != nil && !in.Only(o) {
			continue
		}
		if st := s.of(o); st != nil {
			out[o.Key()] = st
		}
	}
	return out
}

// state is one computation.
type state struct {
	in        Input
	objects   map[model.Ref]*source.Object
	findings  map[model.Ref][]model.Finding
	gateways  map[model.Ref]*model.Gateway
	sets      map[model.Ref][]*model.RouteSet // by the object that they are written in
	attached  map[place]map[model.Ref]bool    // routes by listener
	addresses []gatewayv1.GatewayStatusAddress
}

// place is a listener of a Gateway or ListenerSet.
type place struct {
	owner   model.Ref
	section string
}

func newState(in Input) *state {
	s := &state{in: in, objects: make(map[model.Ref]*source.Object, len(in.Objects)), findings: map[model.Ref][]model.Finding{}, gateways: map[model.Ref]*model.Gateway{},
		sets: map[model.Ref][]*model.RouteSet{}, attached: map[place]map[model.Ref]bool{}}
	for _, o := range in.Objects {
		s.objects[o.Ref()] = o
	}
	for list := in.Findings; len(list) > 0; {
		n := sameObject(list)
		if ref := list[0].Object; s.findings[ref] == nil {
			s.findings[ref] = list[:n:n]
		} else {
			s.findings[ref] = append(s.findings[ref], list[:n]...)
		}
		list = list[n:]
	}
	if in.Mesh == nil {
		return s
	}
	for _, g := range in.Mesh.Gateways {
		s.gateways[g.Ref] = g
	}
	for _, rs := range in.Mesh.RouteSets {
		s.sets[rs.Ref] = append(s.sets[rs.Ref], rs)
		for _, g := range rs.Gateways {
			at := place{ownerOf(g), g.Section}
			if s.attached[at] == nil {
				s.attached[at] = map[model.Ref]bool{}
			}
			s.attached[at][rs.Ref] = true
		}
	}
	s.addresses = s.gatewayAddresses()
	return s
}

// sameObject counts the findings at the beginning of a list that are about the same object.
func sameObject(list []model.Finding) int {
	if n := slices.IndexFunc(list, func(f model.Finding) bool { return f.Object != list[0].Object }); n >= 0 {
		return n
	}
	return len(list)
}

func ownerOf(g model.GatewayRef) model.Ref {
	return model.Ref{Kind: g.Kind, Namespace: g.Namespace, Name: g.Name}
}

// of gives an object's status; nil for none.
func (s *state) of(o *source.Object) Status {
	switch k := o.Kube.(type) {
	case *gatewayv1.GatewayClass:
		return orNil(s.gatewayClass(o, k))
	case *gatewayv1.Gateway:
		return orNil(s.gateway(o, k))
	case *gatewayv1.ListenerSet:
		return orNil(s.listenerSet(o, k))
	case *gatewayv1.HTTPRoute:
		return orNil(s.route(o, &k.Spec.CommonRouteSpec))
	case *gatewayv1.GRPCRoute:
		return orNil(s.route(o, &k.Spec.CommonRouteSpec))
	case *gatewayv1.TLSRoute:
		return orNil(s.route(o, &k.Spec.CommonRouteSpec))
	case *gatewayv1.TCPRoute:
		return orNil(s.route(o, &k.Spec.CommonRouteSpec))
	case *gatewayv1.UDPRoute:
		return orNil(s.route(o, &k.Spec.CommonRouteSpec))
	case *gatewayv1.BackendTLSPolicy:
		return orNil(s.backendTLSPolicy(o, k))
	case *networkingv1.Ingress:
		return orNil(s.ingress(o, k))
	}
	return s.istio(o)
}

// orNil keeps a nil pointer from being a status.
func orNil[T any](v *T) Status {
	if v == nil {
		return nil
	}
	return v
}

// within gives the findings about a field of an object and what is below it, in the order of the fields.
func (s *state) within(ref model.Ref, field string) []model.Finding {
	var out []model.Finding
	for _, f := range s.findings[ref] {
		if rest, ok := strings.CutPrefix(f.Field, field); ok && (rest == "" || rest[0] == '.' || rest[0] == '[' || strings.HasSuffix(field, "[")) {
			out = append(out, f)
		}
	}
	slices.SortStableFunc(out, func(a, b model.Finding) int { return cmp.Compare(a.Field, b.Field) })
	return out
}

// errors gives those findings that refuse an object.
func errorsOf(list []model.Finding) []model.Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f model.Finding) bool { return f.Severity != model.Error })
}

// coded gives the findings of some codes.
func coded(list []model.Finding, codes ...string) []model.Finding {
	return slices.DeleteFunc(slices.Clone(list), func(f model.Finding) bool { return !slices.Contains(codes, f.Code) })
}

// words tells findings in one message, which the API bounds.
func words(list []model.Finding) string {
	const most = 1024
	var all []string
	for _, f := range list {
		text := f.Message
		if f.Field != "" {
			text = f.Field + ": " + text
		}
		if f.Hint != "" {
			text += " (" + f.Hint + ")"
		}
		if !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	out := strings.Join(all, "; ")
	if len(out) > most {
		out = strings.ToValidUTF8(out[:most-3], "") + "..."
	}
	return out
}

// conditions collects the conditions of one object, or of a part of it.
type conditions struct {
	generation int64
	list       []metav1.Condition
}

// add puts a condition. It is true without a reason; a reason makes it false.
func (c *conditions) add(kind, good, reason, message string) {
	status := metav1.ConditionTrue
	if reason == "" {
		reason = good
	} else {
		status = metav1.ConditionFalse
	}
	c.put(kind, status, reason, message)
}

func (c *conditions) put(kind string, status metav1.ConditionStatus, reason, message string) {
	c.list = append(c.list, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: c.generation})
}

// controller is the name by which we write about a Gateway of a class: the class's controller.
func (s *state) controller(class string) gatewayv1.GatewayController {
	if o := s.objects[model.Ref{Kind: "GatewayClass", Name: class}]; o != nil {
		if k, ok := o.Kube.(*gatewayv1.GatewayClass); ok {
			return k.Spec.ControllerName
		}
	}
	if slices.Contains(parts.OurClasses, class) {
		return parts.GatewayController
	}
	return ""
}

func ours(c gatewayv1.GatewayController) bool {
	return slices.Contains(parts.OurControllers, string(c))
}
