package proxy

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weftmesh/weft/internal/logformat"
	"github.com/weftmesh/weft/internal/proxy/conf"
)

func textFormat(t *testing.T, s string) *logformat.Format {
	t.Helper()
	f, err := logformat.ParseText(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// logsTo changes the access logs of the one target that the pod knows.
func (p *pod) logsTo(logs ...conf.AccessLog) {
	p.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		for _, t := range names {
			for _, c := range t.Listener.Chains {
				if c.HTTP != nil {
					h := *c.HTTP
					h.AccessLogs, c.HTTP = logs, &h
				}
				if c.TCP != nil {
					r := *c.TCP
					r.AccessLogs, c.TCP = logs, &r
				}
			}
		}
	})
}

func content(file string) string {
	b, _ := os.ReadFile(file)
	return string(b)
}

// TestConfiguredAccessLogsTakeThePlaceOfTheOwn: each in its file and format, and no line anywhere else.
func TestConfiguredAccessLogsTakeThePlaceOfTheOwn(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-App", r.Header.Get("X-Ask"))
		if r.URL.Path == "/bad" {
			w.WriteHeader(503)
		}
		io.WriteString(w, "hello")
	}))
	text, errors, objects := filepath.Join(t.TempDir(), "text"), filepath.Join(t.TempDir(), "errors"), filepath.Join(t.TempDir(), "objects")
	object, err := logformat.ParseObject(map[string]any{"code": "%RESPONSE_CODE%", "sent": "%BYTES_SENT%", "none": "%REQ(X-NONE)%", "both": "%PROTOCOL%/%GRPC_STATUS%",
		"list": []any{"%REQ(X-ASK)%", true}})
	if err != nil {
		t.Fatal(err)
	}
	client.logsTo(
		conf.AccessLog{Path: text, Format: textFormat(t, "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH):4% %RESPONSE_CODE% %REQ(X-ASK)%>%RESP(X-APP):3% 100%% %UPSTREAM_CLUSTER%\n")},
		conf.AccessLog{Path: errors, Format: textFormat(t, "%RESPONSE_CODE%\n"), Filter: &conf.LogFilter{Code: &conf.Comparison{Op: conf.AtLeast, Value: 500}}},
		conf.AccessLog{Path: objects, Format: object},
		conf.AccessLog{Path: filepath.Join(t.TempDir(), "no", "such", "folder")},
	)
	c := client.client()
	client.get(c, "http://reviews:9080/fine/path", "X-Ask", "a\"b\\cd")
	client.get(c, "http://reviews:9080/bad")
	want := `GET /fin 200 a\"b\\cd>a\"b 100% reviews` + "\n" + `GET /bad 503 ->- 100% reviews` + "\n"
	eventually(t, "both lines in the text", func() bool { return strings.Count(content(text), "\n") == 2 })
	if got := content(text); got != want {
		t.Errorf("text:\n%swant:\n%s", got, want)
	}
	eventually(t, "both objects", func() bool { return strings.Count(content(objects), "\n") == 2 })
	var got map[string]any
	if err := json.Unmarshal([]byte(strings.SplitN(content(objects), "\n", 2)[0]), &got); err != nil {
		t.Fatalf("%v in %s", err, content(objects))
	}
	if got["code"] != 200.0 || got["sent"] != 5.0 || got["none"] != nil || got["both"] != "HTTP/1.1/-" || got["list"].([]any)[0] != `a"b\cd` || got["list"].([]any)[1] != true {
		t.Errorf("object: %v", got)
	}
	eventually(t, "the failure in the log of failures", func() bool { return content(errors) == "503\n" })
	client.stop()
	if client.log.String() != "" {
		t.Errorf("the proxy's own log has: %s", client.log.String())
	}
}

// TestConfiguredStandardOutputIsTheOwnLog: one writer, so that lines do not mix.
func TestConfiguredStandardOutputIsTheOwnLog(t *testing.T) {
	client, server := pair(t)
	server.serve(9080, hello("reviews"))
	client.logsTo(conf.AccessLog{Path: "stdout", Format: textFormat(t, "own format: %RESPONSE_CODE%\n")})
	client.get(client.client(), "http://reviews:9080/")
	eventually(t, "the line", func() bool { return client.log.String() == "own format: 200\n" })
}

func TestConfiguredAccessLogOfARelayedConnection(t *testing.T) {
	client, server := pair(t)
	server.serveRaw(3306, func(c net.Conn) {
		io.WriteString(c, "welcome")
		c.Close()
	})
	client.cluster("db", 3306, server)
	tcp := &conf.TCP{Clusters: []conf.WeightedCluster{{Cluster: "db", Weight: 1}}, TotalWeight: 1}
	client.config.publish(func(_ *conf.Snapshot, names map[string]*conf.Target) {
		names[server.Addr().String()+":3306"] = &conf.Target{Name: "db", Listener: &conf.Listener{Name: "db", Chains: []*conf.Chain{{TCP: tcp}}}}
	})
	file := filepath.Join(t.TempDir(), "relayed")
	client.logsTo(conf.AccessLog{Path: file, Format: textFormat(t, "%PROTOCOL% %BYTES_SENT% %RESPONSE_FLAGS% %UPSTREAM_HOST% %UPSTREAM_CLUSTER%\n")})
	c, err := dialTo(client, server, 3306)(t.Context(), "tcp", "db:3306")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if b, err := io.ReadAll(c); string(b) != "welcome" {
		t.Fatalf("%q %v", b, err)
	}
	c.Close()
	eventually(t, "the line", func() bool { return strings.HasPrefix(content(file), "- 7 - 10.0.0.2:3306 db\n") })
}
