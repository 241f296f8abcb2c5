package main

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// peerOf says which user and process are at the other end of a socket of this machine, or "".
func peerOf(c net.Conn) string {
	s, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return ""
	}
	var who *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		who, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return ""
	}
	return fmt.Sprintf("uid %d, pid %d", who.Uid, who.Pid)
}
