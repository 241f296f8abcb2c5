package upload_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"testing"

	"pgregory.net/rapid"

	"sluice/access"
	"sluice/catalog"
	"sluice/session"
	"sluice/upload"
)

// Any history of chunks, ranges, cut bodies, replacements, wrong bytes and restarts ends in the
// right bytes, with the hash that was computed on the way. At each step the status says exactly
// which bytes were acknowledged.
func TestAnyHistoryEndsInTheRightBytes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		defer w.Close()
		size := rapid.Int64Range(0, 5*chunk+3).Draw(rt, "size")
		want := random(int(size)) // the recorded bytes, if any are
		up := w.begin(size)
		var got []session.Range
		check := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		steps := rapid.IntRange(0, 30).Draw(rt, "steps")
		for range steps {
			if size == 0 {
				break
			}
			off := rapid.Int64Range(0, size-1).Draw(rt, "off")
			n := rapid.Int64Range(1, size-off).Draw(rt, "n")
			idx := off / chunk
			r := session.Range{Off: idx * chunk, End: min((idx+1)*chunk, size)}
			switch op := rapid.SampledFrom([]string{
				"chunk", "chunk", "range", "range", "cut chunk", "cut range", "replace", "other", "restart", "digest",
			}).Draw(rt, "op"); op {
			case "chunk":
				check(w.put(up.ID, idx, want[r.Off:r.End]))
				got = session.Add(got, r)
			case "digest":
				sum := catalog.SHA256(sha256.Sum256(want[off : off+n]))
				k, err := w.PutRange(
					t.Context(),
					w.me,
					up.ID,
					off,
					bytes.NewReader(want[off:off+n]),
					upload.Put{Length: n, SHA256: &sum},
				)
				check(err)
				if k != n {
					rt.Fatalf("%d of %d", k, n)
				}
				got = session.Add(got, session.Range{Off: off, End: off + n})
				sum[0] ^= 1
				if _, err := w.PutRange(
					t.Context(), w.me, up.ID, off, bytes.NewReader(want[off:off+n]),
					upload.Put{Length: n, SHA256: &sum},
				); !errors.Is(err, upload.ErrChecksum) {
					rt.Fatalf("a wrong digest: %v", err)
				}
			case "range", "cut range":
				var body io.Reader = bytes.NewReader(want[off : off+n])
				if op == "cut range" {
					body = io.MultiReader(body, cut{})
				}
				k, err := w.PutRange(t.Context(), w.me, up.ID, off, body, upload.Put{Length: -1})
				if (err != nil) != (op == "cut range") && !(off+n == size && err != nil) {
					rt.Fatalf("%s: %v", op, err)
				}
				got = session.Add(got, session.Range{Off: off, End: off + k})
			case "cut chunk":
				body := io.MultiReader(bytes.NewReader(want[r.Off:r.End-1]), cut{})
				if err := w.PutChunk(t.Context(), w.me, up.ID, idx, body, upload.Put{Length: -1}); err == nil {
					rt.Fatal("a cut chunk was acknowledged")
				}
			case "other":
				other := bytes.Clone(want[r.Off:r.End])
				other[len(other)-1] ^= 1
				err := w.put(up.ID, idx, other)
				if session.Covers(got, session.Range{Off: r.End - 1, End: r.End}) {
					if !errors.Is(err, session.ErrConflict) {
						rt.Fatalf("other bytes: %v", err)
					}
				} else {
					check(err) // nothing was recorded there: they are the bytes now
					want[r.End-1] ^= 1
					got = session.Add(got, r)
				}
			case "replace":
				fresh := random(int(r.Len()))
				check(
					w.PutChunk(
						t.Context(),
						w.me,
						up.ID,
						idx,
						bytes.NewReader(fresh),
						upload.Put{Length: r.Len(), Replace: true},
					),
				)
				copy(want[r.Off:], fresh)
				got = session.Add(got, r)
			case "restart":
				w.restart()
			}
			st, err := w.Status(t.Context(), w.me, up.ID)
			check(err)
			if fmt.Sprint(st.Received) != fmt.Sprint(got) {
				rt.Fatalf("received %v, acknowledged %v", st.Received, got)
			}
			crcs, err := w.ChunkCRCs(t.Context(), w.me, up.ID)
			check(err)
			for _, c := range crcs {
				at := session.Range{Off: c.Index * chunk, End: min((c.Index+1)*chunk, size)}
				if c.CRC32C != crc32.Checksum(want[at.Off:at.End], crc32.MakeTable(crc32.Castagnoli)) {
					rt.Fatalf("CRC of chunk %d", c.Index)
				}
			}
		}
		for i := range (size + chunk - 1) / chunk {
			check(w.put(up.ID, i, want[i*chunk:min((i+1)*chunk, size)]))
		}
		m, err := w.finish(up.ID, want)
		check(err)
		if !bytes.Equal(w.content(m), want) {
			rt.Fatal("content differs")
		}
	})
}

