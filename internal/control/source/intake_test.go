package source

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestVersionGivenTwice: an object of another content is another one, also with the resource version and the identity of before, as from
// a server that was restored from a backup.
func TestVersionGivenTwice(t *testing.T) {
	made := func(value string) Arrival {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default", UID: "1", ResourceVersion: "7", Labels: map[string]string{"v": value}}}
		o := &Object{Kube: s, Kind: LookupKind("", "Service")}
		return Arrival{Key: o.Key(), Object: o}
	}
	var l overlay
	var in Intake
	touched := 0
	in.Begin("test", func(c Change) { touched += len(l.take(c)) })
	in.Update([]Arrival{made("1")}, nil)
	in.Open()
	for n, value := range []string{"1", "2", "2", "1"} {
		in.Replace(func(Key) bool { return true }, []Arrival{made(value)})
		if got := l.objects[made("").Key].GetLabels()["v"]; got != value {
			t.Errorf("%d: got %q, want %q", n, got, value)
		}
	}
	if touched != 3 {
		t.Errorf("%d changes, want 3: what came again as it was is none", touched)
	}
}
