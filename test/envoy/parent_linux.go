package envoy

import (
	"os/exec"
	"syscall"
)

// dieWithParent ends the program with the tests, also when those are killed.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
