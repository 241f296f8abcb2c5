package crashtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/world"
	"sluice/session"
	"sluice/upload"
)

// hostile is a client that tries to leave more on the disk than its capsule may have.
type hostile struct {
	tenant
	quota int64
}

// slack is how many bytes a capsule may have on the disk beside its quota: the blocks at the ends
// of ranges that were given back, and the heads of packs and items.
const slack = 20 * 4096

// checkBounded gives leftovers back, as the keeper's Run does, and looks at the disk.
func (c hostile) checkBounded(what string) {
	c.t.Helper()
	select {
	case <-c.w.Uploads.LeftoverAdded():
		c.ok(c.w.Uploads.Reclaim(ctx, false))
	default:
	}
	var s size
	c.ok(s.add(c.w.disk, data+"/content"))
	if s.bytes > c.quota+slack {
		c.t.Fatalf("%s: %d bytes are on the disk in %d files, and the quota is %d", what, s.bytes, s.files, c.quota)
	}
}

// onDisk gives how many bytes of content there are.
func (c hostile) onDisk() int64 {
	c.t.Helper()
	var s size
	c.ok(s.add(c.w.disk, data+"/content"))
	return s.bytes
}

// givesBack lets a put fail that begins at a block's start. Before the answer the put has given
// back all bytes except the block at its end.
func (c hostile) givesBack(put func()) {
	c.t.Helper()
	before := c.onDisk()
	put()
	if after := c.onDisk(); after > before+4096 {
		c.t.Fatalf("a put that failed has left %d bytes", after-before)
	}
}

func (c hostile) create(b []byte, put upload.Put, body io.Reader) error {
	put.Length = int64(len(b))
	_, err := c.w.Uploads.Create(
		ctx, c.w.Me, upload.CreateRequest{Capsule: "default", Meta: catalog.Meta{Name: "a"}, Put: put}, body,
	)
	return err
}

func (c hostile) abort(up upload.Upload) { c.ok(c.w.Uploads.Abort(ctx, c.w.Me, up.ID)) }

