// Package app is Weft's Bookinfo sample: a small book shop made of four HTTP services.
//
//	productpage -> details
//	productpage -> reviews -> ratings   (reviews v2 and v3 only)
//	productpage -> ratings              (only for /api/v1/products/{id}/ratings)
//
// Names, paths, JSON shapes, the sign-in, the headers handed on and the time-outs are those of Istio's Bookinfo sample, so that
// configuration and tutorials written for that one apply here. Nothing in this package knows of a service mesh: it calls
// http://reviews:9080 and leaves the rest to whatever network it runs in.
//
// Each service is an http.Handler made from a Config. Handlers own no goroutine and hold no connection but those of
// Config.Transport, so a test can run all four in one process.
package app

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Default addresses of the services, used where Config leaves one empty.
const (
	DefaultDetails = "http://details:9080"
	DefaultReviews = "http://reviews:9080"
	DefaultRatings = "http://ratings:9080"
)

// VersionHeader is the response header in which each service names its Config.Version.
const VersionHeader = "Bookinfo-Version"

// Config is what one service needs to know of its surroundings. The zero value is a service of version v1 that finds the
// others under their default addresses. A Config is read once, by the constructor it is given to.
type Config struct {
	// Version is the version this instance runs as: for reviews "v1" (no stars), "v2" (black stars) or "v3" (red stars); for
	// ratings any of the versions that NewRatings lists. Empty means "v1".
	Version string
	// PodName and ClusterName tell whoever reads a review which instance wrote it. Empty becomes "null", as in Istio's sample.
	PodName, ClusterName string
	// StarColor overrides the colour that Version implies for reviews. Empty leaves it to Version.
	StarColor string
	// Details, Reviews and Ratings are base URLs without a trailing slash. Empty means the default address.
	Details, Reviews, Ratings string
	// Transport carries every call to another service. Nil means NewTransport().
	Transport http.RoundTripper
	// Logger gets one record per served request: Info, or Debug for /health. Nil means no records.
	Logger *slog.Logger
}

func (c Config) withDefaults() Config {
	orElse := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	orElse(&c.Version, "v1")
	orElse(&c.PodName, "null")
	orElse(&c.ClusterName, "null")
	orElse(&c.Details, DefaultDetails)
	orElse(&c.Reviews, DefaultReviews)
	orElse(&c.Ratings, DefaultRatings)
	if c.Transport == nil {
		c.Transport = NewTransport()
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// New makes the service with the given name: productpage, details, reviews or ratings. Any other name is an error.
func New(service string, cfg Config) (http.Handler, error) {
	switch service {
	case "productpage":
		return NewProductpage(cfg), nil
	case "details":
		return NewDetails(cfg), nil
	case "reviews":
		return NewReviews(cfg), nil
	case "ratings":
		return NewRatings(cfg), nil
	}
	return nil, fmt.Errorf("unknown service %q: want productpage, details, reviews or ratings", service)
}

// NewTransport returns a transport that keeps connections alive and honours HTTP_PROXY and NO_PROXY. The caller may close its
// idle connections.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       60 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// mustSub is fs.Sub for a directory that is embedded at build time.
func mustSub(files fs.FS, dir string) fs.FS {
	sub, err := fs.Sub(files, dir)
	if err != nil {
		panic(err)
	}
	return sub
}
