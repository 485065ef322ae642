package replica

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weftmesh/weft/internal/api"
	"github.com/weftmesh/weft/internal/control/source/etcd"
	"github.com/weftmesh/weft/internal/control/source/etcd/etcdtest"
	"github.com/weftmesh/weft/internal/wire"
)

// roots are those that a replica has proxies trust.
func (p *plane) roots(t *testing.T) string {
	t.Helper()
	reply, err := p.client.Join(t.Context(), api.JoinRequest{Name: "a", Namespace: "default", ServiceAccount: "a", Workload: "a"})
	var b wire.Bootstrap
	if err != nil || json.Unmarshal(reply.Bootstrap, &b) != nil {
		t.Fatalf("%v: %s", err, reply.Bootstrap)
	}
	return b.Roots
}

// certified reports whether the certificate that a replica shows leads to some roots.
func (p *plane) certified(t *testing.T, roots string) bool {
	t.Helper()
	c, err := tls.Dial("tcp", p.address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}) // its names are not what is asked
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	chain, pool, between := c.ConnectionState().PeerCertificates, x509.NewCertPool(), x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(roots))
	for _, i := range chain[1:] {
		between.AddCert(i)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return err == nil
}

// tells reports whether weft status has a finding.
func (p *plane) tells(t *testing.T, code string) bool {
	t.Helper()
	s, err := p.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(s.Findings, func(f api.Finding) bool { return f.Code == code })
}

// TestEtcdIsLost has etcd killed under replicas, once restored from a backup and once empty, while another one with an empty state folder
// waits for it: all have one authority and hold the same, within the time that the manual names, and what is applied to any of them
// reaches the others.
func TestEtcdIsLost(t *testing.T) {
	server := etcdtest.Start(t)
	weft := program(t, "weft")
	planes := []*plane{startPlane(t, weft, 40, "--etcd", server.Endpoint)}
	planes = append(planes, startPlane(t, weft, 41, "--etcd", server.Endpoint))
	roots := planes[0].roots(t)
	planes[0].send(t, "1001")
	server.Down(t)
	backup := server.Backup(t)
	server.Up(t)
	for n, c := range []struct{ from, left string }{{backup, "http: 1001"}, {"", ""}} {
		planes[0].send(t, "1002")
		await(t, "all hold what will be lost", func() bool { // for those that do not, nothing goes back
			return !slices.ContainsFunc(planes, func(p *plane) bool { return !strings.Contains(strings.Join(p.held(t), ""), "1002") })
		})
		server.Down(t)
		server.Restore(t, c.from)
		late := beginPlane(t, weft, 42+n, "--etcd", server.Endpoint)
		await(t, "the newcomer waits for etcd", func() bool {
			_, err := late.client.Status(t.Context())
			return err != nil && strings.Contains(err.Error(), "waits for etcd")
		})
		server.Up(t)
		began := time.Now()
		await(t, "those that ran have read it anew", func() bool {
			return !slices.ContainsFunc(planes, func(p *plane) bool {
				held := strings.Join(p.held(t), "")
				return strings.Contains(held, "1002") || !strings.Contains(held, c.left) || !p.tells(t, "SourceWentBack") || p.tells(t, "SourceUnreadable")
			})
		})
		if took := time.Since(began); took > etcd.ReturnTime+time.Minute { // the machine has other things to do
			t.Errorf("it took %v", took)
		}
		late.awaitReady(t)
		planes = append(planes, late)
		for i, p := range planes {
			if p.roots(t) != roots || !p.certified(t, roots) || p.tells(t, "AuthorityDiffers") {
				t.Errorf("replica %d has another authority", i)
			}
			p.send(t, fmt.Sprint(2000+i))
			held := p.held(t)
			for _, other := range planes {
				await(t, "all hold what was applied to one", func() bool { return slices.Equal(held, other.held(t)) })
			}
		}
		await(t, "one writes the status", func() bool { return current(t, server) == 1 })
	}
}

// TestReplicaStoodStill: a replica that stood still while etcd was restored, and has passed since what the replica had read of it, as that of a
// machine which slept, reads it anew all the same, and says so.
func TestReplicaStoodStill(t *testing.T) {
	server := etcdtest.Start(t)
	p := startPlane(t, program(t, "weft"), 45, "--etcd", server.Endpoint)
	p.send(t, "1001")
	server.Down(t)
	backup := server.Backup(t)
	server.Up(t)
	p.send(t, "1002")
	p.signal(t, syscall.SIGSTOP)
	server.Down(t)
	server.Restore(t, backup)
	server.Up(t)
	for i := range 100 {
		if _, err := server.Client.Put(t.Context(), "/other", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(t, syscall.SIGCONT)
	await(t, "it holds what etcd does", func() bool {
		held := strings.Join(p.held(t), "")
		return strings.Contains(held, "1001") && !strings.Contains(held, "1002") && p.tells(t, "SourceWentBack")
	})
}

func (p *plane) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}
