package signin_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sluice/access/oidc"
	"sluice/internal/test/issuer"
	"sluice/internal/test/leak"
	"sluice/signin"
)

func TestMain(m *testing.M) { os.Exit(leak.Check(m).Run()) }

const server = "https://sluice.test"

// desk is a user with an issuer and a folder for logins.
type desk struct {
	*testing.T
	issuer *issuer.Issuer
	*signin.Service
}

func newDesk(t *testing.T) *desk {
	i := issuer.New("http://localhost:9998")
	i.Device(map[string]any{"name": "Ada"}, 5*time.Minute, false)
	return &desk{
		T: t, issuer: i,
		Service: &signin.Service{
			Store:  signin.Store{Dir: filepath.Join(t.TempDir(), "sluice", "logins")},
			Client: oidc.NewHTTPClient(i.Transport()), Now: time.Now,
		},
	}
}

// signIn signs in. answer is the user, who has got a code.
func (d *desk) signIn(ctx context.Context, answer func(signin.Prompt)) (signin.Login, error) {
	return d.SignIn(ctx, signin.Request{
		Server: server, Issuer: d.issuer.URL, Audience: issuer.Client, ClientID: issuer.Client,
		Scopes: []string{"openid", "offline_access"},
	}, answer)
}

func (d *desk) allow(p signin.Prompt) {
	if err := d.issuer.Allow(p.Code, "ada"); err != nil {
		d.Error(err)
	}
}

// kept is a login that is signed in and kept.
func (d *desk) kept() signin.Login {
	d.Helper()
	l, err := d.signIn(d.Context(), d.allow)
	if err == nil {
		err = d.Keep(d.Context(), l)
	}
	if err != nil {
		d.Fatal(err)
	}
	return l
}

func TestSigningIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		l, err := d.signIn(t.Context(), func(p signin.Prompt) {
			if !strings.HasPrefix(p.URL, d.issuer.URL) || p.Code == "" || !strings.Contains(p.Complete, p.Code) {
				t.Errorf("%+v", p)
			}
			d.allow(p)
		})
		if err != nil || l.Token == "" || l.Refresh == "" || l.Server != server {
			t.Fatalf("%+v, %v", l, err)
		}
		if left := time.Until(l.Expires); left < 4*time.Minute || left > 5*time.Minute {
			t.Errorf("it ends in %s", left)
		}
		deny := func(p signin.Prompt) { _ = d.issuer.Deny(p.Code) }
		if _, err := d.signIn(t.Context(), deny); !errors.Is(err, signin.ErrDenied) {
			t.Errorf("denied: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := d.signIn(ctx, func(signin.Prompt) { cancel() }); !errors.Is(err, context.Canceled) {
			t.Errorf("stopped: %v", err)
		}
		// A failure on the way is no end.
		down := func(p signin.Prompt) {
			d.issuer.Down(true)
			time.AfterFunc(1500*time.Millisecond, func() {
				d.issuer.Down(false)
				d.allow(p)
			})
		}
		if _, err := d.signIn(t.Context(), down); err != nil {
			t.Errorf("the issuer was away: %v", err)
		}
		d.issuer.Down(true)
		if _, err := d.signIn(t.Context(), d.allow); err == nil {
			t.Error("the issuer is away")
		}
	})
}

// Some issuers give access tokens that are no JWTs. Then the ID token says who the user is.
func TestTheTokenForTheServerIsTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.issuer.Device(nil, 5*time.Minute, true)
		if l, err := d.signIn(t.Context(), d.allow); err != nil || strings.Count(l.Token, ".") != 2 {
			t.Errorf("%+v, %v", l, err)
		}
		_, err := d.SignIn(t.Context(), signin.Request{
			Server: server, Issuer: d.issuer.URL, Audience: "another", ClientID: issuer.Client, Scopes: []string{"openid"},
		}, d.allow)
		if err == nil || !strings.Contains(err.Error(), `no token for "another"`) {
			t.Errorf("another audience: %v", err)
		}
		_, err = d.SignIn(t.Context(), signin.Request{
			Server: server, Issuer: d.issuer.URL, Audience: "another", ClientID: "unknown",
		}, d.allow)
		if err == nil || !strings.Contains(err.Error(), "the issuer") {
			t.Errorf("another client: %v", err)
		}
	})
}

