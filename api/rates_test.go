package api

import (
	"fmt"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// A key has so many at once and so many a second, whatever others do. After the wait that it is
// told it is let in.
func TestARateIsKept(t *testing.T) {
	r := newRates[string](20, 2)
	now := time.Now()
	left := func(key string) (n int) {
		for r.take(key, now) == 0 {
			n++
		}
		return n
	}
	if n := left("a"); n != 40 {
		t.Errorf("at once: %d", n)
	}
	if d := r.take("a", now); d != 50*time.Millisecond {
		t.Errorf("wait %s", d)
	}
	now = now.Add(48 * time.Millisecond)
	d := r.take("a", now)
	if d < 2*time.Millisecond || d > 3*time.Millisecond { // rounded up
		t.Errorf("wait %s", d)
	}
	now = now.Add(d)
	if n := left("a"); n != 1 {
		t.Errorf("after the wait: %d", n)
	}
	if n := left("b"); n != 40 {
		t.Errorf("another: %d", n)
	}
	// Nothing is forgotten before it is full, and nothing more is let in then.
	for range 5 {
		now = now.Add(time.Second)
		if n := left("a"); n != 20 {
			t.Errorf("a second later: %d", n)
		}
	}
	now = now.Add(time.Hour)
	if n := left("a"); n != 40 {
		t.Errorf("an hour later: %d", n)
	}
	none := newRates[string](0, 2)
	for range 1000 {
		if d := none.take("a", now); d != 0 {
			t.Fatalf("without a bound: %s", d)
		}
	}
}

// However many keys there are, they take bounded memory, and nobody gets more for it.
func TestRatesAreBounded(t *testing.T) {
	r := newRates[netip.Addr](10, 5)
	now := time.Now()
	known := netip.MustParseAddr("192.0.2.1")
	for r.take(known, now) == 0 {
	}
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}) }
	allowed := 0
	for i := range 2 * maxRates {
		if r.take(address(i), now) == 0 {
			allowed++
		}
	}
	if n := len(r.recent) + len(r.older); n != maxRates {
		t.Errorf("%d buckets", n)
	}
	if allowed != maxRates-1+50 { // those beyond share one
		t.Errorf("%d were let in", allowed)
	}
	if r.take(known, now) == 0 {
		t.Error("a flood of others has refilled a bucket")
	}
	for i := range 11 { // what is not used any more goes
		now = now.Add(time.Second)
		r.take(known, now)
		if n := len(r.recent) + len(r.older); i == 10 && n != 1 {
			t.Errorf("%d buckets are left", n)
		}
	}
}

// A /64 of IPv6 counts as one.
func TestWhatCountsAsOneAddress(t *testing.T) {
	for s, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "2001:db8:1:3::1": "2001:db8:1:3::",
	} {
		if got := network(netip.MustParseAddr(s)); got != netip.MustParseAddr(want) {
			t.Errorf("%s: %s, want %s", s, got, want)
		}
	}
	if network(netip.Addr{}).IsValid() {
		t.Error("no address has become one")
	}
}

// BenchmarkRates is what a good request pays: no allocation, among 1,000 principals.
func BenchmarkRates(b *testing.B) {
	r := newRates[string](MaxRate, requestBurst)
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("01a22e53-5d8e-78fe-bfbb-%012d", i)
	}
	now := time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			r.take(keys[i%len(keys)], now.Add(time.Duration(i)*time.Microsecond))
		}
	})
}

// BenchmarkClient is what a good request pays for its address and the look at its URL.
func BenchmarkClient(b *testing.B) {
	r := httptest.NewRequest("PUT", "/v1/uploads_put_chunk/15234514123451234/17?replace=true", nil)
	r.RemoteAddr = "10.0.0.1:1234"
	r.Header["X-Forwarded-For"] = []string{"192.0.2.1, 10.1.1.1"}
	for name, p := range map[string]proxies{"peer": nil, "proxied": {netip.MustParsePrefix("10.0.0.0/8")}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !p.client(r).IsValid() || hasToken(r.URL) {
					b.Fatal("it has no address, or a token")
				}
			}
		})
	}
}
