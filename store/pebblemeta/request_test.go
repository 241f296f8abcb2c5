package pebblemeta

import (
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/uuid"

	"sluice/catalog"
)

// BenchmarkRequest does what the requests of small files do with the metadata, in memory: the cost
// without the disk.
func BenchmarkRequest(b *testing.B) {
	db, err := Open("db", Options{Hook: noHook, FS: vfs.NewMem()})
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	store := db.Catalog()
	token := catalog.Token{
		Hash: catalog.SHA256{1}, ID: uuid.NewString(), Principal: uuid.NewString(), Created: time.Now(),
	}
	update := func(f func(catalog.Tx) error) {
		if err := store.Update(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
	update(func(tx catalog.Tx) error {
		p := catalog.Principal{ID: token.Principal, Name: "admin", Admin: true, Created: time.Now()}
		c := catalog.Capsule{ID: "default", Name: "default", Owners: []string{p.ID}}
		if _, err := catalog.NewCapsule(tx, c, catalog.Moment{Now: time.Now()}); err != nil {
			return err
		}
		if err := catalog.Principals.Put(tx, catalog.Name(p.ID), p); err != nil {
			return err
		}
		return catalog.Tokens.Put(tx, catalog.TokenKey(token.Hash), token)
	})
	made := 0
	publish := func(tx catalog.Tx) error {
		made++
		p := publication(made, token.Principal)
		if err := allow(tx, token); err != nil {
			return err
		}
		_, err := catalog.Publish(tx, p)
		return err
	}
	const many, few = 20_000, 200
	for made < many {
		update(func(tx catalog.Tx) error {
			for range 100 {
				if err := publish(tx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	view := func(f func(catalog.Reader) error) {
		if err := store.View(b.Context(), f); err != nil {
			b.Fatal(err)
		}
	}
	read := func(i int) {
		view(func(r catalog.Reader) error {
			if _, err := catalog.Tokens.Get(r, catalog.TokenKey(token.Hash)); err != nil {
				return err
			}
			return allow(r, token)
		})
		view(func(r catalog.Reader) error {
			m, err := catalog.Memories.Get(r, catalog.MemoryKey(memoryID(1+i)))
			if err != nil {
				return err
			}
			if err := allow(r, token); err != nil {
				return err
			}
			_, err = catalog.Contents.Get(r, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
			return err
		})
	}
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			read(i * 7919 % few)
		}
	})
	b.Run("read-any", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			read(i * 7919 % many)
		}
	})
	b.Run("create", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			update(publish)
		}
	})
}

// allow reads the rows that access.Allow reads.
func allow(r catalog.Reader, t catalog.Token) error {
	if _, err := catalog.Tokens.Get(r, catalog.TokenKey(t.Hash)); err != nil {
		return err
	}
	if _, err := catalog.Principals.Get(r, catalog.Name(t.Principal)); err != nil {
		return err
	}
	_, err := catalog.Capsules.Get(r, "default")
	return err
}

func memoryID(n int) (id catalog.MemoryID) {
	copy(id[:], "\x01\x90\x00\x00")
	binary.BigEndian.PutUint32(id[12:], uint32(n))
	return id
}

// publication is a small file as memories_create publishes it.
func publication(n int, owner string) catalog.Publication {
	sum := catalog.SHA256{}
	binary.BigEndian.PutUint64(sum[:], uint64(n)*0x9e3779b97f4a7c15)
	return catalog.Publication{
		Memory: catalog.Memory{
			ID: memoryID(n), Capsule: "default",
			Meta:  catalog.Meta{Name: fmt.Sprintf("IMG_%05d.jpg", n), MIME: "image/jpeg"},
			Bytes: 64 << 10, SHA256: sum, Created: time.Now(), Owner: owner,
		},
		Content: catalog.Content{
			Capsule: "default", SHA256: sum, Bytes: 64 << 10,
			Extents: []catalog.Extent{{
				Place: fmt.Sprintf("%016x-%016x", uint64(n)*0x9e3779b97f4a7c15, n), Len: 64 << 10, CRC32C: uint32(n),
			}},
		},
		At: catalog.Moment{Now: time.Now(), Running: int64(n)},
	}
}