func TestAPipeHasNoLengthUntilItsEnd(t *testing.T) {
	w := newWorld(t)
	b := random(3*chunk + 5)
	up, err := w.Begin(
		t.Context(),
		w.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: session.Unknown, Chunks: -1, ChunkSize: chunk},
	)
	w.check(err)
	reserved := func() (n int64) {
		w.check(w.catalog.View(t.Context(), func(r catalog.Reader) error {
			c, err := catalog.Capsules.Get(r, "default")
			n = c.Reserved
			return err
		}))
		return n
	}
	if n := reserved(); n != 64<<20 {
		t.Errorf("%d bytes are reserved", n)
	}
	w.putAll(up.ID, b)
	st, err := w.Status(t.Context(), w.me, up.ID)
	if w.check(err); st.BytesExpected != int64(len(b)) {
		t.Errorf("the short last chunk made it %d", st.BytesExpected)
	}
	_, err = w.finish(up.ID, b)
	w.check(err)

	// A length that is a multiple of the chunk size is given at finish.
	b = random(2 * chunk)
	up, err = w.Begin(
		t.Context(),
		w.me,
		upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: session.Unknown, Chunks: -1, ChunkSize: chunk},
	)
	w.check(err)
	w.putAll(up.ID, b)
	if _, err := w.finish(up.ID, b[:chunk]); !errors.Is(err, upload.ErrLengthMismatch) {
		t.Errorf("a length that cuts off bytes: %v", err)
	}
	w.finishes(up.ID, b)
	if n := reserved(); n != 0 {
		t.Errorf("%d bytes are still reserved", n)
	}
}

