package api

import (
	"context"
	"errors"

	"sluice/access"
)

// SignIn says at which issuer callers sign in.
type SignIn struct {
	Issuer, Audience string
	// Client is the client that sluice login is to the issuer; empty: the user has to know one.
	Client string
	Scopes []string
}

// ProtectedResource says at which issuer callers sign in (RFC 9728 §2).
type ProtectedResource struct {
	Resource               string   `json:"resource"` // the audience that a token must have
	AuthorizationServers   []string `json:"authorization_servers"`
	ScopesSupported        []string `json:"scopes_supported,omitzero"`
	BearerMethodsSupported []string `json:"bearer_methods_supported"`
	ResourceName           string   `json:"resource_name"`
	// ClientID is the client that sluice login is to the issuer; absent: the user has to know one.
	ClientID string `json:"sluice_client_id,omitzero"`
}

// ResourcePath is where a server says at which issuer its callers sign in (RFC 9728 §3).
const ResourcePath = "/.well-known/oauth-protected-resource"

func (s *Server) protectedResource(*call) (ProtectedResource, error) {
	in := s.cfg.SignIn
	if in == nil {
		return ProtectedResource{}, errNotFound
	}
	return ProtectedResource{
		Resource: in.Audience, AuthorizationServers: []string{in.Issuer}, ScopesSupported: in.Scopes,
		BearerMethodsSupported: []string{"header"}, ResourceName: "Sluice", ClientID: in.Client,
	}, nil
}

// isTokenTrouble reports whether an error is about a token of the issuer, and worth a warning in
// the log: the client is not told why.
func isTokenTrouble(err error) bool {
	var refused *access.RefusalError
	return errors.As(err, &refused) && !refused.Usual || errors.Is(err, access.ErrIssuerAway)
}

// ProtectedResource asks the server at which issuer its callers sign in. It needs no token. Without
// an issuer the error has CodeNotFound.
func (c *Client) ProtectedResource(ctx context.Context) (out ProtectedResource, err error) {
	return out, c.get(ctx, ResourcePath, nil, &out)
}
