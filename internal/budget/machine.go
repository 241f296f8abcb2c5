package budget

import "syscall"

// Read asks the system what this process may use.
func Read() Machine {
	m := Machine{Memory: memoryLimit("/")}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil && uint64(limit.Cur) < 1<<40 {
		m.Descriptors = int64(limit.Cur)
	}
	return m
}
