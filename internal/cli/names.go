package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weftmesh/weft/internal/api"
)

// ask is a kind on the command line, and the name of an object of it; of all of them where the name is empty.
type ask struct{ kind, name string }

// asked reads KIND[,KIND...] [NAME...], or KIND/NAME..., as kubectl does. Whether there are such kinds is left to the caller.
func asked(args []string) (all []ask, err error) {
	if len(args) == 0 {
		return nil, nil
	}
	if !strings.Contains(args[0], "/") {
		for kind := range strings.SplitSeq(args[0], ",") {
			if len(args) == 1 {
				all = append(all, ask{kind: kind})
			}
			for _, name := range args[1:] {
				all = append(all, ask{kind, name})
			}
		}
		return all, nil
	}
	for _, arg := range args {
		kind, name, ok := strings.Cut(arg, "/")
		if !ok || kind == "" || name == "" {
			return nil, &usageError{fmt.Errorf("%q is no KIND/NAME, as the others are", arg)}
		}
		all = append(all, ask{kind, name})
	}
	return all, nil
}

// program is what `weft run` makes: no object, and deleted as if it were one.
const program = "program"

func (a ask) isProgram() bool {
	return strings.EqualFold(a.kind, program) || strings.EqualFold(a.kind, program+"s")
}

// knownKinds refuses the name of a kind that no object has.
func knownKinds(all []ask) error {
	for _, a := range all {
		if !slices.ContainsFunc(api.Kinds(), func(k string) bool { return api.KindMatches(k, a.kind) }) {
			return &usageError{fmt.Errorf("there is no kind %q; the kinds are %s", a.kind, strings.Join(api.Kinds(), ", "))}
		}
	}
	return nil
}

// refs are the objects that are asked for by name, in a namespace unless the name says another.
func refs(c *cobra.Command, all []ask, namespace string) (out []api.Ref) {
	for _, a := range all {
		ns, name := objectName(c, a.name, namespace)
		out = append(out, api.Ref{Kind: a.kind, Namespace: ns, Name: name})
	}
	return out
}

// programs reports whether programs are asked for, and not objects: these cannot be deleted in one step.
func programs(all []ask) (bool, error) {
	if !slices.ContainsFunc(all, ask.isProgram) {
		return false, knownKinds(all)
	}
	if slices.ContainsFunc(all, func(a ask) bool { return !a.isProgram() }) {
		return false, &usageError{errors.New("programs and objects do not go together: delete the ones, then the others")}
	}
	return true, nil
}
