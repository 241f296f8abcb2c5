package main

import "syscall"

// maxConnections is how many connections the server may have open: each needs a descriptor for itself and mostly one for a file, and the stores need some
// of their own, however many clients there are.
func maxConnections() int64 {
	const most, stores = 1 << 16, 1024
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<40 {
		return most
	}
	n := int64(limit.Cur)
	return min(max((n-stores)/2, n/4, 1), most)
}
