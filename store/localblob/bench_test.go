package localblob

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"sluice/blob/blobtest"
	"sluice/catalog"
	"sluice/internal/durable"
	"sluice/session"
)

// BenchmarkSmallContent stores small durable contents, 16 at a time, in packs and as files of their
// own.
func BenchmarkSmallContent(b *testing.B) {
	for _, size := range []int{16 << 10, 64 << 10, 256 << 10} {
		for name, packed := range map[string]int64{"pack": 0, "file": -1} {
			b.Run(fmt.Sprintf("%s/%d KiB", name, size>>10), func(b *testing.B) {
				s, err := Open(b.TempDir(), Options{Durability: durable.Process, Packed: packed})
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				content := blobtest.Random(size)
				var id atomic.Uint64
				b.SetBytes(int64(size))
				b.SetParallelism(8)
				b.ResetTimer()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						e, err := tryPacked(s, session.SessionID(id.Add(1)<<40|1), content)
						if err == nil {
							err = s.Persist(context.Background(), []catalog.Extent{e})
						}
						if err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}
