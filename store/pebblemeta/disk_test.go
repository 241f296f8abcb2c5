package pebblemeta

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/catalog"
	"sluice/session"
)

// slowDisk is a disk that can delay the syncs of the log, and that crashes.
type slowDisk struct {
	vfs.FS
	mem   *vfs.MemFS
	mu    sync.Mutex
	gate  chan struct{} // syncs wait until it is closed; nil: they do not wait
	syncs int
}

func newSlowDisk() *slowDisk {
	d := &slowDisk{mem: vfs.NewCrashableMem()}
	d.FS = errorfs.Wrap(d.mem, errorfs.InjectorFunc(d.delaySync))
	return d
}

// delaySync is called with every operation before it is done.
func (d *slowDisk) delaySync(op errorfs.Op) error {
	sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo
	if !sync || !strings.HasSuffix(op.Path, ".log") {
		return nil
	}
	d.mu.Lock()
	d.syncs++
	gate := d.gate
	d.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return nil
}

// stop delays all syncs from now on, until resume.
func (d *slowDisk) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gate, d.syncs = make(chan struct{}), 0
}

// one lets the sync through that waits.
func (d *slowDisk) one() { d.gate <- struct{}{} }

func (d *slowDisk) resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.gate)
	d.gate = nil
}

// Lock lets a second database open the files of a first one that has died in this process.
func (d *slowDisk) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

func create(t testing.TB, db *DB, id session.SessionID, idem string) session.Session {
	t.Helper()
	now := time.UnixMilli(1e12).UTC()
	s, _, err := db.Sessions().Create(context.Background(), session.Session{
		ID:    id,
		Spec:  session.Spec{ChunkSize: 4, BytesExpected: 1 << 20, Owner: "o", Idem: idem},
		Began: now, LastSeen: now, Seen: int64(id),
	})
	if err != nil {
		t.Error(err)
	}
	return s
}

func record(db *DB, s session.Session, off int64) (session.Session, error) {
	return db.Sessions().Record(context.Background(), s.ID, s.Gen, session.Change{
		Add:    []session.Entry{{Range: session.Range{Off: off, End: off + 1}, Note: []byte("note")}},
		Length: session.Unknown,
	})
}

func putRow(db *DB, name string, n int64) error {
	return db.Catalog().Update(context.Background(), func(tx catalog.Tx) error {
		return catalog.Places.Put(tx, catalog.Name(name), catalog.Place{Name: name, Refs: n})
	})
}

// shown is everything that readers can see.
type shown struct {
	Sessions []session.Session
	Due      []session.Session
	Entries  [][]session.Entry
	Stats    session.Stats
	Rows     []catalog.Place
}

func all(t testing.TB, db *DB) (got shown) {
	t.Helper()
	ctx, st := context.Background(), db.Sessions()
	err := session.Page(ctx, st, session.Query{Limit: 100}, func(s session.Session) (bool, error) {
		loaded, err := st.Load(ctx, s.ID)
		if diff := cmp.Diff(s, loaded, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("a list and a load differ: %s", diff)
		}
		es, err2 := st.Entries(ctx, s.ID, session.All(), 0)
		got.Sessions, got.Entries = append(got.Sessions, s), append(got.Entries, es)
		return true, errors.Join(err, err2)
	})
	for _, state := range []session.State{session.Open, session.Finished} {
		due := session.Query{Due: 1 << 60, State: state, Limit: 100}
		err = errors.Join(err, session.Page(ctx, st, due, func(s session.Session) (bool, error) {
			got.Due = append(got.Due, s)
			return true, nil
		}))
	}
	stats, err2 := st.Stats(ctx)
	got.Stats = stats
	err3 := db.Catalog().View(ctx, func(r catalog.Reader) error {
		for p, err := range catalog.Places.After(r, "") {
			if err != nil {
				return err
			}
			one, err := catalog.Places.Get(r, catalog.Name(p.Name))
			if err != nil || one != p {
				t.Errorf("a scan has %+v, a get %+v, %v", p, one, err)
			}
			got.Rows = append(got.Rows, p)
		}
		return nil
	})
	if err := errors.Join(err, err2, err3); err != nil {
		t.Error(err)
	}
	return got
}

func sortByID(of []session.Session) {
	slices.SortFunc(of, func(a, b session.Session) int { return int(a.ID) - int(b.ID) })
}
