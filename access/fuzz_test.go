package access

import (
	"bytes"
	"strings"
	"testing"
)

// A secret that was given out has the form of one. With one character changed, removed or added it
// has not, and nor has anything else.
func FuzzSecret(f *testing.F) {
	f.Add(make([]byte, 20), uint8(0), uint8('a'), "slc_")
	f.Add(bytes.Repeat([]byte{0xff}, 20), uint8(42), uint8('7'), "")
	f.Fuzz(func(t *testing.T, raw []byte, at, sign uint8, other string) {
		if h, ok := hashOf(other); ok &&
			(len(other) != secretLen || !strings.HasPrefix(other, prefix) || h == [32]byte{}) {
			t.Fatalf("%q is a secret", other)
		}
		s, err := newSecret(bytes.NewReader(raw))
		if err != nil {
			if len(raw) >= 20 {
				t.Fatal(err)
			}
			return
		}
		if _, ok := hashOf(s); !ok || len(s) != secretLen {
			t.Fatalf("%q is no secret", s)
		}
		i := int(at) % len(s)
		one := string([]byte{sign})
		for _, bad := range []string{s[:i] + one + s[i+1:], s[:i], s + one, one + s, strings.ToUpper(s)} {
			if _, ok := hashOf(bad); ok && bad != s {
				t.Fatalf("%q is a secret, as %q is", bad, s)
			}
		}
	})
}
