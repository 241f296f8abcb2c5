package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/api"
)

// loud starts a server that logs each request. A shell runs the line before first. It gives the
// pipe with the log.
func loud(t *testing.T, before string) (c *child, data string, log io.ReadCloser) {
	t.Helper()
	data = filepath.Join(t.TempDir(), "data")
	args := []string{"serve", "--verbose", "--listen", "127.0.0.1:0", "--admin-listen", "", "--data", data}
	cmd := exec.Command("sluice", args...)
	if before != "" {
		cmd = exec.Command("sh", append([]string{"-c", before + `; exec sluice "$@"`, "sluice"}, args...)...)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	cmd.Stderr = in
	heard := make(chan os.Signal, 1) // else the server ignores SIGHUP too, if the tests run under nohup
	signal.Notify(heard, syscall.SIGHUP)
	err = cmd.Start()
	signal.Stop(heard)
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	c = &child{cmd: cmd, said: &bytes.Buffer{}, done: make(chan struct{})}
	close(c.done)
	t.Cleanup(c.kill)
	one := make([]byte, 1)
	for !strings.Contains(c.said.String(), "or a folder: ") {
		if _, err := out.Read(one); err != nil {
			t.Fatalf("the server did not start: %v: %s", err, c.said)
		}
		c.said.Write(one)
	}
	_, at, _ := strings.Cut(c.said.String(), "listening on ")
	c.url, _, _ = strings.Cut(at, "\n")
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	c.client = api.NewClient(c.url, strings.TrimSpace(string(token)), nil)
	return c, data, out
}

// works makes so many requests, each of which is logged.
func (c *child) works(t *testing.T, n int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	for i := range n {
		if err := c.client.Ready(ctx); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
}

// ends sends a signal, and waits until the server ends well.
func (c *child) ends(t *testing.T, sig os.Signal) {
	t.Helper()
	if err := c.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	if err := c.cmd.Wait(); err != nil {
		t.Errorf("after %s the server ended with %v", sig, err)
	}
}

const manyLines = 1000 // more than fits into a pipe

func TestAServerWhoseLogNobodyReads(t *testing.T) {
	c, _, _ := loud(t, "")
	c.works(t, manyLines)
	c.ends(t, syscall.SIGTERM)
}

func TestAServerWhoseLogHasNoReader(t *testing.T) {
	c, _, log := loud(t, "")
	log.Close()
	c.works(t, 10)
	c.ends(t, syscall.SIGTERM)
}

func TestAClosedTerminalDrains(t *testing.T) {
	c, data, log := loud(t, "")
	c.ends(t, syscall.SIGHUP)
	if said, err := io.ReadAll(log); err != nil || !strings.Contains(string(said), "draining") {
		t.Errorf("%s, %v", said, err)
	}
	if _, err := os.Stat(filepath.Join(data, "meta", "CLEAN")); err != nil {
		t.Errorf("it was no clean stop: %v", err)
	}
}

func TestNohupIsHeeded(t *testing.T) {
	c, _, _ := loud(t, "trap '' HUP")
	if err := c.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	c.works(t, 3)
	c.ends(t, syscall.SIGTERM)
}

// A request that does not end holds the first signal up, and not the second.
func TestASecondSignalEndsTheServerAtOnce(t *testing.T) {
	c, data, log := loud(t, "")
	token, err := os.ReadFile(filepath.Join(data, "admin-token"))
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(c.url, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(
		conn,
		"POST /v1/memories_create?name=slow HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: "+
			"text/plain\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n",
		host, strings.TrimSpace(string(token)))
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("%q, %v", line, err)
	}
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	said, one := "", make([]byte, 1)
	for !strings.Contains(said, "draining") {
		if _, err := log.Read(one); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		said += string(one)
	}
	began := time.Now()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("it ended with %v after %s", err, time.Since(began))
	}
}

// A client whose output nobody reads any more ends in silence, as other programs do.
func TestAReaderOfResultsThatGoes(t *testing.T) {
	cmd := exec.Command("sluice", "--help")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out.Close()
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = in, &said
	err = cmd.Run()
	in.Close()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGPIPE || said.Len() > 0 {
		t.Errorf("%v: %s", err, &said)
	}
}