// A client sends any content, in any number, and is refused in any way. The bytes of its capsule on
// the disk stay within its quota and a slack that does not grow.
func TestTheDiskIsBoundedByTheQuota(t *testing.T) {
	const rounds = 30
	wrong := catalog.SHA256{1}
	cut := func(b []byte) io.Reader {
		return io.MultiReader(bytes.NewReader(b[:len(b)-1]), iotest.ErrReader(errCut))
	}
	for name, round := range map[string]func(c hostile, i int){
		"creates past the quota": func(c hostile, i int) {
			b := bytesOf("a", uint64(i), int(c.quota)+1)
			c.fails(c.create(b, upload.Put{}, iotest.ErrReader(errors.New("not to be read"))), catalog.ErrQuota)
		},
		"small creates past the quota": func(c hostile, i int) {
			up := c.begin("a", c.quota-7000, "") // reserved bytes count
			b := bytesOf("a", uint64(i), 3000)
			c.fails(c.create(b, upload.Put{}, iotest.ErrReader(errors.New("not to be read"))), catalog.ErrQuota)
			c.abort(up)
		},
		"creates at once": func(c hostile, i int) {
			var wg sync.WaitGroup
			for j := range 8 {
				b := bytesOf("a", uint64(i*8+j), int(c.quota)*2/3)
				wg.Go(func() {
					if err := c.create(
						b, upload.Put{SHA256: &wrong}, bytes.NewReader(b),
					); !errors.Is(err, upload.ErrChecksum) && !errors.Is(err, catalog.ErrQuota) {
						c.t.Error(err)
					}
				})
			}
			wg.Wait()
		},
		"creates with a wrong digest": func(c hostile, i int) {
			for _, n := range []int{3 * chunk, 3000} {
				b := bytesOf("a", uint64(i), n)
				c.fails(c.create(b, upload.Put{SHA256: &wrong}, bytes.NewReader(b)), upload.ErrChecksum)
			}
		},
		"creates that are cut": func(c hostile, i int) {
			for _, n := range []int{3 * chunk, 4500, 3000} {
				b := bytesOf("a", uint64(i), n)
				c.fails(c.create(b, upload.Put{}, cut(b)), errCut)
			}
		},
		"creates of any length past the quota": func(c hostile, i int) {
			b := bytesOf("a", uint64(i), int(c.quota)+2*chunk)
			_, err := c.w.Uploads.Create(
				ctx, c.w.Me,
				upload.CreateRequest{Capsule: "default", Meta: catalog.Meta{Name: "a"}, Put: upload.Put{Length: -1}},
				bytes.NewReader(b),
			)
			c.fails(err, catalog.ErrQuota)
		},
		"chunks with a wrong digest": func(c hostile, i int) {
			for _, n := range []int64{3 * chunk, 3000} { // the small one is packed
				up := c.begin("a", n, fmt.Sprint(n))
				b := bytesOf("a", uint64(i), int(min(n, chunk)))
				c.givesBack(func() {
					c.fails(
						c.w.Uploads.PutChunk(
							ctx, c.w.Me, up.ID, 0, bytes.NewReader(b),
							upload.Put{Length: int64(len(b)), SHA256: &wrong},
						),
						upload.ErrChecksum,
					)
				})
			}
		},
		"chunks that are cut": func(c hostile, i int) {
			for _, n := range []int64{3 * chunk, 3000} {
				up := c.begin("a", n, fmt.Sprint(n))
				b := bytesOf("a", uint64(i), int(min(n, chunk)))
				c.givesBack(func() {
					c.fails(
						c.w.Uploads.PutChunk(ctx, c.w.Me, up.ID, 0, cut(b), upload.Put{Length: int64(len(b))}), errCut,
					)
				})
			}
		},
		"a chunk that is replaced": func(c hostile, i int) {
			for _, n := range []int64{2 * chunk, 3000} {
				up := c.begin("a", n, fmt.Sprint(n))
				b := bytesOf("a", uint64(i), int(min(n, chunk)))
				c.ok(c.w.Uploads.PutChunk(
					ctx, c.w.Me, up.ID, 0, bytes.NewReader(b), upload.Put{Length: int64(len(b)), Replace: true},
				))
			}
		},
		"a chunk that is replaced, and then finished": func(c hostile, i int) {
			b := bytesOf("a", uint64(i), 2*chunk)
			up := c.begin("a", 2*chunk, "")
			c.put(up, 0, b)
			c.put(up, 1, b)
			c.ok(c.w.Uploads.PutChunk(
				ctx, c.w.Me, up.ID, 0, bytes.NewReader(b[:chunk]), upload.Put{Length: chunk, Replace: true},
			))
			m, err := c.finish(up, b) // before anything was given back
			c.ok(err)
			c.checkBounded("after the finish")
			c.ok(c.w.reads(m, b))
			c.ok(c.w.Memories.Delete(ctx, c.w.Me, m.ID, true))
			c.w.clock.Advance(hour) // deleted bytes go a minute later
			c.w.Keeper.Tick(ctx)
			_, err = c.w.Keeper.Tick(ctx)
			c.ok(err)
		},
		"sessions that are aborted": func(c hostile, i int) {
			b := bytesOf("a", uint64(i), 2*chunk)
			up := c.begin("a", 2*chunk, "")
			c.put(up, 0, b)
			c.put(up, 1, b)
			c.abort(up)
			small := c.begin("a", 3000, "")
			c.put(small, 0, b[:3000])
			c.abort(small)
		},
		"sessions of failures that are aborted": func(c hostile, i int) {
			b := bytesOf("a", uint64(i), chunk)
			up := c.begin("a", 2*chunk, "")
			c.fails(c.w.Uploads.PutChunk(ctx, c.w.Me, up.ID, 0, cut(b), upload.Put{Length: chunk}), errCut)
			c.abort(up)
			c.ok(c.w.Uploads.Reclaim(ctx, true))
		},
		"puts that are taken over": func(c hostile, i int) {
			up := c.begin("a", 2*chunk, "k")
			b := bytesOf("a", uint64(i), chunk)
			r, send := io.Pipe()
			done := make(chan error, 1)
			go func() {
				done <- c.w.Uploads.PutChunk(ctx, c.w.Me, up.ID, 1, r, upload.Put{Length: chunk, Replace: true})
			}()
			_, err := send.Write(b[:chunk-1])
			c.ok(err)
			c.ok(c.w.Uploads.PutChunk(
				ctx, c.w.Me, up.ID, 1, bytes.NewReader(b), upload.Put{Length: chunk, Replace: true},
			))
			send.CloseWithError(errCut)
			c.fails(<-done, session.ErrSuperseded)
		},
		"a length that never ends": func(c hostile, i int) {
			up, err := c.w.Uploads.Begin(ctx, c.w.Me, upload.BeginRequest{
				Capsule: "default", Meta: catalog.Meta{Name: "a"}, Bytes: session.Unknown, Chunks: -1, ChunkSize: chunk,
			})
			c.ok(err)
			for n := int64(0); err == nil; n++ {
				b := bytesOf("a", uint64(n), chunk)
				err = c.w.Uploads.PutChunk(ctx, c.w.Me, up.ID, n, bytes.NewReader(b), upload.Put{Length: chunk})
			}
			c.fails(err, catalog.ErrQuota)
			c.abort(up)
		},
	} {
		t.Run(name, func(t *testing.T) {
			cl := &world.Clock{}
			w, err := openServer(newDisk(), setup{
				durability: durable.Process, seed: 1, clock: cl, die: func(err error) { panic(err) },
			})
			if err != nil {
				t.Fatal(err)
			}
			c := hostile{tenant{t, w}, 30_000}
			kept := c.stored("kept", "", bytesOf("kept", 1, 7000))
			var empty size
			c.ok(empty.add(w.disk, data+"/content"))
			c.ok(w.Catalog.Update(ctx, func(tx catalog.Tx) error {
				_, err := catalog.ChangeCapsule(tx, "default", func(c *catalog.Capsule) error {
					c.QuotaBytes = 30_000
					return nil
				}, catalog.Moment{})
				return err
			}))
			for i := range rounds {
				round(c, i)
				c.checkBounded(fmt.Sprintf("round %d", i))
			}
			c.ok(w.reads(kept, bytesOf("kept", 1, 7000)))
			// When all is done nothing is left.
			_, err = w.Engine.ClearAll(ctx, w.Uploads.Release)
			c.ok(err)
			for range 3 {
				cl.Advance(hour)
				_, err := w.Keeper.Tick(ctx)
				c.ok(err)
			}
			var end size
			c.ok(end.add(w.disk, data+"/content"))
			if places, err := w.Blobs.Places(ctx, "", 100); err != nil || len(places) != 1 ||
				end.bytes > empty.bytes+2*4096 {
				t.Errorf(
					"%d places and %d bytes are left, and %d were there; %v", len(places), end.bytes, empty.bytes, err,
				)
			}
			c.ok(errors.Join(audit(w), w.Close()))
		})
	}
}

