package upload_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"sluice/catalog"
	"sluice/metadata"
	"sluice/session"
	"sluice/upload"
)

// hookedSessions is a session store with a hook just before a session is created, and one just
// after a session was found.
type hookedSessions struct {
	session.Store
	before, after func()
}

func (h *hookedSessions) Create(ctx context.Context, s session.Session) (session.Session, bool, error) {
	once(&h.before)
	s, created, err := h.Store.Create(ctx, s)
	if err == nil && !created {
		once(&h.after)
	}
	return s, created, err
}

func (h *hookedSessions) List(ctx context.Context, q session.Query) ([]session.Session, string, error) {
	page, next, err := h.Store.List(ctx, q)
	if len(page) > 0 {
		once(&h.after)
	}
	return page, next, err
}

func once(f *func()) {
	if g := *f; g != nil {
		*f = nil
		g()
	}
}

// hookedStore is a store of metadata with other sessions.
type hookedStore struct {
	metadata.Store
	sessions session.Store
}

func (s hookedStore) Sessions() session.Store { return s.sessions }

func (w *world) hookSessions() *hookedSessions {
	h := &hookedSessions{Store: w.stores.Sessions()}
	w.stores = hookedStore{w.stores, h}
	w.restart()
	return h
}

// A begin and a create meet under one key. In either order the key belongs to one upload, and no
// other session stays open.
func TestABeginThatMeetsACreateOfItsKey(t *testing.T) {
	b := random(100)
	meta := catalog.Meta{Name: "a"}
	req := upload.BeginRequest{Capsule: "default", Meta: meta, Bytes: 100, Chunks: -1, Idem: "k"}
	for name, open := range map[string]bool{"a new one": false, "one that is open": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			m := w.hookSessions()
			var made catalog.Memory
			create := func() {
				var err error
				made, err = w.Create(
					t.Context(),
					w.me,
					upload.CreateRequest{Capsule: "default", Meta: meta, Idem: "k", Put: upload.Put{Length: 100}},
					bytes.NewReader(b),
				)
				w.check(err)
			}
			if open {
				_, err := w.Begin(t.Context(), w.me, req)
				w.check(err)
				m.after = create
			} else {
				m.before = create
			}
			up, err := w.Begin(t.Context(), w.me, req)
			w.check(err)
			if up.State != session.Finished || up.Memory != made.ID || up.Deleted {
				t.Errorf("%s, %s: the create was first, and made %s", up.State, up.Memory, made.ID)
			}
			if st, err := w.sessions.Stats(t.Context()); err != nil || (st.Open > 0) != open {
				t.Errorf("%d sessions are open: %v", st.Open, err)
			}
			other := req
			other.Bytes = 99
			if _, err := w.Begin(t.Context(), w.me, other); !errors.Is(err, upload.ErrIdem) {
				t.Errorf("another request under the key: %v", err)
			}
		})
	}
}

// The session that a begin finds under its key may be aborted before the answer. Then the key is
// free, and the begin makes a new session.
func TestABeginThatMeetsAnAbort(t *testing.T) {
	w := newWorld(t)
	m := w.hookSessions()
	req := upload.BeginRequest{Capsule: "default", Meta: catalog.Meta{Name: "a"}, Bytes: 100, Chunks: -1, Idem: "k"}
	first, err := w.Begin(t.Context(), w.me, req)
	w.check(err)
	m.after = func() { w.check(w.Abort(t.Context(), w.me, first.ID)) }
	up, err := w.Begin(t.Context(), w.me, req)
	w.check(err)
	if up.State != session.Open || up.ID == first.ID {
		t.Errorf("session %s, %s; the one that was found is %s", up.ID, up.State, first.ID)
	}
}

// hookedCatalog is a catalog with a hook between two looks at it.
type hookedCatalog struct {
	catalog.Store
	views int
	at    func(n int)
}

func (h *hookedCatalog) View(ctx context.Context, f func(catalog.Reader) error) error {
	h.views++
	h.at(h.views)
	return h.Store.View(ctx, f)
}

// The memory that a repeated create finds under its key may be deleted before the answer. Then the
// create does not answer with it.
func TestARepeatedCreateThatMeetsADelete(t *testing.T) {
	w := newWorld(t)
	b := random(100)
	create := func() (catalog.Memory, error) {
		return w.Create(
			t.Context(),
			w.me,
			upload.CreateRequest{
				Capsule: "default",
				Meta:    catalog.Meta{Name: "a"},
				Idem:    "k",
				Put:     upload.Put{Length: 100},
			},
			bytes.NewReader(b),
		)
	}
	first, err := create()
	w.check(err)
	rows := w.catalog
	trash := func() error {
		return rows.Update(t.Context(), func(tx catalog.Tx) error {
			return catalog.Trash(tx, first.ID, time.Hour, catalog.Moment{Now: time.Now()})
		})
	}
	deleted := false
	w.catalog = &hookedCatalog{Store: rows, at: func(n int) {
		if n == 2 {
			deleted = true
			w.check(trash())
		}
	}}
	w.restart()
	if m, err := create(); !errors.Is(err, upload.ErrAlreadyFinished) || !deleted {
		t.Errorf("%+v, %v; it was deleted meanwhile: %v", m, err, deleted)
	}
}

// hookedBody is a body with a hook before its bytes.
type hookedBody struct {
	io.Reader
	first func()
}

func (h *hookedBody) Read(p []byte) (int, error) {
	if first := h.first; first != nil {
		h.first = nil
		first()
	}
	return h.Reader.Read(p)
}

// Two creates of one key at once make one memory if they bring the same bytes. A create that brings
// other bytes, or comes when the memory of the faster one is deleted already, is refused and leaves
// nothing. It is neither answered with a memory of other bytes nor made a second one.
func TestTwoCreatesOfAKeyAtOnce(t *testing.T) {
	for _, size := range []int{10, chunk, 3 * chunk} {
		for _, length := range []int64{int64(size), -1} {
			for name, want := range map[string]error{
				"the same": nil, "others": upload.ErrIdem, "deleted": catalog.ErrDeleted,
			} {
				w := newWorld(t)
				b := random(size)
				create := func(b []byte, first func()) (catalog.Memory, error) {
					req := upload.CreateRequest{
						Meta: catalog.Meta{Name: "a"},
						Idem: "k",
						Put:  upload.Put{Length: length},
					}
					return w.Create(t.Context(), w.me, req, &hookedBody{bytes.NewReader(b), first})
				}
				var one catalog.Memory
				faster := func() {
					var err error
					one, err = create(b, nil)
					w.check(err)
					if want == catalog.ErrDeleted {
						w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
							return catalog.Trash(tx, one.ID, time.Hour, catalog.Moment{Now: time.Now()})
						}))
					}
				}
				mine := b
				if want == upload.ErrIdem {
					mine = random(size)
				}
				m, err := create(mine, faster)
				if !errors.Is(err, want) || err == nil && m.ID != one.ID || w.memories() != 1 {
					t.Errorf("%s, %d bytes of length %d: %v, %d memories", name, size, length, err, w.memories())
				}
				if st, err := w.sessions.Stats(t.Context()); err != nil || st.Open > 0 {
					t.Errorf("%s, %d bytes of length %d: %+v is left over, %v", name, size, length, st, err)
				}
			}
		}
	}
}
