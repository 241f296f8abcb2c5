package localblob

import (
	"errors"
	"testing"

	"sluice/blob"
	"sluice/catalog"
)

// A sync that panics is a failed one: Persist gives an error to all callers that wait for it or
// come later, and the process goes on.
func TestASyncThatPanicsIsAFailedOne(t *testing.T) {
	disk := &hooked{}
	s := open(t, t.TempDir(), Options{FS: disk})
	one, two := write(t, s, 1, 0, 0, []byte("one")), write(t, s, 2, 0, 0, []byte("two"))
	disk.sync = func(*hookedFile) error { panic("the disk is broken") }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = s.Persist(t.Context(), []catalog.Extent{one, two})
	}()
	disk.sync = nil
	for _, e := range []catalog.Extent{one, two} {
		var lost *blob.PersistError
		if err := s.Persist(t.Context(), []catalog.Extent{e}); !errors.As(err, &lost) {
			t.Errorf("%s: %v", e.Place, err)
		}
	}
	next := write(t, s, 1, 0, 0, []byte("new"))
	if err := s.Persist(t.Context(), []catalog.Extent{next}); err != nil || next.Place == one.Place {
		t.Errorf("%s after %s: %v", next.Place, one.Place, err)
	}
}

// Callers that share a run which panics get an error, and the next run takes place.
func TestAGroupOutlivesAPanic(t *testing.T) {
	var g groupSync
	begun, goOn, shared := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	first := make(chan any, 1)
	go func() {
		defer func() { first <- recover() }()
		_ = g.do(func() error {
			close(begun)
			<-goOn
			panic("broken")
		})
	}()
	<-begun
	go func() { shared <- g.do(func() error { return nil }) }()
	close(goOn)
	if p := <-first; p != "broken" {
		t.Errorf("the panic: %v", p)
	}
	if err := <-shared; err != nil {
		t.Errorf("the next run: %v", err)
	}
}
