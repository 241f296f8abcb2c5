package realdisk

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/test/leak"
)

// The role of a process of this binary, by its environment: the tests inside a mount namespace of
// their own (the value is a folder for their files), the tests outside of one (the value says why),
// or the process that serves disks (the value says where).
const (
	inside  = "SLUICE_REALDISK_INSIDE"
	outside = "SLUICE_REALDISK_OUTSIDE"
	serving = "SLUICE_REALDISK_SERVING"
)

// TestMain runs the tests in a mount namespace of their own. However they end, the kernel takes
// their mounts away with the namespace, and the loop devices with the mounts.
func TestMain(m *testing.M) {
	if dir := os.Getenv(serving); dir != "" {
		if err := serve(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(inside); dir != "" {
		os.Exit(tidy(dir, leak.Check(m).Run()))
	}
	switch {
	case os.Geteuid() != 0:
		os.Setenv(outside, "the tests do not run as root")
	case !withRace:
		code, err := inNamespace()
		if err == nil {
			os.Exit(code)
		}
		os.Setenv(outside, "no mount namespace can be had: "+err.Error())
	}
	os.Exit(m.Run())
}

// inNamespace runs the tests. It removes their files also if they could not.
func inNamespace() (code int, err error) {
	dir, err := os.MkdirTemp("", "sluice-realdisk-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"="+dir, "TMPDIR="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	_ = cmd.Wait()
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		code = 1 // killed
	}
	return code, nil
}

// tidy fails tests that leave mounts or loop devices behind.
func tidy(dir string, code int) int {
	var err error
	for range 100 { // a loop device goes a moment after its last user
		if err = left(dir); err == nil {
			return code
		}
		time.Sleep(20 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "FAIL: the tests left something behind:", err)
	return 1
}

// left names mounts and loop devices that belong to a folder.
func left(dir string) error {
	var errs []error
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	errs = append(errs, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir+"/") {
			errs = append(errs, errors.New("a mount: "+strings.TrimSpace(line)))
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	errs = append(errs, err)
	for _, l := range loops {
		if text, err := os.ReadFile(l); err == nil && strings.Contains(string(text), dir+"/") {
			errs = append(errs, fmt.Errorf("%s is over %s", l, text))
		}
	}
	return errors.Join(errs...)
}
