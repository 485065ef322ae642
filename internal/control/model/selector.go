package model

// Selects reports whether labels have everything that a selector asks for; an empty one selects everything.
func Selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}
