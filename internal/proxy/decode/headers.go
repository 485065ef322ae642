package decode

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
	"github.com/weftmesh/weft/internal/wire"
)

// headerChange decodes what to add and remove. prefix is "request_headers" or "response_headers".
func (d *decoder) headerChange(prefix string, add []*corev3.HeaderValueOption, remove []string) (h conf.HeaderChange) {
	walk.Each(d.Walk, prefix+"_to_add", add, func(m *corev3.HeaderValueOption) { d.headerValue(m, &h) })
	walk.Each(d.Walk, prefix+"_to_remove", remove, func(name string) {
		d.Token("", name)
		if strings.EqualFold(name, "host") {
			d.Fail("host cannot be removed")
		}
		h.Remove = append(h.Remove, name)
	})
	return h
}

func (d *decoder) headerValue(m *corev3.HeaderValueOption, h *conf.HeaderChange) {
	d.Only(m, "header", "append", "append_action", "keep_empty_value")
	d.Only(m.GetHeader(), "key", "value", "raw_value")
	v := conf.HeaderValue{Name: m.GetHeader().GetKey(), Value: m.GetHeader().GetValue(), KeepEmpty: m.GetKeepEmptyValue()}
	if raw := m.GetHeader().GetRawValue(); len(raw) > 0 {
		v.Value = string(raw)
	}
	d.checkValue(v.Value)
	action := m.GetAppendAction()
	if m.GetAppend() != nil && !m.GetAppend().GetValue() {
		action = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
	}
	switch {
	case strings.EqualFold(v.Name, "host") || v.Name == ":authority":
		overwrite := action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD || action == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS
		d.setHost(v.Value, overwrite, h) // there is always one
		return
	default:
		d.Token("header.key", v.Name)
	}
	if v.Value == "" && !m.GetKeepEmptyValue() {
		return // Envoy's rule: an empty value leaves the message as it is
	}
	lists := map[corev3.HeaderValueOption_HeaderAppendAction]*[]conf.HeaderValue{
		corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD: &h.Add, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD: &h.Set,
		corev3.HeaderValueOption_ADD_IF_ABSENT: &h.Default, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS: &h.Replace,
	}
	list := lists[action]
	if list == nil {
		d.At("append_action", func() { d.Fail("%d is not known", action) })
		return
	}
	*list = append(*list, v)
}

func (d *decoder) setHost(value string, replace bool, h *conf.HeaderChange) {
	if !replace {
		d.Fail("host can be replaced, not added to")
	}
	if value == "" || strings.ContainsAny(value, "% /?#@") {
		d.At("header.value", func() { d.Fail("%q is not a host", value) })
	}
	h.Host = value
}

// checkValue checks the characters (RFC 9110 section 5.5) and operators of a value. "%%" is a percent sign.
func (d *decoder) checkValue(v string) {
	d.At("header.value", func() {
		d.fieldValue(v)
		for rest := v; ; {
			_, after, found := strings.Cut(rest, "%")
			if !found {
				return
			}
			op, after, closed := strings.Cut(after, "%")
			if !closed {
				d.Fail("%q has a single percent sign (write %%%%)", v)
				return
			}
			if op != "" && !wire.KnownOperator(op) {
				d.Fail("operator %%%s%% is not supported", op)
			}
			rest = after
		}
	})
}

// fieldValue checks the characters of a value (RFC 9110 section 5.5).
func (d *decoder) fieldValue(v string) {
	if strings.ContainsAny(v, "\r\n\x00") {
		d.Fail("contains a line break or NUL")
	}
}
