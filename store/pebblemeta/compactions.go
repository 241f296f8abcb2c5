package pebblemeta

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// pacer is Pebble's scheduler of compactions: one at a time; none before the database is open, as
// an Open that fails would pull the ground from under it; and none for a while after one has met
// rot, which Pebble would try again at once.
type compactionScheduler struct {
	db  *DB
	peb pebble.DBForCompaction

	grantMu sync.Mutex // held while Pebble is called
	pauses  sync.WaitGroup

	mu      sync.Mutex
	enabled bool
	running bool
	closed  bool
}

// Register implements pebble.CompactionScheduler.
func (s *compactionScheduler) Register(_ int, db pebble.DBForCompaction) { s.peb = db }

// begin lets compactions begin: the database is open.
func (s *compactionScheduler) enable() {
	s.mu.Lock()
	s.enabled = true
	s.mu.Unlock()
	s.grant()
}

// Unregister implements pebble.CompactionScheduler. The DB's Close has ended the pauses.
func (s *compactionScheduler) Unregister() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.pauses.Wait()
	s.grantMu.Lock() // whoever grants has ended
	defer s.grantMu.Unlock()
}

// TrySchedule implements pebble.CompactionScheduler.
func (s *compactionScheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !s.tryStart() {
		return false, nil
	}
	return true, s
}

func (s *compactionScheduler) tryStart() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running || s.closed || !s.enabled {
		return false
	}
	s.running = true
	return true
}

func (s *compactionScheduler) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running = false
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler: it is always one.
func (s *compactionScheduler) UpdateGetAllowedWithoutPermission() {}

// Started implements pebble.CompactionGrantHandle.
func (s *compactionScheduler) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (s *compactionScheduler) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (s *compactionScheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle.
func (s *compactionScheduler) Done() {
	s.mu.Lock()
	pause := s.db.corruption.blocksCompaction() && !s.closed
	if pause {
		s.pauses.Add(1)
	}
	s.mu.Unlock()
	if !pause {
		s.finish()
		s.grant()
		return
	}
	go func() {
		s.db.pauseAfterCorruption()
		s.finish()
		s.pauses.Done()
		s.grant()
	}()
}

// grant begins the compaction that Pebble waits to do, if it may.
func (s *compactionScheduler) grant() {
	s.grantMu.Lock()
	defer s.grantMu.Unlock()
	if !s.tryStart() {
		return
	}
	if waiting, _ := s.peb.GetWaitingCompaction(); !waiting || !s.peb.Schedule(s) {
		s.finish()
	}
}
