package api

import (
	"net"
	"syscall"
)

// peek copies what has come on a connection and was not read, and gives how much; 0: nothing, or nobody knows. It takes
// nothing away, and does not wait.
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
