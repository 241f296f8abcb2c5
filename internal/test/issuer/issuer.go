// Package issuer is a real OpenID Connect provider (zitadel/oidc) for tests. It signs whatever
// token a test asks for, changes its keys, counts who fetches them, and goes away and comes back.
// It also has the device flow, in which a test is the person who allows it.
package issuer

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Client is the id of the one client, which is the audience of its tokens too.
const Client = "sluice-cli"

// Issuer is a provider. It is safe for concurrent use.
type Issuer struct {
	URL      string
	provider http.Handler
	store    *store

	mu      sync.Mutex
	keys    []Key
	fetches int
	down    bool
	claims  map[string]any // of tokens of the device flow
	life    time.Duration  // of the same
	opaque  bool           // access tokens of the device flow are no JWTs
	codes   []string       // user codes that were given out
}

// Key is a key of the issuer.
type Key struct {
	Name    string
	Alg     jose.SignatureAlgorithm
	Private crypto.Signer
}

// New makes an issuer that is at a URL, without a listener: see Transport.
func New(url string) *Issuer {
	i := &Issuer{URL: url, life: 5 * time.Minute}
	i.Rotate()
	i.store = newStore(i)
	provider, err := op.NewProvider(&op.Config{
		GrantTypeRefreshToken: true,
		DeviceAuthorization: op.DeviceAuthorizationConfig{
			Lifetime: 5 * time.Minute, PollInterval: time.Second, UserFormPath: "/device", UserCode: op.UserCodeBase20,
		},
	}, i.store, op.StaticIssuer(url), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		panic(err)
	}
	i.provider = provider
	return i
}

// Listen makes an issuer that listens on a port of its own until the test ends.
func Listen(t testing.TB) *Issuer {
	var i *Issuer
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.ServeHTTP(w, r)
	}))
	i = New("http://" + server.Listener.Addr().String())
	server.Start()
	t.Cleanup(server.Close)
	return i
}

// ServeHTTP answers as the provider. An issuer that is down answers 502.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	down := i.down
	if r.URL.Path == "/keys" {
		i.fetches++
	}
	i.mu.Unlock()
	if down {
		http.Error(w, "away", http.StatusBadGateway)
		return
	}
	i.provider.ServeHTTP(w, r)
}

// Transport leads to the issuer without a network. One that is down can't be reached there.
func (i *Issuer) Transport() http.RoundTripper { return transport{i} }

type transport struct{ issuer *Issuer }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	t.issuer.mu.Lock()
	down := t.issuer.down
	t.issuer.mu.Unlock()
	if down {
		return nil, fmt.Errorf("connection refused")
	}
	w := httptest.NewRecorder()
	r = r.Clone(r.Context())
	if r.Body == nil {
		r.Body = io.NopCloser(strings.NewReader(""))
	}
	t.issuer.ServeHTTP(w, r)
	return w.Result(), r.Context().Err()
}

// Down makes the issuer go away, or come back.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Rotate gives the issuer a new key of 2,048 bits of RSA. The keys before are gone, and their
// tokens void.
func (i *Issuer) Rotate() { i.UseKeys(NewKey()) }

// NewKey makes a key that no issuer has yet.
func NewKey() Key {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return Key{Name: "key-" + strconv.FormatInt(private.D.Int64()&0xffffffff, 16), Alg: jose.RS256, Private: private}
}

// UseKeys makes these the keys of the issuer. It signs with the first one.
func (i *Issuer) UseKeys(keys ...Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// Keys gives the keys of the issuer.
func (i *Issuer) Keys() []Key {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.keys
}

// Fetches says how often the keys were asked for.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// Token signs a token of a subject, for five minutes from now. change has claims that are to be
// other than usual; a nil value takes a claim away.
func (i *Issuer) Token(subject string, change map[string]any) string {
	return i.Keys()[0].Sign(i.Claims(subject, change), nil)
}

// Claims gives the claims of such a token.
func (i *Issuer) Claims(subject string, change map[string]any) map[string]any {
	now := time.Now()
	c := map[string]any{
		"iss": i.URL, "sub": subject, "aud": Client, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
		"name": "Name of " + subject,
	}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Sign signs claims with a key. head has members of the head beside alg and kid.
func (k Key) Sign(claims map[string]any, head map[jose.HeaderKey]any) string {
	return Sign(jose.SigningKey{Algorithm: k.Alg, Key: jose.JSONWebKey{Key: k.Private, KeyID: k.Name}}, claims, head)
}

// Device sets what the tokens of the device flow say, how long they live, and whether its access
// tokens are no JWTs, so that only the ID token says who the bearer is.
func (i *Issuer) Device(claims map[string]any, life time.Duration, opaque bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims, i.life, i.opaque = claims, life, opaque
}

// LastCode gives the newest user code of the device flow; "": there was none yet.
func (i *Issuer) LastCode() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.codes) == 0 {
		return ""
	}
	return i.codes[len(i.codes)-1]
}
