package soak

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"sluice/internal/test/load"
)

// mishap is what happens to a server under load. When do returns, the server has ended.
type mishap struct {
	name  string
	small bool // needs a small disk
	// before gives lines that the shell runs before it becomes the server, and a function that
	// undoes them.
	before func(r *run) (line string, undo func(), err error)
	do     func(r *run, srv *load.Server) error
}

var mishaps = []mishap{
	{name: "kill -9", do: killed},
	{name: "kill -9 again and again while it starts", do: func(r *run, srv *load.Server) error {
		srv.Kill()
		for range 3 {
			cmd := exec.Command(r.exe, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "", "--data", r.data())
			if err := cmd.Start(); err != nil {
				return err
			}
			r.sleep(1, 80)
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		return nil
	}},
	{name: "SIGTERM", do: func(_ *run, srv *load.Server) error { return srv.Stop() }},
	{name: "SIGTERM, and kill -9 while it drains", do: func(r *run, srv *load.Server) error {
		srv.Signal(syscall.SIGTERM)
		r.sleep(1, 40)
		srv.Kill()
		return nil
	}},
	{name: "SIGSTOP", do: func(r *run, srv *load.Server) error {
		for range 2 {
			srv.Signal(syscall.SIGSTOP)
			r.sleep(50, 500)
			srv.Signal(syscall.SIGCONT)
			r.sleep(20, 200)
		}
		srv.Kill()
		return nil
	}},
	{name: "a second server", do: func(r *run, srv *load.Server) error {
		if second, err := load.Start(r.exe, r.data(), ""); err == nil {
			second.Kill()
			srv.Kill()
			return errors.New("a second server runs on the same folder")
		}
		return killed(r, srv)
	}},
	{name: "few descriptors", before: func(*run) (string, func(), error) { return "ulimit -n 48;", func() {}, nil }, do: survived},
	{name: "little memory", before: memoryLimit, do: killed},
	{name: "a full disk", small: true, do: func(r *run, srv *load.Server) error {
		ballast := filepath.Join(r.root, "ballast")
		f, err := os.Create(ballast)
		if err != nil {
			return err
		}
		for b := make([]byte, 1<<20); err == nil; {
			_, err = f.Write(b)
		}
		f.Close()
		r.sleep(50, 400)
		if err := os.Remove(ballast); err != nil {
			return err
		}
		r.sleep(20, 200)
		return survived(r, srv)
	}},
	{name: "no inodes", small: true, do: func(r *run, srv *load.Server) error {
		dir := filepath.Join(r.root, "ballast")
		err := os.Mkdir(dir, 0o700)
		for i := 0; err == nil; i++ {
			err = os.WriteFile(filepath.Join(dir, strconv.Itoa(i)), nil, 0o600)
		}
		r.sleep(50, 400)
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
		r.sleep(20, 200)
		return survived(r, srv)
	}},
}

func killed(r *run, srv *load.Server) error {
	r.sleep(1, 300)
	srv.Kill()
	return nil
}

// survived fails the test unless the server still runs, and then kills it.
func survived(r *run, srv *load.Server) error {
	r.sleep(100, 300)
	if !srv.Alive() {
		return fmt.Errorf("the server ended by itself: %s", srv.Output())
	}
	srv.Kill()
	return nil
}

// memoryLimit puts the server into a control group that has little memory. The kernel kills it if
// it needs more.
func memoryLimit(r *run) (string, func(), error) {
	dir := fmt.Sprintf("/sys/fs/cgroup/memory/sluice-soak-%d", os.Getpid())
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", func() {}, nil // no control groups here: then it is killed by hand alone
	}
	limit := 24<<20 + r.rand.Int64N(40<<20)
	err := os.WriteFile(filepath.Join(dir, "memory.limit_in_bytes"), []byte(strconv.FormatInt(limit, 10)), 0o600)
	return "echo $$ > " + dir + "/cgroup.procs;", func() { _ = os.Remove(dir) }, err
}
