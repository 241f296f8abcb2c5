// Package memories reads, lists, changes, deletes and restores stored memories, and keeps their
// capsules. It owns these operations and their paging. The rules are the catalog's, the decisions
// are access's, and the bytes come from the content store.
package memories

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sluice/access"
	"sluice/blob"
	"sluice/catalog"
	"sluice/internal/system"
)

// Clock tells the wall-clock time, for people.
type Clock interface{ Now() time.Time }

// Config is what a Service works with; all fields except Rand are needed.
type Config struct {
	Catalog catalog.Store
	Content blob.Reader
	Clock   Clock
	// Running gives the session engine's running time in ms, by which the trash is emptied.
	Running func() int64
	// Rand is for the ids of capsules (crypto/rand).
	Rand io.Reader
	// TrashFor is how long a deleted memory can be restored.
	TrashFor time.Duration
}

// Service carries out the memories_* and capsules_* operations. It is safe for concurrent use.
//
// Every operation asks access first. Errors: those of access, catalog.ErrNotFound for a thing that
// is absent or that the caller may not know of, *catalog.FieldError, and those that a method names.
type Service struct{ cfg Config }

// New makes a Service.
func New(cfg Config) *Service {
	if cfg.Rand == nil {
		cfg.Rand = system.Random{}
	}
	return &Service{cfg}
}

func (s *Service) moment() catalog.Moment {
	return catalog.Moment{Now: s.cfg.Clock.Now(), Running: s.cfg.Running()}
}

// find gives a memory, in the trash or not, on which the caller may do a.
func (s *Service) find(
	r catalog.Reader, c access.Caller, id catalog.MemoryID, a access.Action,
) (catalog.Memory, error) {
	m, err := catalog.Memories.Get(r, catalog.MemoryKey(id))
	if err != nil {
		if errors.Is(err, catalog.ErrNotFound) {
			// A caller without a valid token gets ErrUnauthenticated, and learns nothing of what is
			// there.
			if c.Grant == catalog.Link {
				err = errors.Join(access.AllowOwn(r, c, s.cfg.Clock.Now()), err)
			} else {
				err = errors.Join(access.AllowAny(r, c, false, s.cfg.Clock.Now()), err)
			}
		}
		return m, err
	}
	if _, err := access.Allow(r, c, a, m.Capsule, s.cfg.Clock.Now()); err != nil {
		return catalog.Memory{}, err
	}
	if c.Grant == catalog.Link && c.Memory != id {
		return catalog.Memory{}, catalog.ErrNotFound
	}
	return m, nil
}

// Read gives one memory that is not in the trash.
func (s *Service) Read(ctx context.Context, c access.Caller, id catalog.MemoryID) (m catalog.Memory, err error) {
	err = s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		m, err = s.find(r, c, id, access.Read)
		if err == nil && !m.Trashed.IsZero() {
			err = catalog.ErrNotFound
		}
		return err
	})
	return m, err
}

// Ping says which of the memories the caller may read.
func (s *Service) Ping(
	ctx context.Context, c access.Caller, ids []catalog.MemoryID,
) (present map[catalog.MemoryID]bool, err error) {
	err = s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
		present = make(map[catalog.MemoryID]bool, len(ids))
		if err := access.AllowAny(r, c, false, s.cfg.Clock.Now()); err != nil {
			return err
		}
		for _, id := range ids {
			m, err := s.find(r, c, id, access.Read)
			if err != nil && !errors.Is(err, catalog.ErrNotFound) && !errors.Is(err, access.ErrForbidden) {
				return err
			}
			present[id] = err == nil && m.Trashed.IsZero()
		}
		return nil
	})
	return present, err
}

// Change is a change of a memory's metadata: a nil field stays.
type Change struct {
	Name, Path, Description *string
	Tags                    *[]string
}

// Update changes a memory's metadata. The content never changes.
func (s *Service) Update(
	ctx context.Context, c access.Caller, id catalog.MemoryID, change Change,
) (m catalog.Memory, err error) {
	at := s.moment()
	err = s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if _, err := s.find(tx, c, id, access.Write); err != nil {
			return err
		}
		m, err = catalog.ChangeMemory(tx, id, func(meta *catalog.Meta) error {
			set(&meta.Name, change.Name)
			set(&meta.Path, change.Path)
			set(&meta.Description, change.Description)
			set(&meta.Tags, change.Tags)
			return nil
		}, at)
		return err
	})
	return m, err
}

func set[T any](field *T, to *T) {
	if to != nil {
		*field = *to
	}
}

// Delete moves a memory into the trash. With purge it removes the memory for good, also from the
// trash. It gives catalog.ErrNotFound if the memory is deleted already.
func (s *Service) Delete(ctx context.Context, c access.Caller, id catalog.MemoryID, purge bool) error {
	at := s.moment()
	return s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if _, err := s.find(tx, c, id, access.Delete); err != nil {
			return err
		}
		if purge || s.cfg.TrashFor <= 0 {
			return catalog.Purge(tx, id, at)
		}
		return catalog.Trash(tx, id, s.cfg.TrashFor, at)
	})
}

// Restore takes a memory out of the trash. A repeat gives the memory as it is.
func (s *Service) Restore(ctx context.Context, c access.Caller, id catalog.MemoryID) (m catalog.Memory, err error) {
	at := s.moment()
	err = s.cfg.Catalog.Update(ctx, func(tx catalog.Tx) error {
		if m, err = s.find(tx, c, id, access.Delete); err != nil || m.Trashed.IsZero() {
			return err
		}
		m, err = catalog.Untrash(tx, id, at)
		return err
	})
	return m, err
}

// File is a memory whose content can be read.
type File struct {
	Memory  catalog.Memory
	content catalog.Content
	lookUp  func(ctx context.Context) (catalog.Content, error)
	store   blob.Reader
}

// ErrDamaged: the content is marked as damaged, or is found to be. The memory exists, and a new
// upload of the same bytes heals it.
var ErrDamaged = errors.New("the stored content is damaged")

// Open looks up a memory's content. The content can still be read after the memory's deletion, for
// as long as a place is kept. It gives ErrDamaged if a check has found that the content is not what
// was stored.
func (s *Service) Open(ctx context.Context, c access.Caller, id catalog.MemoryID) (*File, error) {
	f := &File{store: s.cfg.Content}
	lookUp := func(ctx context.Context) (content catalog.Content, err error) {
		err = s.cfg.Catalog.View(ctx, func(r catalog.Reader) error {
			m, err := s.find(r, c, id, access.Read)
			if err != nil {
				return err
			}
			if !m.Trashed.IsZero() {
				return catalog.ErrNotFound
			}
			content, err = catalog.Contents.Get(r, catalog.ContentKey{Capsule: m.Capsule, SHA256: m.SHA256})
			if err != nil {
				return fmt.Errorf("content of memory %s: %w", id, errUnreadable)
			}
			if !content.Damaged.IsZero() {
				return fmt.Errorf("%w: memory %s, found on %s", ErrDamaged, id, content.Damaged.Format(time.RFC3339))
			}
			f.Memory = m
			return nil
		})
		return content, err
	}
	var err error
	f.content, err = lookUp(ctx)
	f.lookUp = lookUp
	return f, err
}
