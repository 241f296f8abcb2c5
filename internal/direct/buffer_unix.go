//go:build unix

package direct

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// mapPages gives n bytes that begin at a page, outside of Go's heap. On the heap they would make it
// collect less often, and grow by as much again.
func mapPages(n int) ([]byte, error) {
	return unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
}

// newBuffer makes a buffer whose memory is unmapped when the buffer is unreachable.
func newBuffer(mem []byte) *buffer {
	b := &buffer{mem: mem}
	runtime.AddCleanup(b, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return b
}
