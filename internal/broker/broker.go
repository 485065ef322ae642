// Package broker lets proxies in network namespaces of their own use the host's network: a unix socket at which a proxy asks for
// listening sockets, for connections to the outside, and for answers of the host's DNS.
package broker
