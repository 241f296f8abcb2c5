package crashtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
	"sluice/session"
	"sluice/upload"
)

// tenant is somebody who uploads, and who expects some calls to fail.
type tenant struct {
	t *testing.T
	w *server
}

func (c tenant) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// fails wants the call to be refused for this reason.
func (c tenant) fails(err, want error) {
	c.t.Helper()
	if !errors.Is(err, want) {
		c.t.Fatalf("%v, want %v", err, want)
	}
}

func (c tenant) begin(name string, size int64, idem string) upload.Upload {
	c.t.Helper()
	up, err := c.w.Uploads.Begin(ctx, c.w.Me, upload.BeginRequest{
		Capsule: "default", Meta: catalog.Meta{Name: name}, Bytes: size, Chunks: -1, ChunkSize: chunk, Idem: idem,
	})
	c.ok(err)
	return up
}

func (c tenant) put(up upload.Upload, i int64, content []byte) {
	c.t.Helper()
	part := content[i*chunk : min(int64(len(content)), (i+1)*chunk)]
	c.ok(c.w.Uploads.PutChunk(ctx, c.w.Me, up.ID, i, bytes.NewReader(part), upload.Put{Length: int64(len(part))}))
}

func (c tenant) finish(up upload.Upload, content []byte) (catalog.Memory, error) {
	return c.w.Uploads.Finish(ctx, c.w.Me, upload.FinishRequest{
		ID: up.ID, SHA256: sha256.Sum256(content), Length: int64(len(content)),
	})
}

func (c tenant) stored(name, idem string, content []byte) catalog.Memory {
	c.t.Helper()
	up := c.begin(name, int64(len(content)), idem)
	for i := range (int64(len(content)) + chunk - 1) / chunk {
		c.put(up, i, content)
	}
	m, err := c.finish(up, content)
	c.ok(err)
	return m
}

// hour lets content go through an hour of a bad day: abandoned, failed, refused, aborted, deleted,
// uploaded again.
func (c tenant) hour(day, h int) {
	c.t.Helper()
	name := func(what string) string { return fmt.Sprintf("%s %d %d", what, day, h) }
	three := bytesOf("three", uint64(day*24+h), 3*chunk-7)
	wrong := upload.Put{Length: chunk, SHA256: &catalog.SHA256{1}}

	up := c.begin(name("abandoned"), int64(len(three)), "")
	c.put(up, 2, three)
	c.put(up, 0, three)
	c.begin(name("never written"), 9*chunk, name("idem"))
	up = c.begin(name("of unknown length"), session.Unknown, "")
	c.put(up, 1, three)

	up = c.begin(name("cut"), int64(len(three)), "")
	_, err := c.w.Uploads.PutRange(
		ctx, c.w.Me, up.ID, chunk, io.MultiReader(bytes.NewReader(three[chunk:chunk+1200]), cutBody{}),
		upload.Put{Length: chunk},
	)
	c.fails(err, errCut)
	c.fails(c.w.Uploads.PutChunk(ctx, c.w.Me, up.ID, 0, bytes.NewReader(three[:chunk]), wrong), upload.ErrChecksum)

	up = c.begin(name("of other bytes"), chunk, "")
	c.put(up, 0, three)
	_, err = c.finish(up, three[:chunk-1])
	c.fails(err, upload.ErrLengthMismatch)
	if h%2 == 0 {
		c.ok(c.w.Uploads.Abort(ctx, c.w.Me, up.ID))
	}
	_, err = c.w.Uploads.Create(
		ctx, c.w.Me, upload.CreateRequest{Capsule: "default", Meta: catalog.Meta{Name: name("refused")}, Put: wrong},
		bytes.NewReader(three[:chunk]),
	)
	c.fails(err, upload.ErrChecksum)

	again := bytesOf("again", 1, 2*chunk)
	a, b := c.stored(name("again"), name("key"), again), c.stored(name("and again"), "", again)
	c.ok(c.w.Memories.Delete(ctx, c.w.Me, a.ID, false))
	c.ok(c.w.Memories.Delete(ctx, c.w.Me, b.ID, h%3 == 0))
	if h%4 == 0 {
		_, err = c.w.Memories.Restore(ctx, c.w.Me, a.ID)
		c.ok(errors.Join(err, c.w.Memories.Delete(ctx, c.w.Me, a.ID, true)))
	}
	inline := bytesOf("inline", uint64(h), inlineMax)
	m, err := c.w.Uploads.Create(
		ctx, c.w.Me,
		upload.CreateRequest{
			Capsule: "default", Meta: catalog.Meta{Name: name("inline")}, Idem: name("inline"),
			Put: upload.Put{Length: inlineMax},
		},
		bytes.NewReader(inline),
	)
	c.ok(err)
	c.ok(c.w.Memories.Delete(ctx, c.w.Me, m.ID, h%2 == 0))
}

