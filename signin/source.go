package signin

import (
	"context"
	"errors"
	"fmt"
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
	*Service

	mu    sync.Mutex
	login Login
	retry time.Time // no renewal is tried before
}

// Source makes a Source of a login that is kept.
func (s *Service) Source(l Login) *Source { return &Source{Service: s, login: l} }

// Token gives a token that lives. It gives ErrEnded if the issuer renews it no more: the user has
// to sign in again.
func (s *Source) Token(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Now()
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
	unlock, err := s.Store.lock(ctx, s.login.Server)
	if err != nil {
		return err
	}
	defer unlock()
	kept, err := s.Store.Load(s.login.Server)
	if errors.Is(err, ErrNone) {
		return ErrEnded // it was signed out meanwhile
	}
	if err != nil {
		return err
	}
	if kept.Token != s.login.Token && s.Now().Before(kept.renewAt()) {
		s.login = kept
		return nil
	}
	if kept.Refresh == "" {
		return ErrEnded
	}
	config, err := s.config(ctx, kept)
	if err != nil {
		return err
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, s.Client)
	token, err := config.TokenSource(ctx, &oauth2.Token{RefreshToken: kept.Refresh}).Token()
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.ErrorCode == "invalid_grant" {
		return ErrEnded
	}
	if err != nil {
		return explain(err)
	}
	if err := kept.take(token, s.Now()); err != nil {
		return err
	}
	s.login = kept
	return s.Store.Save(kept)
}

// Logout removes the login at a server, and tells the issuer. It gives ErrNone if there is no
// login. The login is removed here even if the issuer can't be told: the error says that.
func (s *Service) Logout(ctx context.Context, server string) error {
	unlock, err := s.Store.lock(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	l, err := s.Store.Load(server)
	if errors.Is(err, ErrNone) {
		return err
	}
	if removed := s.Store.Remove(server); removed != nil {
		return removed
	}
	if err == nil {
		err = s.revoke(ctx, l)
	}
	if err != nil {
		return fmt.Errorf("the login is removed here, but the issuer was not told, and may take it for valid: %w", err)
	}
	return nil
}

// Keep keeps a new login, instead of the one before at that server.
func (s *Service) Keep(ctx context.Context, l Login) error {
	unlock, err := s.Store.lock(ctx, l.Server)
	if err != nil {
		return err
	}
	defer unlock()
	return s.Store.Save(l)
}
