package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a server under measurement.
type process struct {
	cmd  *exec.Cmd
	log  string // where its output is
	done chan struct{}
}

// launch starts a program. Its output goes into a file in dir.
func launch(dir string, env []string, exe string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(exe, args...), log: filepath.Join(dir, "output"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = out, out, dir
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its output
		close(p.done)
	}()
	return p, nil
}

// stop kills the process. Its data are thrown away, so that it need not end well.
func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// end lets the process end by itself, so that the next start finds all in order.
func (p *process) end() error {
	if err := p.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(time.Minute):
		p.stop()
	}
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("%s ended badly (%s): %s", p.cmd.Path, p.cmd.ProcessState, p.tail())
	}
	return nil
}

// said waits for a line of the output, and gives the pattern's first group.
func (p *process) said(ctx context.Context, pattern string) (string, error) {
	re := regexp.MustCompile(pattern)
	var found string
	err := p.until(ctx, func() bool {
		b, _ := os.ReadFile(p.log)
		if m := re.FindSubmatch(b); m != nil {
			found = string(m[1])
		}
		return found != ""
	})
	return found, err
}

// listens waits until an address takes connections.
func (p *process) listens(ctx context.Context, addr string) error {
	return p.until(ctx, func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (p *process) until(ctx context.Context, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for !ready() {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.cmd.Path, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w: %s", p.cmd.Path, ctx.Err(), p.tail())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

func (p *process) tail() string {
	b, _ := os.ReadFile(p.log)
	return string(b[max(0, len(b)-2000):])
}

// cpu is the processor time of the process so far, user and system: its clock as
// clock_getcpuclockid(3) names it, in nanoseconds (/proc/PID/stat has hundredths of a second).
// Later work of the kernel in threads of its own (write-back) is not in it.
func (p *process) cpu() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|2), &ts); err != nil {
		return 0, fmt.Errorf("the clock of %s: %w", p.cmd.Path, err)
	}
	return time.Duration(ts.Nano()), nil
}

// peak is its largest resident set so far, in bytes.
func (p *process) peak() (int64, error) { return p.memory("VmHWM") }

// memory is a line of /proc/PID/status, in bytes.
func (p *process) memory(line string) (int64, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), line+":"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no %s in /proc/PID/status", line)
}

// freeAddr finds a port for programs that can't say which one they took.
func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
