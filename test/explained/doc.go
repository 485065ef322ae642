// Package explained holds what weft explain says against requests that are sent: a whole mesh gets policies, modes of TLS, routes with
// retries and Sidecars at random, and whatever explain foretells has to come to pass.
package explained
