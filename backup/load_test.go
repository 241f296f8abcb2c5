package backup_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/backup"
	"sluice/catalog"
	"sluice/internal/test/crashfs"
	"sluice/session"
	"sluice/upload"
)

// facts are the answers that the writers got.
type facts struct {
	mu       sync.Mutex
	there    map[string]bool                    // memories that were acknowledged
	removing map[string]bool                    // memories whose removal was begun
	gone     map[string]bool                    // memories whose removal was acknowledged
	pieces   map[session.SessionID]map[int]bool // acknowledged chunks of uploads
	finished map[session.SessionID]string       // the names of uploads whose end was begun
	ids      map[string]catalog.MemoryID        // the ids of the memories in there
	bodies   map[session.SessionID][]byte
}

func (f *facts) told(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

// copyOf gives the facts so far.
func (f *facts) copyOf() *facts {
	f.mu.Lock()
	defer f.mu.Unlock()
	pieces := map[session.SessionID]map[int]bool{}
	for id, of := range f.pieces {
		pieces[id] = maps.Clone(of)
	}
	return &facts{
		there: maps.Clone(f.there), removing: maps.Clone(f.removing), gone: maps.Clone(f.gone),
		pieces: pieces, finished: maps.Clone(f.finished),
	}
}

// writer makes every kind of change until ctx ends.
func (f *facts) writer(ctx context.Context, s *server, w int) error {
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("w%d-%d", w, n)
		var err error
		switch rand.IntN(5) {
		case 0:
			err = f.create(ctx, s, name)
		case 1:
			err = f.remove(ctx, s)
		case 2:
			err = f.batch(ctx, s, name)
		default:
			var id session.SessionID
			if id, err = f.upload(ctx, s, name); err == nil && rand.IntN(3) > 0 {
				err = f.end(ctx, s, name, id)
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

func (f *facts) create(ctx context.Context, s *server, name string) error {
	b := bytesOf(fmt.Sprint(rand.IntN(50)), rand.IntN(2*chunk)) // often bytes that another writer has stored
	m, err := s.uploads.Create(ctx, s.me,
		upload.CreateRequest{Meta: catalog.Meta{Name: name}, Put: upload.Put{Length: int64(len(b))}},
		bytes.NewReader(b))
	if err == nil {
		f.told(func() { f.there[name], f.ids[name] = true, m.ID })
	}
	return err
}

func (f *facts) remove(ctx context.Context, s *server) error {
	var name string
	var id catalog.MemoryID
	f.told(func() {
		for name = range f.there {
			if !strings.Contains(name, "of") {
				break
			}
			name = ""
		}
		if name != "" {
			delete(f.there, name)
			f.removing[name], id = true, f.ids[name]
		}
	})
	if name == "" {
		return nil
	}
	err := s.rows.Update(ctx, func(tx catalog.Tx) error {
		return catalog.Purge(tx, id, catalog.Moment{Now: s.clock.Now(), Running: s.engine.Running()})
	})
	if err == nil {
		f.told(func() { f.gone[name] = true })
	}
	return err
}

func (f *facts) upload(ctx context.Context, s *server, name string) (session.SessionID, error) {
	b := bytesOf(name, 1+rand.IntN(4*chunk))
	up, err := s.uploads.Begin(ctx, s.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: name}, Bytes: int64(len(b)), Chunks: -1, ChunkSize: chunk})
	if err != nil {
		return 0, err
	}
	f.told(func() { f.pieces[up.ID], f.bodies[up.ID] = map[int]bool{}, b })
	for i := 0; i*chunk < len(b); i++ {
		part := b[i*chunk : min((i+1)*chunk, len(b))]
		if err := s.uploads.PutChunk(ctx, s.me, up.ID, int64(i), bytes.NewReader(part),
			upload.Put{Length: -1}); err != nil {
			return 0, err
		}
		f.told(func() { f.pieces[up.ID][i] = true })
	}
	return up.ID, nil
}

func (f *facts) request(id session.SessionID, name string) (req upload.FinishRequest) {
	f.told(func() {
		f.finished[id] = name
		b := f.bodies[id]
		req = upload.FinishRequest{ID: id, SHA256: sha256.Sum256(b), Length: int64(len(b))}
	})
	return req
}

func (f *facts) end(ctx context.Context, s *server, name string, id session.SessionID) error {
	m, err := s.uploads.Finish(ctx, s.me, f.request(id, name))
	if err == nil {
		f.told(func() { f.there[name], f.ids[name] = true, m.ID })
	}
	return err
}

// batch finishes three uploads at once.
func (f *facts) batch(ctx context.Context, s *server, name string) error {
	var reqs []upload.FinishRequest
	var names []string
	for i := range 3 {
		part := fmt.Sprintf("%s-%dof3", name, i)
		id, err := f.upload(ctx, s, part)
		if err != nil {
			return err
		}
		reqs, names = append(reqs, f.request(id, part)), append(names, part)
	}
	_, err := s.uploads.FinishBatch(ctx, s.me, reqs)
	if err == nil {
		f.told(func() {
			for _, part := range names {
				f.there[part] = true
			}
		})
	}
	return err
}

// compare checks a restored server against the facts from before the backup began; after are those
// from its end.
func compare(t *testing.T, r *server, before, after *facts) {
	t.Helper()
	names := r.names() // it compares all bytes, and all counters
	for name := range before.there {
		if !names[name] && !after.removing[name] {
			t.Errorf("memory %s was acknowledged before the backup began, and is not in it", name)
		}
	}
	for name := range before.gone {
		if names[name] {
			t.Errorf("memory %s was removed before the backup began, and is in it", name)
		}
	}
	for name := range names {
		if stem, is := strings.CutSuffix(name, "-0of3"); is && (!names[stem+"-1of3"] || !names[stem+"-2of3"]) {
			t.Errorf("half of batch %s", stem)
		}
	}
	for id, chunks := range before.pieces {
		up, err := r.uploads.Status(t.Context(), r.me, id)
		if err != nil {
			t.Errorf("upload %s: %v", id, err)
			continue
		}
		if up.State != session.Open {
			if name := after.finished[id]; !names[name] && !after.removing[name] {
				t.Errorf("upload %s (%s) is %s, and its memory is not there", id, name, up.State)
			}
			continue
		}
		for i := range chunks {
			at := session.Range{Off: int64(i) * chunk, End: int64(i)*chunk + 1}
			if !session.Touches(up.Received, at) {
				t.Errorf("upload %s: chunk %d was acknowledged before the backup began, and is not in it", id, i)
			}
		}
	}
}

// slowly gives the others time to change something while a state is read.
type slowly struct{ backup.Frozen }

func (s slowly) Walk(
	ctx context.Context, visit func(key, row []byte) error, lost func(from, to []byte, why error) error,
) error {
	n := 0
	return s.Frozen.Walk(ctx, func(key, row []byte) error {
		if n++; n%4 == 0 {
			time.Sleep(time.Millisecond)
		}
		return visit(key, row)
	}, lost)
}

// † I30: A backup under load restores to a state that was true at one moment, with all that was
// acknowledged before it began.
func TestABackupUnderLoadIsOneTrueMoment(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	s := serve(t, real, t.TempDir())
	to := crashfs.New()
	f := &facts{
		there: map[string]bool{}, removing: map[string]bool{}, gone: map[string]bool{},
		ids:    map[string]catalog.MemoryID{},
		pieces: map[session.SessionID]map[int]bool{}, finished: map[session.SessionID]string{},
		bodies: map[session.SessionID][]byte{},
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			if err := f.writer(ctx, s, w); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		for range 100 { // fewer hours than an upload may rest
			s.clock.Advance(time.Hour)
			if _, err := s.keeper.Tick(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	type made struct {
		disk          *crashfs.Disk
		before, after *facts
		res           backup.Result
	}
	var all []made
	small := func(b backup.Result) bool { return b.Memories < 20 || b.Sessions < 5 }
	// on a slow machine it takes more of them until there is much
	for n := 0; (n < 5 || small(all[n-1].res)) && !t.Failed(); n++ {
		time.Sleep(100 * time.Millisecond)
		before := f.copyOf()
		src := s.source()
		freeze := src.Freeze
		src.Freeze = func(ctx context.Context) (backup.Frozen, error) {
			f, err := freeze(ctx)
			return slowly{f}, err
		}
		res, err := backup.Run(t.Context(), to, dir, src, s.clock.Now(), nil)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, made{to.Kill(), before, f.copyOf(), res})
	}
	stop()
	wg.Wait()
	for _, m := range all {
		t.Logf("%d memories, %d uploads, %d bytes, %d copied",
			m.res.Memories, m.res.Sessions, m.res.Bytes, m.res.Copied)
		if len(m.res.Damaged) > 0 {
			t.Errorf("%v", m.res.Damaged)
		}
		compare(t, restored(t, m.disk, dir), m.before, m.after)
	}
}
