package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"sluice/session"
)

// ticks lets the running time go on in steps of a minute. It calls each, if set, before each step.
func ticks(t *testing.T, v *session.Service, from time.Time, minutes int, each func()) (now time.Time, expired int) {
	t.Helper()
	for range minutes {
		if each != nil {
			each()
		}
		from = from.Add(time.Minute)
		n, err := v.TickTTL(t.Context(), from, nil)
		if err != nil {
			t.Fatal(err)
		}
		expired += n
	}
	return from, expired
}

// A session that is touched again and again ends with its longest life, which counts from its
// begin. Ends tells the earlier of the two.
func TestALongestLife(t *testing.T) {
	const ttl, age = 10 * time.Minute, 30 * time.Minute
	clock := &setClock{now: time.Unix(1e9, 0)}
	v := start(t, session.Config{TTL: ttl, MaxAge: age, Clock: clock})
	tick := func(minutes int, each func()) (expired int) {
		for range minutes {
			if each != nil {
				each()
			}
			clock.now = clock.now.Add(time.Minute)
			n, err := v.TickTTL(t.Context(), clock.now, nil)
			if err != nil {
				t.Fatal(err)
			}
			expired += n
		}
		return expired
	}
	s := begin(t, v, 4, 4)
	left := func() time.Duration {
		got, err := v.Status(t.Context(), s.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got.Ends.Sub(clock.now)
	}
	touch := func() {
		got, err := v.Status(t.Context(), s.ID)
		if err == nil {
			_, err = v.Touch(t.Context(), got)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if left() != ttl {
		t.Errorf("%s left at first", left())
	}
	if n := tick(15, touch); n != 0 || left() != ttl-time.Minute {
		t.Errorf("after 15 min: %d expired, %s left", n, left())
	}
	if n := tick(13, touch); n != 0 || left() != 2*time.Minute {
		t.Errorf("after 28 min: %d expired, %s left", n, left())
	}
	if n := tick(2, touch); n != 0 {
		t.Errorf("after 30 min: %d expired", n)
	}
	if n := tick(1, touch); n != 1 {
		t.Errorf("after 31 min: %d expired", n)
	}
	if _, err := v.PutAt(
		t.Context(), s.ID, 0, session.Unknown, bytes.NewReader([]byte("0123")), newMemSink(t, 4), false,
	); !errors.Is(err, session.ErrExpired) {
		t.Errorf("a put into it: %v", err)
	}
}

// setClock tells the time that it was set to.
type setClock struct{ now time.Time }

func (c *setClock) Now() time.Time { return c.now }

// A put that goes on and on keeps its session from expiring by its time to live, and not by its
// longest life.
func TestALongestLifeEndsAPut(t *testing.T) {
	v := start(t, session.Config{TTL: 10 * time.Minute, MaxAge: 20 * time.Minute})
	s := begin(t, v, 16, 16)
	body, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := v.PutAt(context.Background(), s.ID, 0, session.Unknown, body, newMemSink(t, 16), false)
		done <- err
	}()
	if _, err := w.Write([]byte("01")); err != nil {
		t.Fatal(err)
	}
	now, n := ticks(t, v, time.Now(), 19, nil)
	if n != 0 {
		t.Errorf("it expired within its longest life, with a put")
	}
	if _, n = ticks(t, v, now, 3, nil); n != 1 {
		t.Errorf("%d expired after it", n)
	}
	if _, err := w.Write([]byte("23")); err == nil {
		_ = w.Close()
	}
	if err := <-done; err == nil {
		t.Error("the put was recorded")
	}
	if got, err := v.Status(t.Context(), s.ID); err != nil || got.State != session.Expired {
		t.Errorf("%v, %v", got.State, err)
	}
}

// The longest life of a session that was begun without one counts from its last touch before.
func TestALongestLifeOfAnOlderSession(t *testing.T) {
	store := session.NewMem()
	open := func(age time.Duration) *session.Service {
		v, err := session.New(t.Context(), store, session.Config{TTL: 10 * time.Minute, MaxAge: age})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	v := open(0)
	s := begin(t, v, 4, 4)
	touch := func() {
		got, err := v.Status(t.Context(), s.ID)
		if err == nil {
			_, err = v.Touch(t.Context(), got)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, n := ticks(t, v, time.Now(), 100, touch); n != 0 {
		t.Fatal("it has no longest life, and expired")
	}
	v = open(20 * time.Minute)
	// Its last touch was a minute ago.
	now, n := ticks(t, v, time.Now(), 19, touch)
	if n != 0 {
		t.Error("it expired at once")
	}
	if _, n = ticks(t, v, now, 2, touch); n != 1 {
		t.Errorf("%d expired after its longest life", n)
	}
}

func TestALongestLifeIsNotBelowTheTTL(t *testing.T) {
	cfg := session.Config{TTL: time.Hour, MaxAge: time.Hour - 1}
	if _, err := session.New(t.Context(), session.NewMem(), cfg); !errors.Is(err, session.ErrInvalid) {
		t.Errorf("%v", err)
	}
}
