package api

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// unsentBytes is how much of what is written to a connection the system keeps that it has not sent
// yet. By itself it keeps megabytes, for a client that reads nothing too. What is under way to the
// client is not bounded by it.
const unsentBytes = 256 << 10

// limitUnsent makes the system keep n bytes of what is written to a connection, or as many as it
// likes (0).
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

// peek copies what has come on a connection and was not read, and gives how much; 0: nothing, or
// nobody knows. It takes nothing away, and does not wait.
func peek(c net.Conn, p []byte) (n int) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { // Read would wait for whoever reads
		n, _, err = syscall.Recvfrom(int(fd), p, syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	if err != nil {
		return 0
	}
	return n
}
