package status

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestMerge has conditions of all ages: ours that stay, that change, that go; somebody else's; one made of a newer object.
func TestMerge(t *testing.T) {
	old, now := metav1.NewTime(noon), metav1.NewTime(noon.Add(time.Hour))
	cond := func(kind, status, reason string, generation int64, at metav1.Time) metav1.Condition {
		return metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, ObservedGeneration: generation, LastTransitionTime: at}
	}
	ref := func(name string) gatewayv1.ParentReference {
		return gatewayv1.ParentReference{Name: gatewayv1.ObjectName(name)}
	}
	const us, them = gatewayv1.GatewayController("weft.dev/gateway-controller"), gatewayv1.GatewayController("example.com/other")
	has := &gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{
		{ParentRef: ref("a"), ControllerName: them, Conditions: []metav1.Condition{cond("Accepted", "True", "Accepted", 1, old)}},
		{ParentRef: ref("gone"), ControllerName: us, Conditions: []metav1.Condition{cond("Accepted", "True", "Accepted", 1, old)}},
		{ParentRef: ref("a"), ControllerName: us, Conditions: []metav1.Condition{
			cond("Accepted", "False", "NoMatchingParent", 1, old), cond("ResolvedRefs", "True", "ResolvedRefs", 1, old),
			cond("PartiallyInvalid", "True", "UnsupportedValue", 1, old), cond("example.com/Seen", "True", "Seen", 1, old)}},
		{ParentRef: ref("newer"), ControllerName: us, Conditions: []metav1.Condition{cond("Accepted", "True", "Accepted", 3, old)}},
	}}
	before := has.DeepCopy()
	wanted := &gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{
		{ParentRef: ref("a"), ControllerName: us, Conditions: []metav1.Condition{
			cond("Accepted", "True", "Accepted", 2, metav1.Time{}), cond("ResolvedRefs", "True", "ResolvedRefs", 2, metav1.Time{})}},
		{ParentRef: ref("newer"), ControllerName: us, Conditions: []metav1.Condition{cond("Accepted", "False", "UnsupportedValue", 2, metav1.Time{})}},
	}}
	got, changed := Merge(has, wanted, time.Time{}, now.Time)
	want := &gatewayv1.RouteStatus{Parents: []gatewayv1.RouteParentStatus{
		{ParentRef: ref("a"), ControllerName: them, Conditions: []metav1.Condition{cond("Accepted", "True", "Accepted", 1, old)}},
		{ParentRef: ref("a"), ControllerName: us, Conditions: []metav1.Condition{
			cond("Accepted", "True", "Accepted", 2, now), cond("ResolvedRefs", "True", "ResolvedRefs", 2, old), cond("example.com/Seen", "True", "Seen", 1, old)}},
		{ParentRef: ref("newer"), ControllerName: us, Conditions: []metav1.Condition{cond("Accepted", "True", "Accepted", 3, old)}},
	}}
	if diff := cmp.Diff(Status(want), got); diff != "" || !changed {
		t.Errorf("changed: %v (-want +got):\n%s", changed, diff)
	}
	if diff := cmp.Diff(before, has); diff != "" {
		t.Errorf("what the object has was changed:\n%s", diff)
	}
}

// TestMergeAfterDeletion: what was said of an object is nothing to the one that was made under its name afterwards, whose generations
// begin anew.
func TestMergeAfterDeletion(t *testing.T) {
	has := func(at time.Time) *gatewayv1.GatewayStatus {
		return &gatewayv1.GatewayStatus{Conditions: []metav1.Condition{
			{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 3, LastTransitionTime: metav1.NewTime(at)},
			{Type: "example.com/Seen", Status: "True", Reason: "Seen", LastTransitionTime: metav1.NewTime(at)}}}
	}
	wanted := &gatewayv1.GatewayStatus{Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}}}
	born := noon.Add(time.Minute + 300*time.Millisecond)
	fresh := func(at time.Time) Status {
		out := wanted.DeepCopy()
		out.Conditions[0].LastTransitionTime = metav1.NewTime(at)
		return out
	}
	got, changed := Merge(has(noon), wanted, born, noon.Add(time.Hour))
	if diff := cmp.Diff(fresh(noon.Add(time.Hour)), got, cmpopts.EquateEmpty()); diff != "" || !changed {
		t.Errorf("changed: %v (-want +got):\n%s", changed, diff)
	}
	if got, _ := Merge(has(born.Truncate(time.Second)), wanted, born, noon.Add(time.Hour)); got.(*gatewayv1.GatewayStatus).Conditions[0].ObservedGeneration != 3 {
		t.Errorf("what was said of the object itself is gone: %+v", got)
	}
	early, _ := Merge(nil, wanted, born, noon) // the clock of whoever noted the birth is ahead
	if again, changed := Merge(early, wanted, born, noon.Add(time.Second)); changed {
		t.Errorf("nothing changed, but %+v became %+v", early, again)
	}
}
