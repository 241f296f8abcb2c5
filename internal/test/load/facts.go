// Package load has clients of a real server, and the facts that the server has answered to them. It
// starts the program as a process, works on it from several sides at once, and asks afterwards for
// everything that was answered.
//
// It owns the operations and the facts. What happens to the server meanwhile belongs to its users:
// packages soak (mishaps of the process), realdisk (mishaps of the disk) and attack. It is for
// tests alone.
package load

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"strconv"
	"sync"
	"sync/atomic"
)

// chunkSize is no multiple of a block.
const chunkSize = 20_000

// Facts has what was answered to clients, and what they requested without getting an answer.
// The first must hold after anything that happens to the server; of the second all or nothing.
type Facts struct {
	mu       sync.Mutex
	uploads  map[string]*upload  // by session id
	memories map[string]*memory  // by id
	creates  map[string]*memory  // by idem, without an answer
	batches  map[string][]string // sessions of a finish_batch without an answer, by a name of its own

	acks  atomic.Int64
	names atomic.Int64
}

// upload is a session that was begun.
type upload struct {
	id, name string
	chunks   [][]byte
	acked    map[int]bool
	state    string // as answered: open, finished, aborted
	asked    string // an end that was asked for without an answer; or "nothing", while a client works on it
}

// memory is a stored file.
type memory struct {
	sum  string
	body []byte // only if it may have to be sent again
	// state: stored, trashed, purged. asked is another state that was requested without an answer.
	state, asked string
}

// New gives the facts of a server without clients so far.
func New() *Facts {
	return &Facts{
		uploads: map[string]*upload{}, memories: map[string]*memory{}, creates: map[string]*memory{},
		batches: map[string][]string{},
	}
}

// Answers is the number of acknowledgements so far.
func (f *Facts) Answers() int64 { return f.acks.Load() }

// Frozen gives a copy of the facts, and runs moment before any client can note anything new. If the
// server's disk stands still until moment, the copy holds for the disk as it is then.
func (f *Facts) Frozen(moment func() error) (*Facts, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := New()
	c.acks.Store(f.acks.Load())
	c.names.Store(f.names.Load())
	for id, u := range f.uploads {
		one := *u
		one.acked = maps.Clone(u.acked)
		c.uploads[id] = &one
	}
	for from, to := range map[*map[string]*memory]map[string]*memory{&f.memories: c.memories, &f.creates: c.creates} {
		for id, m := range *from {
			one := *m
			to[id] = &one
		}
	}
	maps.Copy(c.batches, f.batches)
	return c, moment()
}

func (u *upload) content() []byte { return bytes.Join(u.chunks, nil) }

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// acknowledged runs f under the lock, for an answer that has come.
func (f *Facts) acknowledged(do func()) {
	f.acks.Add(1)
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *Facts) locked(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *Facts) name() string { return strconv.FormatInt(f.names.Add(1), 10) }
