package main

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A server that does not get its ports has made nothing.
func TestATakenPortLeavesNothingBehind(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, args := range map[string][]string{
		"public": {"--listen", taken.Addr().String(), "--admin-listen", ""},
		"admin":  {"--listen", "127.0.0.1:0", "--admin-listen", taken.Addr().String()},
	} {
		data := filepath.Join(t.TempDir(), "data")
		out, err := refused(t, append([]string{"serve", "--data", data}, args...)...)
		if err == nil || !strings.Contains(out, "address already in use") {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		if _, err := os.Stat(data); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the folder is there: %v", name, err)
		}
	}
}
