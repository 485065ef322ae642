package local

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/explain"
)

// Explain evaluates a request in the mesh that is being served.
func (o objects) Explain(ctx context.Context, req api.ExplainRequest) (api.ExplainReply, error) {
	c, err := o.m.readyControl(ctx)
	if err != nil {
		return api.ExplainReply{}, err
	}
	q := explain.Request{From: req.From, Method: req.Method, URL: req.URL}
	for _, h := range req.Headers {
		q.Headers = append(q.Headers, explain.Field{Name: h.Name, Value: h.Value})
	}
	report, err := explain.Mesh(c.Mesh(), q)
	if err != nil {
		return api.ExplainReply{}, &api.InvalidError{Message: err.Error(), Hint: "weft explain --help has examples"}
	}
	var text strings.Builder
	if err := report.WriteText(&text, req.Color); err != nil {
		return api.ExplainReply{}, err
	}
	raw, err := json.Marshal(report)
	return api.ExplainReply{Report: raw, Text: text.String()}, err
}
