package upload_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/access"
	"sluice/blob"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/test/leak"
	"sluice/metadata"
	"sluice/metadata/metadatatest"
	"sluice/session"
	"sluice/upload"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

// world is an upload service on stores in memory, with an owner of capsule "default" and a
// stranger.
type world struct {
	*upload.Service
	t        *testing.T
	sessions *session.Service
	catalog  catalog.Store
	blobs    *blobtest.Mem
	stores   metadata.Store
	access   *access.Service
	me       access.Caller
	stranger access.Caller
	// CheckSpace is upload.Config.CheckSpace; nil: there is enough space.
	CheckSpace func() error
}

// checkSpace calls CheckSpace as it is set now.
func (w *world) checkSpace() error {
	if w.CheckSpace == nil {
		return nil
	}
	return w.CheckSpace()
}

type clock struct{}

func (clock) Now() time.Time { return time.Now() }

// still is a running time: no token here has an end.
func still() int64 { return 0 }

const chunk = 4096

func limits() upload.Limits {
	l := upload.DefaultLimits()
	l.ChunkSize, l.ChunkSizeMin, l.InlineMax = chunk, 1, 64
	return l
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, metadatatest.NewMem(upload.Hook(catalog.Bounds{MaxSessions: 1000}, clock{})))
}

func newWorldOn(t *testing.T, stores metadata.Store) *world {
	t.Helper()
	w := &world{t: t, blobs: blobtest.NewMem(), stores: stores}
	w.catalog = w.stores.Catalog()
	w.access = access.New(w.catalog, clock{}, still, nil)
	secret, err := w.access.Bootstrap(t.Context())
	w.check(err)
	w.me, err = w.access.Authenticate(t.Context(), secret)
	w.check(err)
	w.stranger = w.join("stranger")
	w.restart()
	t.Cleanup(func() { w.Close() })
	return w
}

// join makes a principal without a role.
func (w *world) join(name string) access.Caller {
	p, err := w.access.CreatePrincipal(w.t.Context(), w.me, name, false)
	w.check(err)
	_, secret, err := w.access.CreateToken(w.t.Context(), w.me, access.TokenRequest{Principal: p.ID, Name: name})
	w.check(err)
	c, err := w.access.Authenticate(w.t.Context(), secret)
	w.check(err)
	return c
}

// restart makes new Services on the same stores, as a new process would.
func (w *world) restart() {
	if w.Service != nil {
		w.Close()
	}
	var err error
	w.sessions, err = session.New(
		w.t.Context(), w.stores.Sessions(), upload.EngineConfig(session.Config{TTL: time.Hour}),
	)
	w.check(err)
	w.Service = upload.New(
		upload.Config{
			Sessions:   w.sessions,
			Catalog:    w.catalog,
			Blobs:      w.blobs,
			Clock:      clock{},
			Limits:     limits(),
			CheckSpace: w.checkSpace,
		},
	)
}

// quota bounds the bytes of capsule default; 0: no bound.
func (w *world) quota(n int64) {
	w.t.Helper()
	w.check(w.catalog.Update(w.t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(
			tx, "default", func(c *catalog.Capsule) error { c.QuotaBytes = n; return nil }, catalog.Moment{},
		)
		return err
	}))
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) begin(n int64) upload.Upload {
	w.t.Helper()
	up, err := w.Begin(
		w.t.Context(),
		w.me,
		upload.BeginRequest{Capsule: "default", Meta: catalog.Meta{Name: "a"}, Bytes: n, Chunks: -1},
	)
	w.check(err)
	return up
}

func (w *world) put(id session.SessionID, idx int64, b []byte) error {
	return w.PutChunk(w.t.Context(), w.me, id, idx, bytes.NewReader(b), upload.Put{Length: int64(len(b))})
}

func (w *world) finish(id session.SessionID, b []byte) (catalog.Memory, error) {
	return w.Finish(w.t.Context(), w.me, upload.FinishRequest{ID: id, SHA256: sha256.Sum256(b), Length: int64(len(b))})
}

// putAll puts all chunks of b.
func (w *world) putAll(id session.SessionID, b []byte) {
	w.t.Helper()
	for i, c := range chunks(b) {
		w.check(w.put(id, int64(i), c))
	}
}

