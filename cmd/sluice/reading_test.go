package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/api"
)

// tree describes every file and folder below dir: its bytes, its size on the disk, its mode, and
// when it or its entry was changed.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		text := fmt.Sprint(info.Mode(), st.Size, st.Blocks, st.Mtim, st.Ctim)
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %x", sha256.Sum256(b))
		}
		out[path] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A check without --repair changes nothing in the folder, not a byte and not a time, however the
// server has ended and whatever is wrong.
func TestACheckWritesNothing(t *testing.T) {
	for _, how := range []string{"stopped", "killed"} {
		for _, hurt := range []bool{false, true} {
			t.Run(fmt.Sprint(how, " hurt ", hurt), func(t *testing.T) {
				data := filepath.Join(t.TempDir(), "data")
				srv := startServer(t, data)
				var held []string
				for i := range 3 {
					m, err := srv.client.Create(
						t.Context(), api.CreateRequest{Name: fmt.Sprint(i)},
						strings.NewReader(strings.Repeat(fmt.Sprint(i), 20_000)), 20_000,
					)
					if err != nil {
						t.Fatal(err)
					}
					held = append(held, m.MemoryID)
				}
				if how == "killed" {
					srv.kill()
				} else {
					srv.stop(t)
				}
				if hurt {
					hurtHeads(t, data, 3)
				}
				before := tree(t, data)
				out, err := exec.Command("sluice", "check", "--data", data).CombinedOutput()
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
				if said := strings.Contains(string(out), "damaged"); said != hurt {
					t.Errorf("heads are hurt: %v, and it says %s", hurt, out)
				}
				after := tree(t, data)
				for path, was := range before {
					if is := after[path]; is != was {
						t.Errorf("%s was %s and is %s", path, was, is)
					}
				}
				for path := range after {
					if _, there := before[path]; !there {
						t.Errorf("%s is new", path)
					}
				}
				srv = startServer(t, data)
				for i, id := range held {
					b, err := exec.Command(
						"sluice", "get", id, "-o", "-", "--server", srv.url, "--token-file",
						filepath.Join(data, "admin-token"),
					).Output()
					if err != nil || string(b) != strings.Repeat(fmt.Sprint(i), 20_000) {
						t.Errorf("memory %d: %d bytes, %v", i, len(b), err)
					}
				}
			})
		}
	}
}

// hurtHeads flips a bit in the head of each item of all packs. There must be as many items as
// given.
func hurtHeads(t *testing.T, data string, want int) {
	t.Helper()
	packs, err := filepath.Glob(filepath.Join(data, "content", "packs", "p*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range packs {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		head := make([]byte, 8)
		for off := int64(0); ; off += 4096 {
			if _, err := f.ReadAt(head, off); err != nil {
				break
			}
			if string(head) != "sluiceit" {
				continue
			}
			if _, err := f.WriteAt([]byte{'S'}, off); err != nil {
				t.Fatal(err)
			}
			want--
		}
	}
	if want != 0 {
		t.Fatalf("%d heads more were to be found", want)
	}
}
