package main

import (
	"context"
	"fmt"
	"net"
)

// startEnvoy runs Envoy with one worker, one listener and one cluster. listenTLS and clusterTLS are transport sockets or empty.
func (s *site) startEnvoy(ctx context.Context, name, address, to, filter, listenTLS, clusterTLS string) (*process, error) {
	listen, err := endpoint(address)
	if err != nil {
		return nil, err
	}
	next, err := endpoint(to)
	if err != nil {
		return nil, err
	}
	path, err := s.write("envoy.yaml", fmt.Sprintf(`static_resources:
  listeners:
  - name: front
    address: %s
    filter_chains:
    - filters: [%s]
%s
  clusters:
  - name: next
    type: STATIC
    connect_timeout: 5s
%s
    load_assignment: {cluster_name: next, endpoints: [{lb_endpoints: [{endpoint: {address: %s}}]}]}
`, listen, filter, listenTLS, clusterTLS, next))
	if err != nil {
		return nil, err
	}
	p, err := s.start(s.proxyCPU, name, "envoy", "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error")
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, address)
}

func endpoint(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	return fmt.Sprintf("{socket_address: {address: %s, port_value: %s}}", host, port), err
}

const (
	envoyHTTPFilter = `{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager,
      stat_prefix: front, route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: next}}]}]},
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}`
	envoyTCPFilter = `{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: front, cluster: next}}`
)

// envoyTLS gives the part that both sides' transport sockets share.
func envoyTLS(s *site) string {
	return fmt.Sprintf(`common_tls_context: {tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3},
      tls_certificates: [{certificate_chain: {filename: %s}, private_key: {filename: %s}}], validation_context: {trusted_ca: {filename: %s}}}`,
		s.pki.cert, s.pki.key, s.pki.ca)
}

func envoyHTTP(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startEnvoy(ctx, "envoy", address, s.backend, envoyHTTPFilter, "", "")
	})
}

func envoyRelay(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startEnvoy(ctx, "envoy", address, s.backend, envoyTCPFilter, "", "")
	})
}

func envoyPair(ctx context.Context, s *site) (*deployment, error) {
	const transport = `%stransport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.%s, %s}}`
	return s.double(func(address, to string, second bool) (*process, error) {
		if second {
			down := fmt.Sprintf(transport, "      ", "DownstreamTlsContext", "require_client_certificate: true, "+envoyTLS(s))
			return s.startEnvoy(ctx, "envoy B", address, to, envoyHTTPFilter, down, "")
		}
		up := fmt.Sprintf(transport, "    ", "UpstreamTlsContext", "sni: "+peerName+", "+envoyTLS(s))
		return s.startEnvoy(ctx, "envoy A", address, to, envoyHTTPFilter, "", up)
	})
}
