package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"sluice/audit"
	"sluice/backup"
	"sluice/internal/panics"
	"sluice/store/folder"
)

// The controlSocket is a socket in the data folder. `sluice backup` sends it a request for the
// server that has the folder open. Anybody who may read the folder may use it, and no network
// reaches it. It takes one line of JSON, and answers in lines of JSON until it closes:
//
//	▶ {"backup":"/absolute/folder"}       and "salvage":true
//	◀ {"done":4096}                       bytes, now and then
//	◀ {"result":{…}} or {"error":"…"}
//
// If the other end hangs up, the backup stops.
type controlSocket struct {
	folder        *folder.Folder
	source        func() (backup.Source, error)
	log           *slog.Logger
	records       *audit.Log
	listener      net.Listener
	backupRunning sync.Mutex
}

const socketName = "socket"

// controlRequest and controlResponse are the messages of the control socket.
type controlRequest struct {
	Backup  string `json:"backup"`
	Salvage bool   `json:"salvage,omitempty"`
}

type controlResponse struct {
	Done   *int64         `json:"done,omitempty"`
	Result *backup.Result `json:"result,omitempty"`
	Error  string         `json:"error,omitempty"`
}

// maxSocketPath is how many bytes a socket's path may have on every system (sun_path).
const maxSocketPath = 100

// socketPath gives a path to the socket that is short enough. done releases it.
func socketPath(data string) (path string, done func(), err error) {
	path = filepath.Join(data, socketName)
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(data)
	if err != nil {
		return "", nil, err
	}
	path = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), socketName)
	if _, err := os.Stat(filepath.Dir(path)); err != nil {
		dir.Close()
		return "", nil, fmt.Errorf("the name of the data folder is too long for a socket in it: %s", data)
	}
	return path, func() { dir.Close() }, nil
}

// open makes the socket. The caller has the folder locked, so a socket that is there was left by a
// dead server.
func (c *controlSocket) open() error {
	path, done, err := socketPath(c.folder.HeldPath)
	if err != nil {
		return err
	}
	defer done()
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf(
			"%s is no socket, and is left as it is: move it away", filepath.Join(c.folder.Path, socketName),
		)
	}
	if err := c.remove(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false) // by then the name may lead to another server's socket
	c.listener = l
	return os.Chmod(path, 0o600)
}

// remove removes the socket's name in the folder that is open. The folder's path may lead to the
// folder of another server by now.
func (c *controlSocket) remove() error {
	return c.folder.FS.Remove(filepath.Join(c.folder.Path, socketName))
}

// openControl opens the control socket. If that is not possible the server runs without it.
func (s *server) openControl(log *slog.Logger, records *audit.Log) {
	c := &controlSocket{folder: s.folder, log: log, records: records, source: func() (backup.Source, error) {
		return s.source(s.keeper.Hold, log)
	}}
	if err := c.open(); err != nil {
		log.Warn("no backup can be made while this server runs: there can be no socket in the data folder", "err", err)
		return
	}
	s.control = c
}

// serve answers requests until ctx ends, and returns when none runs any more.
func (c *controlSocket) serve(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() {
		_ = c.remove() // a socket that nobody listens at does no harm
		c.listener.Close()
	})
	defer stop()
	for {
		conn, err := c.listener.Accept()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.log.Error("the socket for backups failed", "err", err)
			select {
			case <-time.After(time.Second):
				continue
			case <-ctx.Done():
				return
			}
		}
		wg.Go(func() { c.answer(ctx, conn) })
	}
}

var (
	errStopping = errors.New("the server is stopping")
	errHungUp   = errors.New("whoever asked for the backup has gone")
)

// answer serves one connection.
func (c *controlSocket) answer(server context.Context, conn net.Conn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(server)
	defer cancel()
	say := func(a controlResponse) {
		b, _ := json.Marshal(a)
		_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if _, err := conn.Write(append(b, '\n')); err != nil {
			cancel()
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewReader(io.LimitReader(conn, 64<<10))
	line, err := lines.ReadBytes('\n')
	var want controlRequest
	if err == nil {
		err = json.Unmarshal(line, &want)
	}
	if err != nil || !filepath.IsAbs(want.Backup) {
		say(controlResponse{Error: "the request is not understood"})
		return
	}
	if !c.backupRunning.TryLock() {
		say(controlResponse{Error: "a backup is running already"})
		return
	}
	defer c.backupRunning.Unlock()
	_ = conn.SetReadDeadline(time.Time{})
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = lines.ReadByte() // nothing more is to come
		cancel()
	})
	defer wg.Wait()
	defer conn.Close() // before the wait, so that the read above ends
	src, err := c.source()
	src.Salvage = want.Salvage
	var res backup.Result
	if err == nil {
		err = panics.Try(func() (err error) {
			res, err = backupInto(ctx, c.folder.Path, want.Backup, src, rateLimited(
				func(done, _ int64) { say(controlResponse{Done: &done}) },
			))
			return err
		})
	}
	if err != nil {
		if server.Err() != nil {
			err = errStopping
		} else if ctx.Err() != nil {
			err = errHungUp
		}
		c.log.Warn("a backup failed", "folder", want.Backup, "err", err)
		c.record(conn, audit.Failed, fmt.Sprintf("into %s: %v", want.Backup, err))
		say(controlResponse{Error: err.Error()})
		return
	}
	c.log.Info(
		"a backup was made", "folder", want.Backup, "number", res.Number, "bytes", res.Bytes, "copied", res.Copied,
		"damaged", len(res.Damaged), "missing", len(res.Missing),
	)
	c.record(conn, audit.OK, "into "+want.Backup)
	say(controlResponse{Result: &res})
}

// record makes the record of a backup for the audit log, with who asked for it.
func (c *controlSocket) record(conn net.Conn, o audit.Outcome, detail string) {
	if who := peerOf(conn); who != "" {
		detail = who + ", " + detail
	}
	c.records.Add(time.Now(), audit.Record{
		Event: audit.Act, Origin: audit.Socket, Action: "backup", Outcome: o, Detail: detail,
	})
}

// rateLimited passes on a progress report at most five times a second.
func rateLimited(report backup.Progress) backup.Progress {
	var last time.Time
	return func(done, total int64) {
		if now := time.Now(); now.Sub(last) >= 200*time.Millisecond {
			last = now
			report(done, total)
		}
	}
}

// errNoServer: no server answers on the socket of the data folder.
var errNoServer = errors.New("no server answers")

// backupByServer lets the server that has the data folder open make the backup. It gives
// errNoServer if there is none.
func backupByServer(
	ctx context.Context, data string, want controlRequest, report backup.Progress,
) (backup.Result, error) {
	fail := func(err error) (backup.Result, error) {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return backup.Result{}, err
	}
	path, done, err := socketPath(data)
	if err != nil {
		return fail(err)
	}
	defer done()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fail(errNoServer)
	}
	if err != nil {
		return fail(fmt.Errorf("asking the server for a backup: %w", err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	line, _ := json.Marshal(want)
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return fail(fmt.Errorf("asking the server for a backup: %w", err))
	}
	for answers := json.NewDecoder(conn); ; {
		var a controlResponse
		if err := answers.Decode(&a); err != nil {
			return fail(fmt.Errorf(
				"the server went away before the backup was made; the one that was there is as it was (%w)", err,
			))
		}
		switch {
		case a.Error != "":
			return fail(errors.New(a.Error))
		case a.Result != nil:
			return *a.Result, nil
		case a.Done != nil:
			report(*a.Done, -1)
		}
	}
}
