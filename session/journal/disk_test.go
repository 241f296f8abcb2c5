package journal

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/session"
)

// disk is a file on a disk that can fail, and that loses all unsynced bytes when the power fails.
type disk struct {
	now, synced []byte
	write, sync error // the errors of the next calls
	short       int   // how many bytes a failing write leaves behind
	syncs       int
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	n := len(p)
	if d.write != nil {
		n = d.short
	}
	d.now = append(d.now[:off:off], p[:n]...)
	return n, d.write
}

func (d *disk) Sync() error {
	d.syncs++
	if d.sync == nil {
		d.synced = slices.Clone(d.now)
	}
	return d.sync
}

func (d *disk) Truncate(n int64) error { d.now = d.now[:n]; return nil }
func (d *disk) Close() error           { return nil }

// onDisk returns an empty journal on a disk, and a function that shows the state after a power cut.
func onDisk(t *testing.T) (*Journal, *disk, func() state) {
	t.Helper()
	j := open(t, filepath.Join(t.TempDir(), "j"))
	d := &disk{now: header(), synced: header()}
	if err := j.file.Close(); err != nil {
		t.Fatal(err)
	}
	j.file = d
	return j, d, func() state {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, d.synced, 0o600); err != nil {
			t.Fatal(err)
		}
		return dump(t, open(t, path))
	}
}

func TestWhatReturnedSurvivesAPowerCut(t *testing.T) {
	j, _, afterPowerCut := onDisk(t)
	check := func(what string) {
		t.Helper()
		if diff := cmp.Diff(dump(t, j), afterPowerCut(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-shown +kept):\n%s", what, diff)
		}
	}
	s := create(t, j, 1, "x")
	check("create")
	s, err := recordByte(j, s, 0)
	check("record")
	if err != nil {
		t.Fatal(err)
	}
	for i, to := range []session.State{session.Sealed, session.Open, session.Sealed, session.Finished, session.Gone} {
		if s, err = j.Move(t.Context(), s.ID, session.Step{Gen: s.Gen, To: to, Next: s.Gen + 5}); err != nil {
			t.Fatal(i, err)
		}
		check(to.String())
	}
}

func TestAFullDiskTakesNothingBack(t *testing.T) {
	noSpace := errors.New("no space left")
	j, d, afterPowerCut := onDisk(t)
	s := create(t, j, 1, "")
	before, size := dump(t, j), len(d.now)
	for _, short := range []int{0, 3, 20} {
		d.write, d.short = noSpace, short
		if _, err := recordByte(j, s, 1); !errors.Is(err, noSpace) {
			t.Fatalf("error is %v", err)
		}
		if len(d.now) != size || len(d.synced) != size {
			t.Errorf("%d bytes are left of a frame that was not written", len(d.now)-size)
		}
		if diff := cmp.Diff(before, dump(t, j), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("shown: %s", diff)
		}
		if diff := cmp.Diff(before, afterPowerCut(), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("kept: %s", diff)
		}
	}
	d.write = nil
	if _, err := recordByte(j, s, 1); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if diff := cmp.Diff(dump(t, j), afterPowerCut(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after going on: %s", diff)
	}
}

func TestAFailedSyncIsNotRetried(t *testing.T) {
	io := errors.New("input/output error")
	j, d, _ := onDisk(t)
	s := create(t, j, 1, "")
	before := dump(t, j)
	d.sync = io
	if _, err := recordByte(j, s, 1); !errors.Is(err, io) {
		t.Fatalf("error is %v", err)
	}
	d.sync = nil
	n, size := d.syncs, len(d.now)
	if _, err := recordByte(j, s, 2); !errors.Is(err, io) {
		t.Errorf("the next call: %v", err)
	}
	if d.syncs != n || len(d.now) != size {
		t.Error("it was written on")
	}
	if diff := cmp.Diff(before, dump(t, j), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("shown: %s", diff)
	}
}
