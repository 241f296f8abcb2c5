package crashtest

import (
	"errors"
	"fmt"
	"sync"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/internal/test/crashfs"
	"sluice/internal/test/world"
	"sluice/memories"
)

// run is one run of the script.
type run struct {
	client
	disk   *crashfs.Disk
	hook   crashfs.Hook
	st     setup
	reader *reader // looks on, if there is one
	look   bool
	fail   func(err error) bool // says whether an open that failed is tried again
}

func newRun(d durable.Durability, death *death) *run {
	r := &run{disk: newDisk(), st: setup{durability: d, clock: &world.Clock{}, die: death.die}}
	r.m = newModel()
	return r
}

func newDisk() *crashfs.Disk {
	d := crashfs.New()
	d.Journal(data + "/meta") // the content's folder asks for no order
	return d
}

// open starts the server.
func (r *run) open() {
	if r.err != nil {
		return
	}
	r.disk.SetHook(r.hook)
	for {
		r.st.seed++
		r.m.start("opening", nil)
		w, err := openServer(r.disk, r.st)
		if err == nil {
			r.w = w
			r.m.ack(func() {})
			if r.look {
				r.reader = startReader(w, r.m)
			}
			return
		}
		if r.fail == nil || !r.fail(err) {
			r.err = fmt.Errorf("opening: %w", err)
			return
		}
		r.anew()
	}
}

// anew gives the next process the disk of the last one.
func (r *run) anew() {
	old := r.disk
	r.disk = old.Kill()
	old.SetHook(nil)
	r.disk.SetHook(r.hook)
}

// stop ends the server cleanly.
func (r *run) stop() {
	if r.err != nil {
		return
	}
	r.reader.stop()
	r.m.start("closing", nil)
	err := r.w.Close()
	r.m.ack(func() {})
	if err != nil && r.fail == nil {
		r.err = fmt.Errorf("closing: %w", err)
	}
	r.anew()
}

// kill ends the process.
func (r *run) kill() {
	if r.err != nil {
		return
	}
	r.reader.stop()
	r.m.start("being killed", nil)
	w := r.w
	r.anew()
	_ = w.Close() // on a disk that is not looked at any more
}

// script is everything that clients and the keeper do.
func (r *run) script() {
	r.open()
	r.putting()
	r.creating()
	r.ending()
	r.timing()
	r.stop()
	r.open()
	r.chunk("g", 2)
	r.kill()
	r.open()
	r.put("g", 3*chunk, 4000, -1)
	r.replace("g", 0, bytesOf("g", 2, chunk))
	r.begin(file{name: "h", content: bytesOf("h", 1, 2*chunk)})
	r.chunk("h", 1)
	r.trash("b")
	r.kill()
	r.open()
	r.put("g", 3*chunk+4000, 1000, -1)
	r.finish("g")
	r.chunk("h", 0)
	r.stop()
	r.open()
	r.stop()
}

// putting: out of order, broken off, overlapping, twice, replaced.
func (r *run) putting() {
	r.begin(file{name: "a", idem: "key a", content: bytesOf("a", 1, 3*chunk+1234)})
	r.chunk("a", 2)
	r.chunk("a", 0)
	r.put("a", chunk+100, 3000, 1700)
	r.put("a", chunk+1000, 2500, -1)
	r.chunk("a", 1)
	r.chunk("a", 0)
	r.chunk("a", 3)
	r.finish("a")
	r.begin(file{name: "b", content: bytesOf("b", 1, 2*chunk)})
	r.chunk("b", 0)
	r.replace("b", 0, bytesOf("b", 2, chunk))
	r.chunk("b", 1)
	r.replace("b", chunk+500, bytesOf("b", 3, 1500))
	r.finish("b")
	r.begin(file{name: "u", unknown: true, content: bytesOf("u", 1, chunk+900)})
	r.put("u", 0, chunk, -1)
	r.chunk("u", 1)
	r.finish("u")
}

// creating: inline, small, the same bytes twice, large.
func (r *run) creating() {
	r.create("inline", "", bytesOf("inline", 1, 150))
	r.create("small", "key small", bytesOf("small", 1, 3000))
	r.create("twin", "", bytesOf("small", 1, 3000))
	r.create("large", "", bytesOf("large", 1, chunk+10))
}

// ending: together, by abort, and by deleting a stored memory.
func (r *run) ending() {
	r.begin(file{name: "d", content: bytesOf("d", 1, 700)})
	r.begin(file{name: "e", content: bytesOf("e", 1, 800)})
	r.chunk("d", 0)
	r.chunk("e", 0)
	r.finish("d", "e")
	r.begin(file{name: "f", content: bytesOf("f", 1, chunk)})
	r.chunk("f", 0)
	r.abort("f")
	r.trash("inline")
	r.restore("inline")
	r.trash("inline")
	r.purge("small", visible)
	r.trash("e")
	r.purge("e", trashed)
}

// timing: x and inline come to their end by time, and g does not.
func (r *run) timing() {
	r.begin(file{name: "x", content: bytesOf("x", 1, 2*chunk)})
	r.chunk("x", 0)
	r.begin(file{name: "g", idem: "key g", content: bytesOf("g", 1, 4*chunk)})
	r.chunk("g", 0)
	for i := range 11 {
		switch i {
		case 4:
			r.tick("inline")
		case 10:
			r.tick("x")
		default:
			r.tick()
		}
		if i == 5 { // the remains of a failing tick are for two uploads
			r.chunk("g", 1)
			r.create("late", "", bytesOf("late", 1, 2500))
		}
	}
	r.sweep()
	r.tick()
	r.tick()
	r.sweep()
}

// reader looks at everything visible, again and again, while the script runs.
type reader struct {
	quit chan struct{}
	wg   sync.WaitGroup
}

func startReader(w *server, m *model) *reader {
	r := &reader{quit: make(chan struct{})}
	r.wg.Go(func() {
		for {
			select {
			case <-r.quit:
				return
			default:
			}
			call := m.now()
			if row, err := w.Memories.ReadCapsule(ctx, w.Me, "default"); err == nil {
				if found, err := seen(w); err == nil {
					m.saw(call, row.Seq, found)
				}
			}
		}
	})
	return r
}

// seen gives the fates that the lists show.
func seen(w *server) (map[string]fate, error) {
	out := map[string]fate{}
	var errs []error
	for at, is := range map[bool]fate{false: visible, true: trashed} {
		err := eachMemory(w, at, func(m catalog.Memory) { out[m.Name] |= is })
		errs = append(errs, err)
	}
	for name, is := range out {
		if is == visible|trashed {
			delete(out, name) // it was moved between the two looks
		}
	}
	return out, errors.Join(errs...)
}

func eachMemory(w *server, trash bool, visit func(catalog.Memory)) error {
	for cursor := ""; ; {
		page, next, err := w.Memories.List(ctx, w.Me, memories.ListRequest{Trash: trash, Limit: 1000, Cursor: cursor})
		if err != nil {
			return err
		}
		for _, m := range page {
			visit(m)
		}
		if cursor = next; next == "" {
			return nil
		}
	}
}

func (r *reader) stop() {
	if r != nil {
		close(r.quit)
		r.wg.Wait()
	}
}
