package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"sluice/session"
)

func open(t testing.TB, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func reopen(t testing.TB, j *Journal) *Journal {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, j.path)
}

// reopenRewritten reopens the journal as if more than half of it described sessions that are gone.
func reopenRewritten(t testing.TB, j *Journal) *Journal {
	t.Helper()
	b, err := image(j.Rows())
	if err == nil {
		err = os.WriteFile(j.path, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return reopen(t, j)
}

func create(t testing.TB, st session.Store, id uint64, idem string) session.Session {
	t.Helper()
	s, _, err := st.Create(context.Background(), session.Session{
		ID:    session.SessionID(id),
		Spec:  session.Spec{ChunkSize: 4, BytesExpected: 1 << 20, Owner: "o\xff", Idem: idem, Note: []byte{0, 255}},
		Began: time.UnixMilli(1e12 + int64(id)), LastSeen: time.UnixMilli(2e12), Seen: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recordByte records one byte at off.
func recordByte(st session.Store, s session.Session, off int64) (session.Session, error) {
	return st.Record(context.Background(), s.ID, s.Gen, session.Change{
		Add:    []session.Entry{{Range: session.Range{Off: off, End: off + 1}, Note: fmt.Append(nil, "note ", off)}},
		Length: session.Unknown, Seen: off,
	})
}

// state is everything that a store shows.
type state struct {
	Sessions []session.Session
	Entries  [][]session.Entry
	Stats    session.Stats
}

func dump(t testing.TB, st session.Store) (all state) {
	t.Helper()
	ctx := context.Background()
	err := session.Page(ctx, st, session.Query{Limit: 100}, func(s session.Session) (bool, error) {
		es, err := st.Entries(ctx, s.ID, session.All(), 0)
		all.Sessions, all.Entries = append(all.Sessions, s), append(all.Entries, es)
		return true, err
	})
	if err == nil {
		all.Stats, err = st.Stats(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// step does something with the store, drawn from t: mostly a call that a service would make,
// sometimes one that is refused.
func step(t *rapid.T, st session.Store) {
	ctx := context.Background()
	id := session.SessionID(rapid.Uint64Range(1, 4).Draw(t, "id"))
	s, err := st.Load(ctx, id)
	if errors.Is(err, session.ErrNotFound) {
		_, _, err = st.Create(ctx, session.Session{
			ID: id,
			Spec: session.Spec{
				ChunkSize: 4, BytesExpected: rapid.Int64Range(-1, 40).Draw(t, "bytes"),
				Owner: rapid.SampledFrom([]string{"", "a", "\x80"}).Draw(t, "owner"),
				Idem:  rapid.SampledFrom([]string{"", "i", "j"}).Draw(t, "idem"),
				Note:  rapid.SliceOfN(rapid.Byte(), 0, 5).Draw(t, "note"),
			},
			Began:    time.UnixMilli(rapid.Int64Range(0, 1e13).Draw(t, "began")),
			LastSeen: time.UnixMilli(5), Seen: rapid.Int64Range(0, 100).Draw(t, "seen"),
		})
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	gen := s.Gen + rapid.SampledFrom([]uint64{0, 0, 0, 0, 1}).Draw(t, "stale")
	if rapid.Bool().Draw(t, "move") {
		_, _ = st.Move(ctx, id, session.Step{
			Gen: gen, To: session.State(rapid.IntRange(1, 6).Draw(t, "to")),
			Next: gen + rapid.Uint64Range(0, 9).Draw(t, "next"), Seen: rapid.Int64Range(0, 200).Draw(t, "seen"),
		})
		return
	}
	c := session.Change{Length: rapid.Int64Range(-1, 40).Draw(
		t, "length",
	), Seen: rapid.Int64Range(0, 200).Draw(t, "seen"), Now: rapid.Int64Range(0, 1e13).Draw(t, "now")}
	if s.BytesExpected >= 0 {
		c.Length = session.Unknown
	}
	if es, _ := st.Entries(ctx, id, session.All(), 0); len(es) > 0 && rapid.Bool().Draw(t, "drop") {
		e := rapid.SampledFrom(es).Draw(t, "entry")
		c.Remove, c.Drop = []session.Range{e.Range}, e.Range
	} else {
		off := rapid.Int64Range(0, 36).Draw(t, "off")
		c.Add = []session.Entry{{Range: session.Range{
			Off: off, End: off + rapid.Int64Range(1, 4).Draw(t, "n"),
		}, Note: rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "note")}}
	}
	_, _ = st.Record(ctx, id, gen, c)
}

func TestReopeningChangesNothing(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		j := open(t, filepath.Join(dir, fmt.Sprint(n)))
		mem := session.NewMem()
		for range rapid.IntRange(1, 30).Draw(rt, "steps") {
			// The operation is drawn once. It is done on mem and the journal as Log saw it.
			var ops []session.Op
			logged := session.NewMemWith(
				session.MemObservers{Log: func(op session.Op) error { ops = append(ops, op); return nil }},
			)
			for _, op := range mem.Rows() {
				if err := logged.Do(op); err != nil {
					rt.Fatal(err)
				}
			}
			step(rt, logged)
			for _, op := range ops {
				apply(rt, mem, op)
				apply(rt, j, op)
			}
			switch rapid.IntRange(0, 6).Draw(rt, "reopen") {
			case 0:
				j = reopen(t, j)
			case 1:
				j = reopenRewritten(t, j)
			}
			if diff := cmp.Diff(dump(t, mem), dump(t, j), cmpopts.EquateEmpty()); diff != "" {
				rt.Fatalf("the journal differs from the memory (-mem +journal):\n%s", diff)
			}
		}
		for name, again := range map[string]func(testing.TB, *Journal) *Journal{
			"reopening": reopen, "writing it anew": reopenRewritten,
		} {
			j = again(t, j)
			if diff := cmp.Diff(dump(t, mem), dump(t, j), cmpopts.EquateEmpty()); diff != "" {
				rt.Fatalf("after %s (-mem +journal):\n%s", name, diff)
			}
		}
		_ = j.Close()
	})
}

// apply calls the method that op names.
func apply(t *rapid.T, st session.Store, op session.Op) {
	var err error
	switch op.Kind {
	case session.OpCreate:
		_, _, err = st.Create(context.Background(), op.Session)
	case session.OpRecord:
		_, err = st.Record(context.Background(), op.ID, op.Gen, op.Change)
	case session.OpMove:
		_, err = st.Move(context.Background(), op.ID, op.Step)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestWritingItAnewChangesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := open(t, path)
	keep := create(t, j, 1, "idem")
	gone := create(t, j, 2, "")
	for off := range int64(200) {
		var err error
		if gone, err = recordByte(j, gone, off); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := recordByte(j, keep, 3); err != nil {
		t.Fatal(err)
	}
	for _, to := range []session.State{session.Aborted, session.Gone} {
		if _, err := j.Move(t.Context(), gone.ID, session.Step{Gen: gone.Gen, To: to, Seen: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	before, size := dump(t, j), fileSize(t, path)
	// The rest of an interrupted rewriting must not be in the way.
	if err := os.WriteFile(path+suffixNew, []byte(magic[:6]), 0o600); err != nil {
		t.Fatal(err)
	}
	j = reopen(t, j)
	if diff := cmp.Diff(before, dump(t, j), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if now := fileSize(t, path); now > size/10 {
		t.Errorf("the file has %d bytes of %d", now, size)
	}
	if before.Stats.Begun != 2 || before.Stats.Aborted != 1 || before.Stats.Newest != 1000 {
		t.Errorf("the test is blind: %+v", before.Stats)
	}
	// The new file is the locked one, and takes operations.
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("a second Open: %v", err)
	}
	create(t, j, 3, "")
	before = dump(t, j)
	if diff := cmp.Diff(before, dump(t, reopen(t, j)), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// built makes a journal of three operations. It returns its bytes, the end of each frame, and the
// state after each.
func built(t *testing.T) (b []byte, ends []int, states []state) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "j")
	j := open(t, path)
	note := func() {
		ends, states = append(ends, int(fileSize(t, path))), append(states, dump(t, j))
	}
	note()
	s := create(t, j, 1, "x")
	note()
	s, err := recordByte(j, s, 5)
	if err != nil {
		t.Fatal(err)
	}
	note()
	if _, err := j.Move(t.Context(), s.ID, session.Step{Gen: s.Gen, To: session.Sealed, Next: 77}); err != nil {
		t.Fatal(err)
	}
	note()
	if b, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	return b, ends, states
}

func TestAnUnfinishedAppendIsCutOff(t *testing.T) {
	if testing.Short() {
		t.Skip("too long for make quick")
	}
	whole, ends, states := built(t)
	for size := 0; size <= len(whole); size++ {
		// Which frames were whole when the file had this size?
		i, found := slices.BinarySearch(ends, size)
		if !found {
			i--
		}
		want := state{}
		if i >= 0 {
			want = states[i]
		}
		for name, tail := range map[string][]byte{
			"nothing": nil, "zeros": make([]byte, 50), "noise": slices.Repeat([]byte{0x7b, 1, 0, 0, 0}, 9),
		} {
			if size < int(headerSize) && name == "noise" {
				continue // a crash does not leave that: see the damaged ones
			}
			if size < int(headerSize) && size+len(tail) >= int(headerSize) {
				tail = tail[:int(headerSize)-1-size]
			}
			path := filepath.Join(t.TempDir(), "j")
			if err := os.WriteFile(path, append(slices.Clone(whole[:size]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			if size < int(headerSize) && len(tail) > 0 && size > 0 {
				continue // half a header and then zeros: no write order leaves that
			}
			j := open(t, path)
			if i >= 0 && fileSize(t, path) != int64(ends[i]) {
				t.Errorf("cut at %d, then %s: %d bytes are left", size, name, fileSize(t, path))
			}
			if diff := cmp.Diff(want, dump(t, j), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("cut at %d, then %s: %s", size, name, diff)
			}
			// It goes on after the last whole frame.
			create(t, j, 9, "")
			after := dump(t, j)
			j = reopen(t, j)
			if diff := cmp.Diff(after, dump(t, j), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("cut at %d, then %s, then gone on: %s", size, name, diff)
			}
			_ = j.Close()
		}
	}
}

func TestDamageIsNeverMistakenForTheEnd(t *testing.T) {
	whole, ends, _ := built(t)
	for at := 0; at < ends[2]; at++ {
		b := slices.Clone(whole)
		b[at] ^= 0x10
		refused(t, b, fmt.Sprintf("byte %d flipped", at), ErrDamaged, ErrVersion)
	}
	refused(t, []byte("a shopping list"), "a foreign file", ErrDamaged)
	refused(t, []byte("short"), "a short foreign file", ErrDamaged)
	newer := slices.Clone(whole)
	newer[headerSize-1]++
	refused(t, newer, "a newer version", ErrVersion)
	// An operation that this version can't know.
	payload := []byte(`{"move":{"id":1,"gen":77,"to":1,"next":99,"seen":0,"by":"moonlight"}}`)
	odd, err := frame(session.Op{})
	if err != nil {
		t.Fatal(err)
	}
	odd = append(odd[:4:4], 0, 0, 0, 0)
	odd[0], odd[1], odd[2], odd[3] = byte(len(payload)), 0, 0, 0
	crc := sum(odd[:4], payload)
	odd[4], odd[5], odd[6], odd[7] = byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24)
	refused(t, slices.Concat(whole, odd, payload), "an unknown member", ErrDamaged)
}

// refused checks that a file is refused with one of these errors, and left as it is.
func refused(t *testing.T, b []byte, name string, want ...error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "j")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := Open(path)
	if err == nil {
		_ = j.Close()
	}
	if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
		t.Errorf("%s: %v", name, err)
	}
	if now, _ := os.ReadFile(path); !slices.Equal(now, b) {
		t.Errorf("%s: the file was changed", name)
	}
}

func TestOneOwnerAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := open(t, path)
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("a second Open: %v", err)
	}
	create(t, j, 1, "")
	if err := j.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove: %v", err)
	}
	if _, _, err := j.Create(t.Context(), session.Session{ID: 2}); !errors.Is(err, ErrClosed) {
		t.Errorf("Create after Remove: %v", err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("Close after Remove: %v", err)
	}
	if got := dump(t, open(t, path)); len(got.Sessions) != 0 {
		t.Errorf("a new journal has %v", got.Sessions)
	}
}