// A login is one file that nobody else can read.
func TestALoginIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		if _, err := d.Store.Load(server); !errors.Is(err, signin.ErrNone) {
			t.Error(err)
		}
		if err := os.MkdirAll(d.Store.Dir, 0o755); err != nil {
			t.Fatal(err)
		}
		l := d.kept()
		for _, same := range []string{server, server + "/", "HTTPS://Sluice.Test:443"} {
			got, err := d.Store.Load(same)
			if err != nil || got.Token != l.Token || got.Refresh != l.Refresh || !got.Expires.Equal(l.Expires) {
				t.Errorf("%s: %+v, %v", same, got, err)
			}
		}
		for _, other := range []string{"http://sluice.test", server + ":8443", server + ".example"} {
			if _, err := d.Store.Load(other); !errors.Is(err, signin.ErrNone) {
				t.Errorf("%s: %v", other, err)
			}
		}
		path := d.Store.Path(server)
		for name, want := range map[string]os.FileMode{path: 0o600, d.Store.Dir: 0o700} {
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v", name, info.Mode(), err)
			}
		}
		for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
			if err := os.Chmod(path, mode); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Store.Load(server); err == nil || !strings.Contains(err.Error(), "chmod 600") {
				t.Errorf("%o: %v", mode, err)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/zero", path); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Store.Load(server); err == nil || !strings.Contains(err.Error(), "no regular file") {
			t.Errorf("a link: %v", err)
		}
		for _, text := range []string{"", "{", `{"server":"https://other.test"}`} {
			if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Store.Load(server); err == nil || !strings.Contains(err.Error(), "sign in again") {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}

// Of all who find the token about to end, in this process and in others, one renews it: an issuer
// takes each refresh token once.
func TestARenewalHappensOnce(t *testing.T) {
	d := newDesk(t)
	d.issuer.Device(nil, 0, false) // it is due at once
	l := d.kept()
	d.issuer.Device(nil, 5*time.Minute, false)
	var mu sync.Mutex
	tokens := map[string]int{}
	var wg sync.WaitGroup
	for range 4 { // processes
		source := d.Source(l)
		for range 4 {
			wg.Go(func() {
				token, err := source.Token(t.Context())
				mu.Lock()
				defer mu.Unlock()
				tokens[token]++
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	got, err := d.Store.Load(server)
	if err != nil || len(tokens) != 1 || tokens[got.Token] != 16 || got.Refresh == l.Refresh || d.issuer.Grants() != 1 {
		t.Errorf("%d tokens, %d grants; %v", len(tokens), d.issuer.Grants(), err)
	}
}

// While a token lives, a renewal that fails costs nothing. After that it is an error, and a final
// one if the issuer or the user has ended the login.
func TestARenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		l := d.kept()
		d.issuer.Down(true)
		due := l
		due.Expires = time.Now().Add(time.Minute)
		due.Made = time.Now().Add(-time.Hour)
		if err := d.Store.Save(due); err != nil {
			t.Fatal(err)
		}
		if token, err := d.Source(due).Token(t.Context()); err != nil || token != l.Token {
			t.Errorf("a token that lives: %v", err)
		}
		over := due
		over.Expires = time.Now().Add(-time.Second)
		if err := d.Store.Save(over); err != nil {
			t.Fatal(err)
		}
		source := d.Source(over)
		if _, err := source.Token(t.Context()); err == nil || errors.Is(err, signin.ErrEnded) {
			t.Errorf("the issuer is away: %v", err)
		}
		d.issuer.Down(false)
		if token, err := source.Token(t.Context()); err != nil || token == l.Token {
			t.Errorf("it is back: %v", err)
		}
		d.issuer.RevokeAll()
		if err := d.Store.Save(over); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Source(over).Token(t.Context()); !errors.Is(err, signin.ErrEnded) {
			t.Errorf("the issuer has ended it: %v", err)
		}
		over.Refresh = d.kept().Refresh // the issuer would renew this one
		if err := d.Store.Remove(server); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Source(over).Token(t.Context()); !errors.Is(err, signin.ErrEnded) {
			t.Errorf("it was signed out: %v", err)
		}
		if _, err := d.Store.Load(server); !errors.Is(err, signin.ErrNone) {
			t.Errorf("the login is back: %v", err)
		}
	})
}

func TestSigningOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		if err := d.Logout(t.Context(), server); !errors.Is(err, signin.ErrNone) {
			t.Error(err)
		}
		d.kept()
		if n := d.issuer.Grants(); n != 1 {
			t.Errorf("%d grants", n)
		}
		if err := d.Logout(t.Context(), server); err != nil || d.issuer.Grants() != 0 {
			t.Errorf("%v; %d grants", err, d.issuer.Grants())
		}
		d.kept()
		d.issuer.Down(true)
		if err := d.Logout(t.Context(), server); err == nil ||
			!strings.Contains(fmt.Sprint(err), "removed here") {
			t.Error(err)
		}
		if _, err := d.Store.Load(server); !errors.Is(err, signin.ErrNone) {
			t.Error(err)
		}
	})
}
