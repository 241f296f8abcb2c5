//go:build !linux

package api

import (
	"errors"
	"net"
	"os"
)

// sendFile: the body goes through this process.
func sendFile(*net.TCPConn, *os.File, int64, int64) (int64, error) { return 0, errors.ErrUnsupported }
