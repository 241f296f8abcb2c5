package main

import (
	"log/slog"
	"slices"

	"sluice/access/oidc"
	"sluice/api"
	"sluice/internal/system"
)

// oidcFlags says whether a server trusts an issuer of tokens.
type oidcFlags struct {
	Issuer         string   `env:"SLUICE_OIDC_ISSUER" placeholder:"URL" help:"Take tokens of this OpenID Connect issuer too; needs --oidc-audience."`
	Audience       string   `env:"SLUICE_OIDC_AUDIENCE" placeholder:"AUDIENCE" help:"What a token of the issuer must be for (aud)."`
	PrincipalClaim string   `default:"sub" env:"SLUICE_OIDC_PRINCIPAL_CLAIM" placeholder:"CLAIM" help:"Which claim says who the bearer is (${default})."`
	NameClaim      string   `env:"SLUICE_OIDC_NAME_CLAIM" placeholder:"CLAIM" help:"Which claim has a new principal's name (name, preferred_username, email)."`
	AdminClaim     string   `env:"SLUICE_OIDC_ADMIN_CLAIM" placeholder:"CLAIM" help:"Which claim makes an admin, as long as the token lives; dots lead into objects."`
	AdminValue     string   `env:"SLUICE_OIDC_ADMIN_VALUE" placeholder:"VALUE" help:"What that claim must be, or have in its list."`
	ClientID       []string `env:"SLUICE_OIDC_CLIENT_ID" placeholder:"ID" help:"Take only tokens made for this client (azp, client_id); may be repeated. The first is that of sluice login."`
	Scopes         []string `default:"openid,profile,email,offline_access" env:"SLUICE_OIDC_SCOPES" placeholder:"SCOPE" help:"What sluice login asks for (${default})."`
}

// check refuses flags that say nothing together.
func (f *oidcFlags) check() error {
	switch {
	case (f.Issuer == "") != (f.Audience == ""):
		return usageError("--oidc-issuer and --oidc-audience need each other: a token of the issuer may be for anybody")
	case (f.AdminClaim == "") != (f.AdminValue == ""):
		return usageError("--oidc-admin-claim and --oidc-admin-value need each other")
	case f.Issuer == "" && (f.NameClaim != "" || f.AdminClaim != "" || len(f.ClientID) > 0):
		return usageError("the flags --oidc-… need --oidc-issuer")
	case f.Issuer != "":
		if err := oidc.CheckURL(f.Issuer); err != nil {
			return usageError("--oidc-issuer " + err.Error())
		}
	}
	return nil
}

// verifier makes the verifier of the issuer's tokens; nil: there is no issuer.
func (f *oidcFlags) verifier(log *slog.Logger) (*oidc.Verifier, error) {
	if f.Issuer == "" {
		return nil, nil
	}
	return oidc.New(oidc.Config{
		Issuer: f.Issuer, Audience: f.Audience, Clients: f.ClientID, PrincipalClaim: f.PrincipalClaim,
		NameClaim: f.NameClaim, AdminClaim: f.AdminClaim, AdminValue: f.AdminValue, Clock: system.Clock{}, Log: log,
	})
}

// signIn is what the server tells of its issuer; nil: nothing.
func (f *oidcFlags) signIn() *api.SignIn {
	if f.Issuer == "" {
		return nil
	}
	return &api.SignIn{
		Issuer: f.Issuer, Audience: f.Audience, Scopes: f.Scopes, Client: append(slices.Clone(f.ClientID), "")[0],
	}
}
