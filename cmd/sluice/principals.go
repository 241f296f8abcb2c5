package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"sluice/api"
)

type principalsCmd struct {
	Ls     principalsLsCmd     `cmd:"" help:"List all principals."`
	Create principalsCreateCmd `cmd:"" help:"Make a principal. It has no role and no token yet."`
	Update principalsUpdateCmd `cmd:"" help:"Change name, admin right or bounds."`
	Rm     principalsRmCmd     `cmd:"" set:"patience=${long_patience}" help:"Delete principals, with their tokens, roles and open uploads; their memories stay."`
}

func (e *env) principal(p api.Principal) {
	var what []string
	if p.Admin {
		what = append(what, "admin")
	}
	if p.MaxOpenSessions > 0 {
		what = append(what, fmt.Sprintf("at most %d open uploads", p.MaxOpenSessions))
	}
	if p.QuotaBytes > 0 {
		what = append(what, fmt.Sprintf("at most %s in them", size(p.QuotaBytes)))
	}
	if p.Subject != "" {
		what = append(what, fmt.Sprintf("signs in as %s at %s", clean(p.Subject), clean(p.Issuer)))
	}
	line := p.PrincipalID + "  " + clean(p.Name)
	if len(what) > 0 {
		line += "  " + strings.Join(what, ", ")
	}
	e.print(p, "%s", line)
}

type principalsLsCmd struct{ asking }

// Run lists principals.
func (c *principalsLsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return pages(func(cursor string) (string, error) {
		page, err := client.ListPrincipals(e.ctx, cursor, 1000)
		for _, p := range page.Principals {
			e.principal(p)
		}
		return page.NextCursor, err
	})
}

type principalsCreateCmd struct {
	asking
	Name  string `arg:"" help:"Its name, for people."`
	Admin bool   `help:"It may do all that admins may."`
}

// Run makes a principal.
func (c *principalsCreateCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	p, err := client.CreatePrincipal(e.ctx, c.Name, c.Admin)
	if err == nil {
		e.principal(p)
	}
	return err
}

type principalsUpdateCmd struct {
	asking
	ID              string  `arg:"" help:"The principal."`
	Name            *string `help:"Its name, for people."`
	Admin           *bool   `negatable:"" help:"Whether it may do all that admins may."`
	MaxOpenSessions *int64  `placeholder:"N" help:"How many uploads it may have open; 0: as many as serve --max-open-sessions allows."`
	QuotaBytes      *int64  `placeholder:"N" help:"How many bytes these may bring together; 0: no bound."`
}

// Run changes a principal.
func (c *principalsUpdateCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	p, err := client.UpdatePrincipal(e.ctx, api.UpdatePrincipalRequest{
		PrincipalID: c.ID, Name: c.Name, Admin: c.Admin, MaxOpenSessions: c.MaxOpenSessions, QuotaBytes: c.QuotaBytes,
	})
	if err == nil {
		e.principal(p)
	}
	return err
}

type principalsRmCmd struct {
	asking
	IDs []string `arg:"" name:"id" help:"Principals."`
}

// Run deletes principals.
func (c *principalsRmCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.each(c.IDs, func(id string) error {
		err := client.DeletePrincipal(e.ctx, id)
		if err == nil {
			e.print(map[string]string{"principal_id": id, "state": "deleted"}, "%s is deleted", clean(id))
		}
		return err
	})
}

type tokensCmd struct {
	Ls     tokensLsCmd     `cmd:"" help:"List your tokens, without their secrets."`
	Create tokensCreateCmd `cmd:"" help:"Make a token, and print its secret this once."`
	Revoke tokensRevokeCmd `cmd:"" help:"End tokens."`
}

type tokensLsCmd struct {
	asking
	Principal string `placeholder:"ID" help:"Another principal's (admins)."`
}

