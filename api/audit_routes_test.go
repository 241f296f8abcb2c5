package api

import (
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"
)

// Each route says which of its requests are audited. What gives rights, takes them away, or ends
// something is audited always, and so is what only admins may do.
func TestEachRouteStatesWhatOfItIsAudited(t *testing.T) {
	ends := regexp.MustCompile(`_(delete|revoke|restore|clear_all)$`)
	for _, r := range routes() {
		if r.audit != auditNothing && r.name() == "" {
			t.Errorf("%s: records of it have no action", r.path)
		}
		if (r.audit == auditNothing) != (r.auth == open) {
			t.Errorf("%s: audited as %d, although who may call is %d", r.name(), r.audit, r.auth)
		}
		always := r.auth == admin || ends.MatchString(r.name())
		if r.in != nil {
			for i := range r.in.NumField() {
				always = always || slices.Contains(auditedValues, memberName(r.in.Field(i)))
			}
		}
		if r.audit == 0 || always && r.audit != auditAlways {
			t.Errorf("%s: audited as %d", r.name(), r.audit)
		}
	}
}

// A record has ids, numbers and truth values of messages, and no other text.
func TestNoFreeTextIsAudited(t *testing.T) {
	ids := []string{"subject", "owners", "controllers"} // of principals that exist
	for _, r := range routes() {
		for _, message := range []reflect.Type{r.in, r.out} {
			if message == nil || message.Kind() != reflect.Struct || r.audit != auditAlways {
				continue
			}
			for i := range message.NumField() {
				f := message.Field(i)
				kind := f.Type
				if kind.Kind() == reflect.Pointer {
					kind = kind.Elem()
				}
				text := kind.Kind() == reflect.String || kind.Kind() == reflect.Slice
				if name := memberName(f); text && slices.Contains(auditedValues, name) && !slices.Contains(ids, name) {
					t.Errorf("%s: the value of %s is text", r.name(), name)
				}
			}
		}
	}
}

func TestASignInIsAuditedOnceInAnHour(t *testing.T) {
	var s signIns
	now := time.UnixMilli(1_800_000_000_000)
	for i, step := range []struct {
		after time.Duration
		token byte
		from  string
		first bool
	}{
		{0, 1, "192.0.2.1", true},
		{time.Minute, 1, "192.0.2.1", false},
		{0, 2, "192.0.2.1", true},
		{0, 1, "192.0.2.2", true},
		{0, 1, "2001:db8::1", true},
		{0, 1, "2001:db8::2", false},    // the same client, for all that anybody knows
		{0, 1, "2001:db8:0:1::1", true}, // another network
		{59 * time.Minute, 1, "192.0.2.1", true},
		{59 * time.Minute, 1, "192.0.2.1", false},
		{0, 2, "", true}, // an address that nobody knows
	} {
		now = now.Add(step.after)
		from, _ := netip.ParseAddr(step.from)
		if got := s.first([32]byte{step.token}, from, now); got != step.first {
			t.Errorf("step %d: %v", i, got)
		}
	}
}

func TestSignInsAreBounded(t *testing.T) {
	var s signIns
	now := time.UnixMilli(1_800_000_000_000)
	use := func(n int, at time.Time) bool {
		return s.first([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}, netip.Addr{}, at)
	}
	for n := range 3 * maxSignIns {
		if !use(n, now) {
			t.Fatalf("token %d has been seen", n)
		}
		if len(s.at) > maxSignIns {
			t.Fatalf("%d are remembered", len(s.at))
		}
	}
	// The oldest sign-ins are forgotten first.
	s = signIns{}
	for n := range maxSignIns {
		at := now
		if n < maxSignIns/10 {
			at = at.Add(59 * time.Minute)
		}
		use(n, at)
	}
	later := now.Add(time.Hour)
	if !use(maxSignIns, later) || use(0, later) || len(s.at) != maxSignIns/10+1 {
		t.Errorf("%d are remembered", len(s.at))
	}
}
