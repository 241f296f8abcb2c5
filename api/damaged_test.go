package api_test

import (
	"slices"
	"testing"

	"sluice/api"
)

// An admin's list of sessions says which records can't be read. While there are none, it is as
// ever.
func TestTheListSaysWhatItLacks(t *testing.T) {
	var what []string
	w := newWorld(t, func(c *api.Config) {
		c.Damaged = func() (int64, []string) { return int64(len(what)), what }
	})
	for _, now := range [][]string{nil, {"row of session 7: the stored record is damaged"}} {
		what = now
		list, err := w.client.AdminSessions(t.Context(), "", "", "", 10)
		if err != nil || !slices.Equal(list.Damaged, now) {
			t.Errorf("%q, %v", list.Damaged, err)
		}
		if err := w.client.Ready(t.Context()); err != nil {
			t.Errorf("it is not ready: %v", err)
		}
	}
}
