package upload_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"slices"
	"testing"
	"time"

	"sluice/blob"
	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/panics"
	"sluice/session"
	"sluice/upload"
)

func TestAFinishNamesTheWholeLength(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, b)
	ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
	defer stop()
	for _, n := range []int64{3 * chunk, 2*chunk + 1, 2*chunk - 1, chunk, 0} {
		sum := sha256.Sum256(b[:min(n, 2*chunk)])
		_, err := w.Finish(ctx, w.me, upload.FinishRequest{ID: up.ID, SHA256: sum, Length: n})
		var length *upload.LengthError
		if !errors.As(err, &length) || length.Want != 2*chunk || length.Got != n {
			t.Errorf("%d bytes of %d: %v", n, 2*chunk, err)
		}
	}
	if n := w.memories(); n != 0 {
		t.Errorf("%d memories", n)
	}
	_, err := w.finish(up.ID, b)
	w.check(err)
}

func TestAPutOfOtherBytesThanItsDigestIsNotRecorded(t *testing.T) {
	w := newWorld(t)
	b := random(chunk)
	up := w.begin(chunk)
	sum, crc := catalog.SHA256(sha256.Sum256(b)), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
	badSum, badCRC := sum, crc^1
	badSum[31] ^= 1
	for name, p := range map[string]upload.Put{
		"SHA-256": {Length: -1, SHA256: &badSum}, "CRC-32C": {Length: -1, CRC32C: &badCRC},
		"one of both": {Length: -1, SHA256: &sum, CRC32C: &badCRC},
		"the other":   {Length: -1, SHA256: &badSum, CRC32C: &crc},
	} {
		if err := w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b), p); !errors.Is(err, upload.ErrChecksum) {
			t.Errorf("%s, a chunk: %v", name, err)
		}
		if n, err := w.PutRange(t.Context(), w.me, up.ID, 0, bytes.NewReader(b), p); n != 0 ||
			!errors.Is(err, upload.ErrChecksum) {
			t.Errorf("%s, a range: %d, %v", name, n, err)
		}
		if st, err := w.Status(t.Context(), w.me, up.ID); err != nil || st.Bytes() != 0 {
			t.Errorf("%s: %d bytes are recorded, %v", name, st.Bytes(), err)
		}
	}
	w.check(
		w.PutChunk(t.Context(), w.me, up.ID, 0, bytes.NewReader(b), upload.Put{Length: -1, SHA256: &sum, CRC32C: &crc}),
	)
	_, err := w.finish(up.ID, b)
	w.check(err)
}

// Content that the store can't persist is not published: not by a create, and nothing of a batch.
func TestWhatCannotBeSettledIsNotPublished(t *testing.T) {
	w := newWorld(t)
	b := random(chunk)
	broken := errors.New("EIO")
	w.blobs.FailPersist(func([]catalog.Extent) error { return broken })
	if _, err := w.Create(
		t.Context(), w.me, upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: chunk}},
		bytes.NewReader(b),
	); !errors.Is(err, broken) {
		t.Errorf("create: %v", err)
	}
	var reqs []upload.FinishRequest
	for range 3 {
		up := w.begin(chunk)
		w.check(w.put(up.ID, 0, b))
		reqs = append(reqs, upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: chunk})
	}
	places, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	i := slices.IndexFunc(places, func(p blob.PlaceInfo) bool { return p.Session == reqs[1].ID })
	w.blobs.FailPersist(func(es []catalog.Extent) error {
		if slices.ContainsFunc(es, func(e catalog.Extent) bool { return e.Place == places[i].Name }) {
			return broken
		}
		return nil
	})
	if _, err := w.FinishBatch(t.Context(), w.me, reqs); !errors.Is(err, broken) {
		t.Errorf("batch: %v", err)
	}
	if n := w.memories(); n != 0 {
		t.Errorf("%d memories", n)
	}
	w.blobs.FailPersist(nil)
	for _, req := range reqs {
		if st, err := w.Status(t.Context(), w.me, req.ID); err != nil || st.State != session.Open ||
			st.Bytes() != chunk {
			t.Errorf("%v, %d bytes, %v", st.State, st.Bytes(), err)
		}
	}
	_, err = w.FinishBatch(t.Context(), w.me, reqs)
	w.check(err)
}

func TestAFinishedIdemRefusesAnotherRequest(t *testing.T) {
	w := newWorld(t)
	b := random(chunk)
	create := func(name string) error {
		_, err := w.Create(
			t.Context(),
			w.me,
			upload.CreateRequest{Meta: catalog.Meta{Name: name}, Idem: "k", Put: upload.Put{Length: chunk}},
			bytes.NewReader(b),
		)
		return err
	}
	w.check(create("a"))
	w.check(create("a"))
	if err := create("b"); !errors.Is(err, upload.ErrIdem) {
		t.Errorf("create: %v", err)
	}
	if _, err := w.Begin(
		t.Context(), w.me, upload.BeginRequest{Meta: catalog.Meta{Name: "b"}, Bytes: chunk, Chunks: -1, Idem: "k"},
	); !errors.Is(err, upload.ErrIdem) {
		t.Errorf("begin: %v", err)
	}
	if n := w.memories(); n != 1 {
		t.Errorf("%d memories", n)
	}
}

// checkAlways is a content store after the death of a process: it reads each extent that is
// checked.
type checkAlways struct{ *blobtest.Mem }

func (c checkAlways) Check(ctx context.Context, e catalog.Extent, _ blob.CheckPolicy) error {
	return c.Mem.Check(ctx, e, blob.CheckAll)
}

// Bytes that were hashed as they came, and became corrupt before a restart, are found before
// anything is published.
func TestWhatRottedWhileTheServerWasDeadIsNotPublished(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, b)
	places, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	w.blobs.Corrupt(places[0].Name, chunk+7)
	w.restart()
	w.Close()
	w.Service = upload.New(
		upload.Config{
			Sessions: w.sessions,
			Catalog:  w.catalog,
			Blobs:    checkAlways{w.blobs},
			Clock:    clock{},
			Limits:   limits(),
		},
	)
	var inc *session.IncompleteError
	if _, err := w.finish(up.ID, b); !errors.As(err, &inc) || len(inc.Missing) != 1 ||
		inc.Missing[0] != (session.Range{Off: chunk, End: 2 * chunk}) ||
		w.memories() != 0 {
		t.Fatalf("%v, %d memories", err, w.memories())
	}
	w.check(w.put(up.ID, 1, b[chunk:]))
	w.finishes(up.ID, b)
}

// A store that panics during the check after a restart fails the request that needs the check, and
// not the process. Later finishes go on.
func TestAPanicOfTheComparisonIsAnError(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.putAll(up.ID, b)
	w.restart()
	w.Close()
	blobs := &panickingCheck{Mem: w.blobs, broken: true}
	w.Service = upload.New(
		upload.Config{Sessions: w.sessions, Catalog: w.catalog, Blobs: blobs, Clock: clock{}, Limits: limits()},
	)
	var lost *panics.Error
	if _, err := w.finish(up.ID, b); !errors.As(err, &lost) {
		t.Fatalf("%v", err)
	}
	blobs.broken = false
	w.finishes(up.ID, b)
}

// panickingCheck is a content store that panics while it is broken.
type panickingCheck struct {
	*blobtest.Mem
	broken bool
}

func (s *panickingCheck) Check(ctx context.Context, e catalog.Extent, policy blob.CheckPolicy) error {
	if s.broken {
		panic("the store is broken")
	}
	return s.Mem.Check(ctx, e, policy)
}
