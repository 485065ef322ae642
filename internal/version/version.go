// Package version says which build this is.
package version

import "runtime/debug"

// version is set by the linker (see the Makefile).
var version string

// String gives the version: what the build was stamped with, else the module's, else "devel".
func String() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
