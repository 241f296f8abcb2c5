package api

import (
	"errors"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// sendFile sends some of the n bytes of f from off on. It waits for the first bytes, and then sends
// as many as the connection takes without waiting.
func sendFile(c *net.TCPConn, f *os.File, off, n int64) (sent int64, err error) {
	to, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	from, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	k := 0
	var failed error
	// More at once than the kernel's buffers take would only keep the file's descriptor in use
	// longer.
	const max = 4 << 20
	opened := from.Control(func(in uintptr) {
		err = to.Write(func(out uintptr) bool {
			for {
				k, failed = unix.Sendfile(int(out), int(in), &off, int(min(n, max)))
				if !errors.Is(failed, unix.EINTR) {
					return !errors.Is(failed, unix.EAGAIN)
				}
			}
		})
	})
	switch {
	case opened != nil:
		return 0, opened
	case err != nil:
		return 0, err
	case errors.Is(failed, unix.EINVAL), errors.Is(failed, unix.ENOSYS), errors.Is(failed, unix.EOPNOTSUPP):
		return 0, errors.ErrUnsupported
	case failed != nil:
		return 0, &net.OpError{
			Op: "write", Net: "tcp", Addr: c.RemoteAddr(), Err: os.NewSyscallError("sendfile", failed),
		}
	case k <= 0:
		return 0, io.ErrUnexpectedEOF // the file got shorter
	}
	return int64(k), nil
}
