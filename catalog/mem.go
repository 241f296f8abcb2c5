package catalog

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sort"
	"sync"

	"sluice/session"
)

// Mem is a Store in memory. It runs the closure of every Update twice and discards what the first
// run wrote, so that a closure that is not pure fails its tests.
type Mem struct {
	end func(id session.SessionID, gen uint64, to session.State) error

	mu     sync.RWMutex
	tables map[TableID]*rows
}

// rows are one table: its keys sorted, and the row of each.
type rows struct {
	keys []string
	row  map[string]any
}

// NewMem makes an empty Mem, which has no sessions to end.
func NewMem() *Mem {
	return NewMemWith(func(session.SessionID, uint64, session.State) error { return ErrNotFound })
}

// NewMemWith makes an empty Mem. end carries out Tx.EndSession, when all the rest of the commit is
// certain.
func NewMemWith(end func(id session.SessionID, gen uint64, to session.State) error) *Mem {
	return &Mem{end: end, tables: map[TableID]*rows{}}
}

// View implements Store.
func (m *Mem) View(ctx context.Context, f func(Reader) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	return f(&memTx{mem: m})
}

// Update implements Store.
func (m *Mem) Update(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := f(&memTx{mem: m, wrote: map[TableID]map[string]any{}}); err != nil {
		return err
	}
	t := &memTx{mem: m, wrote: map[TableID]map[string]any{}}
	if err := f(t); err != nil {
		return err
	}
	for _, e := range t.ends {
		if err := m.end(e.id, e.gen, e.to); err != nil {
			return err
		}
	}
	for id, wrote := range t.wrote {
		m.table(id).apply(wrote)
	}
	return nil
}

func (m *Mem) table(id TableID) *rows {
	t := m.tables[id]
	if t == nil {
		t = &rows{row: map[string]any{}}
		m.tables[id] = t
	}
	return t
}

// apply writes rows. A nil row is a deletion.
func (t *rows) apply(wrote map[string]any) {
	for k, row := range wrote {
		i, found := slices.BinarySearch(t.keys, k)
		switch {
		case row == nil && found:
			t.keys = slices.Delete(t.keys, i, i+1)
			delete(t.row, k)
		case row != nil:
			if !found {
				t.keys = slices.Insert(t.keys, i, k)
			}
			t.row[k] = row
		}
	}
}

// memEnd is the end of a session that is carried out with the commit.
type memEnd struct {
	id  session.SessionID
	gen uint64
	to  session.State
}

// memTx reads the tables with its own writes laid over them.
type memTx struct {
	mem   *Mem
	wrote map[TableID]map[string]any // a nil row is a deletion
	ends  []memEnd
}

// Get implements Reader.
func (t *memTx) Get(id TableID, key []byte) (any, error) {
	if row, ok := t.wrote[id][string(key)]; ok {
		if row == nil {
			return nil, ErrNotFound
		}
		return row, nil
	}
	if base := t.mem.tables[id]; base != nil {
		if row, ok := base.row[string(key)]; ok {
			return row, nil
		}
	}
	return nil, ErrNotFound
}

// Scan implements Reader.
func (t *memTx) Scan(id TableID, lo, hi []byte, desc bool) iter.Seq2[any, error] {
	var keys []string
	if base := t.mem.tables[id]; base != nil {
		from := sort.SearchStrings(base.keys, string(lo))
		to := len(base.keys)
		if hi != nil {
			to = max(sort.SearchStrings(base.keys, string(hi)), from)
		}
		keys = slices.Clone(base.keys[from:to])
	}
	for k := range maps.Keys(t.wrote[id]) {
		if k >= string(lo) && (hi == nil || k < string(hi)) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	keys = slices.Compact(keys)
	if desc {
		slices.Reverse(keys)
	}
	return func(yield func(any, error) bool) {
		for _, k := range keys {
			if row, err := t.Get(id, []byte(k)); err == nil && !yield(row, nil) {
				return
			}
		}
	}
}

// Put implements Tx.
func (t *memTx) Put(id TableID, key []byte, row any) error {
	t.write(id, key, row)
	return nil
}

// Delete implements Tx.
func (t *memTx) Delete(id TableID, key []byte) error {
	t.write(id, key, nil)
	return nil
}

func (t *memTx) write(id TableID, key []byte, row any) {
	if t.wrote[id] == nil {
		t.wrote[id] = map[string]any{}
	}
	t.wrote[id][string(key)] = row
}

// EndSession implements Tx.
func (t *memTx) EndSession(id session.SessionID, gen uint64, to session.State) error {
	t.ends = append(t.ends, memEnd{id, gen, to})
	return nil
}
