package soak

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/api"
)

// child is a server in a process of its own.
type child struct {
	cmd    *exec.Cmd
	client *api.Client
	done   chan struct{} // closed when it has ended

	mu   sync.Mutex
	said bytes.Buffer
	err  error // of Wait
}

// start runs `sluice serve` on a data folder, below a shell that first runs the line before (limits). It returns when the server listens.
func start(exe, data, before string, flags ...string) (*child, error) {
	args := append([]string{"-c", before + ` exec "$0" "$@"`, exe, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "", "--data", data}, flags...)
	c := &child{cmd: exec.Command("/bin/sh", args...), done: make(chan struct{})}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	url := make(chan string, 1)
	go func() {
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			c.mu.Lock()
			if c.said.Len() < 1<<20 {
				c.said.WriteString(line)
			}
			c.mu.Unlock()
			if at, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on "); ok {
				url <- at
			}
			if err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, lines)
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	select {
	case at := <-url:
		token, err := os.ReadFile(filepath.Join(data, "admin-token"))
		if err != nil {
			c.kill()
			return nil, err
		}
		c.client = api.NewClient(at, strings.TrimSpace(string(token)), nil)
		return c, nil
	case <-c.done:
		return nil, fmt.Errorf("the server did not start: %w: %s", c.err, c.output())
	case <-time.After(time.Minute):
		c.kill()
		return nil, fmt.Errorf("the server does not listen after a minute: %s", c.output())
	}
}

func (c *child) output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// alive reports whether it has not ended.
func (c *child) alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

func (c *child) signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) } // it may have ended

// kill is kill -9.
func (c *child) kill() {
	c.signal(syscall.SIGKILL)
	<-c.done
}

// stop is SIGTERM; the server must drain and end with 0.
func (c *child) stop() error {
	c.signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(time.Minute):
		c.kill()
		return fmt.Errorf("the server has not ended a minute after SIGTERM: %s", c.output())
	}
	if c.err != nil {
		return fmt.Errorf("the server ended with %w after SIGTERM: %s", c.err, c.output())
	}
	return nil
}
