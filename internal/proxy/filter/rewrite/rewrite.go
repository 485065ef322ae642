// Package rewrite changes where a request goes by name: paths, authorities, and answers that send the client elsewhere.
package rewrite

import (
	"strconv"
	"strings"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Forward applies a route's rewrites to the request. m is the route's match, whose prefix a prefix rewrite replaces. It
// allocates only when something changes, and with tell says to the upstream in Envoy's fields what was there before.
func Forward(r *message.Request, f *conf.Forward, m *conf.Match, tell bool) {
	host(r, f, tell)
	if f.PrefixRewrite == "" && f.PathRewrite == "" && f.RegexRewrite == nil || r.Path == "" || r.Path[0] != '/' {
		return
	}
	path, query := r.SplitPath()
	switch {
	case f.PathRewrite != "":
		path = f.PathRewrite
	case f.RegexRewrite != nil:
		path = substitute(f.RegexRewrite, path)
	default:
		path = prefix(path, m, f.PrefixRewrite)
	}
	original := r.Path
	r.Path = join(path, query, strings.IndexByte(r.Path, '?') >= 0)
	if tell {
		r.Header.Set("X-Envoy-Original-Path", original)
	}
}

// host changes the authority, before the path that it may be made of.
func host(r *message.Request, f *conf.Forward, tell bool) {
	to := f.HostRewrite
	switch {
	case f.HostRewriteHeader != "":
		to, _ = r.Header.Get(f.HostRewriteHeader)
	case f.HostRewriteRegex != nil:
		path, _ := r.SplitPath()
		to = substitute(f.HostRewriteRegex, path)
	}
	if to == "" || to == r.Authority || strings.ContainsAny(to, " /?#@") {
		return
	}
	if f.AppendHost {
		before, had := r.Header.Get("X-Forwarded-Host")
		if had {
			before += ","
		}
		r.Header.Set("X-Forwarded-Host", before+r.Authority)
	}
	if tell {
		r.Header.Set("X-Envoy-Original-Host", r.Authority)
	}
	r.Authority = to
}

// prefix replaces the part that the route matched: a prefix, or the whole path of an exact match or an expression. At a segment boundary the
// slash between both parts stays single.
func prefix(path string, m *conf.Match, with string) string {
	switch m.Path.Kind {
	case conf.Exact, conf.Regex:
		return with
	case conf.PrefixOf:
		rest := path[min(len(m.Path.Value), len(path)):]
		if m.PathSeparatedPrefix {
			with = strings.TrimSuffix(with, "/")
			if rest == "" && with == "" {
				return "/"
			}
			if rest != "" && rest[0] != '/' {
				rest = "/" + rest
			}
		}
		return with + rest
	case conf.Any:
		return with + strings.TrimPrefix(path, "/")
	}
	return path
}

// substitute replaces every match; the substitution writes groups as \1, Go's package as ${1}.
func substitute(rw *conf.RegexRewrite, path string) string {
	return rw.Pattern.Regexp.ReplaceAllString(path, template(rw.Substitution))
}

func template(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '$':
			b.WriteString("$$")
		case c == '\\' && i+1 < len(s) && '0' <= s[i+1] && s[i+1] <= '9':
			i++
			b.WriteString("${" + s[i:i+1] + "}")
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

func join(path, query string, has bool) string {
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	if !has {
		return path
	}
	if strings.IndexByte(path, '?') >= 0 {
		return path + "&" + query
	}
	return path + "?" + query
}

// Location gives the Location of a redirect for a request. scheme is what the client used. A path with a query of its own takes the
// place of the request's query.
// Source: envoy.config.route.v3.RedirectAction; all held against Envoy 1.40.
func Location(r *message.Request, rd *conf.Redirect, m *conf.Match, scheme string) string {
	target := scheme
	if rd.Scheme != "" {
		target = rd.Scheme
	}
	path, query := r.SplitPath()
	has := !rd.StripQuery && strings.IndexByte(r.Path, '?') >= 0
	switch {
	case rd.Path != "":
		path, has = rd.Path, has && strings.IndexByte(rd.Path, '?') < 0
	case rd.RegexRewrite != nil:
		path = substitute(rd.RegexRewrite, path)
	case rd.PrefixRewrite != "":
		path = prefix(path, m, rd.PrefixRewrite)
	}
	return target + "://" + authority(r.Authority, rd, scheme, target) + join(path, query, has)
}

// authority is the redirect's host, else the client's, whose port goes where the redirect gives one, or where it is that of a scheme
// which changes. A port that goes without saying is not written, unlike Envoy does.
func authority(current string, rd *conf.Redirect, from, to string) string {
	a := current
	host, port := splitPort(current)
	switch {
	case rd.Host != "":
		a = rd.Host
	case from != to && port == defaultPort(from):
		a = host
	}
	if rd.Port == 0 {
		return a
	}
	host, _ = splitPort(a)
	given := strconv.Itoa(int(rd.Port))
	if given == defaultPort(to) {
		return host
	}
	return host + ":" + given
}

func defaultPort(scheme string) string {
	if scheme == "https" {
		return "443"
	}
	return "80"
}

func splitPort(a string) (host, port string) {
	i := strings.LastIndexByte(a, ':')
	if i < 0 || strings.IndexByte(a[i:], ']') >= 0 {
		return a, ""
	}
	return a[:i], a[i+1:]
}
