package pebblemeta

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// compactionScheduler is Pebble's scheduler of compactions. It runs one at a time. It runs none
// before the database is open, since an Open that fails would close what the compaction uses. After
// a compaction has met corruption it pauses, since Pebble would try again at once.
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

// enable lets compactions begin. The database is open now.
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
	s.grantMu.Lock() // wait for a grant under way
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

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler. The number is always
// one.
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

// grant starts the compaction that Pebble waits for, if it may run.
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
