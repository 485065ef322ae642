package route

import (
	"encoding/base64"
	"strconv"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/message"
)

// Recall gives the address of the endpoint to which a request's session belongs; empty for none.
func Recall(s *conf.Session, h *message.Header) string {
	value, _ := h.Get(s.Header)
	if s.Cookie != "" {
		value = cookie(h, s.Cookie)
	}
	if value == "" {
		return ""
	}
	address, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return ""
	}
	return string(address)
}

// Remember has the response say to which endpoint the client's session belongs.
func Remember(s *conf.Session, h *message.Header, address string) {
	value := base64.StdEncoding.EncodeToString([]byte(address))
	if s.Header != "" {
		h.Set(s.Header, value)
		return
	}
	text := s.Cookie + `="` + value + `"`
	if s.TTL > 0 {
		text += "; Max-Age=" + strconv.FormatInt(int64(s.TTL.Seconds()), 10)
	}
	if s.Path != "" {
		text += "; Path=" + s.Path
	}
	h.Add("Set-Cookie", text+"; HttpOnly")
}
