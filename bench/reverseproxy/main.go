// Command reverseproxy is net/http/httputil's ReverseProxy as a contestant of the benchmark: what one gets in Go without a mesh.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
)

func main() {
	listen := flag.String("listen", "", "`address` to listen on")
	upstream := flag.String("upstream", "", "`URL` to send requests to")
	cert := flag.String("cert", "", "PEM `file` of the own certificate, for https on either side")
	key := flag.String("key", "", "PEM `file` of its key")
	ca := flag.String("ca", "", "PEM `file` of the roots that peers are verified with")
	serveTLS := flag.Bool("tls", false, "serve mutual TLS")
	flag.Parse()
	if err := serve(*listen, *upstream, *cert, *key, *ca, *serveTLS); err != nil {
		log.Fatal(err)
	}
}

func serve(listen, upstream, cert, key, ca string, serveTLS bool) error {
	to, err := url.Parse(upstream)
	if err != nil {
		return err
	}
	config, err := mutual(cert, key, ca)
	if err != nil {
		return err
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true, TLSClientConfig: config}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
			r.SetXForwarded()
		},
		Transport:  transport,
		BufferPool: &buffers{sync.Pool{New: func() any { p := make([]byte, 32<<10); return &p }}},
	}
	server := &http.Server{Addr: listen, Handler: proxy, TLSConfig: config, Protocols: &http.Protocols{}}
	server.Protocols.SetHTTP1(true)
	if serveTLS {
		return server.ListenAndServeTLS("", "")
	}
	return server.ListenAndServe()
}

// mutual is the TLS configuration of both sides; nil without a certificate.
func mutual(cert, key, ca string) (*tls.Config, error) {
	if cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return nil, fmt.Errorf("%s: %w", ca, errors.New("no certificate in it"))
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert,
		MinVersion: tls.VersionTLS13, ServerName: "bench.test",
	}, nil
}

// buffers are for copying bodies.
type buffers struct{ sync.Pool }

func (b *buffers) Get() []byte  { return *b.Pool.Get().(*[]byte) }
func (b *buffers) Put(p []byte) { b.Pool.Put(&p) }
