package oidc

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sluice/access"
)

const (
	// fetchPause is the least time between two fetches that tokens cause. In between, a key that is
	// not known is one that does not exist.
	fetchPause = 10 * time.Second
	// fetchTimeout bounds a fetch as a whole.
	fetchTimeout = 15 * time.Second
	// mostWaiters bounds the requests that wait for a fetch: more are told that the issuer is away.
	mostWaiters = 32
	// mostKeys bounds the keys of an issuer. Others are left out.
	mostKeys = 100
	// leastRSA and mostRSA bound the length of an RSA key in bits. Others are left out.
	leastRSA, mostRSA = 2048, 8192
)

// keys are the issuer's public keys.
type keys struct {
	issuer  string
	client  *http.Client
	clock   access.Clock
	log     *slog.Logger
	changed func() // called when a key that was there may be gone
	// ctx ends with stop, and all fetches with it.
	ctx  context.Context
	stop context.CancelFunc

	mu      sync.Mutex
	known   []jose.JSONWebKey
	text    string    // as they came
	next    time.Time // no token causes a fetch before
	failed  error     // why the last fetch failed
	flight  *flight   // the fetch that is under way
	waiters int
}

// flight is a fetch that is under way.
type flight struct {
	done chan struct{}
	err  error // set before done is closed
}

// find gives the key that a token names. If it is not known, the keys are fetched, once for all who
// wait, and at most once in fetchPause. The errors are a refusal and access.ErrIssuerAway.
func (k *keys) find(ctx context.Context, kid, alg string) (crypto.PublicKey, error) {
	key, err := k.look(kid, alg)
	if key != nil || err != nil {
		return key, err
	}
	if err := k.wait(ctx); err != nil {
		return nil, err
	}
	if key, err = k.look(kid, alg); key != nil || err != nil {
		return key, err
	}
	return nil, unknownKey(kid, alg)
}

func unknownKey(kid, alg string) error {
	return refusal("the issuer has no key %.80q for %s", kid, alg)
}

// look gives the known key of that name that fits the algorithm; nil: there is none. A token need
// not name a key if only one fits.
func (k *keys) look(kid, alg string) (crypto.PublicKey, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var found crypto.PublicKey
	for _, key := range k.known {
		if key.Algorithm != "" && key.Algorithm != alg || !fits(key.Key, alg) || kid != "" && key.KeyID != kid {
			continue
		}
		if found != nil {
			return nil, refusal("several keys of the issuer may be meant: it names %.80q", kid)
		}
		found = key.Key
	}
	return found, nil
}

// wait waits for a fetch, and begins one unless the last was just now.
func (k *keys) wait(ctx context.Context) error {
	k.mu.Lock()
	f := k.flight
	switch {
	case f == nil && k.clock.Now().Before(k.next):
		defer k.mu.Unlock()
		if k.failed != nil {
			return errAway(k.failed)
		}
		return nil
	case k.waiters >= mostWaiters:
		defer k.mu.Unlock()
		return errAway(errors.New("many requests wait for its keys"))
	case f == nil:
		f = k.begin()
	}
	k.waiters++
	k.mu.Unlock()
	defer func() {
		k.mu.Lock()
		k.waiters--
		k.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return errAway(ctx.Err())
	case <-f.done:
	}
	if f.err != nil {
		return errAway(f.err)
	}
	return nil
}

// fetch fetches the keys, or waits for a fetch that is under way.
func (k *keys) fetch(ctx context.Context) error {
	k.mu.Lock()
	f := k.flight
	if f == nil {
		f = k.begin()
	}
	k.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.done:
		return f.err
	}
}

// end ends the fetch that is under way, and waits for that. There are no fetches from then on.
func (k *keys) end() {
	k.stop()
	k.mu.Lock()
	f := k.flight
	k.mu.Unlock()
	if f != nil {
		<-f.done
	}
}

// begin begins a fetch, which no request's end stops: others may wait for it. mu is held.
func (k *keys) begin() *flight {
	f := &flight{done: make(chan struct{})}
	k.flight = f
	go func() {
		ctx, cancel := context.WithTimeout(k.ctx, fetchTimeout)
		defer cancel()
		known, text, err := fetchKeys(ctx, k.client, k.issuer)
		k.land(f, known, text, err)
	}()
	return f
}

// land ends a fetch.
func (k *keys) land(f *flight, known []jose.JSONWebKey, text string, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(f.done)
	before, hadFailed := k.text, k.failed
	f.err, k.failed, k.flight, k.next = err, err, nil, k.clock.Now().Add(fetchPause)
	if err != nil {
		k.log.Warn("the issuer's keys can't be had; known keys go on", "issuer", k.issuer, "known", len(k.known),
			"err", fmt.Sprintf("%.300s", err))
		return
	}
	if k.known, k.text = known, text; before != text {
		k.changed()
		k.log.Info("the issuer's keys are read", "issuer", k.issuer, "keys", len(known))
	} else if hadFailed != nil {
		k.log.Info("the issuer can be reached again", "issuer", k.issuer)
	}
}

// fetchKeys asks the issuer where its keys are, and then for them.
func fetchKeys(ctx context.Context, client *http.Client, issuer string) ([]jose.JSONWebKey, string, error) {
	at, err := Discover(ctx, client, issuer)
	if err != nil {
		return nil, "", err
	}
	body, err := get(ctx, client, at.Keys)
	if err != nil {
		return nil, "", fmt.Errorf("the issuer's keys: %w", err)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, "", fmt.Errorf("the issuer's keys: %w", err)
	}
	var known []jose.JSONWebKey
	for _, text := range set.Keys[:min(len(set.Keys), mostKeys)] {
		var key jose.JSONWebKey
		// A key of a kind that nobody knows here takes nothing from the others (RFC 7517 §5).
		if key.UnmarshalJSON(text) == nil && usable(key) {
			known = append(known, key)
		}
	}
	if len(known) == 0 {
		return nil, "", fmt.Errorf("the issuer has no key that can be used, at %s", at.Keys)
	}
	return known, string(body), nil
}

// usable reports whether a key is a public one for signatures.
func usable(key jose.JSONWebKey) bool {
	if key.Use != "" && key.Use != "sig" || !key.Valid() || !key.IsPublic() {
		return false
	}
	switch pub := key.Key.(type) {
	case *rsa.PublicKey:
		return pub.N.BitLen() >= leastRSA && pub.N.BitLen() <= mostRSA
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false
}

// fits reports whether a key can be of a signature of an algorithm.
func fits(key any, alg string) bool {
	switch key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")
	case *ecdsa.PublicKey:
		return strings.HasPrefix(alg, "ES")
	case ed25519.PublicKey:
		return alg == string(jose.EdDSA)
	}
	return false
}
