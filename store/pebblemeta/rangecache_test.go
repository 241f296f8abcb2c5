package pebblemeta

import (
	"slices"
	"testing"

	"sluice/session"
)

// Ranges from the cache are what is stored now, even if a caller has changed the slice that it was
// given, or another session uses the same slot.
func TestRangesThatAreCached(t *testing.T) {
	many := func(first int64) (raw []byte, want []session.Range) {
		for i := range int64(1000) {
			want = append(want, session.Range{Off: first + 10*i, End: first + 10*i + 5})
		}
		return appendRanges(nil, want), want
	}
	var cache rangeCache
	read := func(id session.SessionID, raw []byte, want []session.Range) []session.Range {
		t.Helper()
		got, err := cache.decoder(id)(raw)
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("%d ranges that begin with %v, %v; expected %v", len(got), got[:min(len(got), 1)], err, want[0])
		}
		return got
	}
	raw, want := many(0)
	other, wantOther := many(3)
	for range 2 {
		clear(read(1, raw, want))
		clear(read(1, raw, want))
		clear(read(1, other, wantOther))
		clear(read(1+session.SessionID(len(cache)), raw, want))
	}
	if _, err := cache.decoder(1)(raw[:len(raw)-1]); err == nil {
		t.Error("half a range was read")
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = cache.decoder(1)(raw) }); n > 1 {
		t.Errorf("%v allocations for what was read before", n)
	}
}
