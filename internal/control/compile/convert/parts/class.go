package parts

// OurClasses are what a Gateway or an Ingress names to be served by this mesh: our own name, and Istio's, so that its users'
// objects work. It is never changed.
var OurClasses = []string{OwnClass, IstioClass}

// Names of classes: our own, and Istio's.
const (
	OwnClass   = "weft"
	IstioClass = "istio"
)

// OurControllers are the controllers of classes that are ours, Istio's among them. It is never changed.
var OurControllers = []string{GatewayController, "istio.io/gateway-controller", "weft.dev/ingress-controller", "istio.io/ingress-controller"}

// GatewayController is our own name, in GatewayClasses and in statuses.
const GatewayController = "weft.dev/gateway-controller"
