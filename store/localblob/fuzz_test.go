package localblob

import (
	"path/filepath"
	"strings"
	"testing"

	"sluice/session"
)

// A place has one name, which is that of a file in its folder and nothing else. Other names are
// refused.
func FuzzPlaceName(f *testing.F) {
	f.Add("0000000000000001-0-1", uint64(1), uint64(2), uint64(3), uint64(0))
	f.Add("ff00000000000001-a-1-2", uint64(0), uint64(0), uint64(0), uint64(1)<<63)
	f.Add("p0000000000000001-00000002-00001000-00ffff-ff00000000000001",
		uint64(1), uint64(1<<32), uint64(3), uint64(1<<40))
	f.Add("p0000000000000001-00000002", uint64(1), uint64(1<<32-1), uint64(3), uint64(1<<24-1))
	s := &Store{dir: "dir"}
	f.Fuzz(func(t *testing.T, name string, id, gen, incarnation, replacement uint64) {
		for _, p := range []place{
			{id: session.SessionID(id), gen: gen, incarnation: incarnation, replacement: replacement},
			{id: session.SessionID(id), incarnation: incarnation, in: 1 + int64(gen%(1<<32-1)), off: block * (1 + int64(gen%(1<<20-1))), len: int64(replacement % (1 << 24))},
		} {
			if same, ok := parse(p.String()); !ok || same != p {
				t.Fatalf("%+v is named %s, which is %+v, %v", p, p, same, ok)
			}
		}
		if p, ok := parse(name); ok && p.String() != name {
			t.Fatalf("%q is taken for %s", name, p)
		} else if !ok {
			return
		}
		if strings.ContainsAny(name, "/\\.\x00") || !filepath.IsLocal(name) {
			t.Fatalf("%q is a name", name)
		}
		p, _ := parse(name)
		folder, file := filepath.Split(s.path(p))
		want := filepath.Join("dir", "places", name[:2])
		if p.in > 0 {
			name, want = name[:26], filepath.Join("dir", "packs")
		}
		if file != name || filepath.Clean(folder) != want {
			t.Fatalf("%q is at %s", name, s.path(p))
		}
	})
}
