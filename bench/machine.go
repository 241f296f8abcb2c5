package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// shape describes the machine that was measured: cores, memory, file system, kernel.
func shape(dir string) string {
	var mem unix.Sysinfo_t
	_ = unix.Sysinfo(&mem) // zero, then
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	load, _ := os.ReadFile("/proc/loadavg")
	s := fmt.Sprintf(
		"%d cores, %.0f GiB, %s, Linux %s, %s", runtime.NumCPU(), float64(mem.Totalram)*float64(mem.Unit)/(1<<30),
		fileSystem(dir),
		strings.TrimSpace(string(kernel)), runtime.Version())
	if f := strings.Fields(string(load)); len(f) > 0 {
		s += ", load " + f[0] + " before the run"
	}
	return s
}

// fileSystem names the file system of a folder, if it is one of the usual.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "an unknown file system"
	}
	switch st.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs (memory: nothing is durable here, and a sync is free)"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	default:
		return fmt.Sprintf("file system %#x", st.Type)
	}
}

// commit is the commit of the tree.
func commit(ctx context.Context, here string) string {
	cmd := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty")
	cmd.Dir = here
	out, err := cmd.Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}
