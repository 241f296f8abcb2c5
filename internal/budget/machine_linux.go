package budget

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryLimit is the least limit of the control groups that the process is in, of version 2 or 1;
// 0: there is none. root is "/".
func memoryLimit(root string) (lowest int64) {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		id, rest, _ := strings.Cut(lines.Text(), ":")
		controllers, path, _ := strings.Cut(rest, ":")
		at, file := "sys/fs/cgroup", "memory.max"
		switch {
		case id == "0" && controllers == "":
		case strings.Contains(","+controllers+",", ",memory,"):
			at, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		// Within a container the path may be one of the host's, and what is mounted is the group
		// itself.
		for dir := filepath.Clean("/" + path); ; dir = filepath.Dir(dir) {
			if n := limitIn(filepath.Join(root, at, dir, file)); n > 0 && (lowest == 0 || n < lowest) {
				lowest = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return lowest
}

// limitIn reads a limit. Version 1 says that there is none by a number that no machine has, version
// 2 by "max".
func limitIn(file string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	if err != nil || n >= 1<<60 {
		return 0
	}
	return n
}
