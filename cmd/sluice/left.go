package main

import "syscall"

// leftOut reports something that was not stored or fetched, and why.
func (e *env) leftOut(what, why string) {
	e.report(
		map[string]any{"left_out": map[string]string{"of": what, "reason": why}}, "left out, as %s: %s", why,
		clean(what),
	)
}

// sayLeftOut says at the end how many things were left out.
func (e *env) sayLeftOut(n int) {
	if n > 0 {
		e.report(map[string]int{"left_out": n}, "%d left out", n)
	}
}

// The descriptors that one file needs while it is put or got: its own, those of connections, and
// those of files beside it.
const (
	descriptorsOfPut = 3
	descriptorsOfGet = 8
)

// atMost bounds how many files are under way at a time, by the descriptors that this process may
// have.
func atMost(n, each int) int {
	const others = 24 // descriptors of the process itself
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<20 {
		return n
	}
	return max(min(n, (int(limit.Cur)-others)/each), 1)
}
