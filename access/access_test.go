package access_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
)

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

type world struct {
	*access.Service
	store *catalog.Mem
	clock *clock
	admin access.Caller

	running int64
}

func newWorld(t *testing.T) *world {
	w := &world{store: catalog.NewMem(), clock: &clock{time.Now()}}
	w.Service = access.New(w.store, w.clock, func() int64 { return w.running }, nil)
	secret, err := w.Bootstrap(t.Context())
	if err != nil || secret == "" {
		t.Fatal(secret, err)
	}
	w.admin = w.login(t, secret)
	return w
}

func (w *world) login(t *testing.T, secret string) access.Caller {
	t.Helper()
	c, err := w.Authenticate(t.Context(), secret)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) join(
	t *testing.T, name string, readOnly bool, ttl time.Duration,
) (access.Caller, catalog.Token, string) {
	t.Helper()
	p, err := w.CreatePrincipal(t.Context(), w.admin, name, false)
	if err != nil {
		t.Fatal(err)
	}
	token, secret, err := w.CreateToken(t.Context(), w.admin, access.TokenRequest{
		Principal: p.ID, Name: name, ReadOnly: readOnly, TTL: ttl,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w.login(t, secret), token, secret
}

func (w *world) allow(t *testing.T, c access.Caller, a access.Action, capsule string) error {
	t.Helper()
	return w.store.View(t.Context(), func(r catalog.Reader) error {
		_, err := access.Allow(r, c, a, capsule, w.clock.now)
		return err
	})
}

func TestRolesDecide(t *testing.T) {
	w := newWorld(t)
	callers := map[string]access.Caller{"admin": w.admin}
	for _, name := range []string{"owner", "controller", "subject", "stranger"} {
		callers[name], _, _ = w.join(t, name, false, 0)
	}
	reader, _, secret := w.join(t, "reader", true, 0)
	callers["reader"] = reader
	if err := w.store.Update(t.Context(), func(tx catalog.Tx) error {
		_, err := catalog.NewCapsule(tx, catalog.Capsule{
			ID: "c", Subject: callers["subject"].Principal,
			Owners:      []string{callers["owner"].Principal, reader.Principal},
			Controllers: []string{callers["controller"].Principal},
		}, catalog.Moment{})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	const yes, no, none = "yes", "forbidden", "not found"
	for _, row := range []struct {
		who                                              string
		read, write, delete, manage, own, inspect, quota string
	}{
		{"owner", yes, yes, yes, yes, yes, yes, no},
		{"controller", yes, yes, yes, yes, no, yes, no},
		{"subject", yes, yes, no, no, no, yes, no},
		{"stranger", none, none, none, none, none, none, none},
		{"admin", no, no, no, no, no, yes, yes}, // it reads no content without a role
		{"reader", yes, no, no, no, no, yes, no},
	} {
		for a, want := range map[access.Action]string{
			access.Read: row.read, access.Write: row.write, access.Delete: row.delete, access.Manage: row.manage,
			access.Own: row.own, access.Inspect: row.inspect, access.Quota: row.quota,
		} {
			got := yes
			switch err := w.allow(t, callers[row.who], a, "c"); {
			case errors.Is(err, access.ErrForbidden):
				got = no
			case errors.Is(err, catalog.ErrNotFound):
				got = none
			case err != nil:
				got = err.Error()
			}
			if got != want {
				t.Errorf("%s, action %d: %s, want %s", row.who, a, got, want)
			}
		}
		if err := w.allow(t, callers[row.who], access.Read, "nowhere"); !errors.Is(err, catalog.ErrNotFound) {
			t.Errorf("%s in a capsule that is not there: %v", row.who, err)
		}
	}
	if err := w.Admin(t.Context(), callers["owner"], false); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("an owner as admin: %v", err)
	}
	if strings.Contains(fmt.Sprintf("%+v", reader), secret) {
		t.Error("a caller carries its secret")
	}
}

func TestATokenEnds(t *testing.T) {
	w := newWorld(t)
	gone := func(name string, c access.Caller, secret string) {
		t.Helper()
		if _, err := w.Authenticate(t.Context(), secret); !errors.Is(err, access.ErrUnauthenticated) {
			t.Errorf("%s, a new request: %v", name, err)
		}
		// The right of a running request is checked again inside its transaction.
		if err := w.allow(t, c, access.Read, "default"); !errors.Is(err, access.ErrUnauthenticated) {
			t.Errorf("%s, a running request: %v", name, err)
		}
	}
	c, token, secret := w.join(t, "revoked", false, 0)
	stranger, _, _ := w.join(t, "stranger", false, 0)
	if err := w.RevokeToken(t.Context(), stranger, token.ID); !errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("a stranger revokes: %v", err)
	}
	if err := w.RevokeToken(t.Context(), c, token.ID); err != nil {
		t.Fatal(err)
	}
	gone("revoked", c, secret)

	c, _, secret = w.join(t, "expired", false, time.Hour)
	w.clock.now = w.clock.now.Add(time.Hour)
	gone("expired", c, secret)
	w.clock.now = w.clock.now.Add(-time.Hour) // no request used it after its end
	w.running += time.Hour.Milliseconds()
	for _, d := range w.due(t) {
		if err := w.store.Update(t.Context(), func(tx catalog.Tx) error {
			_, err := catalog.RunDue(tx, d, catalog.Moment{Now: w.clock.now, Running: w.running})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	gone("expired, and the clock was set back", c, secret)

	c, _, secret = w.join(t, "deleted", false, 0)
	if err := w.store.Update(t.Context(), func(tx catalog.Tx) error {
		return catalog.Principals.Delete(tx, catalog.Name(c.Principal))
	}); err != nil {
		t.Fatal(err)
	}
	gone("deleted principal", c, secret)
}

// due gives the work that is due by now.
func (w *world) due(t *testing.T) (out []catalog.Due) {
	t.Helper()
	if err := w.store.View(t.Context(), func(r catalog.Reader) (err error) {
		out, err = catalog.DueBy(r, catalog.DueKey{}, w.running, 10)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSecretsAreCheckedBeforeTheyAreLookedUp(t *testing.T) {
	w := newWorld(t)
	_, _, secret := w.join(t, "a", false, 0)
	for _, bad := range []string{
		"", "slc_", secret[:len(secret)-1], secret + "a", strings.ToUpper(secret), "x" + secret[1:],
		secret[:10] + "2" + secret[11:], secret[:10] + "3" + secret[11:],
	} {
		if bad == secret {
			continue
		}
		if _, err := w.Authenticate(t.Context(), bad); !errors.Is(err, access.ErrUnauthenticated) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestOnlyAnAdminNamesAnother(t *testing.T) {
	w := newWorld(t)
	a, _, _ := w.join(t, "a", false, 0)
	b, _, _ := w.join(t, "b", false, 0)
	if _, err := w.CreatePrincipal(t.Context(), a, "x", false); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("a principal makes one: %v", err)
	}
	if _, _, err := w.CreateToken(t.Context(), a, access.TokenRequest{
		Principal: b.Principal, Name: "x",
	}); !errors.Is(err, access.ErrForbidden) {
		t.Errorf("a token for another: %v", err)
	}
	if _, _, err := w.CreateToken(t.Context(), a, access.TokenRequest{
		Principal: a.Principal, Name: "x",
	}); err != nil {
		t.Errorf("a token for oneself: %v", err)
	}
}

func TestBootstrapHappensOnce(t *testing.T) {
	w := newWorld(t)
	if secret, err := w.Bootstrap(t.Context()); err != nil || secret != "" {
		t.Errorf("again: %q, %v", secret, err)
	}
	secret, err := w.AdminToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if c := w.login(t, secret); c.Principal != w.admin.Principal || !c.Admin {
		t.Errorf("%+v", c)
	}
}

// The last use of a token is kept to the hour, and written once in an hour.
func TestTheLastUseIsKept(t *testing.T) {
	w := newWorld(t)
	w.clock.now = time.Date(2026, 12, 1, 12, 34, 56, 0, time.UTC)
	c, _, secret := w.join(t, "a", false, 0)
	used := func() time.Time {
		t.Helper()
		if err := w.WriteLastUses(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, _, err := w.ListTokens(t.Context(), c, "", "", 10)
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return list[0].LastUsed
	}
	for _, step := range []struct{ after, want time.Duration }{
		{0, 0},
		{25 * time.Minute, 0},
		{time.Minute, time.Hour},
		{-2 * time.Hour, time.Hour},
		{26 * time.Hour, 25 * time.Hour},
	} {
		w.clock.now = w.clock.now.Add(step.after)
		w.login(t, secret)
		if got, want := used(), time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC).Add(step.want); !got.Equal(want) {
			t.Errorf("after %s: %s, want %s", step.after, got, want)
		}
	}
	// A token that ends meanwhile does not come back.
	w.clock.now = w.clock.now.Add(time.Hour)
	w.login(t, secret)
	list, _, err := w.ListTokens(t.Context(), c, "", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.RevokeToken(t.Context(), c, list[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteLastUses(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := w.Authenticate(t.Context(), secret); !errors.Is(err, access.ErrUnauthenticated) {
		t.Error(err)
	}
}

// A principal has a bounded number of tokens.
func TestTokensAreBounded(t *testing.T) {
	w := newWorld(t)
	c, first, _ := w.join(t, "a", false, 0)
	for range catalog.MostTokens - 1 {
		if _, _, err := w.CreateToken(t.Context(), c, access.TokenRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := w.CreateToken(t.Context(), c, access.TokenRequest{}); !errors.Is(err, catalog.ErrTooManyTokens) {
		t.Error(err)
	}
	if err := w.RevokeToken(t.Context(), w.admin, first.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.CreateToken(t.Context(), w.admin, access.TokenRequest{Principal: c.Principal}); err != nil {
		t.Error(err)
	}
	// All of them go in several commits.
	if err := w.DeletePrincipal(t.Context(), w.admin, c.Principal); err != nil {
		t.Fatal(err)
	}
	due := w.due(t)
	if len(due) != 1 || due[0].Kind != catalog.DuePrincipal {
		t.Fatal(due)
	}
	steps := 0
	for more := true; more && steps < 100; steps++ {
		if err := w.store.Update(t.Context(), func(tx catalog.Tx) (err error) {
			more, err = catalog.RunDue(tx, due[0], catalog.Moment{})
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	list, _, err := w.ListTokens(t.Context(), w.admin, c.Principal, "", 10)
	if err != nil || len(list) != 0 || steps < 10 {
		t.Error(len(list), steps, err)
	}
	if len(w.due(t)) != 0 {
		t.Error("it is still due")
	}
}

// A folder of an older program has tokens and no lists of them. A start makes the lists.
func TestTokensOfAnOlderProgramAreListed(t *testing.T) {
	w := newWorld(t)
	c, token, _ := w.join(t, "a", false, 0)
	if err := w.store.Update(t.Context(), func(tx catalog.Tx) error {
		for ref, err := range catalog.TokenIDs.After(tx, "") {
			key := catalog.PrincipalTokenKey{Principal: ref.Principal, ID: ref.ID}
			if err := errors.Join(
				err, catalog.TokenIDs.Delete(tx, catalog.Name(ref.ID)), catalog.PrincipalTokens.Delete(tx, key),
			); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Bootstrap(t.Context()); err != nil {
		t.Fatal(err)
	}
	list, _, err := w.ListTokens(t.Context(), c, "", "", 10)
	if err != nil || len(list) != 1 || list[0].ID != token.ID {
		t.Error(list, err)
	}
	if err := w.RevokeToken(t.Context(), c, token.ID); err != nil {
		t.Error(err)
	}
}
