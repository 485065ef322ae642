package parts

// HTTP3Annotation with the value "true" makes a gateway serve HTTP/3 beside HTTPS.
const HTTP3Annotation = "weft.dev/http3"

// HTTP3 reads the annotation, once the gateway's servers are known.
func (p *Part) HTTP3() {
	field := Key("metadata.annotations", HTTP3Annotation)
	switch v, ok := p.GetAnnotations()[HTTP3Annotation]; {
	case !ok || v == "false":
		return
	case v != "true":
		p.Err("InvalidValue", field, `use "true" or "false"`, "%q is neither true nor false", v)
		return
	}
	for i := range p.Gateway.Servers {
		if p.Gateway.Servers[i].TerminatesHTTPS() {
			p.Gateway.HTTP3 = true
			return
		}
	}
	p.Warn("NoEffect", field, "add a server with protocol HTTPS that terminates TLS", "HTTP/3 needs TLS, and no server of this gateway terminates HTTPS")
}
