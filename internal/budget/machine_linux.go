package budget

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memoryLimit is the lowest limit of the control groups that the process is in, of version 2 or 1,
// in bytes. 0 means that there is none. root is "/".
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
		// Within a container the path may be one of the host's. Then the mounted folder is the
		// group itself.
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

// limitIn reads a limit. If there is none, version 1 gives a number that no machine has, and
// version 2 gives "max".
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