// Run lists tokens.
func (c *tokensLsCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return pages(func(cursor string) (string, error) {
		page, err := client.ListTokens(e.ctx, c.Principal, cursor, 1000)
		for _, t := range page.Tokens {
			used := "not used yet"
			if !t.LastUsedAt.IsZero() {
				used = "last used " + t.LastUsedAt.Format("2006-01-02 15h")
			}
			line := fmt.Sprintf(
				"%s  %-10s  %s  %s  %s", t.TokenID, mayOf(t.ReadOnly), endOf(t.ExpiresAt), used, clean(t.Name),
			)
			e.print(t, "%s", strings.TrimRight(line, " "))
		}
		return page.NextCursor, err
	})
}

func mayOf(readOnly bool) string {
	if readOnly {
		return "read-only"
	}
	return "read-write"
}

func endOf(t api.Time) string {
	if t.IsZero() {
		return "no end"
	}
	return "until " + t.Format("2006-01-02 15:04")
}

type tokensCreateCmd struct {
	asking
	Principal string         `placeholder:"ID" help:"For another principal (admins)."`
	Name      string         `help:"What it is for, for people."`
	Expires   *time.Duration `placeholder:"DURATION" help:"End it after this time (720h); without this it has no end."`
	ReadOnly  bool           `help:"It may only read."`
}

// Run makes a token. Its secret alone goes to standard output.
func (c *tokensCreateCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	req := api.CreateTokenRequest{PrincipalID: c.Principal, Name: c.Name, ReadOnly: c.ReadOnly}
	if c.Expires != nil {
		seconds := int64(*c.Expires / time.Second)
		if seconds < 1 {
			return usageError("--expires must be a second or more")
		}
		req.ExpiresInSeconds = &seconds
	}
	t, err := client.CreateToken(e.ctx, req)
	if err != nil {
		return err
	}
	e.say("token %s, %s, %s. The secret is shown this once:", t.TokenID, mayOf(t.ReadOnly), endOf(t.ExpiresAt))
	e.print(t, "%s", clean(t.Token))
	return nil
}

type tokensRevokeCmd struct {
	asking
	IDs []string `arg:"" name:"id" help:"Tokens, by their ids."`
}

// Run ends tokens.
func (c *tokensRevokeCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	return e.revoke(c.IDs, "token_id", client.RevokeToken)
}

// revoke ends tokens, tickets or links, and says so of each. member is the name of their ids.
func (e *env) revoke(ids []string, member string, revoke func(ctx context.Context, id string) error) error {
	return e.each(ids, func(id string) error {
		err := revoke(e.ctx, id)
		if err == nil {
			e.print(map[string]string{member: id, "state": "revoked"}, "%s is revoked", clean(id))
		}
		return err
	})
}

type whoamiCmd struct{ asking }

// Run describes the caller.
func (c *whoamiCmd) Run(e *env) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	me, err := client.WhoAmI(e.ctx)
	if err != nil {
		return err
	}
	right := ""
	if me.Admin {
		right = ", an admin"
	}
	open := fmt.Sprint(me.OpenSessions)
	if me.MaxOpenSessions > 0 {
		open += fmt.Sprintf(" of %d", me.MaxOpenSessions)
	}
	reserved := size(me.ReservedBytes)
	if me.QuotaBytes > 0 {
		reserved += " of " + size(me.QuotaBytes)
	}
	token := fmt.Sprintf(
		"token %s  %s  %s  %s", me.TokenID, mayOf(me.ReadOnly), endOf(me.ExpiresAt), clean(me.TokenName),
	)
	if me.TokenID == "" {
		token = fmt.Sprintf("signed in as %s at %s  %s", clean(me.Subject), clean(me.Issuer), endOf(me.ExpiresAt))
	}
	rate := ""
	if me.RequestsPerSecond > 0 {
		rate = fmt.Sprintf(", at most %d requests a second", me.RequestsPerSecond)
	}
	e.print(
		me, "%s  %s%s\n%s\n%s open uploads, %s in them%s", me.PrincipalID, clean(me.Name), right,
		strings.TrimRight(token, " "), open, reserved, rate,
	)
	return nil
}
