// Package leak looks, when the tests of a package are over, for what they left behind: goroutines,
// open descriptors, files and child processes.
//
// It owns the comparison of before and after, for a whole package: a leak of one test is found at
// the end of all. It does not own how a test cleans up. It is for tests alone.
package leak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.uber.org/goleak"
)

// tests is what *testing.M does.
type tests interface{ Run() int }

// Check gives tests that fail, with exit status 1, if they pass and leave something behind. It is
// for the TestMain of a package:
//
//	func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }
//
// Tests have a folder for temporary files to themselves (TMPDIR). Descriptors and children are
// found in /proc, if there is one.
func Check(m tests) interface{ Run() int } { return checked{m} }

type checked struct{ tests }

// patience is how long something that ends by itself may take: a goroutine that was told to stop,
// or a connection that the other side closes.
const patience = 5 * time.Second

// within marks the processes that tests start from their own binary. These may be killed, and may
// leave anything.
const within = "SLUICE_WITHIN_TESTS"

// Run implements testing.M's.
func (c checked) Run() int {
	if os.Getenv(within) != "" {
		return c.tests.Run()
	}
	before := descriptors()
	tmp, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer os.RemoveAll(tmp)
	if err := errors.Join(os.Setenv("TMPDIR", tmp), os.Setenv(within, "yes")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if code := c.tests.Run(); code != 0 {
		return code // a test that failed may well leave something
	}
	if err := errors.Join(goleak.Find(), eventually(func() error { return left(before, tmp) })); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: the tests left something behind:\n%v\n", err)
		return 1
	}
	return 0
}

// eventually asks until there is nothing to say, or patience ends.
func eventually(ask func() error) error {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		if err := ask(); err == nil || time.Now().After(end) {
			return err
		}
		runtime.GC() // this closes files that nobody holds: they are leaks too, but no count shows them
	}
}

// left names things that are there now and were not before.
func left(before []string, tmp string) error {
	var errs []error
	for _, d := range descriptors() {
		if i := slices.Index(before, d); i >= 0 {
			before = slices.Delete(slices.Clone(before), i, i+1)
			continue
		}
		errs = append(errs, fmt.Errorf("an open descriptor of %s", d))
	}
	for _, c := range children() {
		errs = append(errs, fmt.Errorf("a child process: %s", c))
	}
	err := filepath.WalkDir(tmp, func(path string, _ fs.DirEntry, err error) error {
		if path != tmp {
			errs = append(errs, fmt.Errorf("the file %s", strings.TrimPrefix(path, tmp+"/")))
		}
		return err
	})
	return errors.Join(append(errs, err)...)
}

// descriptors counts the open descriptors of this process by their target. It leaves out the
// numbers of sockets and pipes: they say nothing.
func descriptors() (out []string) {
	dir := "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || strings.HasPrefix(to, "/proc/") {
			continue // the descriptor of the listing itself
		}
		if kind, _, ok := strings.Cut(to, ":["); ok {
			to = kind
		}
		if to == "anon_inode" {
			continue // the runtime's poller, made when it is first needed
		}
		out = append(out, to)
	}
	slices.Sort(out)
	return out
}

// children gives the command lines of the processes that this one has started and not waited for.
func children() (out []string) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, t := range tasks {
		text, _ := os.ReadFile(t)
		for _, pid := range strings.Fields(string(text)) {
			line, _ := os.ReadFile("/proc/" + pid + "/cmdline")
			out = append(out, pid+" "+strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
		}
	}
	return out
}
