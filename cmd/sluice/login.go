package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/access/oidc"
	"sluice/api"
	"sluice/signin"
)

// loginSource gives the tokens of the login at a server. errNoToken: there is none.
func loginSource(server string) (*signin.Source, error) {
	service, err := newSignIn()
	if err != nil {
		return nil, errNoToken // without a home there is no login either
	}
	l, err := service.Store.Load(server)
	if errors.Is(err, signin.ErrNone) {
		return nil, errNoToken
	}
	if err != nil {
		return nil, err
	}
	return service.Source(l), nil
}

func newSignIn() (*signin.Service, error) {
	store, err := signin.DefaultStore()
	return &signin.Service{Store: store, Client: oidc.NewHTTPClient(nil), Now: time.Now}, err
}

type loginCmd struct {
	Server   string        `arg:"" name:"url" optional:"" default:"${server}" env:"SLUICE_URL" help:"The server (${default})."`
	ClientID string        `placeholder:"ID" help:"The client to be at the issuer; else the one that the server names."`
	Patience time.Duration `default:"${patience}" help:"How long to wait while nothing comes of an answer of the server."`
}

// Help is what --help says beside the flags.
func (loginCmd) Help() string {
	return `The server must take tokens of an issuer (serve --oidc-issuer). The login is kept in the user's
configuration folder, for that user alone, and renewed as long as the issuer does that. Commands use
it if there is no --token-file, no SLUICE_TOKEN and no sluice-data/admin-token.`
}

// Run signs in, and keeps the login once the server has taken its token.
func (c *loginCmd) Run(e *env) error {
	base, err := serverURL(c.Server)
	if err != nil {
		return err
	}
	service, err := newSignIn()
	if err != nil {
		return err
	}
	if c.Patience <= 0 {
		return usageError("--patience must be more than 0")
	}
	hc := newHTTPClient()
	hc.Transport = &impatient{hc.Transport, c.Patience}
	req, err := c.request(e.ctx, api.NewClient(base, "", hc), base)
	if err != nil {
		return err
	}
	l, err := service.SignIn(e.ctx, req, func(p signin.Prompt) {
		e.report(map[string]string{
			"verification_uri": p.URL, "user_code": p.Code, "verification_uri_complete": p.Complete,
		}, "open %s\nand enter the code %s", clean(p.URL), clean(p.Code))
	})
	if err != nil {
		return err
	}
	me, err := api.NewClient(base, l.Token, hc).WhoAmI(e.ctx)
	if err != nil {
		return fmt.Errorf("the sign-in went well, but the server does not take its token (its log says why): %w", err)
	}
	if err := service.Keep(e.ctx, l); err != nil {
		return err
	}
	if l.Refresh == "" {
		e.say("the issuer gave nothing to renew the login with: it ends %s", endOf(me.ExpiresAt))
	}
	e.print(me, "signed in at %s as %s  %s", base, me.PrincipalID, clean(me.Name))
	return nil
}

// request asks the server at which issuer to sign in.
func (c *loginCmd) request(ctx context.Context, client *api.Client, base string) (signin.Request, error) {
	at, err := client.ProtectedResource(ctx)
	var refused *api.Error
	switch {
	case errors.As(err, &refused) && refused.Code == api.CodeNotFound,
		err == nil && len(at.AuthorizationServers) == 0:
		return signin.Request{}, errors.New("nobody can sign in at this server: it takes only tokens of its own " +
			"(it runs without --oidc-issuer)")
	case err != nil:
		return signin.Request{}, err
	}
	req := signin.Request{
		Server: base, Issuer: at.AuthorizationServers[0], Audience: at.Resource, ClientID: c.ClientID,
		Scopes: at.ScopesSupported,
	}
	if req.ClientID == "" {
		req.ClientID = at.ClientID
	}
	if req.ClientID == "" {
		return req, usageError("the server does not say as which client to sign in: give --client-id, as the issuer " +
			"knows it, or run the server with --oidc-client-id")
	}
	return req, nil
}

type logoutCmd struct {
	Server string `arg:"" name:"url" optional:"" default:"${server}" env:"SLUICE_URL" help:"The server (${default})."`
}

// Run ends a login.
func (c *logoutCmd) Run(e *env) error {
	base, err := serverURL(c.Server)
	if err != nil {
		return err
	}
	service, err := newSignIn()
	if err != nil {
		return err
	}
	err = service.Logout(e.ctx, base)
	if errors.Is(err, signin.ErrNone) {
		e.print(map[string]string{"server": base, "state": "no login"}, "there is no login at %s", base)
		return nil
	}
	if err != nil {
		return err
	}
	e.print(map[string]string{"server": base, "state": "signed out"}, "signed out at %s", base)
	return nil
}