// size counts everything that could grow.
type size struct {
	rows           [catalog.DueTable + 1]int
	sessions       int
	files, folders int
	bytes          int64 // of the content's folder
}

func (w *server) size() (s size, err error) {
	err = w.Catalog.View(ctx, func(r catalog.Reader) error {
		for table := catalog.CapsuleTable; table <= catalog.DueTable; table++ {
			s.rows[table] = 0
			for _, err := range r.Scan(table, nil, nil, false) {
				if err != nil {
					return err
				}
				s.rows[table]++
			}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	err = session.Page(ctx, w.Meta.Sessions(), session.Query{Limit: 1000}, func(session.Session) (bool, error) {
		s.sessions++
		return true, nil
	})
	if err != nil {
		return s, err
	}
	return s, s.add(w.disk, data+"/content")
}

// add counts the files below a folder.
func (s *size) add(disk *crashfs.Disk, dir string) error {
	names, err := disk.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		info, err := disk.Stat(dir + "/" + name)
		if err != nil {
			return err
		}
		if !info.Dir {
			s.files++
			s.bytes += info.Bytes
			continue
		}
		s.folders++
		if err := s.add(disk, dir+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

// One bad day after the other leaves as much as the first of them: rows, sessions, places, bytes.
// Only the feed of events, which records all of them, grows.
func TestNothingGrowsFromDayToDay(t *testing.T) {
	disk := newDisk()
	cl := &world.Clock{}
	w, err := openServer(disk, setup{
		durability: durable.Process, seed: 1, clock: cl, die: func(err error) { panic(err) }, keep: 20 * hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	c := tenant{t, w}
	c.stored("kept", "", bytesOf("kept", 1, 2*chunk))
	const before, days = 2, 6 // everything that lives for longer than a day has come and gone by then
	var first size
	var events int
	for day := range days {
		for h := range 24 {
			c.hour(day, h)
			cl.Advance(hour)
			_, err := w.Keeper.Tick(ctx)
			c.ok(err)
			_, err = w.Keeper.Sweep(ctx)
			c.ok(err)
		}
		now, err := w.size()
		c.ok(err)
		c.ok(audit(w))
		events, now.rows[catalog.EventTable] = now.rows[catalog.EventTable]-events, 0
		switch {
		case day == before:
			first = now
		case day > before && now != first:
			t.Errorf("on day %d there is\n%+v, and on day %d there was\n%+v", day, now, before, first)
		}
		if events < 24*8 {
			t.Errorf("day %d had only %d events", day, events)
		}
	}
	t.Logf("each evening: %+v", first)

	// When nobody comes any more, only kept content is left.
	for range 72 { // keys are kept for two days
		cl.Advance(hour)
		_, err := w.Keeper.Tick(ctx)
		c.ok(err)
		_, err = w.Keeper.Sweep(ctx)
		c.ok(err)
	}
	end, err := w.size()
	c.ok(err)
	places, err := w.Blobs.Places(ctx, "", 1000)
	c.ok(err)
	if end.sessions != 0 || len(places) != 1 || end.rows[catalog.MemoryTable] != 1 ||
		end.rows[catalog.ContentTable] != 1 || end.rows[catalog.PlaceTable] != 1 ||
		end.rows[catalog.DueTable]+end.rows[catalog.CheckpointTable] != 0 ||
		end.rows[catalog.ReservationTable]+end.rows[catalog.IdemTable] != 0 || end.rows[catalog.OutcomeTable] != 1 {
		t.Errorf("in the end there is %+v", end)
	}
	c.ok(errors.Join(audit(w), w.Close()))
}

// † I25: The collector works beside everything that names content. Several clients upload, delete,
// restore, read and upload again the same few contents, while the clock advances and the sweep
// never rests. Acknowledged content can be read, and in the end all rows agree and nothing is left
// over.
func TestTheCollectorAmongEverything(t *testing.T) {
	disk := newDisk()
	cl := &world.Clock{}
	w, err := openServer(disk, setup{
		durability: durable.Process, seed: 2, clock: cl, die: func(err error) { panic(err) }, keep: 2 * hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	var contents [][]byte
	for i, n := range []int{inlineMax, 900, chunk, 2*chunk + 1} {
		contents = append(contents, bytesOf("shared", uint64(i), n))
	}
	const clients, rounds = 4, 60
	var wg sync.WaitGroup
	var working atomic.Int32
	working.Store(clients)
	for i := range clients {
		rng := rand.New(rand.NewPCG(uint64(i), 3))
		wg.Go(func() {
			defer working.Add(-1)
			for round := range rounds {
				if err := w.oneDay(rng, fmt.Sprintf("%d %d", i, round), contents[rng.IntN(len(contents))]); err != nil {
					t.Errorf("client %d, turn %d: %v", i, round, err)
					return
				}
			}
		})
	}
	passes := 0
	for ; working.Load() > 0; passes++ {
		cl.Advance(20 * time.Minute)
		_, err := w.Keeper.Tick(ctx)
		_, failed := w.Keeper.Sweep(ctx)
		if err := errors.Join(err, failed); err != nil {
			t.Error(err)
			break
		}
	}
	wg.Wait()
	c := client{w: w, m: newModel()}
	if err := errors.Join(audit(w), c.collect(), w.Close()); err != nil {
		t.Error(err)
	}
	t.Logf("%d passes of the collector beside %d turns", passes, clients*rounds)
}

// oneDay stores content, and does one of the things that a client may do with it.
func (w *server) oneDay(rng *rand.Rand, name string, content []byte) error {
	m, err := w.store(rng, name, content)
	if errors.Is(err, session.ErrExpired) || errors.Is(err, session.ErrNotFound) {
		return nil // half a day has passed in the meantime
	}
	if err != nil {
		return err
	}
	if err := w.reads(m, content); err != nil {
		return err
	}
	switch rng.IntN(4) {
	case 0: // kept
		return nil
	case 1:
		return w.Memories.Delete(ctx, w.Me, m.ID, true)
	}
	if err := w.Memories.Delete(ctx, w.Me, m.ID, false); err != nil {
		return err
	}
	_, err = w.Memories.Restore(ctx, w.Me, m.ID)
	if errors.Is(err, catalog.ErrNotFound) {
		return nil // it was too late
	}
	if err != nil {
		return err
	}
	return w.reads(m, content)
}

// store uploads in one of two ways.
func (w *server) store(rng *rand.Rand, name string, content []byte) (m catalog.Memory, err error) {
	size := int64(len(content))
	if rng.IntN(2) == 0 {
		return w.Uploads.Create(
			ctx, w.Me,
			upload.CreateRequest{Capsule: "default", Meta: catalog.Meta{Name: name}, Put: upload.Put{Length: size}},
			bytes.NewReader(content),
		)
	}
	up, err := w.Uploads.Begin(ctx, w.Me, upload.BeginRequest{
		Capsule: "default", Meta: catalog.Meta{Name: name}, Bytes: size, Chunks: -1, ChunkSize: chunk,
	})
	if err != nil {
		return m, err
	}
	for off := int64(0); off < size; off += chunk {
		part := content[off:min(size, off+chunk)]
		if err := w.Uploads.PutChunk(
			ctx, w.Me, up.ID, off/chunk, bytes.NewReader(part), upload.Put{Length: int64(len(part))},
		); err != nil {
			return m, err
		}
	}
	return w.Uploads.Finish(ctx, w.Me, upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(content), Length: size})
}

func (w *server) reads(m catalog.Memory, content []byte) error {
	f, err := w.Memories.Open(ctx, w.Me, m.ID)
	if err != nil {
		return fmt.Errorf("%s was acknowledged: %w", m.Name, err)
	}
	body, err := f.Body(ctx, 0, int64(len(content)))
	if err != nil {
		return fmt.Errorf("%s was acknowledged: %w", m.Name, err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err == nil && !bytes.Equal(b, content) {
		err = errors.New("other bytes")
	}
	if err != nil {
		return fmt.Errorf("%s was acknowledged: %w", m.Name, err)
	}
	return nil
}
