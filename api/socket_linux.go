package api

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentBytes is how many unsent bytes the system keeps of what is written to a connection. By
// itself it keeps megabytes, even for a client that reads nothing. It does not bound the bytes that
// are under way to the client.
const unsentBytes = 256 << 10

// limitUnsent makes the system keep n unsent bytes of a connection, or as many as it likes (0).
func limitUnsent(c net.Conn, n int) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, n)
	})
}

// peek copies the bytes that have come on a connection and were not read, and returns how many. It
// returns 0 if there are none, or if the system can't tell. It takes nothing away, and does not
// wait.
func peek(c net.Conn, p []byte) (n int) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // Read would wait for another reader
		n, _, err = syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	if err != nil {
		return 0
	}
	return n
}
