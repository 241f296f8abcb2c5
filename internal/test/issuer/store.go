package issuer

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// store is what the provider works on: that of its example, with one client, keys that change, and
// refresh tokens of the device flow.
type store struct {
	*storage.Storage
	issuer *Issuer

	mu      sync.Mutex
	n       int
	refresh map[string]grant
}

func newStore(i *Issuer) *store {
	clients := map[string]*storage.Client{Client: storage.NativeClient(Client)}
	return &store{
		Storage: storage.NewStorageWithClients(users{}, clients), issuer: i, refresh: map[string]grant{},
	}
}

// users knows everybody.
type users struct{}

func (users) GetUserByID(id string) *storage.User { return &storage.User{ID: id, Username: id} }

func (users) GetUserByUsername(name string) *storage.User {
	return &storage.User{ID: name, Username: name}
}
func (users) ExampleClientID() string { return Client }

// client is the one client: a program without a secret.
type client struct {
	*storage.Client
	issuer *Issuer
}

func (client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeDeviceCode, oidc.GrantTypeRefreshToken}
}

func (c client) AccessTokenType() op.AccessTokenType {
	c.issuer.mu.Lock()
	defer c.issuer.mu.Unlock()
	if c.issuer.opaque {
		return op.AccessTokenTypeBearer
	}
	return op.AccessTokenTypeJWT
}

func (c client) IDTokenLifetime() time.Duration { return c.issuer.lifetime() }

func (i *Issuer) lifetime() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.life
}

func (s *store) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	if id != Client {
		return nil, errors.New("there is no such client")
	}
	return client{storage.NativeClient(id), s.issuer}, nil
}

// SigningKey, SignatureAlgorithms and KeySet give the keys as they are now.
func (s *store) SigningKey(context.Context) (op.SigningKey, error) {
	return signing{s.issuer.Keys()[0]}, nil
}

func (s *store) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{s.issuer.Keys()[0].Alg}, nil
}

func (s *store) KeySet(context.Context) (all []op.Key, err error) {
	for _, k := range s.issuer.Keys() {
		all = append(all, public{k})
	}
	return all, nil
}

type signing struct{ key Key }

func (k signing) SignatureAlgorithm() jose.SignatureAlgorithm { return k.key.Alg }
func (k signing) Key() any                                    { return k.key.Private }
func (k signing) ID() string                                  { return k.key.Name }

type public struct{ key Key }

func (k public) ID() string                         { return k.key.Name }
func (k public) Algorithm() jose.SignatureAlgorithm { return k.key.Alg }
func (k public) Use() string                        { return "sig" }
func (k public) Key() any                           { return k.key.Private.Public() }

// StoreDeviceAuthorization notes the code too, so that a test can allow it.
func (s *store) StoreDeviceAuthorization(
	ctx context.Context, client, device, user string, expires time.Time, scopes []string,
) error {
	err := s.Storage.StoreDeviceAuthorization(ctx, client, device, user, expires, scopes)
	if err == nil {
		s.issuer.mu.Lock()
		s.issuer.codes = append(s.issuer.codes, user)
		s.issuer.mu.Unlock()
	}
	return err
}

// Allow is the subject who enters a user code and allows it.
func (i *Issuer) Allow(code, subject string) error {
	return i.store.CompleteDeviceAuthorization(context.Background(), code, subject)
}

// Deny is somebody who enters a user code and denies it.
func (i *Issuer) Deny(code string) error {
	return i.store.DenyDeviceAuthorization(context.Background(), code)
}

// grant is what a refresh token stands for.
type grant struct {
	subject string
	scopes  []string
}

func (g grant) GetAMR() []string          { return nil }
func (g grant) GetAudience() []string     { return []string{Client} }
func (g grant) GetAuthTime() time.Time    { return time.Time{} }
func (g grant) GetClientID() string       { return Client }
func (g grant) GetScopes() []string       { return g.scopes }
func (g grant) GetSubject() string        { return g.subject }
func (g grant) SetCurrentScopes([]string) {}

// next gives a name that was not there before.
func (s *store) next(kind string) string {
	s.n++
	return kind + strconv.Itoa(s.n)
}

func (s *store) CreateAccessToken(context.Context, op.TokenRequest) (string, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next("access-"), time.Now().Add(s.issuer.lifetime()), nil
}

// CreateAccessAndRefreshTokens gives a new refresh token. The one before is void then.
func (s *store) CreateAccessAndRefreshTokens(
	_ context.Context, req op.TokenRequest, before string,
) (id, refresh string, end time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refresh, before)
	refresh = s.next("refresh-")
	s.refresh[refresh] = grant{req.GetSubject(), slices.Clone(req.GetScopes())}
	return s.next("access-"), refresh, time.Now().Add(s.issuer.lifetime()), nil
}

func (s *store) TokenRequestByRefreshToken(_ context.Context, refresh string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.refresh[refresh]
	if !ok {
		return nil, errors.New("the refresh token is void")
	}
	return g, nil
}

func (s *store) GetRefreshTokenInfo(_ context.Context, _, refresh string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.refresh[refresh]
	if !ok {
		return "", "", op.ErrInvalidRefreshToken
	}
	return g.subject, refresh, nil
}

func (s *store) RevokeToken(_ context.Context, token, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refresh, token)
	return nil
}

// Grants says how many refresh tokens are valid.
func (i *Issuer) Grants() int {
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	return len(i.store.refresh)
}

// RevokeAll makes all refresh tokens void, as when a user is removed.
func (i *Issuer) RevokeAll() {
	i.store.mu.Lock()
	defer i.store.mu.Unlock()
	clear(i.store.refresh)
}

func (s *store) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	s.issuer.mu.Lock()
	defer s.issuer.mu.Unlock()
	return s.issuer.claims, nil
}

func (s *store) SetUserinfoFromRequest(
	_ context.Context, info *oidc.UserInfo, token op.IDTokenRequest, _ []string,
) error {
	s.issuer.mu.Lock()
	defer s.issuer.mu.Unlock()
	info.Subject = token.GetSubject()
	for name, value := range s.issuer.claims {
		info.AppendClaims(name, value)
	}
	return nil
}
