// Package istio proves that the configuration of Istio's Bookinfo sample, file by file and unchanged, is accepted and does what
// each file's name says: by requests through a whole mesh.
package istio
