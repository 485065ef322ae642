package decode

import (
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/weftmesh/weft/internal/logformat"
	"github.com/weftmesh/weft/internal/proxy/conf"
	"github.com/weftmesh/weft/internal/proxy/decode/walk"
)

func (d *decoder) accessLogs(ms []*accesslogv3.AccessLog) (logs []conf.AccessLog) {
	walk.Each(d.Walk, "access_log", ms, func(m *accesslogv3.AccessLog) {
		d.Only(m, "name", "filter", "typed_config") // the name is for people
		var l conf.AccessLog
		if f := m.GetFilter(); f != nil {
			d.At("filter", func() { l.Filter = d.logFilter(f, 0) })
		}
		a := m.GetTypedConfig()
		d.TypedConfig(a, func() {
			switch string(a.MessageName()) {
			case "envoy.extensions.access_loggers.file.v3.FileAccessLog":
				if v := (&filev3.FileAccessLog{}); d.Typed(a, v) {
					l.Path, l.Format = d.logFile(v)
				}
			case "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog":
				if v := (&streamv3.StdoutAccessLog{}); d.Typed(a, v) {
					d.Only(v, "log_format")
					l.Path, l.Format = "stdout", d.logFormat(v.GetLogFormat())
				}
			case "envoy.extensions.access_loggers.stream.v3.StderrAccessLog":
				if v := (&streamv3.StderrAccessLog{}); d.Typed(a, v) {
					d.Only(v, "log_format")
					l.Path, l.Format = "stderr", d.logFormat(v.GetLogFormat())
				}
			default:
				d.Fail("access log %q of type %q is not supported", m.GetName(), a.GetTypeUrl())
			}
		})
		logs = append(logs, l)
	})
	return logs
}

// logFile decodes where lines go and how they look. format and json_format are log_format's older spellings.
func (d *decoder) logFile(m *filev3.FileAccessLog) (path string, f *logformat.Format) {
	d.Only(m, "path", "log_format", "format", "json_format")
	switch path = m.GetPath(); path {
	case "":
		d.At("path", func() { d.Failed(walk.ErrRequired) })
	case "/dev/stdout", "/dev/stderr":
		path = strings.TrimPrefix(path, "/dev/")
	case "stdout", "stderr":
		path = "./" + path // files of that name
	}
	switch v := m.GetAccessLogFormat().(type) {
	case *filev3.FileAccessLog_LogFormat:
		f = d.logFormat(v.LogFormat)
	case *filev3.FileAccessLog_Format: //nolint:staticcheck // deprecated, and still in use
		f = d.logText("format", v.Format)
	case *filev3.FileAccessLog_JsonFormat: //nolint:staticcheck // deprecated, and still in use
		f = d.logObject("json_format", v.JsonFormat)
	}
	return path, f
}

func (d *decoder) logFormat(m *corev3.SubstitutionFormatString) (f *logformat.Format) {
	if m == nil {
		return nil
	}
	d.At("log_format", func() {
		d.Only(m, "text_format", "text_format_source", "json_format", "omit_empty_values")
		switch v := m.GetFormat().(type) {
		case *corev3.SubstitutionFormatString_TextFormat: //nolint:staticcheck // deprecated, and still in use
			f = d.logText("text_format", v.TextFormat)
		case *corev3.SubstitutionFormatString_TextFormatSource:
			f = d.logText("text_format_source", string(d.Bytes("text_format_source", v.TextFormatSource)))
		case *corev3.SubstitutionFormatString_JsonFormat:
			f = d.logObject("json_format", v.JsonFormat)
		}
		if f == nil {
			d.Fail("format: is required")
			return
		}
		f.OmitEmpty = m.GetOmitEmptyValues()
	})
	return f
}

func (d *decoder) logText(field, text string) (f *logformat.Format) {
	d.At(field, func() {
		var err error
		if f, err = logformat.ParseText(text); err != nil {
			d.Failed(err)
			f = &logformat.Format{}
		}
	})
	return f
}

