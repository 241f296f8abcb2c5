// Package catalogtest has the conformance suite that every catalog store passes: its rows, its
// transactions and its views. It does not test the catalog's rules, nor what a store does beside
// them.
package catalogtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"sluice/catalog"
)

// TestStore is the suite that every catalog.Store passes. open gives an empty store. metadatatest
// tests the end of a session in the same commit.
func TestStore(t *testing.T, open func(t *testing.T) catalog.Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s catalog.Store)
	}{
		{"put, get, delete", putGetDelete},
		{"scans in both directions", scans},
		{"a transaction sees what it wrote", ownWrites},
		{"an error takes everything back", takenBack},
		{"a cancelled call does nothing", cancelled},
		{"a view is of one moment", oneMoment},
		{"counting at once loses nothing", counting},
		{"two who read what the other writes", skew},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
	t.Run("every kind of row", func(t *testing.T) { testRows(t, open(t)) })
}

// update and view fail the test on an error. Any goroutine may call them.
func update(t *testing.T, s catalog.Store, f func(tx catalog.Tx) error) {
	t.Helper()
	if err := s.Update(context.Background(), f); err != nil {
		t.Errorf("update: %v", err)
	}
}

func view(t *testing.T, s catalog.Store, f func(r catalog.Reader) error) {
	t.Helper()
	if err := s.View(context.Background(), f); err != nil {
		t.Errorf("view: %v", err)
	}
}

// place is a row whose Refs tells it from others.
func place(name string, n int64) catalog.Place { return catalog.Place{Name: name, Refs: n} }

func putPlace(tx catalog.Tx, name string, n int64) error {
	return catalog.Places.Put(tx, catalog.Name(name), place(name, n))
}

// refs is the Refs of a row, or -1.
func refs(r catalog.Reader, name string) (int64, error) {
	p, ok, err := catalog.Places.Find(r, catalog.Name(name))
	if !ok {
		return -1, err
	}
	return p.Refs, err
}

// has checks the Refs of a row, in a view of its own.
func has(t *testing.T, s catalog.Store, name string, want int64) {
	t.Helper()
	view(t, s, func(r catalog.Reader) error {
		if n, err := refs(r, name); err != nil || n != want {
			t.Errorf("%s is %d, not %d; %v", name, n, want, err)
		}
		return nil
	})
}

func putGetDelete(t *testing.T, s catalog.Store) {
	has(t, s, "a", -1)
	view(t, s, func(r catalog.Reader) error {
		if _, err := r.Get(catalog.PlaceTable, []byte("a")); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("get: %v", err)
		}
		return nil
	})
	update(t, s, func(tx catalog.Tx) error { return errors.Join(putPlace(tx, "a", 1), putPlace(tx, "", 2)) })
	has(t, s, "a", 1)
	has(t, s, "", 2)
	has(t, s, "a\x00", -1)
	update(t, s, func(tx catalog.Tx) error { return putPlace(tx, "a", 3) })
	has(t, s, "a", 3)
	// The same key in another table is another row.
	update(t, s, func(tx catalog.Tx) error {
		return errors.Join(
			catalog.Usages.Put(tx, "a", catalog.Usage{Owner: "a", Sessions: 9}),
			catalog.Places.Delete(tx, "a"),
			catalog.Places.Delete(tx, "never"),
		)
	})
	has(t, s, "a", -1)
	view(t, s, func(r catalog.Reader) error {
		u, err := catalog.Usages.Get(r, "a")
		if u.Sessions != 9 {
			t.Errorf("%+v", u)
		}
		return err
	})
	// An Update that writes nothing is fine, and so is an empty one.
	update(t, s, func(tx catalog.Tx) error { _, err := refs(tx, ""); return err })
	update(t, s, func(catalog.Tx) error { return nil })
}

