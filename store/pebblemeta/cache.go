package pebblemeta

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"

	"sluice/catalog"
	"sluice/session"
)

const (
	// cacheSets and cacheWays bound how many rows are kept: 8192, and beside them the rows that
	// commits under way replace. cacheLargest bounds each, in bytes as stored. In memory a row
	// takes up to twice that, so that all are at most 16 MiB, and in ordinary use 6.
	cacheSets, cacheWays, cacheLargest = 2048, 4, 1 << 10
)

// cache keeps decoded rows of the catalog and of sessions, so that what each request asks for anew
// (who it is from, what it may, where the bytes are, which session it is for) is looked up once.
//
// A row in it is what the newest applied commit has, and what every commit since its from has had.
// The commit that writes a row takes it out, or puts the new one before it, at its place in the
// order of commits, before there is a view that shows the commit, and leaves its number with the
// set: a reader of an older view can't put back what it still sees. So a view may use what it
// finds, unless it is older than from; then it may use the row that was replaced, which is kept
// until the view that is shown is as new as its successor. What is not durable yet is behind the
// from of its row.
//
// Looking up takes no lock.
type cache struct {
	seed maphash.Seed
	sets [cacheSets]cacheSet
}

// cacheSet has the rows whose keys have the same hash.
type cacheSet struct {
	rows [cacheWays]atomic.Pointer[cachedRow]

	mu        sync.Mutex // of changes
	written   uint64     // the newest commit that wrote one of the set's rows
	evictNext uint8      // which gives way
}

// cachedRow never changes, except for forgetting the row that it has replaced.
type cachedRow struct {
	table    catalog.TableID
	key      string
	since    uint64
	row      any
	previous atomic.Pointer[cachedRow] // what it was before from; nil: not known
}

func newCache() *cache { return &cache{seed: maphash.MakeSeed()} }

// cached are the tables whose rows are kept, and how one is copied, so that nobody changes what is
// kept.
var copyForCache = [...]func(row any) any{
	catalog.CapsuleTable:     copyCapsule,
	catalog.MemoryTable:      copyMemory,
	catalog.ContentTable:     copyContent,
	catalog.ReservationTable: shared,
	catalog.UsageTable:       shared,
	catalog.PrincipalTable:   shared,
	catalog.TokenTable:       shared,
	sessionTable:             func(row any) any { return clone(row.(session.Session)) },
}

// sessionTable stands for the sessions, which are no table of the catalog.
const sessionTable catalog.TableID = 31

func shared(row any) any { return row }

// caches reports whether a table's rows are kept.
func isCached(table catalog.TableID) bool {
	return int(table) < len(copyForCache) && copyForCache[table] != nil
}

func copyCapsule(row any) any {
	c := row.(catalog.Capsule)
	c.Owners, c.Controllers = cloneList(c.Owners), cloneList(c.Controllers)
	return c
}

// cloned is nil for an empty list, as when it is read.
func cloneList(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

// replaces gives what the cache shall have instead of a row that is written; nil: nothing. That is
// worth it for the rows that the commits of an upload write and read. It must be what would be read
// back: without parts of a millisecond, and without empty lists.
func rowToCache(table catalog.TableID, row any) any {
	switch table {
	case catalog.CapsuleTable:
		return loadCapsule(storeCapsule(copyCapsule(row).(catalog.Capsule)))
	case catalog.ReservationTable, catalog.UsageTable:
		return row
	}
	return nil
}

func copyMemory(row any) any {
	m := row.(catalog.Memory)
	if m.Tags == nil {
		return row
	}
	m.Tags = slices.Clone(m.Tags)
	return m
}

func copyContent(row any) any {
	c := row.(catalog.Content)
	c.Extents, c.Inline = slices.Clone(c.Extents), slices.Clone(c.Inline)
	return c
}

func (c *cache) set(table catalog.TableID, key []byte) *cacheSet {
	return &c.sets[(maphash.Bytes(c.seed, key)+uint64(table))%cacheSets]
}

// get gives a copy of a row for a view of commit seq; nil where it is not known here.
func (c *cache) get(table catalog.TableID, key []byte, seq uint64) any {
	r, _ := c.set(table, key).find(table, key)
	for ; r != nil; r = r.previous.Load() {
		if r.since <= seq {
			return copyForCache[table](r.row)
		}
	}
	return nil
}

// put keeps a copy of a row that was read in a view of commit seq.
func (c *cache) put(table catalog.TableID, key []byte, seq uint64, row any) {
	s := c.set(table, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq < s.written {
		return // it may be the one that was written since
	}
	had, i := s.find(table, key)
	if had == nil {
		i = int(s.evictNext % cacheWays)
		s.evictNext++
	}
	s.rows[i].Store(&cachedRow{table: table, key: string(key), since: s.written, row: copyForCache[table](row)})
}

// find gives a row, or nil, and its place in the set.
func (s *cacheSet) find(table catalog.TableID, key []byte) (*cachedRow, int) {
	for i := range s.rows {
		if r := s.rows[i].Load(); r != nil && r.table == table && r.key == string(key) {
			return r, i
		}
	}
	return nil, 0
}

// wrote takes a row out, which commit seq writes, or puts what replaces it before it. Calls come in
// the order of commits. shown is the newest commit that is shown.
func (c *cache) commitRow(table catalog.TableID, key []byte, seq, shown uint64, row any) {
	s := c.set(table, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = seq
	had, i := s.find(table, key)
	switch {
	case had == nil && row == nil:
		return
	case had == nil:
		i = int(s.evictNext % cacheWays)
		s.evictNext++
	case row == nil:
		s.rows[i].Store(nil)
		return
	}
	newest := &cachedRow{table: table, key: string(key), since: seq, row: row}
	newest.previous.Store(had)
	for r := had; r != nil; r = r.previous.Load() {
		if r.since <= shown {
			r.previous.Store(nil)
		}
	}
	s.rows[i].Store(newest)
}