// A killed incarnation leaves bytes beside those of an open session and a finished one. The next
// incarnation gives them back.
func TestWhatAKilledLifeLeftAtAnOpenSession(t *testing.T) {
	disk, cl := newDisk(), &world.Clock{}
	st := setup{durability: durable.Power, seed: 1, clock: cl, die: func(err error) { panic(err) }}
	w, err := openServer(disk, st)
	if err != nil {
		t.Fatal(err)
	}
	c := hostile{tenant{t, w}, 1 << 30}
	b := bytesOf("a", 1, 8*chunk)
	up := c.begin("a", 8*chunk, "")
	for i := range int64(7) {
		c.put(up, i, b)
	}
	_, err = w.Uploads.PutRange(
		ctx, w.Me, up.ID, chunk, bytes.NewReader(b[chunk:5*chunk]), upload.Put{Length: 4 * chunk, Replace: true},
	)
	c.ok(err)
	var before, after size
	c.ok(before.add(disk, data+"/content"))
	disk = disk.Image().Kill()
	w.abandon()
	st.seed++
	if w, err = openServer(disk, st); err != nil {
		t.Fatal(err)
	}
	c.w = w
	_, err = w.Keeper.Sweep(ctx)
	c.ok(err)
	_, err = w.Keeper.Tick(ctx)
	c.ok(err)
	c.ok(after.add(disk, data+"/content"))
	if after.bytes > before.bytes-4096 {
		t.Errorf("%d bytes are there after the restart, and %d were before", after.bytes, before.bytes)
	}
	c.put(up, 7, b)
	m, err := c.finish(up, b)
	c.ok(err)
	if m.SHA256 != sha256.Sum256(b) {
		t.Error("another digest")
	}
	c.ok(w.reads(m, b))
	c.ok(errors.Join(audit(w), w.Close()))
}
