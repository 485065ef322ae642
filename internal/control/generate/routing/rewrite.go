package routing

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// RewritePath changes the path of what a match takes.
func RewritePath(action *routev3.RouteAction, r *model.Rewrite, m *model.HTTPMatch) {
	switch {
	case r.Regex != nil:
		action.RegexRewrite = substitute(r.Regex.Match, r.Regex.Rewrite)
	case r.FullPath != nil:
		action.RegexRewrite = substitute("^/.*$", literal(OrSlash(*r.FullPath)))
	case r.URI != "":
		if rx := JoinedRewrite(m, r.URI); rx != nil {
			action.RegexRewrite = rx
		} else {
			action.PrefixRewrite = r.URI
		}
	}
}

// JoinedRewrite replaces a prefix that ends at a segment's end so that exactly one slash follows what replaces it; nil where plain
// replacement does that. What replaces the root stands before whole segments too, and alone for the root itself.
func JoinedRewrite(m *model.HTTPMatch, uri string) *matcherv3.RegexMatchAndSubstitute {
	if m == nil || !m.Path.SegmentPrefix {
		return nil
	}
	prefix := strings.TrimRight(m.Path.Prefix, "/")
	switch {
	case strings.HasSuffix(uri, "/"):
		return substitute("^"+regexp.QuoteMeta(prefix)+"/*(.*)$", literal(uri)+`\1`)
	case prefix == "":
		return substitute("^(/.+|)/?$", literal(uri)+`\1`)
	}
	return nil
}

// literal escapes a text for RE2's substitution notation.
func literal(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// OrSlash is the path, "/" for none.
func OrSlash(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

// RedirectCodes: the absent one, 0, is 301, as Istio has it.
var RedirectCodes = map[int]routev3.RedirectAction_RedirectResponseCode{
	0:   routev3.RedirectAction_MOVED_PERMANENTLY,
	301: routev3.RedirectAction_MOVED_PERMANENTLY,
	302: routev3.RedirectAction_FOUND,
	303: routev3.RedirectAction_SEE_OTHER,
	307: routev3.RedirectAction_TEMPORARY_REDIRECT,
	308: routev3.RedirectAction_PERMANENT_REDIRECT,
}

// Direct answers without asking anybody.
func Direct(status int, body []byte) *routev3.Route_DirectResponse {
	d := &routev3.DirectResponseAction{Status: uint32(status)}
	if len(body) > 0 {
		d.Body = message.Inline(body)
	}
	return &routev3.Route_DirectResponse{DirectResponse: d}
}

func substitute(pattern, by string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: message.Regex(pattern), Substitution: by}
}
