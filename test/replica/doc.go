// Package replica tests several control planes of one mesh, as processes: they share what is applied and one authority in etcd, one of
// those on a Kubernetes writes statuses, and any of them may die.
package replica
