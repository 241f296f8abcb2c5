package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"sluice/api"
)

// Program gives the sluice to run: the given one, or one that it builds in a folder.
func Program(given, dir string) (string, error) {
	if given != "" {
		return given, nil
	}
	exe := filepath.Join(dir, "sluice")
	if out, err := exec.Command("go", "build", "-o", exe, "sluice/cmd/sluice").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w: %s", err, out)
	}
	return exe, nil
}

// Server is a server in a process of its own.
type Server struct {
	Client *api.Client // as its admin
	URL    string      // where it listens
	Admin  string      // where its admin listener is

	cmd  *exec.Cmd
	life context.Context // done when it has ended

	mu   sync.Mutex
	said bytes.Buffer
	err  error // of Wait
}

// Start runs `sluice serve` on a data folder. A shell runs the line before first, to set limits.
// Start returns when the server listens.
func Start(exe, data, before string, flags ...string) (*Server, error) {
	args := append(
		[]string{
			"-c", before + ` exec "$0" "$@"`, exe, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
			"--data", data,
		},
		flags...,
	)
	life, end := context.WithCancel(context.Background())
	c := &Server{cmd: exec.Command("/bin/sh", args...), life: life}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := c.cmd.StderrPipe()
	if err == nil {
		err = c.cmd.Start()
	}
	if err != nil {
		end()
		return nil, err
	}
	listens := make(chan [2]string, 1)
	go func() {
		var public string
		lines := bufio.NewReader(stderr)
		for {
			line, err := lines.ReadString('\n')
			c.mu.Lock()
			if c.said.Len() < 1<<20 {
				c.said.WriteString(line)
			}
			c.mu.Unlock()
			if at, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on "); ok {
				public = at
			} else if at, ok := strings.CutPrefix(strings.TrimSpace(line), "admin listening on "); ok {
				listens <- [2]string{public, at}
			}
			if err != nil {
				break
			}
		}
		_, _ = io.Copy(io.Discard, lines)
		c.err = c.cmd.Wait()
		end()
	}()
	select {
	case at := <-listens:
		token, err := os.ReadFile(filepath.Join(data, "admin-token"))
		if err != nil {
			c.Kill()
			return nil, err
		}
		c.URL, c.Admin = at[0], at[1]
		c.Client = api.NewClient(c.URL, strings.TrimSpace(string(token)), &http.Client{
			Transport: &http.Transport{MaxIdleConnsPerHost: 16, DialContext: c.dial},
		})
		return c, nil
	case <-c.life.Done():
		return nil, fmt.Errorf("the server did not start: %w: %s", c.err, c.Output())
	case <-time.After(time.Minute):
		c.Kill()
		return nil, fmt.Errorf("the server does not listen after a minute: %s", c.Output())
	}
}

// dial opens a connection that ends with the server. After its end the port may be that of a server
// of other tests, which would keep the connection.
func (c *Server) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(c.life, func() { _ = conn.(*net.TCPConn).CloseWrite() }) // an answer may still be read
	return conn, nil
}

// Output is the text that the server has written on standard error.
func (c *Server) Output() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// PID is the id of its process.
func (c *Server) PID() int { return c.cmd.Process.Pid }

// Err is how it has ended; only after Done.
func (c *Server) Err() error { return c.err }

// Done is closed when it has ended.
func (c *Server) Done() <-chan struct{} { return c.life.Done() }

// Alive reports whether it has not ended.
func (c *Server) Alive() bool {
	select {
	case <-c.life.Done():
		return false
	default:
		return true
	}
}

// Signal sends it a signal.
func (c *Server) Signal(s syscall.Signal) { _ = c.cmd.Process.Signal(s) } // it may have ended

// Kill is kill -9.
func (c *Server) Kill() {
	c.Signal(syscall.SIGKILL)
	<-c.life.Done()
}

// Stop is SIGTERM; the server must drain and end with 0.
func (c *Server) Stop() error {
	c.Signal(syscall.SIGTERM)
	select {
	case <-c.life.Done():
	case <-time.After(time.Minute):
		c.Kill()
		return fmt.Errorf("the server has not ended a minute after SIGTERM: %s", c.Output())
	}
	if c.err != nil {
		return fmt.Errorf("the server ended with %w after SIGTERM: %s", c.err, c.Output())
	}
	return nil
}
