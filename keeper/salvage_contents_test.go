package keeper_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"syscall"
	"testing"

	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/system"
	"sluice/keeper"
	"sluice/session"
)

// places is content in memory. The map gives the session of each place.
type places struct {
	contents map[string][]byte
	sessions map[string]uint64
	failing  map[string]error
	opened   int
}

func (p *places) Places(_ context.Context, after string, n int) (out []blob.PlaceInfo, err error) {
	for i := range len(p.contents) {
		if name := fmt.Sprint("p", i); name > after && len(out) < n {
			out = append(out, blob.PlaceInfo{Name: name, Session: session.SessionID(p.sessions[name])})
		}
	}
	return out, nil
}

func (p *places) Raw(place string) (io.ReaderAt, int64, func(), error) {
	if err := p.failing[place]; err != nil {
		return nil, 0, nil, err
	}
	p.opened++
	return bytes.NewReader(p.contents[place]), -1, func() { p.opened-- }, nil
}

// Contents whose records are lost are found by the SHA-256 of places that nothing names: a
// session's content at its places alone. Nothing else is taken for them.
func TestContentIsFoundByItsBytes(t *testing.T) {
	for name, fails := range map[string]error{
		"": nil, "can't be read now": syscall.EMFILE,
		"can't be read any more": syscall.EIO, "is gone": blob.ErrMissing,
	} {
		t.Run(name, func(t *testing.T) {
			r := newRescued(t)
			content := &places{
				contents: map[string][]byte{
					"p0": []byte("other"), "p1": []byte("bytes and more"),
					"p2": []byte("bytes"), "p3": []byte("named"), "p4": []byte("names"), "p5": []byte("of 7"),
				},
				sessions: map[string]uint64{"p0": 1, "p1": 2, "p2": 3, "p3": 4, "p4": 5, "p5": 6},
				failing:  map[string]error{"p0": fails},
			}
			memory := func(id byte, by uint64, content string) {
				m := catalog.Memory{
					ID: catalog.MemoryID{id}, Capsule: "c", Meta: catalog.Meta{Name: "m", MIME: "a/b"},
					Bytes: int64(len(content)), SHA256: sha256.Sum256([]byte(content)), Created: r.at.Now, By: by,
					Seq: uint64(id),
				}
				r.update(func(tx catalog.Tx) error { return catalog.Memories.Put(tx, catalog.MemoryKey(m.ID), m) })
			}
			memory(1, 0, "bytes") // of no session: the first place that has the bytes
			memory(2, 4, "named") // at a place that another content has
			memory(3, 7, "of 7")  // at the place of another session
			memory(4, 0, "never")
			r.update(func(tx catalog.Tx) error {
				return errors.Join(
					catalog.Contents.Put(tx, catalog.ContentKey{Capsule: "c", SHA256: catalog.SHA256{9}},
						catalog.Content{
							Capsule: "c", SHA256: catalog.SHA256{9}, Bytes: 5,
							Extents: []catalog.Extent{{Place: "p3", Len: 5}},
						}),
					catalog.Places.Put(tx, "p4", catalog.Place{Name: "p4"}),
				)
			})
			memory(5, 0, "names") // the only place is garbage
			r.rescue.Content = content
			err := r.rescue.Reconcile(t.Context(), r.sessions, r.rows, fixed{r.at.Now}, system.Random{})
			if content.opened != 0 {
				t.Errorf("%d places are open still", content.opened)
			}
			if errors.Is(fails, syscall.EMFILE) {
				if !errors.Is(err, syscall.EMFILE) {
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			err = r.rows.View(t.Context(), func(rows catalog.Reader) error {
				for content, place := range map[string]string{
					"bytes": "p1", "named": "", "of 7": "", "never": "",
					"names": "",
				} {
					c, found, err := catalog.Contents.Find(rows,
						catalog.ContentKey{Capsule: "c", SHA256: sha256.Sum256([]byte(content))})
					if err != nil {
						return err
					}
					if found != (place != "") {
						t.Errorf("%q: %+v", content, c)
					}
					if found &&
						(len(c.Extents) != 1 || c.Extents[0] != catalog.Extent{
							Place: place, Len: 5,
							CRC32C: crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli)),
						}) {
						t.Errorf("%q: %+v", content, c)
					}
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			if !r.says(keeper.KindLost, "its bytes were found in place p1") {
				t.Errorf("%+v", r.found)
			}
		})
	}
}
