package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"flag"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/api"
)

var makeFolder = flag.String(
	"make-folder", "", "write what testdata/folders has to the `folder`, instead of testing it",
)

// contentOf gives the content of the memory with that name in the kept folders.
func contentOf(name string, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(sha256.Sum256([]byte(name))).Read(b)
	return b
}

// kept has the memories in those folders, by name.
var kept = map[string]int{
	"inline.bin": 100, "empty.bin": 0, "place.bin": 30_000, "chunk.bin": 20_001, "ranges.bin": 12_345,
	"twin.bin": 30_000, "second.bin": 5_000,
}

const (
	trashedName, trashedSize       = "trashed.bin", 9_000
	openName, openSize, openStored = "open.bin", 50_000, 33_333
)

func contentKept(name string) []byte {
	if name == "twin.bin" {
		return contentOf("place.bin", kept[name])
	}
	return contentOf(name, kept[name])
}

// A folder that any earlier version has left, stopped or killed, opens. All memories have their
// bytes, memories in the trash can be restored, an open upload goes on, and check finds nothing.
// See testdata/folders/README.md.
func TestFoldersOfEarlierVersions(t *testing.T) {
	if *makeFolder != "" {
		for _, how := range []string{"stopped", "killed"} {
			makeKept(t, filepath.Join(*makeFolder, "format-2-"+how+".tar.gz"), how == "killed")
		}
		return
	}
	all, err := filepath.Glob("testdata/folders/*.tar.gz")
	if err != nil || len(all) < 2 {
		t.Fatalf("%d folders, %v", len(all), err)
	}
	for _, path := range all {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			unpack(t, path, data)
			srv := startServer(t, data)
			checkKept(t, srv.client)
			srv.stop(t)
			if out, err := exec.Command("sluice", "check", "--data", data).CombinedOutput(); err != nil {
				t.Errorf("check: %v: %s", err, out)
			}
			srv = startServer(t, data)
			for name, n := range map[string]int{trashedName: trashedSize, openName: openSize} {
				holdsContent(t, srv.client, named(t, srv.client, "default", name), contentOf(name, n))
			}
			srv.stop(t)
		})
	}
}

// A folder that a newer version has left is refused with both numbers, and nothing in it is
// changed.
func TestAFolderOfANewerVersionIsLeftAlone(t *testing.T) {
	for file, knows := range map[string]string{"meta/FORMAT": "up to 3", "content/format": "up to 2"} {
		t.Run(file, func(t *testing.T) {
			data := filepath.Join(t.TempDir(), "data")
			unpack(t, "testdata/folders/format-1-killed.tar.gz", data)
			b, err := os.ReadFile(filepath.Join(data, file))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(
				filepath.Join(data, file), bytes.Replace(b, []byte("format 1"), []byte("format 9"), 1), 0o600,
			); err != nil {
				t.Fatal(err)
			}
			before := filesOf(t, filepath.Join(data, filepath.Dir(file)))
			out, err := refused(t, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "", "--data", data)
			if err == nil || !strings.Contains(out, "format 9") || !strings.Contains(out, knows) ||
				!strings.Contains(out, "newer sluice") {
				t.Errorf("%v: %s", err, out)
			}
			if after := filesOf(t, filepath.Join(data, filepath.Dir(file))); !slices.Equal(before, after) {
				t.Errorf("the folder had %q, and has %q", before, after)
			}
		})
	}
}

