package pebblemeta

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// pacer is Pebble's scheduler of compactions: one at a time; none before the database is open, as
// an Open that fails would pull the ground from under it; and none for a while after one has met
// rot, which Pebble would try again at once.
type pacer struct {
	db  *DB
	peb pebble.DBForCompaction

	granting sync.Mutex // held while Pebble is called
	pauses   sync.WaitGroup

	mu      sync.Mutex
	open    bool
	running bool
	closed  bool
}

// Register implements pebble.CompactionScheduler.
func (p *pacer) Register(_ int, db pebble.DBForCompaction) { p.peb = db }

// begin lets compactions begin: the database is open.
func (p *pacer) begin() {
	p.mu.Lock()
	p.open = true
	p.mu.Unlock()
	p.grant()
}

// Unregister implements pebble.CompactionScheduler. The DB's Close has ended the pauses.
func (p *pacer) Unregister() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.pauses.Wait()
	p.granting.Lock() // whoever grants has ended
	defer p.granting.Unlock()
}

// TrySchedule implements pebble.CompactionScheduler.
func (p *pacer) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	if !p.start() {
		return false, nil
	}
	return true, p
}

func (p *pacer) start() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running || p.closed || !p.open {
		return false
	}
	p.running = true
	return true
}

func (p *pacer) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = false
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler: it is always one.
func (p *pacer) UpdateGetAllowedWithoutPermission() {}

// Started implements pebble.CompactionGrantHandle.
func (p *pacer) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (p *pacer) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (p *pacer) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle.
func (p *pacer) Done() {
	p.mu.Lock()
	pause := p.db.damage.stuck() && !p.closed
	if pause {
		p.pauses.Add(1)
	}
	p.mu.Unlock()
	if !pause {
		p.end()
		p.grant()
		return
	}
	go func() {
		p.db.rest()
		p.end()
		p.pauses.Done()
		p.grant()
	}()
}

// grant begins the compaction that Pebble waits to do, if it may.
func (p *pacer) grant() {
	p.granting.Lock()
	defer p.granting.Unlock()
	if !p.start() {
		return
	}
	if waiting, _ := p.peb.GetWaitingCompaction(); !waiting || !p.peb.Schedule(p) {
		p.end()
	}
}
