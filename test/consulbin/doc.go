// Package consulbin has no code. Its module names the version of Consul that `make test-consul` builds for the tests of what reads its
// catalog, and keeps its dependencies apart from ours.
package consulbin
