package crashtest

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"sluice/catalog"
	"sluice/session"
)

// fate is what may have become of an upload. It is a set, since the outcome of an unanswered call
// is unknown.
type fate uint16

const (
	nowhere fate = 1 << iota // never begun
	open
	visible
	trashed
	purged
	aborted
	expired
)

func (f fate) String() string {
	out := ""
	for i, word := range []string{"nowhere", "open", "visible", "trashed", "purged", "aborted", "expired"} {
		if f&(1<<i) != 0 {
			out += "|" + word
		}
	}
	return out[min(1, len(out)):]
}

// patch is a range that a replacement withdraws. Until the replacement is answered, the old bytes
// may still be there.
type patch struct {
	session.Range
	was []byte
}

// file is one upload, and what its client knows of it.
type file struct {
	name, idem string
	by         string // the guest or the ticket that it belongs to; "": the admin
	content    []byte // the content that it is to have; never changed in place
	unknown    bool   // begun without its length
	created    bool   // by one request, without a session that its client knows
	batch      string // the uploads that finish together
	id         session.SessionID
	memory     catalog.MemoryID

	can    fate
	before fate            // the call that is under way
	must   []session.Range // acknowledged
	may    []session.Range // sent
	old    []patch
	harmed bool // acknowledged bytes may have been lost, and then must be reported missing
	age
}

// model has the answers so far, and the calls that are under way.
type model struct {
	mu    sync.Mutex
	files map[string]*file
	doing string // the call under way
	calls int    // counts calls
	seq   uint64 // the newest number of an event that a reader saw
	shown map[string]fate
	rights
	// unkept is how much running time the server may forget with its end.
	unkept time.Duration
}

func newModel() *model {
	return &model{files: map[string]*file{}, shown: map[string]fate{}, rights: newRights()}
}

// clone gives the model as it is, with everything that a reader has seen taken into account.
func (m *model) clone() *model {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := &model{
		files: make(map[string]*file, len(m.files)), doing: m.doing, seq: m.seq, shown: map[string]fate{},
		unkept: m.unkept,
	}
	for name, f := range m.files {
		c := *f
		c.must, c.may, c.old = slices.Clone(f.must), slices.Clone(f.may), slices.Clone(f.old)
		// A reader that still sees the former state has learned nothing of the call that is under
		// way.
		if seen := m.shown[name] &^ f.before; c.can&seen != 0 {
			c.can &= seen
		}
		out.files[name] = &c
	}
	out.rights = m.rights.clone()
	return out
}

// forgetTime takes back the running time that the end of a server may have taken.
func (m *model) forgetTime() {
	for _, f := range m.files {
		f.rest -= m.unkept
	}
	m.unkept = 0
}

func (m *model) names() []string { return slices.Sorted(maps.Keys(m.files)) }

// start notes that a call begins, and what it may change.
func (m *model) start(doing string, may func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	m.doing = doing
	clear(m.shown)
	for _, f := range m.files {
		f.before = f.can
	}
	if may != nil {
		may()
	}
}

// ack notes its answer.
func (m *model) ack(has func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.calls++
	m.doing += " (answered)"
	clear(m.shown)
	has()
}

// saw takes the findings of a reader, unless a call has begun or ended since it began to look.
func (m *model) saw(call int, seq uint64, found map[string]fate) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq = max(m.seq, seq)
	if call == m.calls {
		maps.Copy(m.shown, found)
	}
}

// newest is the newest event that a reader saw.
func (m *model) newest() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seq
}

func (m *model) now() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

// losePower notes that unsynced bytes may be lost.
func (m *model) losePower() {
	for _, f := range m.files {
		if f.can&open != 0 {
			f.harmed, f.shaken = true, false
		}
	}
}

// bytesOf gives n bytes that belong to a name and a version.
func bytesOf(name string, version uint64, n int) []byte {
	seed := version
	for _, c := range name {
		seed = seed*1099511628211 + uint64(c)
	}
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// replaced gives b with other bytes from off on.
func replaced(b []byte, off int64, with []byte) []byte {
	out := bytes.Clone(b)
	copy(out[off:], with)
	return out
}

// versions gives the bytes that the range r may have.
func (f *file) versions(r session.Range) [][]byte {
	out := [][]byte{f.content[r.Off:r.End]}
	for _, p := range f.old {
		if in := p.Intersect(r); !in.Empty() {
			out = append(out, replaced(f.content[r.Off:r.End], in.Off-r.Off, p.was[in.Off-p.Off:in.End-p.Off]))
		}
	}
	return out
}

func (f *file) String() string {
	return fmt.Sprintf("%s (session %d, %s, acknowledged %v, sent %v)", f.name, f.id, f.can, f.must, f.may)
}
