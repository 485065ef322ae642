// Package steady proves that the mesh goes on: through changes of routes, restarts of the control plane and of workloads, without
// the control plane, and in the face of malformed requests.
package steady