func (d *decoder) logObject(field string, m *structpb.Struct) (f *logformat.Format) {
	d.At(field, func() {
		var err error
		if f, err = logformat.ParseObject(m.AsMap()); err != nil {
			d.Failed(err)
			f = &logformat.Format{}
		}
	})
	return f
}

// maxFilterDepth bounds the nesting of filters.
const maxFilterDepth = 8

func (d *decoder) logFilter(m *accesslogv3.AccessLogFilter, depth int) *conf.LogFilter {
	d.Only(m, "status_code_filter", "duration_filter", "not_health_check_filter", "response_flag_filter", "and_filter", "or_filter")
	f := &conf.LogFilter{}
	if depth > maxFilterDepth {
		d.Failed(errTooDeep)
		return f
	}
	switch v := m.GetFilterSpecifier().(type) {
	case *accesslogv3.AccessLogFilter_StatusCodeFilter:
		d.At("status_code_filter", func() { f.Code = d.comparison(v.StatusCodeFilter.GetComparison()) })
	case *accesslogv3.AccessLogFilter_DurationFilter:
		d.At("duration_filter", func() { f.Duration = d.comparison(v.DurationFilter.GetComparison()) })
	case *accesslogv3.AccessLogFilter_NotHealthCheckFilter:
		return nil // nothing here marks a request as a health check
	case *accesslogv3.AccessLogFilter_ResponseFlagFilter:
		d.At("response_flag_filter", func() {
			if f.Flags = v.ResponseFlagFilter.GetFlags(); len(f.Flags) == 0 {
				f.AnyFlag = true
			}
			walk.Each(d.Walk, "flags", f.Flags, func(name string) {
				if !slices.Contains(envoyFlags, name) {
					d.Fail("%q is no response flag", name)
				}
			})
		})
	case *accesslogv3.AccessLogFilter_AndFilter:
		d.At("and_filter", func() { f.All = d.logFilters(v.AndFilter.GetFilters(), depth) })
	case *accesslogv3.AccessLogFilter_OrFilter:
		d.At("or_filter", func() { f.Any = d.logFilters(v.OrFilter.GetFilters(), depth) })
	default:
		d.Fail("filter_specifier: is required")
	}
	return f
}

// logFilters decodes what a filter joins; one that lets everything pass becomes a duration of any length.
func (d *decoder) logFilters(ms []*accesslogv3.AccessLogFilter, depth int) (fs []conf.LogFilter) {
	if len(ms) < 2 {
		d.At("filters", func() { d.Fail("needs two or more") })
	}
	walk.Each(d.Walk, "filters", ms, func(m *accesslogv3.AccessLogFilter) {
		if f := d.logFilter(m, depth+1); f != nil {
			fs = append(fs, *f)
			return
		}
		fs = append(fs, conf.LogFilter{Duration: &conf.Comparison{Op: conf.AtLeast}})
	})
	return fs
}

func (d *decoder) comparison(m *accesslogv3.ComparisonFilter) *conf.Comparison {
	c := &conf.Comparison{}
	d.At("comparison", func() {
		d.Only(m, "op", "value")
		d.At("value", func() { d.Only(m.GetValue(), "default_value", "runtime_key") }) // there is no runtime: the default holds
		if m == nil {
			d.Failed(walk.ErrRequired)
		}
		c.Value = int64(m.GetValue().GetDefaultValue())
		switch m.GetOp() {
		case accesslogv3.ComparisonFilter_EQ:
		case accesslogv3.ComparisonFilter_GE:
			c.Op = conf.AtLeast
		case accesslogv3.ComparisonFilter_LE:
			c.Op = conf.AtMost
		default:
			if m.GetOp().String() != "NE" {
				d.At("op", func() { d.Fail("%s is not supported", m.GetOp()) })
			}
			c.Op = conf.NotEqual
		}
	})
	return c
}

// envoyFlags are the response flags that Envoy takes, of which the proxy sets some.
var envoyFlags = []string{"LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX", "SI", "IH", "DPE",
	"UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR"}
