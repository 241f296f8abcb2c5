package backup_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/backup"
	"sluice/catalog"
	"sluice/internal/test/crashfs"
)

// holed is a state that has lost the row of a memory.
type holed struct {
	backup.Frozen
	lost string
}

var errRot = errors.New("rot")

func (h holed) Walk(
	ctx context.Context, visit func(key, row []byte) error, lost func(from, to []byte, why error) error,
) error {
	return h.Frozen.Walk(ctx, func(key, row []byte) error {
		if h.lost != "" && strings.HasSuffix(string(key), h.lost) && key[1] == byte(catalog.MemoryTable) {
			return lost(key, append([]byte(h.lost), 0), errRot)
		}
		return visit(key, row)
	}, lost)
}

func (s *server) holed(m catalog.Memory, salvage bool) backup.Source {
	src := s.source()
	freeze := src.Freeze
	src.Salvage = salvage
	src.Freeze = func(ctx context.Context) (backup.Frozen, error) {
		f, err := freeze(ctx)
		if err != nil {
			return nil, err
		}
		return holed{f, string(m.ID[:])}, nil
	}
	return src
}

// The rest of a data folder is backed up only on request. Such a backup says what it lacks, is
// restored only on request, makes way for a whole backup, and never replaces a whole one, even if
// it dies.
func TestWhatIsLeftIsNoWholeBackup(t *testing.T) {
	s := serve(t, simulated(crashfs.New()), "/data")
	s.create("first", bytesOf("first", 2*chunk))
	m := s.create("second", bytesOf("second", 3*chunk))
	to := crashfs.New()
	run := func(salvage bool) (backup.Result, error) {
		return backup.Run(t.Context(), to, dir, s.holed(m, salvage), s.clock.Now(), nil)
	}
	if _, err := run(false); !errors.Is(err, errRot) || !strings.Contains(err.Error(), "backup --salvage") {
		t.Errorf("%v", err)
	}
	if _, err := backup.Open(to, dir); !errors.Is(err, backup.ErrNone) {
		t.Errorf("it made one: %v", err)
	}
	for range 2 {
		if res, err := run(true); err != nil || len(res.Missing) != 1 || res.Missing[0].Why != "rot" ||
			res.Memories != 1 || res.Contents != 2 {
			t.Errorf("%+v, %v", res, err)
		}
	}
	if _, err := restore(t.Context(), to, dir, simulated(crashfs.New()), "/data", false); !errors.Is(err,
		backup.ErrIncomplete) || !strings.Contains(err.Error(), "restore --salvage") {
		t.Errorf("%v", err)
	}
	if res, err := restore(t.Context(), to, dir, simulated(crashfs.New()), "/data", true); err != nil ||
		len(res.Missing) != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	if old, err := to.Stat(dir + "/manifest"); err == nil {
		t.Errorf("programs that know nothing of it would restore it: %v", old)
	}

	// A whole one replaces it, and stays.
	s.backup(to, dir)
	if _, err := to.Stat(dir + "/incomplete"); err == nil {
		t.Error("it is there still")
	}
	s.create("third", bytesOf("third", chunk))
	var images []*crashfs.Image
	to.SetHook(func(st crashfs.Step) *crashfs.Fault {
		if st.Changes() {
			images = append(images, st.Image())
		}
		return nil
	})
	if _, err := run(true); !errors.Is(err, backup.ErrKept) || !errors.Is(err, errRot) {
		t.Errorf("%v", err)
	}
	to.SetHook(nil)
	if len(images) == 0 {
		t.Fatal("no step")
	}
	for i, im := range images {
		if got := restored(t, im.Crash(rand.New(rand.NewPCG(1, uint64(i))), 50), dir).names(); len(got) != 2 ||
			!got["second"] {
			t.Errorf("step %d: %v", i, got)
		}
	}
	if got := restored(t, to, dir).names(); len(got) != 2 || !got["second"] {
		t.Errorf("%v", got)
	}
	if res := s.backup(to, dir); len(res.Missing) > 0 {
		t.Errorf("%+v", res)
	}
	if got := restored(t, to, dir).names(); len(got) != 3 {
		t.Errorf("%v", got)
	}
}
