package wire

// What data planes that are not ours say of themselves in their node's metadata, and names that they share with the control plane.
const (
	// GeneratorField says which kind of client it is, as in Istio: "grpc" for gRPC's own.
	GeneratorField = "GENERATOR"
	// SDSDirField is the folder in which an Envoy finds its secrets as files, named by SDSFile. Without it the Envoy has, as Istio's
	// agents provide it, a static cluster SDSCluster that serves them.
	SDSDirField = "WEFT_SDS_DIR"
	// SDSCluster is where Envoys ask for secrets that are no files.
	SDSCluster = "sds-grpc"
)

// The names of the certificate that every client of the mesh has, and of the mesh's roots: instances of certificate providers, or
// secrets.
const (
	OwnCertificate = "default"
	MeshRoots      = "ROOTCA"
	// SystemRoots are the roots of the system that an Envoy runs on, by the name under which Istio's agents serve them.
	SystemRoots = "file-root:system"
)

// SDSFile names the file of a secret.
func SDSFile(secret string) string {
	switch secret {
	case MeshRoots:
		return "sds-rootca.json"
	case SystemRoots:
		return "sds-system.json"
	}
	return "sds-" + secret + ".json"
}