// finishes finishes the session, whose content must be b.
func (w *world) finishes(id session.SessionID, b []byte) {
	w.t.Helper()
	m, err := w.finish(id, b)
	w.check(err)
	if !bytes.Equal(w.content(m), b) {
		w.t.Error("content differs")
	}
}

// content reads the content of a memory.
func (w *world) content(m catalog.Memory) []byte {
	w.t.Helper()
	var row catalog.Content
	w.check(w.catalog.View(w.t.Context(), func(r catalog.Reader) (err error) {
		row, err = catalog.Contents.Get(r, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
		return err
	}))
	if row.Inline != nil {
		return row.Inline
	}
	body, err := w.blobs.Read(w.t.Context(), row.Extents, 0, row.Bytes)
	w.check(err)
	defer body.Close()
	b, err := io.ReadAll(body)
	w.check(err)
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func chunks(b []byte) [][]byte {
	var out [][]byte
	for len(b) > chunk {
		out = append(out, b[:chunk])
		b = b[chunk:]
	}
	return append(out, b)
}

func TestAnyOrderGivesTheSameMemory(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int{1, chunk - 1, chunk, chunk + 1, 5*chunk + 7} {
		for _, order := range []string{"forward", "backward", "shuffled", "twice"} {
			b := random(size)
			up := w.begin(int64(size))
			cs := chunks(b)
			idx := make([]int, len(cs))
			for i := range idx {
				idx[i] = i
				if order == "backward" {
					idx[i] = len(cs) - 1 - i
				}
			}
			if order == "shuffled" {
				rand.Shuffle(len(idx), func(i, j int) { idx[i], idx[j] = idx[j], idx[i] })
			}
			if order == "twice" {
				idx = append(idx, idx...)
			}
			for _, i := range idx {
				w.check(w.put(up.ID, int64(i), cs[i]))
			}
			m, err := w.finish(up.ID, b)
			w.check(err)
			if got := w.content(m); !bytes.Equal(got, b) {
				t.Errorf("%d bytes %s: content differs", size, order)
			}
		}
	}
}

func TestAnEmptyFileHasNoChunks(t *testing.T) {
	w := newWorld(t)
	up := w.begin(0)
	if err := w.put(up.ID, 0, nil); !errors.Is(err, session.ErrRange) {
		t.Errorf("put: %v", err)
	}
	m, err := w.finish(up.ID, nil)
	w.check(err)
	if m.Bytes != 0 || len(w.content(m)) != 0 {
		t.Errorf("%+v", m)
	}
}

func TestTheHashSurvivesARestart(t *testing.T) {
	w := newWorld(t)
	b := random(6 * chunk)
	up := w.begin(int64(len(b)))
	for i, c := range chunks(b) {
		w.check(w.put(up.ID, int64(i), c))
		w.restart()
	}
	reads := w.blobs.Reads()
	_, err := w.finish(up.ID, b)
	w.check(err)
	if n := w.blobs.Reads() - reads; n != 0 {
		t.Errorf("finish read back %d times although every chunk came in order", n)
	}
}

// † I10: a cut put must not move the prefix hash.
func TestACutPutDoesNotMoveTheHash(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	bad := io.MultiReader(bytes.NewReader(random(chunk/2)), cut{})
	if err := w.PutChunk(
		t.Context(), w.me, up.ID, 0, bad, upload.Put{Length: -1},
	); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	w.putAll(up.ID, b)
	_, err := w.finish(up.ID, b)
	w.check(err)
}

// A hash state over bytes that were replaced since is not used after a restart either.
func TestAStaleHashStateIsNotBelieved(t *testing.T) {
	w := newWorld(t)
	old, b := random(2*chunk), random(2*chunk)
	copy(b[chunk:], old[chunk:])
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, old)
	w.check(
		w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b[:chunk]), upload.Put{Length: chunk, Replace: true}),
	)
	w.restart()
	_, err := w.finish(up.ID, b)
	w.check(err)
}

