package signin

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sluice/internal/durable"
)

// Login is what is kept of a sign-in at one server.
type Login struct {
	Server   string    `json:"server"`
	Issuer   string    `json:"issuer"`
	ClientID string    `json:"client_id"`
	Audience string    `json:"audience"`
	Token    string    `json:"token"` // what the server takes
	Made     time.Time `json:"made"`  // when Token came
	Expires  time.Time `json:"expires"`
	Refresh  string    `json:"refresh_token,omitempty"` // brings the next Token; empty: nothing does
}

// Store keeps logins in a folder, one in a file, for this user's eyes alone. Several processes may
// use it at once.
type Store struct{ Dir string }

// DefaultStore is the Store in the user's configuration folder.
func DefaultStore() (Store, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return Store{}, fmt.Errorf("the folder for logins: %w", err)
	}
	return Store{filepath.Join(dir, "sluice", "logins")}, nil
}

// maxFile bounds the file of a login in bytes.
const maxFile = 256 << 10

// ErrNone: there is no login at the server.
var ErrNone = errors.New("there is no login")

// Path is the file of the login at a server.
func (s Store) Path(server string) string {
	sum := sha256.Sum256([]byte(plainURL(server)))
	return filepath.Join(s.Dir, hex.EncodeToString(sum[:16])+".json")
}

// plainURL brings the addresses of one server into one form.
func plainURL(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return server
	}
	u.Scheme, u.Host = strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if port := map[string]string{"http": ":80", "https": ":443"}[u.Scheme]; port != "" {
		u.Host = strings.TrimSuffix(u.Host, port)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u.String()
}

// Load reads the login at a server. It gives ErrNone if there is none. It refuses a file that
// others can read or change, and one that is not the user's.
func (s Store) Load(server string) (l Login, err error) {
	path := s.Path(server)
	f, err := durable.OpenRegular(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, ErrNone
	}
	if err != nil {
		return l, fmt.Errorf("the login: %w", err)
	}
	if f == nil {
		return l, fmt.Errorf("the login: %s is no regular file; remove it, and sign in again", path)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return l, fmt.Errorf("the login: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return l, fmt.Errorf("the login in %s is not taken: others may read or change it (mode %04o). If nobody has, "+
			"make it yours with chmod 600; else sluice logout, and sign in again", path, mode)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return l, fmt.Errorf("the login in %s is not taken: the file belongs to another user", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err == nil && plainURL(l.Server) != plainURL(server) {
		err = fmt.Errorf("it is one at %s", l.Server)
	}
	if err != nil {
		return l, fmt.Errorf("the login in %s can't be read; sign in again: %w", path, err)
	}
	return l, nil
}

// Save keeps a login: all of it or, after a crash, the one before.
func (s Store) Save(l Login) error {
	if err := s.makeDir(); err != nil {
		return err
	}
	b, err := json.Marshal(l)
	if err == nil {
		err = durable.WriteFile(durable.OS{}, s.Path(l.Server), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("keeping the login: %w", err)
	}
	return nil
}

// makeDir makes the folder, and takes the rights of others away from one that is there.
func (s Store) makeDir() error {
	err := os.MkdirAll(s.Dir, 0o700)
	if err == nil {
		err = os.Chmod(s.Dir, 0o700)
	}
	if err != nil {
		return fmt.Errorf("the folder for logins: %w", err)
	}
	return nil
}

// Remove removes the login at a server, in whatever state it is. A repeat does nothing.
func (s Store) Remove(server string) error {
	if err := os.Remove(s.Path(server)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the login: %w", err)
	}
	return nil
}

// lockPause is how long a process waits before it tries again to get the lock of another one.
// lockTimeout is how long it waits at all: the other one renews a login meanwhile.
const (
	lockPause   = 50 * time.Millisecond
	lockTimeout = time.Minute
)

// lock waits until no other process, and nobody else in this one, changes the login at a server.
func (s Store) lock(ctx context.Context, server string) (unlock func(), err error) {
	if err := s.makeDir(); err != nil {
		return nil, err
	}
	path := strings.TrimSuffix(s.Path(server), ".json") + ".lock"
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	for {
		f, err := durable.Lock(durable.OS{}, path)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			return nil, fmt.Errorf("the login: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("another process changes the login at %s: %w", server, ctx.Err())
		case <-time.After(lockPause):
		}
	}
}
