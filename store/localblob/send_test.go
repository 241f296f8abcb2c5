package localblob

import (
	"bytes"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"sluice/catalog"
	"sluice/upload"
	"sluice/upload/uploadtest"
)

// stored writes pieces of content into places of a session each, and gives their extents in this order.
func stored(t *testing.T, s *Store, content []byte, sizes ...int) (extents []catalog.Extent) {
	t.Helper()
	at := 0
	for i, n := range sizes {
		w, err := s.Writer(t.Context(), 7, uint64(i/2), -1) // two to a place
		if err != nil {
			t.Fatal(err)
		}
		b := content[at : at+n]
		if _, err := w.WriteAt(b, int64(at)); err != nil {
			t.Fatal(err)
		}
		e, err := w.Commit(t.Context(), int64(at), int64(n), crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		extents = append(extents, e)
		at += n
	}
	return extents
}

func send(t *testing.T, s *Store, extents []catalog.Extent, off, n int64, before func()) (*uploadtest.Taker, error) {
	t.Helper()
	r, err := s.Read(t.Context(), extents, off, n)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before()
	var to uploadtest.Taker
	sent, err := r.(upload.Sender).Send(&to)
	if sent != int64(to.Len()) {
		t.Errorf("%d bytes are said to be sent, of %d", sent, to.Len())
	}
	return &to, err
}

// What is sent is what is read, for every range, in as few files as there are stretches; where reads are verified, and where a place has
// been deleted meanwhile, it comes as bytes.
func TestSend(t *testing.T) {
	content := make([]byte, 1000)
	for i := range content {
		content[i] = byte(i * 7)
	}
	for _, verify := range []bool{false, true} {
		s, err := Open(t.TempDir(), Options{VerifyReads: verify})
		if err != nil {
			t.Fatal(err)
		}
		extents := stored(t, s, content, 100, 200, 300, 250, 150)
		for off := int64(0); off < 1000; off += 37 {
			for n := int64(1); off+n <= 1000; n += 41 {
				to, err := send(t, s, extents, off, n, func() {})
				if err != nil || !bytes.Equal(to.Bytes(), content[off:off+n]) {
					t.Fatalf("%d bytes from %d: %v", n, off, err)
				}
				if verify != (to.Files == 0) || to.Files > 3 {
					t.Fatalf("%d bytes from %d: %d files", n, off, to.Files)
				}
			}
		}
		to, err := send(t, s, extents, 0, 1000, func() {
			for _, e := range extents {
				if err := s.Delete(t.Context(), e.Place); err != nil {
					t.Fatal(err)
				}
			}
		})
		if err != nil || !bytes.Equal(to.Bytes(), content) || to.Files > 0 {
			t.Errorf("deleted meanwhile: %d bytes, %d files, %v", to.Len(), to.Files, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A file that is too short is named, and one that has rotted where reads are verified.
func TestSendOfDamage(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 100)
	for _, verify := range []bool{false, true} {
		dir := t.TempDir()
		s, err := Open(dir, Options{VerifyReads: verify})
		if err != nil {
			t.Fatal(err)
		}
		extents := stored(t, s, content, 1000)
		path := filepath.Join(dir, "places", "00", extents[0].Place)
		if err := os.Truncate(path, 900); err != nil {
			t.Fatal(err)
		}
		if to, err := send(t, s, extents, 0, 1000, func() {}); !errors.Is(err, upload.ErrRotten) || to.Len() > 900 {
			t.Errorf("cut: %d bytes, %v", to.Len(), err)
		}
		bad := bytes.Clone(content)
		bad[555]++
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := send(t, s, extents, 0, 1000, func() {}); verify != errors.Is(err, upload.ErrRotten) {
			t.Errorf("rotten, verified %v: %v", verify, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