type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// † I1: other bytes for a recorded chunk are refused, and the recorded ones stay, also after a
// retry that dies half-way.
func TestRecordedBytesAreNeverRewritten(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.check(w.put(up.ID, 0, b[:chunk]))
	if err := w.put(up.ID, 0, random(chunk)); !errors.Is(err, session.ErrConflict) {
		t.Errorf("other bytes: %v", err)
	}
	dying := io.MultiReader(bytes.NewReader(random(chunk/2)), cut{})
	if err := w.PutChunk(t.Context(), w.me, up.ID, 0, dying, upload.Put{Length: -1}); err == nil {
		t.Error("a retry that died was accepted")
	}
	overlap := bytes.NewReader(append(random(chunk/2), b[chunk:]...))
	if n, err := w.PutRange(
		t.Context(), w.me, up.ID, chunk/2, overlap, upload.Put{Length: -1},
	); n != 0 || !errors.Is(err, session.ErrConflict) {
		t.Errorf("overlap: %d, %v", n, err)
	}
	w.check(w.put(up.ID, 1, b[chunk:]))
	w.finishes(up.ID, b)
}

func TestReplaceWithdrawsAndStoresElsewhere(t *testing.T) {
	w := newWorld(t)
	b, old := random(3*chunk), random(3*chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, old)
	crcs := make([]uint32, 3)
	for i, c := range chunks(b) {
		crcs[i] = crc32.Checksum(c, crc32.MakeTable(crc32.Castagnoli))
	}
	copy(b[:chunk], old[:chunk]) // the first chunk is right already
	crcs[0] = crc32.Checksum(b[:chunk], crc32.MakeTable(crc32.Castagnoli))
	_, err := w.Finish(
		t.Context(),
		w.me,
		upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: int64(len(b)), CRC32C: crcs},
	)
	var sum *upload.ChecksumError
	if !errors.As(err, &sum) || fmt.Sprint(sum.Bad) != "[{1 3}]" {
		t.Fatalf("finish: %v, %+v", err, sum)
	}
	for i := 1; i < 3; i++ {
		c := chunks(b)[i]
		w.check(
			w.PutChunk(
				t.Context(), w.me, up.ID, int64(i), bytes.NewReader(c), upload.Put{Length: chunk, Replace: true},
			),
		)
	}
	if places, err := w.blobs.Places(t.Context(), "", 10); err != nil || len(places) < 2 {
		t.Errorf("what was replaced lies where the replacement does: %v, %v", places, err)
	}
	w.finishes(up.ID, b)
}

func TestTenFinishesAtOnceGiveOneMemory(t *testing.T) {
	w := newWorld(t)
	b := random(3 * chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, b)
	var wg sync.WaitGroup
	ids := make([]catalog.MemoryID, 10)
	for i := range ids {
		wg.Go(func() {
			m, err := w.finish(up.ID, b)
			if err != nil {
				t.Error(err)
			}
			ids[i] = m.ID
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("memories %s and %s", id, ids[0])
		}
	}
	w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
		c, err := catalog.Capsules.Get(r, "default")
		if c.Memories != 1 || c.Bytes != int64(len(b)) || c.Sessions != 0 || c.Reserved != 0 {
			t.Errorf("counters %+v", c)
		}
		return err
	}))
}

func TestABatchAppearsAtOnceOrNotAtAll(t *testing.T) {
	w := newWorld(t)
	var reqs []upload.FinishRequest
	for i := range 100 {
		b := random(100 + i)
		up := w.begin(int64(len(b)))
		w.check(w.put(up.ID, 0, b))
		reqs = append(reqs, upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: int64(len(b))})
	}
	bad := reqs[57]
	reqs[57].SHA256[0] ^= 1
	_, err := w.FinishBatch(t.Context(), w.me, reqs)
	var batch *upload.BatchError
	if !errors.As(err, &batch) || len(batch.Failures) != 1 || batch.Failures[0].ID != bad.ID ||
		!errors.Is(err, upload.ErrChecksum) {
		t.Fatalf("%v", err)
	}
	if n := w.memories(); n != 0 {
		t.Fatalf("%d memories of a refused batch", n)
	}
	reqs[57] = bad
	first, err := w.FinishBatch(t.Context(), w.me, reqs)
	w.check(err)
	again, err := w.FinishBatch(t.Context(), w.me, reqs)
	w.check(err)
	if n := w.memories(); n != 100 || first[3].ID != again[3].ID {
		t.Errorf("%d memories", n)
	}
}

