package access_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/access"
	"sluice/catalog"
)

// known is an issuer that takes tokens by their text.
type known map[string]access.External

func (k known) Verify(_ context.Context, raw string) (access.External, error) {
	who, ok := k[raw]
	if !ok {
		return who, &access.RefusalError{Why: "it is not known"}
	}
	return who, nil
}

// meeting is a store in which a number of reads happen before the first write.
type meeting struct {
	catalog.Store
	reads sync.WaitGroup
}

func (m *meeting) View(ctx context.Context, f func(catalog.Reader) error) error {
	err := m.Store.View(ctx, f)
	m.reads.Done()
	return err
}

func (m *meeting) Update(ctx context.Context, f func(catalog.Tx) error) error {
	m.reads.Wait()
	return m.Store.Update(ctx, f)
}

func ada(now time.Time) access.External {
	return access.External{
		Identity: catalog.Identity{Issuer: "https://issuer.test", Subject: "ada"}, Name: "Ada", Expires: now.Add(time.Hour),
	}
}

// Several requests find that there is no principal yet. One of them makes it.
func TestFirstSignInsMeet(t *testing.T) {
	const n = 10
	store := &meeting{Store: catalog.NewMem()}
	store.reads.Add(n)
	now := &clock{time.Now()}
	s := access.New(store, now, func() int64 { return 0 }, nil)
	s.SetIssuer(known{"a.b.c": ada(now.now)})
	var mu sync.Mutex
	ids := map[string]bool{}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			c, err := s.Authenticate(t.Context(), "a.b.c")
			mu.Lock()
			defer mu.Unlock()
			ids[c.Principal] = true
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	made := 0
	err := store.Store.View(t.Context(), func(r catalog.Reader) error {
		for _, err := range catalog.Principals.After(r, "") {
			if err != nil {
				return err
			}
			made++
		}
		return nil
	})
	if err != nil || len(ids) != 1 || made != 1 {
		t.Errorf("%v, %d principals, %v", ids, made, err)
	}
}

// Only what has the form of a JWT is given to the issuer, and no more than a bounded length of it.
func TestWhatAnIssuerIsAsked(t *testing.T) {
	w := newWorld(t)
	_, _, secret := w.join(t, "a", false, 0)
	asked := known{}
	for _, raw := range []string{secret, "", "a", "a.b", "a.b.c.d", ".b.c", "a..c", "a.b.c=", "a.b. c", "a.b.ä"} {
		asked[raw] = ada(w.clock.now)
	}
	long := "a." + strings.Repeat("b", access.MaxExternalToken) + ".c"
	asked[long] = ada(w.clock.now)
	good := "a." + strings.Repeat("b", access.MaxExternalToken-4) + ".c"
	asked[good] = ada(w.clock.now)
	w.SetIssuer(asked)
	for raw := range asked {
		c, err := w.Authenticate(t.Context(), raw)
		switch raw {
		case secret:
			if err != nil || c.External {
				t.Errorf("a token of the server: %+v, %v", c, err)
			}
		case good:
			if err != nil || !c.External {
				t.Errorf("the longest token: %+v, %v", c, err)
			}
		default:
			if !errors.Is(err, access.ErrUnauthenticated) {
				t.Errorf("%.40q: %v", raw, err)
			}
		}
	}
}
