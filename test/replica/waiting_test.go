package replica

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// TestStatusSaysWhatAStartWaitsFor has sources that are not there: weft status names each, since when, and why. A file that cannot be
// read is not waited for.
func TestStatusSaysWhatAStartWaitsFor(t *testing.T) {
	weft, nobody := program(t, "weft"), loopbacktest.Address(t)
	kubeconfig := clientcmdapi.NewConfig()
	kubeconfig.Clusters["away"] = &clientcmdapi.Cluster{Server: "https://" + nobody, InsecureSkipTLSVerify: true}
	kubeconfig.Contexts["away"] = &clientcmdapi.Context{Cluster: "away"}
	kubeconfig.CurrentContext = "away"
	file, folder := filepath.Join(t.TempDir(), "kubeconfig"), t.TempDir()
	if err := clientcmd.WriteToFile(*kubeconfig, file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(folder, "a.yaml")); err != nil {
		t.Fatal(err)
	}
	const since = ` since 20\S+Z: `
	refused := regexp.QuoteMeta("dial tcp " + nobody + ": connect: connection refused")
	unreadable := func(place, part string) string {
		return `(?m)^` + place + `: warning: ` + part + ` cannot be read` + since + refused + ` \(nothing is served before it has been read\)`
	}
	for n, c := range []struct {
		from []string
		want []string // patterns
	}{
		{[]string{"--kubeconfig", file, "--source", folder}, []string{`control plane +waiting for kubernetes since \d+s;`,
			unreadable("kubernetes", "the list of its kinds"), `a\.yaml: error: cannot be read: no such file`}},
		{[]string{"--consul", "http://" + nobody}, []string{`control plane +waiting for consul since \d+s;`, unreadable("consul", "/v1/catalog/services")}},
		{[]string{"--kubeconfig", file, "--consul", "http://" + nobody}, []string{`waiting for kubernetes and consul since`,
			unreadable("kubernetes", "the list of its kinds"), unreadable("consul", "/v1/catalog/services")}},
		{[]string{"--etcd", nobody}, []string{`it has been started and waits for etcd` + since + `.*no answer from ` + nobody + ` in 10s: ` + refused}},
		{[]string{"--source", folder}, []string{`control plane +running since`, `a\.yaml: error: cannot be read: no such file`}},
	} {
		t.Run(fmt.Sprint(c.from[0], len(c.from)), func(t *testing.T) {
			p := beginPlane(t, weft, 30+n, c.from...)
			for _, want := range c.want {
				text := ""
				await(t, want, func() bool {
					out, _ := exec.Command(weft, "--mesh", p.mesh, "status").CombinedOutput() // it fails as long as there is no status
					text = string(out)
					return regexp.MustCompile(want).MatchString(text)
				})
			}
		})
	}
}