func (w *world) memories() (n int64) {
	w.check(w.catalog.View(w.t.Context(), func(r catalog.Reader) error {
		c, err := catalog.Capsules.Get(r, "default")
		n = c.Memories
		return err
	}))
	return n
}

func TestNobodyElseSeesASession(t *testing.T) {
	w := newWorld(t)
	up := w.begin(chunk)
	ctx := context.Background()
	for name, err := range map[string]error{
		"put":    w.PutChunk(ctx, w.stranger, up.ID, 0, bytes.NewReader(random(chunk)), upload.Put{Length: -1}),
		"abort":  w.Abort(ctx, w.stranger, up.ID),
		"status": second(w.Status(ctx, w.stranger, up.ID)),
		"finish": second(w.Finish(ctx, w.stranger, upload.FinishRequest{ID: up.ID})),
	} {
		if !errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.Begin(
		ctx, w.stranger, upload.BeginRequest{Capsule: "default", Meta: catalog.Meta{Name: "a"}, Bytes: 1, Chunks: -1},
	); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("begin in a capsule without a role: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestIdemAnswersTheSameUpload(t *testing.T) {
	w := newWorld(t)
	b := random(chunk + 1)
	req := upload.BeginRequest{
		Capsule: "default",
		Meta:    catalog.Meta{Name: "a"},
		Bytes:   int64(len(b)),
		Chunks:  -1,
		Idem:    "k",
	}
	up, err := w.Begin(t.Context(), w.me, req)
	w.check(err)
	w.check(w.put(up.ID, 1, b[chunk:]))
	again, err := w.Begin(t.Context(), w.me, req)
	w.check(err)
	if again.ID != up.ID || again.Bytes() != 1 {
		t.Fatalf("%+v", again)
	}
	other := req
	other.Meta.Name = "b"
	if _, err := w.Begin(t.Context(), w.me, other); !errors.Is(err, upload.ErrIdem) {
		t.Errorf("another request: %v", err)
	}
	w.check(w.put(up.ID, 0, b[:chunk]))
	m, err := w.finish(up.ID, b)
	w.check(err)
	done, err := w.Begin(t.Context(), w.me, req)
	w.check(err)
	if done.State != session.Finished || done.Memory != m.ID || done.Deleted {
		t.Errorf("%+v", done)
	}
}

func TestAFailedSyncAsksForWhatIsLost(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, b)
	w.blobs.FailPersist(func(es []catalog.Extent) error { return &blob.PersistError{Lost: es, Err: errors.New("EIO")} })
	var inc *session.IncompleteError
	if _, err := w.finish(up.ID, b); !errors.As(err, &inc) {
		t.Fatal(err)
	}
	w.blobs.FailPersist(nil)
	if n := w.memories(); n != 0 {
		t.Errorf("%d memories", n)
	}
	w.putAll(up.ID, b)
	w.finishes(up.ID, b)
}

func TestCreateInOneRequest(t *testing.T) {
	w := newWorld(t)
	for _, size := range []int{0, 1, 64, 65, chunk, chunk + 1, 10*chunk + 3} {
		for _, length := range []int64{int64(size), -1} {
			b := random(size)
			m, err := w.Create(
				t.Context(),
				w.me,
				upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: length}},
				bytes.NewReader(b),
			)
			w.check(err)
			if m.Bytes != int64(size) || !bytes.Equal(w.content(m), b) {
				t.Errorf("%d bytes, length %d: %+v", size, length, m)
			}
		}
	}
	sum := catalog.SHA256{1}
	for _, size := range []int{10, chunk, 3 * chunk} {
		_, err := w.Create(
			t.Context(),
			w.me,
			upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: int64(size), SHA256: &sum}},
			bytes.NewReader(random(size)),
		)
		if !errors.Is(err, upload.ErrChecksum) {
			t.Errorf("%d bytes with a wrong digest: %v", size, err)
		}
	}
	if st, _ := w.sessions.Stats(t.Context()); st.Open != 0 || st.BytesReceived != 0 {
		t.Errorf("left over: %+v", st)
	}
}

