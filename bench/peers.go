package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// suite is the cipher suite of all contestants: Go's first choice on machines with AES instructions, which OpenSSL would not
// choose by itself.
const suite = "TLS_AES_128_GCM_SHA256"

// startNginx runs nginx with one worker and the given server.
func (s *site) startNginx(ctx context.Context, cpu int, name, address, http string) (*process, error) {
	text := fmt.Sprintf(`daemon off;
user root;
worker_processes 1;
worker_rlimit_nofile 8192;
pid %[1]s/nginx-%[2]s.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
%[3]s}
`, s.dir, strings.ReplaceAll(address, ":", "-"), http)
	path, err := s.write("nginx.conf", text)
	if err != nil {
		return nil, err
	}
	p, err := s.start(cpu, name, "nginx", "-e", "stderr", "-c", path)
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, address)
}

// backendServer answers 1 KiB from memory, and 1 MiB from a file.
func backendServer(s *site) string {
	return fmt.Sprintf(`  sendfile on;
  server {
    listen %s;
    location = %s { default_type text/plain; return 200 "%s"; }
    location = %s { default_type text/plain; alias %s; }
  }
  open_file_cache max=16;
  server {
    listen %[6]s http2;
    location = %[2]s { default_type text/plain; return 200 "%[3]s"; }
    location = %[7]s { default_type application/grpc; alias %[8]s; add_trailer grpc-status 0; error_page 405 =200 $uri; }
  }
`, s.backend, smallPath, strings.Repeat("x", smallSize), bulkPath, filepath.Join(s.dir, "bulk"),
		s.second, callPath, filepath.Join(s.dir, "answer"))
}

// nginxServer is a reverse proxy. listen and forward are the directives that differ.
func nginxServer(listen, to, forward string) string {
	return fmt.Sprintf(`  upstream next { server %s; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen %s
    location / {
      %s
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_max_temp_file_size 0;
    }
  }
`, to, listen, forward)
}

func nginxHTTP(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startNginx(ctx, s.proxyCPU, "nginx", address, nginxServer(address+";", s.backend, "proxy_pass http://next;"))
	})
}

func nginxPair(ctx context.Context, s *site) (*deployment, error) {
	return s.double(func(address, to string, second bool) (*process, error) {
		if second {
			listen := fmt.Sprintf(`%s ssl;
    ssl_certificate %s; ssl_certificate_key %s; ssl_client_certificate %s; ssl_verify_client on;
    ssl_protocols TLSv1.3; ssl_conf_command Ciphersuites %s; ssl_session_tickets off;`, address, s.pki.cert, s.pki.key, s.pki.ca, suite)
			return s.startNginx(ctx, s.proxyCPU, "nginx B", address, nginxServer(listen, to, "proxy_pass http://next;"))
		}
		forward := fmt.Sprintf(`proxy_pass https://next;
      proxy_ssl_certificate %s; proxy_ssl_certificate_key %s; proxy_ssl_trusted_certificate %s; proxy_ssl_verify on;
      proxy_ssl_name %s; proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites %s;`, s.pki.cert, s.pki.key, s.pki.ca, peerName, suite)
		return s.startNginx(ctx, s.proxyCPU, "nginx A", address, nginxServer(address+";", to, forward))
	})
}

// nginxTwo speaks HTTP/1.1 to the backend: it knows no HTTP/2 there.
func nginxTwo(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startNginx(ctx, s.proxyCPU, "nginx", address, nginxServer(address+" http2;", s.backend, "proxy_pass http://next;"))
	})
}

func haproxyTwo(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startHAProxy(ctx, "haproxy", "http", address, address+" proto h2", s.second+" proto h2")
	})
}

