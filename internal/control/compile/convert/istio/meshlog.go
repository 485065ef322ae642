package istio

import (
	"encoding/json"
	"path"
	"strings"

	meshapi "istio.io/api/mesh/v1alpha1"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/logformat"
)

const defaultLogFile = "/dev/stdout"

// meshLog reads the access log of all proxies. A format without a file is for the log that proxies have anyway.
func (p converter) meshLog(m *meshapi.MeshConfig, s *model.Settings) {
	l := p.logFormat(m)
	switch file := m.AccessLogFile; {
	case file == "" && l == nil:
		return
	case file == "" && s.AccessLog:
		l.File = defaultLogFile
	case file == "":
		p.Warn("NoEffect", meshConfigPath+".accessLogFormat", "set accessLogFile: "+defaultLogFile, "this mesh has no access log")
		return
	case !path.IsAbs(file):
		p.Err("InvalidValue", meshConfigPath+".accessLogFile", "use "+defaultLogFile+", which weft logs shows", "%q is not an absolute path", file)
		return
	default:
		if l == nil {
			l = &model.AccessLogging{}
		}
		l.File = path.Clean(file)
	}
	s.AccessLog = s.AccessLog || p.Starting && l.File == defaultLogFile
	s.Log = l
}

// logFormat reads how lines look; nil where nothing is said, or nothing of use.
func (p converter) logFormat(m *meshapi.MeshConfig) *model.AccessLogging {
	text, field := m.AccessLogFormat, meshConfigPath+".accessLogFormat"
	switch m.AccessLogEncoding {
	case meshapi.MeshConfig_TEXT:
		if text == "" {
			return nil
		}
		if !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		if _, err := logformat.ParseText(text); err != nil {
			p.Err("InvalidValue", field, "", "%v", err)
			return nil
		}
		return &model.AccessLogging{Text: text}
	case meshapi.MeshConfig_JSON:
		l := &model.AccessLogging{JSON: true}
		if text == "" {
			return l
		}
		if err := json.Unmarshal([]byte(text), &l.Object); err != nil || l.Object == nil {
			p.Err("InvalidValue", field, `write {"name": "%OPERATOR%", ...}, or leave it out`, "with encoding JSON it must be an object of JSON")
			return nil
		}
		if _, err := logformat.ParseObject(l.Object); err != nil {
			p.Err("InvalidValue", field, "", "%v", err)
			return nil
		}
		return l
	}
	p.Unsupported(meshConfigPath+".accessLogEncoding", "use TEXT or JSON")
	return nil
}