// filesOf lists the files of a folder with their sums, without locks.
func filesOf(t *testing.T, dir string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.EqualFold(d.Name(), "lock") {
			return err
		}
		b, err := os.ReadFile(path)
		out = append(out, path+" "+sum(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func checkKept(t *testing.T, c *api.Client) {
	t.Helper()
	for name := range kept {
		capsule := "default"
		if name == "second.bin" {
			capsule = "second"
		}
		holdsContent(t, c, named(t, c, capsule, name), contentKept(name))
	}
	trash, err := c.ListMemories(t.Context(), api.MemoryQuery{CapsuleID: "default", Trash: true, Limit: 10})
	if err != nil || len(trash.Memories) != 1 {
		t.Fatalf("in the trash: %+v, %v", trash, err)
	}
	if _, err := c.RestoreMemory(t.Context(), trash.Memories[0].MemoryID); err != nil {
		t.Error(err)
	}
	ups, err := c.Uploads(t.Context(), "", 10)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(ups.Sessions, func(s api.Session) bool { return s.State == "open" })
	if i < 0 || ups.Sessions[i].BytesReceived != openStored {
		t.Fatalf("uploads: %+v", ups.Sessions)
	}
	rest := contentOf(openName, openSize)[openStored:]
	id := ups.Sessions[i].SessionID
	if _, err := c.PutRange(
		t.Context(), id, openStored, bytes.NewReader(rest), int64(len(rest)), api.PutOptions{},
	); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Finish(t.Context(), api.FinishRequest{
		SessionID: id, SHA256: sum(contentOf(openName, openSize)), TotalLen: openSize,
	}); err != nil {
		t.Error(err)
	}
}

// named finds the memory of that name.
func named(t *testing.T, c *api.Client, capsule, name string) api.Memory {
	t.Helper()
	page, err := c.ListMemories(t.Context(), api.MemoryQuery{CapsuleID: capsule, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(page.Memories, func(m api.Memory) bool { return m.Name == name })
	if i < 0 {
		t.Fatalf("%s is not in capsule %s: %+v", name, capsule, page.Memories)
	}
	return page.Memories[i]
}

func holdsContent(t *testing.T, c *api.Client, m api.Memory, want []byte) {
	t.Helper()
	body, _, err := c.Content(t.Context(), m.MemoryID, 0, -1)
	if err != nil {
		t.Fatalf("%s: %v", m.Name, err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) || m.SHA256 != sum(want) {
		t.Errorf("%s: %d bytes of %d, SHA-256 %s, %v", m.Name, len(got), len(want), m.SHA256, err)
	}
}

// makeKept makes a folder of today's version, with one of everything.
func makeKept(t *testing.T, path string, kill bool) {
	data := filepath.Join(t.TempDir(), "data")
	srv := startServer(t, data)
	c, ctx := srv.client, t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	create := func(capsule, name string, b []byte) api.Memory {
		m, err := c.Create(ctx, api.CreateRequest{CapsuleID: capsule, Name: name}, bytes.NewReader(b), int64(len(b)))
		must(err)
		return m
	}
	begin := func(name string, size int64) string {
		s, err := c.Begin(ctx, api.BeginRequest{
			CapsuleID: "default", Meta: api.Meta{Name: name, Bytes: &size}, Idem: "key of " + name,
		})
		must(err)
		return s.SessionID
	}
	_, err := c.CreateCapsule(ctx, api.CreateCapsuleRequest{CapsuleID: "second", Name: "second"})
	must(err)
	for _, name := range []string{"inline.bin", "empty.bin", "place.bin", "twin.bin"} {
		create("default", name, contentKept(name))
	}
	create("second", "second.bin", contentKept("second.bin"))
	must(c.DeleteMemory(ctx, create("default", trashedName, contentOf(trashedName, trashedSize)).MemoryID, false))
	must(c.DeleteMemory(ctx, create("default", "purged.bin", contentOf("purged.bin", 8_000)).MemoryID, true))
	for _, name := range []string{"chunk.bin", "ranges.bin"} {
		b := contentKept(name)
		id := begin(name, int64(len(b)))
		if name == "chunk.bin" {
			must(c.PutChunk(ctx, id, 0, bytes.NewReader(b), int64(len(b)), api.PutOptions{}))
		} else {
			for _, r := range [][2]int{{6_000, len(b)}, {0, 6_000}} { // the later one first
				_, err := c.PutRange(
					ctx, id, int64(r[0]), bytes.NewReader(b[r[0]:r[1]]), int64(r[1]-r[0]), api.PutOptions{},
				)
				must(err)
			}
		}
		_, err := c.Finish(ctx, api.FinishRequest{SessionID: id, SHA256: sum(b), TotalLen: int64(len(b))})
		must(err)
	}
	must(c.Abort(ctx, begin("aborted.bin", 10)))
	_, err = c.PutRange(
		ctx, begin(openName, openSize), 0, bytes.NewReader(contentOf(openName, openSize)[:openStored]), openStored,
		api.PutOptions{},
	)
	must(err)
	if kill {
		srv.kill()
	} else {
		srv.stop(t)
	}
	pack(t, data, path)
}

// pack writes a folder. It leaves out the reserve, and files that are there only while a server
// runs.
func pack(t *testing.T, dir, path string) {
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewWriterLevel(out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() && !d.IsDir() || strings.HasPrefix(d.Name(), "RESERVE-") {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name) + "/", Typeflag: tar.TypeDir, Mode: 0o700})
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{
			Name: filepath.ToSlash(name), Size: int64(len(b)), Mode: 0o600,
		}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err := errors.Join(err, w.Close(), z.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

func unpack(t *testing.T, path, dir string) {
	t.Helper()
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	z, err := gzip.NewReader(in)
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(to, 0o700); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := io.ReadAll(r)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(to), 0o700))
		if err := errors.Join(err, os.WriteFile(to, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}