// startHAProxy runs HAProxy with one thread.
func (s *site) startHAProxy(ctx context.Context, name, mode, address, bind, server string) (*process, error) {
	path, err := s.write("haproxy.cfg", fmt.Sprintf(`global
  nbthread 1
  maxconn 4096
  ssl-default-bind-ciphersuites %[1]s
  ssl-default-server-ciphersuites %[1]s
defaults
  mode %[2]s
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind %[3]s
  default_backend next
backend next
%[5]s  server next %[4]s
`, suite, mode, bind, server, map[string]string{"http": "  http-reuse always\n"}[mode]))
	if err != nil {
		return nil, err
	}
	p, err := s.start(s.proxyCPU, name, "haproxy", "-f", path)
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, address)
}

func haproxyHTTP(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startHAProxy(ctx, "haproxy", "http", address, address, s.backend)
	})
}

func haproxyRelay(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startHAProxy(ctx, "haproxy", "tcp", address, address, s.backend)
	})
}

func haproxyPair(ctx context.Context, s *site) (*deployment, error) {
	return s.double(func(address, to string, second bool) (*process, error) {
		if second {
			bind := fmt.Sprintf("%s ssl crt %s ca-file %s verify required ssl-min-ver TLSv1.3 no-tls-tickets", address, s.pki.both, s.pki.ca)
			return s.startHAProxy(ctx, "haproxy B", "http", address, bind, to)
		}
		server := fmt.Sprintf("%s ssl crt %s ca-file %s verify required verifyhost %[4]s sni str(%[4]s) ssl-min-ver TLSv1.3", to, s.pki.both, s.pki.ca, peerName)
		return s.startHAProxy(ctx, "haproxy A", "http", address, address, server)
	})
}

// haproxyRelays is the floor of a pair's latency: two processes that pass bytes on, without TLS between them.
func haproxyRelays(ctx context.Context, s *site) (*deployment, error) {
	d, err := s.double(func(address, to string, second bool) (*process, error) {
		return s.startHAProxy(ctx, "haproxy", "tcp", address, address, to)
	})
	if err == nil {
		d.door, d.doorTLS = "", nil
	}
	return d, err
}

// startGo runs our own small program around httputil.ReverseProxy.
func (s *site) startGo(ctx context.Context, name, address, upstream string, more ...string) (*process, error) {
	argv := append([]string{filepath.Join(s.dir, "reverseproxy"), "-listen", address, "-upstream", upstream}, more...)
	p, err := s.start(s.proxyCPU, name, argv...)
	if err != nil {
		return nil, err
	}
	return p, p.await(ctx, address)
}

func goHTTP(ctx context.Context, s *site) (*deployment, error) {
	return s.single(func(address string) (*process, error) {
		return s.startGo(ctx, goProxy, address, "http://"+s.backend)
	})
}

func goPair(ctx context.Context, s *site) (*deployment, error) {
	mutual := []string{"-cert", s.pki.cert, "-key", s.pki.key, "-ca", s.pki.ca}
	return s.double(func(address, to string, second bool) (*process, error) {
		if second {
			return s.startGo(ctx, goProxy+" B", address, "http://"+to, append(mutual, "-tls")...)
		}
		return s.startGo(ctx, goProxy+" A", address, "https://"+to, mutual...)
	})
}

// single starts one proxy at an address of its own.
func (s *site) single(start func(address string) (*process, error)) (*deployment, error) {
	address, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p, err := start(address)
	if err != nil {
		return nil, err
	}
	return &deployment{entry: address, proxies: []*process{p}}, nil
}

// double starts B in front of the backend, then A in front of B.
func (s *site) double(start func(address, to string, second bool) (*process, error)) (*deployment, error) {
	b, err := s.single(func(address string) (*process, error) { return start(address, s.backend, true) })
	if err != nil {
		return nil, err
	}
	a, err := s.single(func(address string) (*process, error) { return start(address, b.entry, false) })
	if err != nil {
		b.stop()
		return nil, err
	}
	return &deployment{entry: a.entry, proxies: append(a.proxies, b.proxies...), door: b.entry, doorTLS: s.pki.client}, nil
}
