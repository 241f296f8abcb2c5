package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The memory of a server has tokens and content. It is written to no core file.
func TestTheServerWritesNoCore(t *testing.T) {
	c := startServer(t, filepath.Join(t.TempDir(), "data"))
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", c.cmd.Process.Pid))
	if err != nil {
		t.Skip(err)
	}
	for line := range strings.Lines(string(limits)) {
		if of, ok := strings.CutPrefix(line, "Max core file size"); ok {
			if fields := strings.Fields(of); fields[0] != "0" || fields[1] != "0" {
				t.Error(line)
			}
			return
		}
	}
	t.Errorf("no limit of core files in %s", limits)
}
