package signin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/oauth2"
)

const (
	// renewAhead is how long before its end a token is renewed, or half of its life where that is
	// less: a request that is sent with it should end before it does.
	renewAhead = 5 * time.Minute
	// renewPause is how long a renewal that failed on the way is not tried again, while the token
	// lives.
	renewPause = 10 * time.Second
)

// Source gives the token of a login, and renews it when its end is near. It is safe for concurrent
// use, and several processes may use one login.
type Source struct {
	store  Store
	client *http.Client

	mu    sync.Mutex
	login Login
	retry time.Time // no renewal is tried before
}

// NewSource makes a Source of a login that is kept. client is one of oidc.NewHTTPClient.
func NewSource(store Store, l Login, client *http.Client) *Source {
	return &Source{store: store, login: l, client: client}
}

// Token gives a token that lives. It gives ErrEnded if the issuer renews it no more: the user has
// to sign in again.
func (s *Source) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if now.Before(s.login.renewAt()) {
		return s.login.Token, nil
	}
	lives := now.Before(s.login.Expires)
	if lives && now.Before(s.retry) {
		return s.login.Token, nil
	}
	err := s.renew(ctx)
	if err == nil || lives && ctx.Err() == nil {
		if err != nil {
			s.retry = now.Add(renewPause)
		}
		return s.login.Token, nil
	}
	return "", fmt.Errorf("renewing the login at %s: %w", s.login.Server, err)
}

func (l Login) renewAt() time.Time {
	return l.Expires.Add(-min(renewAhead, max(0, l.Expires.Sub(l.Made)/2)))
}

// renew takes the login that another process has renewed, or renews it. An issuer may give each
// refresh token once, so only one process at a time may ask.
func (s *Source) renew(ctx context.Context) error {
	unlock, err := s.store.lock(ctx, s.login.Server)
	if err != nil {
		return err
	}
	defer unlock()
	kept, err := s.store.Load(s.login.Server)
	if errors.Is(err, ErrNone) {
		return ErrEnded // it was signed out meanwhile
	}
	if err != nil {
		return err
	}
	if kept.Token != s.login.Token && time.Now().Before(kept.renewAt()) {
		s.login = kept
		return nil
	}
	if kept.Refresh == "" {
		return ErrEnded
	}
	config, err := configOf(ctx, s.client, kept)
	if err != nil {
		return err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, s.client)
	token, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: kept.Refresh}).Token()
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.ErrorCode == "invalid_grant" {
		return ErrEnded
	}
	if err != nil {
		return explain(err)
	}
	if err := kept.take(token); err != nil {
		return err
	}
	s.login = kept
	return s.store.Save(kept)
}

// Logout removes the login at a server, and tells the issuer. It gives ErrNone if there is no
// login. The login is removed here even if the issuer can't be told: the error says that.
func Logout(ctx context.Context, store Store, client *http.Client, server string) error {
	unlock, err := store.lock(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := store.Load(server)
	if errors.Is(err, ErrNone) {
		return err
	}
	if removed := store.Remove(server); removed != nil {
		return removed
	}
	if err == nil {
		err = Revoke(ctx, client, l)
	}
	if err != nil {
		return fmt.Errorf("the login is removed here, but the issuer was not told, and may take it for valid: %w", err)
	}
	return nil
}

// Keep keeps a new login, instead of the one before at that server.
func Keep(ctx context.Context, store Store, l Login) error {
	unlock, err := store.lock(ctx, l.Server)
	if err != nil {
		return err
	}
	defer unlock()
	return store.Save(l)
}
