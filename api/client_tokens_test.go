package api_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"sluice/api"
	"sluice/internal/test/issuer"
)

// A client whose tokens are renewed tries again with the next one. One whose tokens have ended does
// not.
func TestAClientWithTokensThatEnd(t *testing.T) {
	g, ctx := newGuests(t, nil), t.Context()
	old := g.issuer.Token("ada", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})
	tokens := []string{old, g.issuer.Token("ada", nil)}
	client := api.NewClient(g.url, "", &http.Client{Transport: g.transport})
	client.Tokens = func(context.Context) (string, error) {
		token := tokens[0]
		if len(tokens) > 1 {
			tokens = tokens[1:]
		}
		return token, nil
	}
	_, err := client.WhoAmI(ctx)
	if api.ClassOf(g.codeIs(err, api.CodeUnauthenticated)) != api.Later {
		t.Errorf("it ended meanwhile: %v", err)
	}
	if me, err := client.WhoAmI(ctx); err != nil || me.Subject != "ada" {
		t.Errorf("%+v, %v", me, err)
	}
	tokens = []string{issuer.NewKey().Sign(g.issuer.Claims("ada", nil), nil)}
	_, err = client.WhoAmI(ctx)
	if api.ClassOf(g.codeIs(err, api.CodeUnauthenticated)) != api.Permanent {
		t.Errorf("it is no good: %v", err)
	}
	for want, fails := range map[api.Class]error{
		api.Later: errors.New("away"), api.Permanent: fmt.Errorf("gone: %w", api.ErrTokenEnded),
	} {
		client.Tokens = func(context.Context) (string, error) { return "", fails }
		if _, err := client.WhoAmI(ctx); !errors.Is(err, fails) || api.ClassOf(err) != want {
			t.Errorf("%v: class %d, want %d", err, api.ClassOf(err), want)
		}
	}
}
