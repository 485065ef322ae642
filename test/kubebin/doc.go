// Package kubebin has no code. Its module names the versions of kube-apiserver and etcd that `make test-kube` builds for the tests of
// what reads and writes Kubernetes, and keeps their dependencies apart from ours.
package kubebin
