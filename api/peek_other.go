//go:build !linux

package api

import "net"

// peek: nobody knows what has come.
func peek(net.Conn, []byte) int { return 0 }
