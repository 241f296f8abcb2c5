package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// put leaves several kinds of things in a folder out. Each is named as what it is, once, and alone
// makes the exit status 1. Files beside it are stored.
func TestWhatPutLeavesOutIsInItsExitStatus(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	srv := startServer(t, data)
	for name, c := range map[string]struct {
		make func(path string) error
		says string
	}{
		"pipe":     {func(path string) error { return syscall.Mkfifo(path, 0o600) }, "it is a pipe"},
		"socket":   {func(path string) error { return bindOnly(path) }, "it is a socket"},
		"dangling": {func(path string) error { return os.Symlink("none", path) }, "it is a link that leads nowhere"},
		"link":     {func(path string) error { return os.Symlink("file", path) }, "it is a link (name it itself to store what it leads to)"},
		"folder":   {func(path string) error { return os.Symlink(".", path) }, "it is a link (name it itself to store what it leads to)"},
		"half": {func(path string) error {
			return os.WriteFile(path+".sluice-journal", []byte("sluice journal\000\001"), 0o600)
		}, "it is half of a get that goes on"},
		"nothing": {func(string) error { return nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "left") // a socket's name has about 100 bytes
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			if err := os.WriteFile(filepath.Join(dir, "file"), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.make(filepath.Join(dir, "x")); err != nil {
				t.Fatal(err)
			}
			for _, form := range []string{"", "--json"} {
				args := []string{"put", dir, "--server", srv.url, "--token-file", filepath.Join(data, "admin-token")}
				count := "1 left out\n"
				if form != "" {
					args, count = append(args, form), "{\"left_out\":1}\n"
				}
				out, err := refused(t, args...)
				if stored := strings.Contains(out, "file"); !stored || (err == nil) != (c.says == "") ||
					strings.Count(out, c.says) != 1 && c.says != "" || strings.Contains(out, count) != (c.says != "") {
					t.Errorf("%s: %v: %s", form, err, out)
				}
			}
		})
	}
}

// bindOnly makes a socket that stays when nobody listens.
func bindOnly(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}
