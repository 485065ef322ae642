// Package parity holds the proxy against a real Envoy: both get the same configuration and the same requests, and what clients and
// backends see of either has to be the same, but for what is listed with its reason.
package parity