func TestBadSizesAreRefusedBeforeAnythingIsBegun(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		req  upload.BeginRequest
		want error
	}{
		"negative":         {upload.BeginRequest{Bytes: -2, Chunks: -1}, catalog.ErrInvalid},
		"too large":        {upload.BeginRequest{Bytes: 1 << 60, Chunks: -1}, upload.ErrTooLarge},
		"too many chunks":  {upload.BeginRequest{Bytes: 16385, Chunks: -1, ChunkSize: 1}, upload.ErrTooLarge},
		"wrong chunks":     {upload.BeginRequest{Bytes: chunk + 1, Chunks: 1}, catalog.ErrInvalid},
		"chunks, no bytes": {upload.BeginRequest{Bytes: session.Unknown, Chunks: 3}, catalog.ErrInvalid},
		"chunk size":       {upload.BeginRequest{Bytes: 5, Chunks: -1, ChunkSize: 65 << 20}, catalog.ErrInvalid},
		"zero is no chunk": {upload.BeginRequest{Bytes: 0, Chunks: 1}, catalog.ErrInvalid},
		"capsule":          {upload.BeginRequest{Bytes: 5, Chunks: -1, Capsule: "Ü"}, catalog.ErrInvalid},
		"no capsule":       {upload.BeginRequest{Bytes: 5, Chunks: -1, Capsule: "other"}, catalog.ErrNotFound},
		"idem":             {upload.BeginRequest{Bytes: 5, Chunks: -1, Idem: "a\x00b"}, catalog.ErrInvalid},
	} {
		c.req.Meta.Name = "a"
		if _, err := w.Begin(t.Context(), w.me, c.req); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if st, err := w.sessions.Stats(t.Context()); err != nil || st.Begun != 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

// A role or a token that is taken away in the middle ends the upload at the next request. Finish
// checks it once more inside its commit.
func TestWhoLosesItsRoleLosesTheUpload(t *testing.T) {
	w := newWorld(t)
	b := random(chunk)
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(tx, "default", func(c *catalog.Capsule) error {
			c.Controllers = []string{w.stranger.Principal}
			return nil
		}, catalog.Moment{})
		return err
	}))
	up, err := w.Begin(
		t.Context(), w.stranger, upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: chunk, Chunks: -1},
	)
	w.check(err)
	w.check(w.PutChunk(t.Context(), w.stranger, up.ID, 0, bytes.NewReader(b), upload.Put{Length: -1}))
	w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.ChangeCapsule(tx, "default", func(c *catalog.Capsule) error {
			c.Controllers = nil
			return nil
		}, catalog.Moment{})
		return err
	}))
	finish := upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: chunk}
	for name, err := range map[string]error{
		"put":    w.PutChunk(t.Context(), w.stranger, up.ID, 0, bytes.NewReader(b), upload.Put{Length: -1}),
		"status": second(w.Status(t.Context(), w.stranger, up.ID)),
		"finish": second(w.Finish(t.Context(), w.stranger, finish)),
		"abort":  w.Abort(t.Context(), w.stranger, up.ID),
	} {
		if err == nil || errors.Is(err, session.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := w.memories(); n != 0 {
		t.Errorf("%d memories", n)
	}
}

// A right that is taken away while a finish or a create is committing is checked once more inside
// the commit.
func TestTheCommitAsksOnceMore(t *testing.T) {
	controllers := func(w *world, ids ...string) {
		w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
			_, err := catalog.ChangeCapsule(tx, "default", func(c *catalog.Capsule) error {
				c.Controllers = ids
				return nil
			}, catalog.Moment{})
			return err
		}))
	}
	b := random(chunk)
	takes := map[string]func(w *world, c access.Caller){
		"role": func(w *world, _ access.Caller) { controllers(w) },
		"token": func(w *world, c access.Caller) {
			w.check(
				w.catalog.Update(
					t.Context(),
					func(tx catalog.Tx) error { return catalog.Tokens.Delete(tx, catalog.TokenKey(c.Token)) },
				),
			)
		},
	}
	for what, take := range takes {
		for _, op := range []string{"finish", "create"} {
			t.Run(what+" at "+op, func(t *testing.T) {
				w := newWorld(t)
				who := w.join("who")
				controllers(w, who.Principal)
				up, err := w.Begin(
					t.Context(), who, upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: chunk, Chunks: -1},
				)
				w.check(err)
				w.check(w.PutChunk(t.Context(), who, up.ID, 0, bytes.NewReader(b), upload.Put{Length: -1}))
				commits := 0
				w.blobs.FailPersist(func([]catalog.Extent) error {
					commits++
					take(w, who)
					return nil
				})
				if op == "finish" {
					_, err = w.Finish(
						t.Context(), who, upload.FinishRequest{ID: up.ID, SHA256: sha256.Sum256(b), Length: chunk},
					)
				} else {
					create := upload.CreateRequest{Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: chunk}}
					_, err = w.Create(t.Context(), who, create, bytes.NewReader(b))
				}
				refused := errors.Is(err, access.ErrForbidden) || errors.Is(err, access.ErrUnauthenticated) ||
					errors.Is(err, catalog.ErrNotFound)
				if !refused || commits != 1 || w.memories() != 0 {
					t.Errorf("%v; %d commits, %d memories", err, commits, w.memories())
				}
			})
		}
	}
}

