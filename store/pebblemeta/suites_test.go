package pebblemeta

import (
	"context"
	"os"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/catalog"
	"sluice/internal/test/leak"
	"sluice/metadata"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/session/sessiontest"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// opened opens a database on a disk in memory. The caller closes it.
func opened(t *testing.T, disk vfs.FS, opts Options) *DB {
	t.Helper()
	opts.FS = disk
	if !opts.Hook.Whole() {
		opts.Hook = noHook
	}
	db, err := Open("data/meta", opts)
	if err != nil {
		t.Fatal(err)
	}
	return db
}

var noHook = metadata.Hook{
	Decide:  func(context.Context, catalog.Reader, session.Session) error { return nil },
	Reserve: func(catalog.Tx, *session.Session, session.Session) error { return nil },
}

// open is opened, and closes it with the test.
func open(t *testing.T, disk vfs.FS, opts Options) *DB {
	t.Helper()
	db := opened(t, disk, opts)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// mortal is a store whose restart is a power loss, which takes back everything that was not synced.
type mortal struct {
	session.Store
	t    *testing.T
	db   *DB
	disk *vfs.MemFS
}

func newMortal(t *testing.T) session.Store {
	m := &mortal{t: t, disk: vfs.NewCrashableMem()}
	m.boot()
	return m
}

func (m *mortal) boot() {
	m.db = opened(m.t, m.disk, Options{})
	m.Store = m.db.Sessions()
}

// Restart loses power, and opens what is left.
func (m *mortal) Restart() error {
	left := m.disk.CrashClone(vfs.CrashCloneCfg{})
	err := m.db.Close()
	m.disk = left
	m.boot()
	return err
}

// Close closes the database.
func (m *mortal) Close() error { return m.db.Close() }

func TestAnyHistoryOfTwoServices(t *testing.T) { sessiontest.TestModel(t, newMortal, 2) }

func TestAnyHistoryOverLostAnswers(t *testing.T) {
	sessiontest.TestModel(t, func(t *testing.T) session.Store { return sessiontest.Repeating(newMortal(t)) }, 1)
}

func TestBothAreAStore(t *testing.T) {
	metadatatest.TestStore(t, func(t *testing.T, hook metadata.Hook) metadata.Store {
		return open(t, vfs.NewMem(), Options{Hook: hook})
	})
}
