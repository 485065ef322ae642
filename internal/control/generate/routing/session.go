package routing

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	sessionv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/stateful_session/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	cookiev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/cookie/v3"
	headerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/stateful_session/header/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/type/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weftmesh/weft/internal/control/generate/message"
	"github.com/weftmesh/weft/internal/control/model"
)

// Names of the filter and of its ways to keep sessions, Envoy's well-known ones.
const (
	SessionFilter = "envoy.filters.http.stateful_session"
	cookieSession = "envoy.http.stateful_session.cookie"
	headerSession = "envoy.http.stateful_session.header"
)

// Session keeps the requests of a session at one endpoint.
func Session(s *model.Session) *sessionv3.StatefulSessionPerRoute {
	name, state := headerSession, proto.Message(&headerv3.HeaderBasedSessionState{Name: s.Name})
	if !s.Header {
		cookie := &httpv3.Cookie{Name: s.Name, Path: "/"}
		if s.TTL > 0 {
			cookie.Ttl = durationpb.New(s.TTL)
		}
		name, state = cookieSession, &cookiev3.CookieBasedSessionState{Cookie: cookie}
	}
	return &sessionv3.StatefulSessionPerRoute{Override: &sessionv3.StatefulSessionPerRoute_StatefulSession{
		StatefulSession: &sessionv3.StatefulSession{SessionState: &corev3.TypedExtensionConfig{Name: name, TypedConfig: message.Pack(state)}}}}
}

// SessionFilters keep the sessions of routes, where some route has any.
func SessionFilters(some bool) []*hcmv3.HttpFilter {
	if !some {
		return nil
	}
	return []*hcmv3.HttpFilter{message.HTTPFilter(SessionFilter, &sessionv3.StatefulSession{})}
}
