package main

import (
	"fmt"
	"os"
	"syscall"
)

// writeNoCore makes sure that a server that crashes leaves no file with its memory, in which there
// are tokens and content. Somebody who wants one sets GOTRACEBACK=crash.
func writeNoCore() error {
	if os.Getenv("GOTRACEBACK") == "crash" {
		return nil
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("switching core files off: %w", err)
	}
	return nil
}
