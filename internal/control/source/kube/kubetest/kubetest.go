// Package kubetest gives tests a real Kubernetes API server.
//
// Two are taken, by environment variables: WEFT_TEST_KUBECONFIG is the kubeconfig of a cluster that tests may fill and empty, and
// WEFT_TEST_KUBEBIN a folder with the programs kube-apiserver and etcd, which tests start for themselves, and may also stop. Where
// there is neither, tests are skipped and say so.
package kubetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/discovery"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/weftmesh/weft/internal/loopback/loopbacktest"
)

// Server is an API server. Its methods but Config need one that the test has started; Own says whether it is.
type Server struct {
	Config *rest.Config
	// Own is false for a cluster that is somebody else's.
	Own bool

	dir, bin  string
	etcd      string // client address
	port      string
	apiserver *exec.Cmd
	database  *exec.Cmd
	peer      string // etcd's address for others
}

const token = "test-token"

// Start gives a server, or skips the test. One that the test starts is gone when it ends.
func Start(t *testing.T) *Server {
	t.Helper()
	if file := os.Getenv("WEFT_TEST_KUBECONFIG"); file != "" {
		c, err := clientcmd.BuildConfigFromFlags("", file)
		if err != nil {
			t.Fatal(err)
		}
		return &Server{Config: c}
	}
	bin := os.Getenv("WEFT_TEST_KUBEBIN")
	if bin == "" {
		t.Skip("no Kubernetes: neither WEFT_TEST_KUBECONFIG (a cluster) nor WEFT_TEST_KUBEBIN (a folder with kube-apiserver and etcd) is set")
	}
	return start(t, bin)
}

// Own is Start for tests that stop the server, which only their own suffers.
func Own(t *testing.T) *Server {
	t.Helper()
	bin := os.Getenv("WEFT_TEST_KUBEBIN")
	if bin == "" {
		t.Skip("no Kubernetes of its own: WEFT_TEST_KUBEBIN (a folder with kube-apiserver and etcd) is not set")
	}
	return start(t, bin)
}

func start(t *testing.T, bin string) *Server {
	t.Helper()
	s := &Server{Own: true, bin: bin, dir: t.TempDir(), etcd: loopbacktest.Address(t)}
	_, s.port, _ = net.SplitHostPort(loopbacktest.Address(t))
	s.peer = loopbacktest.Address(t)
	s.etcdUp(t)
	s.writeKeys(t)
	s.Config = &rest.Config{Host: "https://127.0.0.1:" + s.port, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}
	s.Up(t)
	return s
}

func (s *Server) etcdUp(t *testing.T) {
	t.Helper()
	s.database = s.run(t, "etcd", "--name=test", "--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--log-level=error",
		"--listen-client-urls=http://"+s.etcd, "--advertise-client-urls=http://"+s.etcd, "--listen-peer-urls=http://"+s.peer,
		"--initial-advertise-peer-urls=http://"+s.peer, "--initial-cluster=test=http://"+s.peer)
}

// Backup copies what etcd holds, and gives what puts it back. For either, all is stopped and started.
func (s *Server) Backup(t *testing.T) (restore func()) {
	t.Helper()
	data, kept := filepath.Join(s.dir, "etcd"), filepath.Join(t.TempDir(), "etcd")
	stopped := func(do func() error) {
		t.Helper()
		s.Down(t)
		if err := s.database.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_, _ = s.database.Process.Wait() // ended by the signal
		if err := do(); err != nil {
			t.Fatal(err)
		}
		s.etcdUp(t)
		s.Up(t)
	}
	stopped(func() error { return os.CopyFS(kept, os.DirFS(data)) })
	return func() {
		t.Helper()
		stopped(func() error {
			if err := os.RemoveAll(data); err != nil {
				return err
			}
			return os.CopyFS(data, os.DirFS(kept))
		})
	}
}

// Kubeconfig writes the file that leads to the server.
func (s *Server) Kubeconfig(t *testing.T) string {
	t.Helper()
	c := clientcmdapi.NewConfig()
	c.Clusters["test"] = &clientcmdapi.Cluster{Server: s.Config.Host, InsecureSkipTLSVerify: true}
	c.AuthInfos["test"] = &clientcmdapi.AuthInfo{Token: s.Config.BearerToken}
	c.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	c.CurrentContext = "test"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
	return file
}

// As gives the configuration of who reaches the server as a service account.
func (s *Server) As(t *testing.T, namespace, account string) *rest.Config {
	t.Helper()
	client, err := corev1.NewForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	made, err := client.ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	c := rest.CopyConfig(s.Config)
	c.BearerToken = made.Status.Token
	return c
}

// Up starts the API server and waits until it is ready.
func (s *Server) Up(t *testing.T) {
	t.Helper()
	s.apiserver = s.run(t, "kube-apiserver", "--etcd-servers=http://"+s.etcd, "--bind-address=127.0.0.1", "--secure-port="+s.port,
		"--cert-dir="+filepath.Join(s.dir, "certs"), "--token-auth-file="+filepath.Join(s.dir, "tokens"), "--authorization-mode=RBAC",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+filepath.Join(s.dir, "sa.pub"),
		"--service-account-signing-key-file="+filepath.Join(s.dir, "sa.key"), "--service-cluster-ip-range=10.96.0.0/16",
		"--disable-admission-plugins=ServiceAccount", "--watch-cache=true", "-v=0")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	d, err := discovery.NewDiscoveryClientForConfig(s.Config)
	if err != nil {
		t.Fatal(err)
	}
	for {
		_, err := d.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the API server does not become ready: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// Down kills the API server; its objects stay.
func (s *Server) Down(t *testing.T) {
	t.Helper()
	if err := s.apiserver.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = s.apiserver.Process.Wait() // killed
}

// Hang stops the API server's process, which keeps its connections and takes new ones, and gives what has it go on.
func (s *Server) Hang(t *testing.T) (resume func()) {
	t.Helper()
	p := s.apiserver.Process
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
}

// run starts a program that ends with the test, and with the test's process at the latest.
func (s *Server) run(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_, _ = cmd.Process.Wait()
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return cmd
}

func (s *Server) writeKeys(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{
		"tokens": fmt.Appendf(nil, "%s,admin,1,system:masters\n", token),
		"sa.key": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}),
		"sa.pub": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
