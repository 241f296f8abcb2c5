package access

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/catalog"
)

// useUnit is how exactly the last use of a token is kept. So a token that is in use costs one
// commit in an hour.
const useUnit = time.Hour

// mostUses bounds the tokens whose use is not written yet. The use of others is not noted.
const mostUses = 100_000

// lastUses has the uses of tokens that are not written yet.
type lastUses struct {
	mu sync.Mutex
	at map[catalog.SHA256]time.Time
}

// note notes a use of the token. It takes a lock only if the row does not have this use.
func (l *lastUses) note(t catalog.Token, now time.Time) {
	if now = now.Truncate(useUnit); !now.After(t.LastUsed) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil {
		l.at = map[catalog.SHA256]time.Time{}
	}
	if len(l.at) < mostUses {
		l.at[t.Hash] = now
	}
}

func (l *lastUses) take() map[catalog.SHA256]time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := l.at
	l.at = nil
	return at
}

// usesAtOnce is how many tokens one commit of WriteLastUses changes.
const usesAtOnce = 500

// WriteLastUses stores when tokens were last used, to the hour. After an error some uses are
// forgotten. It is to be called every minute or so.
func (s *Service) WriteLastUses(ctx context.Context) error {
	uses := s.used.take()
	for hashes := range slices.Chunk(slices.Collect(maps.Keys(uses)), usesAtOnce) {
		err := s.store.Update(ctx, func(tx catalog.Tx) error {
			for _, hash := range hashes {
				t, err := catalog.Tokens.Get(tx, catalog.TokenKey(hash))
				if errors.Is(err, catalog.ErrNotFound) || err == nil && !uses[hash].After(t.LastUsed) {
					continue
				}
				if err != nil {
					return err
				}
				t.LastUsed = uses[hash]
				if err := catalog.Tokens.Put(tx, catalog.TokenKey(hash), t); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
