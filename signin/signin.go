// Package signin signs a user in at the issuer of a server, for the command line: the device flow
// (RFC 8628), the file in which a login is kept, and its renewal. It owns no flags and prints
// nothing. What a token is good for, the server decides.
package signin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"sluice/access/oidc"
)

// Service signs in, renews and signs out. It is safe for concurrent use.
type Service struct {
	Store  Store
	Client *http.Client // one of oidc.NewHTTPClient
	Now    func() time.Time
}

// Request says where to sign in, and as which client.
type Request struct {
	Server, Issuer, Audience, ClientID string
	Scopes                             []string
}

// Prompt is what a user has to do: open the address, in any browser, and enter the code. Complete,
// if it is not empty, is an address that has the code already.
type Prompt struct {
	URL, Code, Complete string
	Expires             time.Time // zero: the issuer does not say
}

// The ends of a sign-in that are the user's, or nobody's.
var (
	// ErrDenied: the user, or the issuer, denied it.
	ErrDenied = errors.New("the sign-in was denied at the issuer")
	// ErrExpired: nobody entered the code in time.
	ErrExpired = errors.New("the code has expired before anybody entered it; try again")
	// ErrEnded: the issuer renews the login no more.
	ErrEnded = errors.New("the login has ended at the issuer")
)

// SignIn signs in. ask is called once, with what the user has to do. Then SignIn waits until that
// is done, and gives the login, which is not kept yet.
func (s *Service) SignIn(ctx context.Context, req Request, ask func(Prompt)) (Login, error) {
	l := Login{Server: req.Server, Issuer: req.Issuer, ClientID: req.ClientID, Audience: req.Audience}
	if err := oidc.CheckURL(req.Issuer); err != nil {
		return l, fmt.Errorf("the server's issuer: %w", err)
	}
	config, err := s.config(ctx, l)
	if err != nil {
		return l, err
	}
	if config.Endpoint.DeviceAuthURL == "" {
		return l, fmt.Errorf("the issuer %s has no device flow (RFC 8628): get a token from it another way, or "+
			"from an admin of the server", req.Issuer)
	}
	config.Scopes = req.Scopes
	ctx = context.WithValue(ctx, oauth2.HTTPClient, s.Client)
	// Some issuers make a token for an audience only if they are asked.
	device, err := config.DeviceAuth(ctx, oauth2.SetAuthURLParam("audience", req.Audience))
	if err != nil {
		return l, explain(err)
	}
	if u, err := url.Parse(device.VerificationURI); err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return l, fmt.Errorf("the issuer names no address to open: %.100q", device.VerificationURI)
	}
	ask(Prompt{device.VerificationURI, device.UserCode, device.VerificationURIComplete, device.Expiry})
	token, err := s.poll(ctx, config, device)
	if err != nil {
		return l, err
	}
	return l, l.take(token, s.Now())
}

// config asks the issuer where it has what.
func (s *Service) config(ctx context.Context, l Login) (oauth2.Config, error) {
	at, err := oidc.Discover(ctx, s.Client, l.Issuer)
	return oauth2.Config{ClientID: l.ClientID, Endpoint: oauth2.Endpoint{
		TokenURL: at.Token, DeviceAuthURL: at.Device, AuthStyle: oauth2.AuthStyleInParams,
	}}, err
}

// poll waits for the user. A request that fails on the way is no end: the next one may get through.
func (s *Service) poll(
	ctx context.Context, config oauth2.Config, device *oauth2.DeviceAuthResponse,
) (*oauth2.Token, error) {
	for {
		token, err := config.DeviceAccessToken(ctx, device)
		var refused *oauth2.RetrieveError
		switch {
		case err == nil:
			return token, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !device.Expiry.IsZero() && !s.Now().Before(device.Expiry):
			return nil, ErrExpired
		case errors.As(err, &refused) && refused.Response.StatusCode < http.StatusInternalServerError:
			return nil, explain(err)
		case device.Expiry.IsZero():
			return nil, explain(err)
		}
	}
}

// explain makes the error of a request to an issuer one for the user. It bounds what the issuer
// says.
func explain(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return fmt.Errorf("the issuer: %.300w", err)
	}
	switch refused.ErrorCode {
	case "access_denied":
		return ErrDenied
	case "expired_token":
		return ErrExpired
	case "":
		return fmt.Errorf("the issuer answers %s", refused.Response.Status)
	}
	return fmt.Errorf("the issuer refuses: %.60s: %.200s", refused.ErrorCode, refused.ErrorDescription)
}

// take takes the token that is for the server's audience out of the issuer's answer: the access
// token, or else the ID token.
func (l *Login) take(token *oauth2.Token, now time.Time) error {
	id, _ := token.Extra("id_token").(string)
	for _, raw := range []string{token.AccessToken, id} {
		audiences, end := peek(raw)
		if !slices.Contains(audiences, l.Audience) || end.IsZero() {
			continue
		}
		l.Token, l.Made, l.Expires = raw, now, end
		if token.RefreshToken != "" { // else the one before goes on
			l.Refresh = token.RefreshToken
		}
		return nil
	}
	return fmt.Errorf("the issuer gave no token for %q, which the server wants: its client %q must be allowed to get "+
		"one", l.Audience, l.ClientID)
}

// peek reads for whom a JWT is, and when it ends. Nothing is verified: the server does that.
func peek(raw string) (audiences []string, end time.Time) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, end
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil, end
	}
	var claims struct {
		Aud any     `json:"aud"`
		Exp float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil || claims.Exp <= 0 || claims.Exp > 1e11 {
		return nil, end
	}
	switch aud := claims.Aud.(type) {
	case string:
		audiences = []string{aud}
	case []any:
		for _, one := range aud {
			if s, ok := one.(string); ok {
				audiences = append(audiences, s)
			}
		}
	}
	return audiences, time.Unix(int64(claims.Exp), 0)
}

// revoke tells the issuer that a login has ended (RFC 7009). It does nothing if the issuer has no
// place for that, or the login nothing to revoke.
func (s *Service) revoke(ctx context.Context, l Login) error {
	if l.Refresh == "" {
		return nil
	}
	at, err := oidc.Discover(ctx, s.Client, l.Issuer)
	if err != nil || at.Revocation == "" {
		return err
	}
	form := url.Values{"client_id": {l.ClientID}, "token": {l.Refresh}, "token_type_hint": {"refresh_token"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.Revocation, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := s.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the issuer answers %s", resp.Status)
	}
	return nil
}