// scans writes the same keys into other tables too, so that a scan that leaves its own table shows.
func scans(t *testing.T, s catalog.Store) {
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		// Each round has the table for itself.
		n++
		key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 254, 255}), 0, 4)
		want := map[string]int64{}
		ok(rt, s.Update(context.Background(), func(tx catalog.Tx) error {
			for p, err := range tx.Scan(catalog.PlaceTable, nil, nil, false) {
				if err != nil {
					return err
				}
				if err := tx.Delete(catalog.PlaceTable, []byte(p.(catalog.Place).Name)); err != nil {
					return err
				}
			}
			return nil
		}))
		write := func(tx catalog.Tx, keys [][]byte, remove bool) error {
			for _, k := range keys {
				err := tx.Delete(catalog.PlaceTable, k)
				if !remove {
					err = tx.Put(catalog.PlaceTable, k, place(string(k), int64(n)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
		first := rapid.SliceOfN(key, 0, 20).Draw(rt, "keys")
		removed, added := rapid.SliceOfN(key, 0, 5).Draw(rt, "removed"), rapid.SliceOfN(key, 0, 5).Draw(rt, "added")
		lo, hi := key.Draw(rt, "lo"), rapid.Ptr(key, true).Draw(rt, "hi")
		var end []byte
		if hi != nil {
			end = *hi
			if end == nil {
				end = []byte{}
			}
		}
		judge := func(r catalog.Reader) error {
			var keys []string
			for k := range want {
				if k >= string(lo) && (end == nil || k < string(end)) {
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			for _, desc := range []bool{false, true} {
				var got []string
				for p, err := range r.Scan(catalog.PlaceTable, lo, end, desc) {
					if err != nil {
						return err
					}
					got = append(got, p.(catalog.Place).Name)
				}
				if desc {
					slices.Reverse(got)
				}
				if !slices.Equal(got, keys) {
					rt.Fatalf("from %q to %q, backwards %v: %q, not %q", lo, end, desc, got, keys)
				}
			}
			return nil
		}
		ok(rt, s.Update(context.Background(), func(tx catalog.Tx) error {
			// Rows at both sides of the table.
			err := errors.Join(
				tx.Put(catalog.ContentTable, bytes.Repeat([]byte{255}, 5), catalog.Content{}),
				tx.Put(catalog.ContentTable, nil, catalog.Content{}),
				tx.Put(catalog.ReservationTable, nil, catalog.Reservation{}),
				tx.Put(catalog.ReservationTable, []byte{0}, catalog.Reservation{}),
			)
			return errors.Join(err, write(tx, first, false))
		}))
		for _, k := range first {
			want[string(k)] = 1
		}
		ok(rt, s.View(context.Background(), judge))
		ok(rt, s.Update(context.Background(), func(tx catalog.Tx) error {
			if err := errors.Join(write(tx, removed, true), write(tx, added, false)); err != nil {
				return err
			}
			for _, k := range removed {
				delete(want, string(k))
			}
			for _, k := range added {
				want[string(k)] = 1
			}
			return judge(tx)
		}))
		ok(rt, s.View(context.Background(), judge))
	})
}

func ownWrites(t *testing.T, s catalog.Store) {
	update(t, s, func(tx catalog.Tx) error { return errors.Join(putPlace(tx, "a", 1), putPlace(tx, "b", 1)) })
	update(t, s, func(tx catalog.Tx) error {
		if err := errors.Join(
			putPlace(tx, "a", 2), catalog.Places.Delete(tx, "b"), putPlace(tx, "c", 1),
			putPlace(tx, "d", 1), catalog.Places.Delete(tx, "d"),
		); err != nil {
			return err
		}
		for name, want := range map[string]int64{"a": 2, "b": -1, "c": 1, "d": -1} {
			if n, err := refs(tx, name); err != nil || n != want {
				t.Errorf("%s is %d, not %d; %v", name, n, want, err)
			}
		}
		// A scan may end early, and run within another.
		for range tx.Scan(catalog.PlaceTable, nil, nil, true) {
			for p, err := range tx.Scan(catalog.PlaceTable, nil, nil, false) {
				if err != nil || p.(catalog.Place).Name != "a" {
					t.Errorf("%+v, %v", p, err)
				}
				break
			}
			break
		}
		return nil
	})
	has(t, s, "a", 2)
	has(t, s, "b", -1)
}

func takenBack(t *testing.T, s catalog.Store) {
	update(t, s, func(tx catalog.Tx) error { return putPlace(tx, "a", 1) })
	boom := errors.New("boom")
	err := s.Update(t.Context(), func(tx catalog.Tx) error {
		if err := errors.Join(putPlace(tx, "a", 2), putPlace(tx, "b", 1), catalog.Places.Delete(tx, "a")); err != nil {
			return err
		}
		return boom
	})
	if err != boom { // as it is, and not wrapped
		t.Errorf("the closure's error came back as %v", err)
	}
	has(t, s, "a", 1)
	has(t, s, "b", -1)
	if err := s.View(t.Context(), func(catalog.Reader) error { return boom }); !errors.Is(err, boom) {
		t.Errorf("a view's error came back as %v", err)
	}
}

func cancelled(t *testing.T, s catalog.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Update(
		ctx, func(tx catalog.Tx) error { return putPlace(tx, "a", 1) },
	); !errors.Is(err, context.Canceled) {
		t.Errorf("update: %v", err)
	}
	if err := s.View(ctx, func(catalog.Reader) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("view: %v", err)
	}
	has(t, s, "a", -1)
}

// oneMoment moves amounts between rows. No view may see one half of a move.
func oneMoment(t *testing.T, s catalog.Store) {
	const rows, sum = 5, 100
	name := func(i int) string { return fmt.Sprint("row ", i) }
	update(t, s, func(tx catalog.Tx) error {
		for i := range rows {
			if err := putPlace(tx, name(i), sum/rows); err != nil {
				return err
			}
		}
		return nil
	})
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range 4 {
		wg.Go(func() {
			for n := range 50 {
				update(t, s, func(tx catalog.Tx) error {
					from, to := name((i+n)%rows), name((i+2*n+1)%rows)
					if from == to {
						return nil
					}
					a, err1 := refs(tx, from)
					b, err2 := refs(tx, to)
					return errors.Join(err1, err2, putPlace(tx, from, a-1), putPlace(tx, to, b+1))
				})
			}
		})
	}
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		view(t, s, func(r catalog.Reader) error {
			total, again := int64(0), int64(0)
			for p, err := range catalog.Places.After(r, "") {
				if err != nil {
					return err
				}
				total += p.Refs
			}
			for i := range rows {
				n, err := refs(r, name(i))
				if err != nil {
					return err
				}
				again += n
			}
			if total != sum || again != sum {
				t.Errorf("a view sees %d and %d of %d", total, again, sum)
			}
			return nil
		})
	}
}

func counting(t *testing.T, s catalog.Store) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				update(t, s, func(tx catalog.Tx) error {
					n, err := refs(tx, "count")
					if err != nil {
						return err
					}
					// A closure that runs again begins with the stored rows.
					return putPlace(tx, "count", max(n, 0)+1)
				})
				view(t, s, func(r catalog.Reader) error { _, err := refs(r, "count"); return err })
			}
		})
	}
	wg.Wait()
	has(t, s, "count", 200)
}

// skew: one of two rows must stay, and each of two callers removes the other's row only if it sees
// both.
func skew(t *testing.T, s catalog.Store) {
	for range 30 {
		update(t, s, func(tx catalog.Tx) error { return errors.Join(putPlace(tx, "a", 1), putPlace(tx, "b", 1)) })
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			wg.Go(func() {
				update(t, s, func(tx catalog.Tx) error {
					n := 0
					for _, err := range tx.Scan(catalog.PlaceTable, nil, nil, false) {
						if err != nil {
							return err
						}
						n++
					}
					if n < 2 {
						return nil
					}
					return catalog.Places.Delete(tx, catalog.Name(name))
				})
			})
		}
		wg.Wait()
		view(t, s, func(r catalog.Reader) error {
			a, err1 := refs(r, "a")
			b, err2 := refs(r, "b")
			if a+b != 0 {
				t.Errorf("a is %d, b is %d", a, b)
			}
			return errors.Join(err1, err2)
		})
	}
}
