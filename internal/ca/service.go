package ca

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	pb "istio.io/api/security/v1alpha1"

	"github.com/weftmesh/weft/internal/identity"
)

// Verifier proves an identity by a bearer token. Verify returns an error for a token that is not of its kind or not good; the
// error is shown to the asker and must not contain the token.
type Verifier struct {
	Proof  Proof
	Verify func(ctx context.Context, token string) (identity.Peer, error)
}

// Verifier makes the join tokens a proof for the signing service.
func (t *Tokens) Verifier() Verifier {
	return Verifier{Proof: ProofJoinToken, Verify: func(_ context.Context, token string) (identity.Peer, error) { return t.Verify(token) }}
}

// Result is what became of one signing call, for metrics.
type Result struct {
	Proof    Proof // empty when nothing was proven
	Code     codes.Code
	Duration time.Duration
}

// ServiceOptions of NewService.
type ServiceOptions struct {
	// Verifiers are asked in this order; the first that accepts a token decides.
	Verifiers []Verifier
	// Observe is told of every call; nil for nobody. It must be quick and safe for concurrent use.
	Observe func(Result)
}

// Service is Istio's certificate signing service (istio.v1.auth.IstioCertificateService) over an Authority. A caller proves who it is
// with a bearer token, or with a certificate of this mesh that is still valid, and gets a certificate for that identity only.
type Service struct {
	pb.UnimplementedIstioCertificateServiceServer
	authority *Authority
	options   ServiceOptions
}

// NewService makes the service; register it with Register.
func NewService(a *Authority, o ServiceOptions) *Service {
	return &Service{authority: a, options: o}
}

// Register adds the service to a gRPC server, which must serve TLS with Serving.ServerTLS and OptionalPeer.
func (s *Service) Register(server grpc.ServiceRegistrar) {
	pb.RegisterIstioCertificateServiceServer(server, s)
}

// CreateCertificate implements the service. The answer's chain is Istio's: the leaf, the intermediates, and last the roots, all of
// them in one element.
func (s *Service) CreateCertificate(ctx context.Context, r *pb.IstioCertificateRequest) (*pb.IstioCertificateResponse, error) {
	start := time.Now()
	proof, response, err := s.create(ctx, r)
	if s.options.Observe != nil {
		s.options.Observe(Result{Proof: proof, Code: status.Code(err), Duration: time.Since(start)})
	}
	return response, err
}

func (s *Service) create(ctx context.Context, r *pb.IstioCertificateRequest) (Proof, *pb.IstioCertificateResponse, error) {
	who, proof, err := s.authenticate(ctx)
	if err != nil {
		return "", nil, err
	}
	if err := checkRequestedNames([]byte(r.GetCsr()), who.ID); err != nil {
		return proof, nil, err
	}
	issued, err := s.authority.Sign([]byte(r.GetCsr()), who, requestedTTL(r.GetValidityDuration()), proof)
	if err != nil {
		return proof, nil, signingStatus(err)
	}
	return proof, &pb.IstioCertificateResponse{CertChain: encodeChain(issued, s.authority.TrustDomain())}, nil
}

// requestedTTL reads a number of seconds; what does not fit a Duration is as long as possible, and Sign cuts it.
func requestedTTL(seconds int64) time.Duration {
	const longest = int64(365 * day / time.Second)
	return time.Duration(min(max(seconds, 0), longest)) * time.Second
}

func encodeChain(issued *Issued, trustDomain string) []string {
	chain := make([]string, 0, len(issued.Chain)+1)
	for _, c := range issued.Chain {
		chain = append(chain, string(identity.EncodeCertificates(c)))
	}
	return append(chain, string(issued.Bundle.PEM(trustDomain)))
}

// authenticate proves who calls. A token comes first, since it may know newer facts than the certificate; a token that is no longer
// good does not spoil a valid certificate. Both together must name one identity.
func (s *Service) authenticate(ctx context.Context) (identity.Peer, Proof, error) {
	byToken, proof, tokenErr := s.tokenPeer(ctx)
	byCertificate, certificateErr := s.certificatePeer(ctx)
	switch {
	case tokenErr == nil && certificateErr == nil && byToken.ID != byCertificate.ID:
		return identity.Peer{}, "", status.Errorf(codes.PermissionDenied, "the token is for %s but the client certificate for %s; connect with one of them",
			byToken.ID, byCertificate.ID)
	case tokenErr == nil:
		return byToken, proof, nil
	case certificateErr == nil:
		return byCertificate, ProofCertificate, nil
	default:
		return identity.Peer{}, "", status.Errorf(codes.Unauthenticated, "no proof of identity: %v; %v; restart the workload to give it a new token",
			tokenErr, certificateErr)
	}
}

func (s *Service) tokenPeer(ctx context.Context) (identity.Peer, Proof, error) {
	token, err := bearer(ctx)
	if err != nil {
		return identity.Peer{}, "", err
	}
	refusals := []error{errors.New("no kind of token is accepted here")}
	for n, v := range s.options.Verifiers {
		who, err := v.Verify(ctx, token)
		if err == nil {
			return who, v.Proof, nil
		}
		refusals = append(refusals[:n], err)
	}
	return identity.Peer{}, "", errors.Join(refusals...)
}

// bearer gives the token of the call's authorization metadata (RFC 6750, section 2.1).
func bearer(ctx context.Context) (string, error) {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) != 1 {
		return "", fmt.Errorf("%d bearer tokens, want one", len(values))
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "bearer") || token == "" {
		return "", errors.New("the authorization metadata is not a bearer token")
	}
	return token, nil
}

// certificatePeer takes the identity and the facts from the client's certificate. The handshake verified it, but a connection may
// outlive its certificate, so it is verified again now.
func (s *Service) certificatePeer(ctx context.Context) (identity.Peer, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.Peer{}, errors.New("no client certificate")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return identity.Peer{}, errors.New("no client certificate")
	}
	who, err := s.authority.Bundle().Verify(info.State.PeerCertificates, x509.ExtKeyUsageClientAuth, s.authority.options.Clock())
	if err != nil {
		return identity.Peer{}, err
	}
	if who.TrustDomain != s.authority.TrustDomain() {
		return identity.Peer{}, fmt.Errorf("%s is not of trust domain %q", who.ID, s.authority.TrustDomain())
	}
	return who, nil
}

// checkRequestedNames refuses a request that names another identity than the proven one. Sign would ignore the name; saying so
// shows a wrong configuration at once, and an attempt at somebody else's certificate in the metrics.
func checkRequestedNames(csrPEM []byte, proven identity.ID) error {
	csr, err := decodeRequest(csrPEM)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "certificate request: %v", err)
	}
	for _, u := range csr.URIs {
		if u.String() != proven.String() {
			return status.Errorf(codes.PermissionDenied, "the request names %s, but the caller has proven to be %s", u, proven)
		}
	}
	return nil
}

func signingStatus(err error) error {
	switch {
	case errors.Is(err, ErrRequest):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrIssuerExpired):
		return status.Error(codes.FailedPrecondition, err.Error())
	default:
		return status.Error(codes.Unavailable, err.Error())
	}
}