// The ranges that all failures of a batch name are bounded together: a thousand sessions with a
// thousand gaps each would be a million ranges.
func TestTheFailuresOfABatchNameSoManyRanges(t *testing.T) {
	w := newWorld(t)
	const gaps = 700
	var reqs []upload.FinishRequest
	for range 16 {
		up := w.begin(2 * gaps)
		for i := range int64(gaps) {
			_, err := w.PutRange(t.Context(), w.me, up.ID, 2*i, bytes.NewReader([]byte{1}), upload.Put{Length: 1})
			w.check(err)
		}
		reqs = append(reqs, upload.FinishRequest{ID: up.ID, Length: 2 * gaps})
	}
	_, err := w.FinishBatch(t.Context(), w.me, reqs)
	var batch *upload.BatchError
	if !errors.As(err, &batch) || len(batch.Failures) != len(reqs) {
		t.Fatalf("%v", err)
	}
	left := 10_000
	for i, f := range batch.Failures {
		var incomplete *session.IncompleteError
		if !errors.As(f.Err, &incomplete) || f.ID != reqs[i].ID {
			t.Fatalf("failure %d: %v", i, f.Err)
		}
		if n := len(incomplete.Missing); n != min(left, gaps) || incomplete.More != (n < gaps) {
			t.Errorf("failure %d names %d ranges, more %v, where %d are left", i, n, incomplete.More, left)
		}
		left -= len(incomplete.Missing)
	}
	if left != 0 {
		t.Errorf("%d ranges more could be named", left)
	}
}

// The entries of a batch are all in memory until it ends. So their number is bounded, and a session
// with more is finished alone.
func TestABatchHasSoManyPieces(t *testing.T) {
	w := newWorld(t)
	l := limits()
	l.BatchEntries = 10
	w.rewire(w.blobs, l)
	b := random(6 * chunk)
	var reqs []upload.FinishRequest
	for range 2 {
		up := w.begin(int64(len(b)))
		w.putAll(up.ID, b)
		reqs = append(reqs, upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: int64(len(b))})
	}
	var field *catalog.FieldError
	if _, err := w.FinishBatch(t.Context(), w.me, reqs); !errors.As(err, &field) || field.Field != "finishes" ||
		w.memories() != 0 {
		t.Errorf("%v; %d memories", err, w.memories())
	}
	l.BatchEntries = 5
	w.rewire(w.blobs, l)
	for _, req := range reqs {
		_, err := w.FinishBatch(t.Context(), w.me, []upload.FinishRequest{req})
		w.check(err)
	}
	l.BatchEntries = 12
	w.rewire(w.blobs, l)
	if _, err := w.FinishBatch(t.Context(), w.me, reqs); err != nil || w.memories() != 2 {
		t.Errorf("finished again: %v; %d memories", err, w.memories())
	}
}

// The entries of all running finishes are bounded. A finish beyond the bound is to come again,
// unless it is the only one.
func TestFinishesTogetherHaveSoManyPieces(t *testing.T) {
	w := newWorld(t)
	l := limits()
	l.FinishEntries = 10
	w.rewire(w.blobs, l)
	came, let := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	w.blobs.FailPersist(func([]catalog.Extent) error {
		if first.CompareAndSwap(false, true) {
			close(came)
			<-let
		}
		return nil
	})
	b := random(12 * chunk)
	var reqs []upload.FinishRequest
	for _, n := range []int{12, 6} {
		part := b[:n*chunk]
		up := w.begin(int64(len(part)))
		w.putAll(up.ID, part)
		reqs = append(reqs, upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(part), Length: int64(len(part))})
	}
	done := make(chan error, 1)
	go func() {
		_, err := w.Finish(t.Context(), w.me, reqs[0])
		done <- err
	}()
	<-came
	if _, err := w.Finish(t.Context(), w.me, reqs[1]); !errors.Is(err, session.ErrBusy) {
		t.Errorf("beside another: %v", err)
	}
	close(let)
	w.check(<-done)
	_, err := w.Finish(t.Context(), w.me, reqs[1])
	w.check(err)
}