// A right that ends in the middle of a body ends the put, also a put that only repeats recorded
// bytes.
func TestARightThatEndsInTheBody(t *testing.T) {
	b := random(chunk)
	for what, had := range map[string]int{"new": 0, "the rest": 100, "a repeat": chunk} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			who := w.join("who")
			member := func(ids ...string) {
				w.check(w.catalog.Update(t.Context(), func(tx catalog.Tx) error {
					_, err := catalog.ChangeCapsule(
						tx,
						"default",
						func(c *catalog.Capsule) error { c.Controllers = ids; return nil },
						catalog.Moment{},
					)
					return err
				}))
			}
			member(who.Principal)
			up, err := w.Begin(
				t.Context(), who, upload.BeginRequest{Meta: catalog.Meta{Name: "a"}, Bytes: chunk, Chunks: -1},
			)
			w.check(err)
			if had > 0 {
				_, err = w.PutRange(
					t.Context(), who, up.ID, 0, bytes.NewReader(b[:had]), upload.Put{Length: int64(had)},
				)
				w.check(err)
			}
			body := io.MultiReader(
				bytes.NewReader(b[:chunk-1]),
				readerFunc(func([]byte) (int, error) { member(); return 0, io.EOF }),
				bytes.NewReader(b[chunk-1:]),
			)
			err = w.PutChunk(t.Context(), who, up.ID, 0, body, upload.Put{Length: chunk})
			if !errors.Is(err, access.ErrForbidden) && !errors.Is(err, catalog.ErrNotFound) {
				t.Errorf("the put: %v", err)
			}
			member(who.Principal)
			if s, err := w.Status(t.Context(), who, up.ID); err != nil || s.Bytes() != int64(had) {
				t.Errorf("recorded are %d bytes, %v", s.Bytes(), err)
			}
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Content that becomes corrupt between its acknowledgement and the finish is found by its CRC,
// named, and asked for again.
func TestRottenPiecesAreAskedForAgain(t *testing.T) {
	w := newWorld(t)
	b := random(3 * chunk)
	up := w.begin(int64(len(b)))
	for _, i := range []int64{2, 1} { // ahead of the prefix hash, so that they are read back
		w.check(w.put(up.ID, i, b[i*chunk:(i+1)*chunk]))
	}
	places, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	w.blobs.Corrupt(places[0].Name, 2*chunk+7)
	w.check(w.put(up.ID, 0, b[:chunk]))
	var sent int
	for {
		m, err := w.finish(up.ID, b)
		if err == nil {
			if !bytes.Equal(w.content(m), b) || sent != 1 {
				t.Errorf("%d chunks were asked for again", sent)
			}
			return
		}
		st, e := w.Status(t.Context(), w.me, up.ID)
		w.check(e)
		missing := st.Missing(0)
		if len(missing) == 0 || sent > 3 {
			t.Fatal(err)
		}
		for _, r := range missing {
			for i := r.Off / chunk; i*chunk < r.End; i++ {
				sent++
				w.check(w.put(up.ID, i, b[i*chunk:(i+1)*chunk]))
			}
		}
	}
}

// A put that replaces a part of a corrupt entry is refused once, and the next one goes on.
func TestAPartOfARottenPieceIsReplaced(t *testing.T) {
	w := newWorld(t)
	b := random(2 * chunk)
	up := w.begin(int64(len(b)))
	w.check(w.put(up.ID, 0, b[:chunk]))
	places, err := w.blobs.Places(t.Context(), "", 10)
	w.check(err)
	w.blobs.Corrupt(places[0].Name, 7)
	replace := func() error {
		_, err := w.PutRange(
			t.Context(), w.me, up.ID, 100, bytes.NewReader(b[100:300]), upload.Put{Length: 200, Replace: true},
		)
		return err
	}
	if err := replace(); !errors.Is(err, session.ErrSuperseded) {
		t.Fatal(err)
	}
	st, err := w.Status(t.Context(), w.me, up.ID)
	if w.check(err); st.Bytes() != 0 {
		t.Errorf("%v is there still", st.Received)
	}
	w.check(replace())
	for _, r := range []session.Range{{End: 100}, {Off: 300, End: 2 * chunk}} {
		_, err := w.PutRange(
			t.Context(), w.me, up.ID, r.Off, bytes.NewReader(b[r.Off:r.End]), upload.Put{Length: r.Len()},
		)
		w.check(err)
	}
	m, err := w.finish(up.ID, b)
	if w.check(err); !bytes.Equal(w.content(m), b) {
		t.Error("other bytes")
	}
}
