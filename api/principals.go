package api

import (
	"time"

	"sluice/access"
	"sluice/catalog"
)

func (s *Server) whoAmI(c *call) (WhoAmI, error) {
	a, err := s.cfg.Access.WhoAmI(c.req.Context(), c.caller)
	if err != nil {
		return WhoAmI{}, err
	}
	bounds := s.cfg.Bounds.Of(a.Principal)
	return WhoAmI{
		PrincipalID: a.Principal.ID, Name: a.Principal.Name, Admin: a.Admin,
		Issuer: a.Principal.Identity.Issuer, Subject: a.Principal.Identity.Subject,
		TokenID: a.Token.ID, TokenName: a.Token.Name, ReadOnly: a.Token.ReadOnly, ExpiresAt: Time{a.Token.Expires},
		MaxOpenSessions: bounds.MaxSessions, QuotaBytes: bounds.QuotaBytes,
		OpenSessions: a.Usage.Sessions, ReservedBytes: a.Usage.Reserved,
		RequestsPerSecond: s.cfg.RequestRate,
	}, nil
}

func (s *Server) createToken(c *call, in CreateTokenRequest) (NewToken, error) {
	req := access.TokenRequest{Principal: in.PrincipalID, Name: in.Name, ReadOnly: in.ReadOnly}
	if in.PrincipalID != "" {
		if err := validPrincipal(in.PrincipalID); err != nil {
			return NewToken{}, err
		}
	}
	if n := in.ExpiresInSeconds; n != nil {
		if *n < 1 || *n > int64(access.MaxTokenTTL/time.Second) {
			return NewToken{}, access.ErrTokenTTL
		}
		req.TTL = time.Duration(*n) * time.Second
	}
	t, secret, err := s.cfg.Access.CreateToken(c.req.Context(), c.caller, req)
	if err != nil {
		return NewToken{}, err
	}
	return NewToken{
		TokenID: t.ID, Token: secret, Name: t.Name, PrincipalID: t.Principal, ReadOnly: t.ReadOnly,
		CreatedAt: Time{t.Created}, ExpiresAt: Time{t.Expires},
	}, nil
}

func (s *Server) listTokens(c *call) (TokenList, error) {
	limit, err := c.limit()
	if err != nil {
		return TokenList{}, err
	}
	principal := c.query["principal_id"]
	if _, given := c.query["principal_id"]; given {
		if err := validPrincipal(principal); err != nil {
			return TokenList{}, err
		}
	}
	page, next, err := s.cfg.Access.ListTokens(c.req.Context(), c.caller, principal, c.query["cursor"], limit)
	if err != nil {
		return TokenList{}, err
	}
	out := TokenList{Tokens: make([]Token, len(page)), NextCursor: next}
	for i, t := range page {
		out.Tokens[i] = tokenOf(t)
	}
	return out, nil
}

func tokenOf(t catalog.Token) Token {
	return Token{
		TokenID: t.ID, Name: t.Name, PrincipalID: t.Principal, ReadOnly: t.ReadOnly,
		CreatedAt: Time{t.Created}, ExpiresAt: Time{t.Expires}, LastUsedAt: Time{t.LastUsed},
	}
}

func (s *Server) revokeToken(c *call, in RevokeTokenRequest) error {
	if !isID(in.TokenID) {
		return invalid("token_id", "must be a token's id: a UUID in its lower-case form")
	}
	return s.cfg.Access.RevokeToken(c.req.Context(), c.caller, in.TokenID)
}

func (s *Server) createPrincipal(c *call, in CreatePrincipalRequest) (Principal, error) {
	p, err := s.cfg.Access.CreatePrincipal(c.req.Context(), c.caller, in.Name, in.Admin)
	if err != nil {
		return Principal{}, err
	}
	return principalOf(p), nil
}

func principalOf(p catalog.Principal) Principal {
	return Principal{
		PrincipalID: p.ID, Name: p.Name, Admin: p.Admin, CreatedAt: Time{p.Created},
		MaxOpenSessions: p.MaxOpenSessions, QuotaBytes: p.QuotaBytes,
		Issuer: p.Identity.Issuer, Subject: p.Identity.Subject,
	}
}

func (s *Server) listPrincipals(c *call) (PrincipalList, error) {
	limit, err := c.limit()
	if err != nil {
		return PrincipalList{}, err
	}
	page, next, err := s.cfg.Access.ListPrincipals(c.req.Context(), c.caller, c.query["cursor"], limit)
	if err != nil {
		return PrincipalList{}, err
	}
	out := PrincipalList{Principals: make([]Principal, len(page)), NextCursor: next}
	for i, p := range page {
		out.Principals[i] = principalOf(p)
	}
	return out, nil
}

func (s *Server) updatePrincipal(c *call, in UpdatePrincipalRequest) (Principal, error) {
	if err := validPrincipal(in.PrincipalID); err != nil {
		return Principal{}, err
	}
	p, err := s.cfg.Access.UpdatePrincipal(c.req.Context(), c.caller, in.PrincipalID, catalog.PrincipalChange{
		Name: in.Name, Admin: in.Admin, MaxOpenSessions: in.MaxOpenSessions, QuotaBytes: in.QuotaBytes,
	})
	if err != nil {
		return Principal{}, err
	}
	return principalOf(p), nil
}

// deletePrincipal answers when the principal is gone. What it leaves is removed at once; if that
// fails, the keeper goes on.
func (s *Server) deletePrincipal(c *call, in DeletePrincipalRequest) error {
	if err := validPrincipal(in.PrincipalID); err != nil {
		return err
	}
	if err := s.cfg.Access.DeletePrincipal(c.req.Context(), c.caller, in.PrincipalID); err != nil {
		return err
	}
	s.endOwner(c, in.PrincipalID)
	return nil
}

func validPrincipal(id string) error {
	if !isID(id) {
		return invalid("principal_id", "must be a principal's id: a UUID in its lower-case form")
	}
	return nil
}
