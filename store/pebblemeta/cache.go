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
	// cacheSets and cacheWays bound how many rows are cached: 8,192, and beside them the rows that
	// commits under way replace. cacheLargest bounds each row in bytes as stored. In memory a row
	// takes up to twice that. So all of them take at most 16 MiB, and 6 MiB in ordinary use.
	cacheSets, cacheWays, cacheLargest = 2048, 4, 1 << 10
)

// cache keeps decoded rows of the catalog and of sessions. Each request asks for the same rows: its
// caller, the caller's rights, its session, the extents. The cache saves looking them up each time.
//
// A cached row is what the newest applied commit has, and what every commit from since on has had.
// The commit that writes a row removes it from the cache, or puts the new row before the old one.
// It does so at its place in the order of commits, before any view shows the commit. It also leaves
// its number with the set, so that a reader of an older view can't put an old row back. A view may
// use a row unless the view is older than the row's since. Then it may use the row that was
// replaced. That one is kept until the published view is as new as its successor. So a row that is
// not durable yet has a since that no view has reached.
//
// A lookup takes no lock.
type cache struct {
	seed maphash.Seed
	sets [cacheSets]cacheSet
}

// cacheSet has the rows whose keys have the same hash.
type cacheSet struct {
	rows [cacheWays]atomic.Pointer[cachedRow]

	mu        sync.Mutex // of changes
	written   uint64     // the newest commit that wrote one of the set's rows
	evictNext uint8      // the row to evict next
}

// cachedRow never changes, except that it forgets the row that it has replaced.
type cachedRow struct {
	table    catalog.TableID
	key      string
	since    uint64
	row      any
	previous atomic.Pointer[cachedRow] // the row before since; nil: not known
}

func newCache() *cache { return &cache{seed: maphash.MakeSeed()} }

// copyForCache has a function for each table whose rows are cached. It copies a row, so that nobody
// can change what is cached.
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

// sessionTable stands for the sessions. They are no table of the catalog.
const sessionTable catalog.TableID = 31

func shared(row any) any { return row }

// isCached reports whether a table's rows are cached.
func isCached(table catalog.TableID) bool {
	return int(table) < len(copyForCache) && copyForCache[table] != nil
}

func copyCapsule(row any) any {
	c := row.(catalog.Capsule)
	c.Owners, c.Controllers = cloneList(c.Owners), cloneList(c.Controllers)
	c.MIMETypes = cloneList(c.MIMETypes)
	return c
}

// cloneList copies a list. It gives nil for an empty one, as a row that is read has it.
func cloneList(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	return slices.Clone(list)
}

// rowToCache gives the row that the cache gets in place of one that is written; nil: none. That is
// worth it for the rows that the commits of an upload write and read. It must be exactly what would
// be read back: times in whole milliseconds, and no empty lists.
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

// get gives a copy of a row for a view of commit seq, or nil if the cache does not have it.
func (c *cache) get(table catalog.TableID, key []byte, seq uint64) any {
	r, _ := c.set(table, key).find(table, key)
	for ; r != nil; r = r.previous.Load() {
		if r.since <= seq {
			return copyForCache[table](r.row)
		}
	}
	return nil
}

// put caches a copy of a row that was read in a view of commit seq.
func (c *cache) put(table catalog.TableID, key []byte, seq uint64, row any) {
	s := c.set(table, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq < s.written {
		return // the row may have been written since
	}
	had, i := s.find(table, key)
	if had == nil {
		i = s.evict()
	}
	s.rows[i].Store(&cachedRow{table: table, key: string(key), since: s.written, row: copyForCache[table](row)})
}

// evict gives the index of the row that makes way for a new one. mu is held.
func (s *cacheSet) evict() int {
	i := int(s.evictNext % cacheWays)
	s.evictNext++
	return i
}

// find gives a row, or nil, and its index in the set.
func (s *cacheSet) find(table catalog.TableID, key []byte) (*cachedRow, int) {
	for i := range s.rows {
		if r := s.rows[i].Load(); r != nil && r.table == table && r.key == string(key) {
			return r, i
		}
	}
	return nil, 0
}

// commitRow removes the row that commit seq writes, or puts the new row before it; row nil: there
// is none. It is called in the order of commits. forgetPrevious must follow when the commit is
// shown.
func (c *cache) commitRow(table catalog.TableID, key []byte, seq uint64, row any) {
	s := c.set(table, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = seq
	had, i := s.find(table, key)
	switch {
	case had == nil && row == nil:
		return
	case had == nil:
		i = s.evict()
	case row == nil:
		s.rows[i].Store(nil)
		return
	}
	newest := &cachedRow{table: table, key: string(key), since: seq, row: row}
	newest.previous.Store(had)
	s.rows[i].Store(newest)
}

// forgetPrevious forgets the rows before the one that commit shown has, which is published.
func (c *cache) forgetPrevious(table catalog.TableID, key []byte, shown uint64) {
	r, _ := c.set(table, key).find(table, key)
	for r != nil && r.since > shown {
		r = r.previous.Load()
	}
	if r != nil {
		r.previous.Store(nil)
	}
}
