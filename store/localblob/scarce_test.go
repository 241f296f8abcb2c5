package localblob

import (
	"io/fs"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// scarce is a file system with few descriptors.
type scarce struct {
	durable.OS
	most, open atomic.Int64
}

type scarceFile struct {
	durable.File
	on *scarce
}

func (s *scarce) OpenFile(path string, flag int, perm fs.FileMode) (durable.File, error) {
	if s.open.Add(1) > s.most.Load() {
		s.open.Add(-1)
		return nil, &fs.PathError{Op: "open", Path: path, Err: syscall.EMFILE}
	}
	f, err := s.OS.OpenFile(path, flag, perm)
	if err != nil {
		s.open.Add(-1)
		return nil, err
	}
	return &scarceFile{f, s}, nil
}

func (f *scarceFile) Close() error {
	f.on.open.Add(-1)
	return f.File.Close()
}

// The files of inactive uploads stay open, but take no descriptor from active ones: if there is
// none left, they are synced and closed.
func TestRestingUploadsMakeWay(t *testing.T) {
	disk := &scarce{}
	disk.most.Store(1 << 20)
	s := open(t, t.TempDir(), Options{FS: disk})
	disk.most.Store(disk.open.Load() + 20)
	var es []catalog.Extent
	for i := range 100 {
		es = append(es, write(t, s, session.SessionID(1+i), 0, 0, []byte("resting")))
	}
	for _, e := range es {
		reader, err := s.Read(t.Context(), []catalog.Extent{e}, 0, e.Len)
		if err != nil {
			t.Fatal(err)
		}
		reader.Close()
	}
	if err := s.Persist(t.Context(), es[:10]); err != nil {
		t.Error(err)
	}
}

// The caller sets how many unused files stay open.
func TestTheNumberOfKeptFilesIsGiven(t *testing.T) {
	s := open(t, t.TempDir(), Options{Files: 5})
	for i := range 40 {
		write(t, s, session.SessionID(1+i), 0, 0, []byte("x"))
	}
	s.background.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.files) != 5 {
		t.Errorf("%d files are open", len(s.files))
	}
}
